"""Calls by keyword: the backbone's own name for its images, flags that go on to it, and what is refused."""

import inspect

import pytest
import torch
from torch import nn
from wrap_helpers import images, stir

from image2video.errors import InputTypeError, UnsupportedError
from image2video.wrap.keywords import image_name
from image2video.wrap.video_wrap import VideoWrap


class Encoder(nn.Module):
    """A transformer as transformers has them: `pixel_values`, labels, flags, outputs by name."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.head = nn.Linear(16, 5)

    def forward(self, pixel_values, labels=None, output_hidden_states=False):
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        states = [x]
        for block in self.blocks:
            x = x + block(x).relu()
            states.append(x)
        out = {"logits": self.head(x.mean(1))}
        if output_hidden_states:
            out["hidden_states"] = tuple(states)
        return out


@pytest.fixture(params=["tsm", "gsf"])
def model(request):
    model = VideoWrap(Encoder(), request.param, T=3, genotype="translate_x(0.1)", input_size=(3, 32, 48)).eval()
    stir(model.fusion)
    return model


def batch():
    return images(size=(3, 32, 48))


@torch.no_grad()
def test_images_go_by_the_name_of_the_backbone_too(model):
    expected = model(batch())["logits"]
    assert torch.equal(model(pixel_values=batch())["logits"], expected)
    assert torch.equal(model(images=batch())["logits"], expected)
    assert torch.equal(model(pixel_values=batch(), labels=None)["logits"], expected)
    assert not torch.equal(model(pixel_values=batch(), T=2)["logits"], expected)


@torch.no_grad()
def test_the_defaults_may_be_given_by_position(model):
    """As the TorchScript exporter of ONNX gives them, which reads the signature."""
    named = inspect.signature(model.forward).parameters.values()
    defaults = [parameter.default for parameter in named if parameter.default is not parameter.empty]
    assert len(defaults) > 2
    assert torch.equal(model(batch(), *defaults[1:])["logits"], model(batch())["logits"])


@torch.no_grad()
def test_flags_reach_the_backbone(model):
    result = model(pixel_values=batch(), output_hidden_states=True)
    assert [tuple(state.shape) for state in result["hidden_states"]] == [(2, 24, 16)] * 3
    with model.fusion.frames(3):
        frames = model.backbone(model.to_video(batch()).flatten(0, 1), output_hidden_states=True)
    state = frames["hidden_states"][1].transpose(1, 2).unflatten(2, (4, 6))
    expected = model.to_video.unwarped_mean(state, (32, 48)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(result["hidden_states"][1], expected)
    with pytest.raises(TypeError, match="no_such_flag"):
        model(batch(), no_such_flag=True)


@pytest.mark.parametrize("masks", [torch.tensor([0, 1]), [torch.tensor(0)], {"a": torch.tensor([0, 1])}])
def test_other_tensors_by_keyword_are_refused(model, masks):
    with pytest.raises(UnsupportedError, match=r"got a tensor as masks=.*row per image.*loss from what the model"):
        model(pixel_values=batch(), masks=masks)


def test_labels_for_a_backbone_without_a_loss_are_refused(model):
    with pytest.raises(UnsupportedError, match=r"Encoder returned no loss for them; compute the loss from what"):
        model(pixel_values=batch(), labels=torch.tensor([0, 1]))
    plain = VideoWrap(nn.Conv2d(3, 4, 3), "none", T=2)
    with pytest.raises(UnsupportedError, match=r"the forward of Conv2d takes none \(input\)"):
        plain(batch(), labels=torch.tensor([0, 1]))


def test_no_images_and_two(model):
    with pytest.raises(InputTypeError, match=r"got no images; pass .*, as images= or pixel_values="):
        model(output_hidden_states=True)
    with pytest.raises(InputTypeError, match="got images twice, as the first argument and as pixel_values="):
        model(batch(), pixel_values=batch())
    plain = VideoWrap(nn.Conv2d(3, 4, 3), "none", T=2)
    with pytest.raises(InputTypeError, match="as images=, pixel_values= or input="):
        plain()
    with pytest.raises(InputTypeError, match="as pixel_values= and as input="):
        plain(input=batch(), pixel_values=batch())


def test_batches_of_other_libraries_are_refused_with_what_to_do(model):
    with pytest.raises(InputTypeError, match=r"got a dict with img, cls; pass the tensor of images alone"):
        model({"img": batch(), "cls": torch.zeros(2)})
    with pytest.raises(InputTypeError, match=r"got list; torch.stack .* detector\.backbone\.body = VideoWrap"):
        model([*batch()])


# Graphs with GSF are test_wrap_compile.py's, exports of calls by position too.
@pytest.mark.parametrize("model", ["tsm"], indirect=True)
@torch.no_grad()
def test_compiled_and_exported_calls_by_keyword(model):
    expected = model(batch())["logits"]
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(pixel_values=batch())["logits"], expected)
    exported = torch.export.export(model, (), {"pixel_values": batch()}).module()
    torch.testing.assert_close(exported(pixel_values=batch())["logits"], expected)


def test_names_of_first_arguments():
    class Free(nn.Module):
        def forward(self, *args, **kwargs):
            return args[0]

    assert image_name(nn.Conv2d(3, 4, 1)) == "input"
    assert image_name(Encoder()) == "pixel_values"
    assert image_name(Free()) is None
