"""Layouts of outputs without a plan: the first maps or tokens trace the backbone at their size; nothing is guessed."""

import copy
import pickle

import pytest
import torch
from torch import nn

from image2video import VideoWrap
from image2video.errors import UnsupportedError

CLIP = {"genotype": "translate_x(0.2) > rotate(20)", "T": 3}


class Maps(nn.Module):
    """Maps of as many channels as they are wide, `(B, h, w, C)` or `(B, C, h, w)`; a second one in training alone."""

    def __init__(self, last: bool = True, channels: int = 10) -> None:
        super().__init__()
        self.stem, self.last, self.calls = nn.Conv2d(3, channels, 4, stride=4), last, 0

    def forward(self, x):
        y = self.stem(x)
        y = y.permute(0, 2, 3, 1) if self.last else y
        return [y, 2 * y] if self.training else y


class Tokens(Maps):
    def forward(self, x):
        return self.stem(x).flatten(2).transpose(1, 2)


def images(height=24, width=40, count=2):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("net", [Maps(), Maps(last=False), Tokens()])
@pytest.mark.parametrize("size", [(24, 40), (40, 24), (40, 40)])
def test_without_a_size_it_is_the_wrapper_that_was_planned_at_the_size_of_the_image(net, size):
    net = net.eval()
    free = VideoWrap(copy.deepcopy(net), "none", **CLIP)
    known = VideoWrap(copy.deepcopy(net), "none", input_size=(3, *size), **CLIP)
    with torch.no_grad():
        torch.testing.assert_close(free(images(*size)), known(images(*size)))
        torch.testing.assert_close(free(images(16, 32)), known(images(16, 32)))


def test_outputs_in_training_alone_are_traced_in_training():
    model = VideoWrap(Maps(), "none", input_size=(3, 24, 40), **CLIP)
    first, second = model(images())
    torch.testing.assert_close(second, 2 * first)
    torch.testing.assert_close(first, model.eval()(images()))


def test_a_late_trace_leaves_the_model_as_it_is():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5)).train()
    model = VideoWrap(net, "none", **CLIP)
    torch.manual_seed(0)
    before = copy.deepcopy(model)
    out = model(images())
    torch.manual_seed(0)
    before._late = copy.deepcopy(model._late)
    torch.testing.assert_close(out, before(images()))
    torch.testing.assert_close(net[1].running_mean, before.backbone[1].running_mean)
    assert net[1].num_batches_tracked == 1
    again = pickle.loads(pickle.dumps(model)).eval()
    torch.testing.assert_close(again(images()), model.eval()(images()))


def test_vectors_need_no_trace():
    class Blind(nn.Module):
        def forward(self, x):
            assert x.shape[0] == 6, "this model cannot be traced"
            return x.mean((2, 3))

    assert VideoWrap(Blind(), "none", **CLIP)(images()).shape == (2, 3)


def test_what_cannot_be_traced_is_refused():
    class Blind(nn.Module):
        def forward(self, x):
            assert x.shape[0] == 6, "this model cannot be traced"
            return x

    model = VideoWrap(Blind(), "none", **CLIP)
    with pytest.raises(UnsupportedError, match=r"tracing it failed .*cannot be traced.*output_fmt"):
        model(images())
    model.backbone.output_fmt = "NCHW"
    assert model(images()).shape == (2, 3, 24, 40)


def test_within_a_graph_the_model_must_have_been_called_before():
    model = VideoWrap(Maps().eval(), "none", **CLIP)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="call the model once before compiling"):
        compiled(images())
    expected = model(images())
    torch._dynamo.reset()
    torch.testing.assert_close(compiled(images()), expected)


class Asked(Maps):
    """Logits, and maps where a keyword asks for them; a list in place of a dict where another one does."""

    def forward(self, x, with_maps=False, as_dict=True):
        y = self.stem(x)
        found = {"logits": y.mean((2, 3))} | ({"maps": (y, y.permute(0, 2, 3, 1))} if with_maps else {})
        return found if as_dict else [*found.values()]


@pytest.mark.parametrize("size", [{}, {"input_size": (3, 24, 40)}])
def test_outputs_that_a_keyword_asks_for_are_traced_with_it(size):
    net = Asked().eval()
    model = VideoWrap(net, "none", **size, **CLIP)
    with torch.no_grad():
        assert set(model(images())) == {"logits"}
        first, last = model(images(), with_maps=True)["maps"]
        listed = model(images(), with_maps=True, as_dict=False)
        with model.fusion.frames(3):
            frames = net.stem(model.to_video(images()).flatten(0, 1))
    torch.testing.assert_close(first, model.to_video.unwarped_mean(frames, (24, 40)))
    torch.testing.assert_close(last, first.permute(0, 2, 3, 1))
    torch.testing.assert_close(listed[1][0], first)
    assert first.shape == (2, 10, 6, 10)
