"""Frames that are the same up to a place are one row until there; the preset of shifts before layers with stride."""

import copy

import pytest
import timm
import torch
from deep_cases import SIZE, deep, one_by_one
from torch import nn
from wrap_helpers import backbone, images

from image2video import DeepClip, FrameSet, VideoWrap, phases
from image2video.clip.any_clip import as_clip
from image2video.errors import InputError, MissingError
from image2video.inject import plan

ONE = "translate_x(1 cell) > translate_y(1 cell)"
SITES = {
    "image": "identity | identity | flip_x | identity | flip_x",
    "layer2": "identity | identity | identity | rotate(9) | rotate(9)",
    "layer3": "identity | translate_x(1 cell) | identity | identity | flip_y",
}


def rows_at(model, *names):
    """The rows that modules get in the next call."""
    seen, handles = {}, []
    for name in names:

        def note(module, args, name=name):
            seen[name] = args[0].shape[0]

        handles.append(model.backbone.get_submodule(name).register_forward_pre_hook(note))
    return seen


def expanded(model):
    """The same model, in which every frame has a row of its own from the first place on."""
    other = copy.deepcopy(model)
    frames_of_call = other.to_video.frames_of_call
    other.to_video.frames_of_call = lambda T, shared=0: frames_of_call(T)
    return other


@torch.no_grad()
@pytest.mark.parametrize("size", [SIZE, (3, 40, 24)])
def test_shared_rows_compute_what_rows_of_their_own_do(size):
    model, batch = deep("none", SITES), images(size=size)
    seen = rows_at(model, "conv1", "layer2.0.conv1", "layer3.0.conv1", "fc")
    found = model(batch)
    assert seen == {"conv1": 4, "layer2.0.conv1": 8, "layer3.0.conv1": 10, "fc": 2 * 5}
    torch.testing.assert_close(found, expanded(model)(batch), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found, one_by_one(backbone(), SITES, batch, 5).mean(1), atol=1e-5, rtol=1e-5)
    model.aggregate = "none"
    torch.testing.assert_close(model(batch), one_by_one(backbone(), SITES, batch, 5), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_tokens_of_the_class_stay_with_their_row():
    options = {"img_size": SIZE[1:], "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3}
    sites = {
        "image": "identity | flip_x | identity",
        "blocks.1": "identity | identity | rotate(9)",
        "blocks.2": "flip_y | identity | identity",
    }
    model, batch = deep("none", sites, name="vit_tiny_patch16_224", options=options), images(size=SIZE)
    assert model.plan.shared == 2
    expected = one_by_one(backbone("vit_tiny_patch16_224", **options), sites, batch, 3, "tokens")
    torch.testing.assert_close(model(batch), expected.mean(1), atol=1e-5, rtol=1e-5)
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 1e-4


def test_gradients_in_evaluation_are_those_of_rows_of_their_own():
    gradients = []
    for model in (deep("none", SITES), expanded(deep("none", SITES))):
        batch = images(size=SIZE).requires_grad_()
        model(batch).square().sum().backward()
        gradients.append([batch.grad, *(p.grad for p in model.parameters())])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_training_and_other_doors_give_every_frame_a_row():
    model, batch = deep("none", SITES), images(size=SIZE)
    seen = rows_at(model, "conv1")
    model.forward_features(batch)
    assert seen["conv1"] == 10
    model.train()(batch)
    assert seen["conv1"] == 10
    model.eval()(batch)
    assert seen["conv1"] == 4
    model.backbone.train()  # by hand: the norms see all frames
    model(batch)
    assert seen["conv1"] == 10


def test_rows_are_shared_until_the_first_fusion_alone():
    bare, where = backbone(), {"input_size": SIZE, "clip_at": ["image", "layer2", "layer3"]}
    assert plan(bare, fusion="none", **where).shared == 2
    assert plan(bare, fusion="tsm", **where).shared == 0
    assert plan(bare, fusion="tsm", sites=["layer2.0.conv1", "layer3.0.conv1"], **where).shared == 1
    assert plan(bare, fusion="tsm", sites=["layer3.0.conv1"], **where).shared == 2
    model = VideoWrap(bare, "tsm", genotype=SITES, sites=["layer3.0.conv1"], input_size=SIZE, residual=False).eval()
    with torch.no_grad():
        batch = images(size=SIZE)
        torch.testing.assert_close(model(batch), expanded(model)(batch), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_rows_are_not_shared_where_something_is_returned_between_the_places():
    net = timm.create_model("cifar_resnet8", features_only=True).eval()
    model, batch = VideoWrap(net, "none", genotype=SITES, input_size=SIZE), images(size=SIZE)
    assert model.plan.shared == 0
    for ours, theirs in zip(model(batch), expanded(model)(batch), strict=True):
        assert torch.equal(ours, theirs)


class ReadsRowsEarly(nn.Module):
    """Uses behind the second place a number of rows that it read at its beginning."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x):
        count = x.shape[0]
        return self.third(self.second(self.first(x))).view(count, -1)[:, :7]


@torch.no_grad()
def test_rows_are_not_shared_by_a_network_that_keeps_their_number():
    sites = {"image": "identity | identity | flip_x", "second": "identity | flip_y | identity"}
    model, batch = VideoWrap(ReadsRowsEarly().eval(), "none", genotype=sites, input_size=SIZE), images(size=SIZE)
    assert model.plan.shared == 0
    assert model(batch).shape == (2, 7)
    assert model.cost() == 3
    bare, inside = model.unwrap(), {"second": sites["image"], "third": sites["second"]}
    with pytest.raises(InputError, match="uses the number of images that it read before it"):
        VideoWrap(bare, "none", genotype=inside, input_size=SIZE)


def test_the_cost_counts_rows_segment_by_segment():
    model = deep("none", SITES)
    image, layer2, layer3 = 1.0, *(site.share_after for site in model.plan.clip_sites)
    assert model.cost() == pytest.approx(2 * (image - layer2) + 4 * (layer2 - layer3) + 5 * layer3)
    assert model.cost(2) == pytest.approx(1 * (image - layer3) + 2 * layer3)
    assert model.plan.cost(5) == 5
    inside = deep("none", {place: SITES[place] for place in ("layer2", "layer3")})
    assert inside.cost() == pytest.approx((image - layer2) + 2 * (layer2 - layer3) + 5 * layer3)
    assert inside.plan.cost(5) == pytest.approx(1 + 4 * layer2)
    assert deep("gsf", SITES).cost() == 5
    one = VideoWrap(backbone(), "none", genotype="rotate(3)", T=3, clip_at="layer3", input_size=SIZE)
    assert one.cost() == one.plan.clip_site.cost(3)
    assert VideoWrap(backbone(), "none", T=4).cost() == 4
    assert "less where frames are the same up to a place" in str(model.plan)


def test_phases_shift_by_one_cell_before_each_layer_with_stride():
    found = phases(backbone(), input_size=SIZE)
    assert found == DeepClip.of({"layer2": f"identity | {ONE} | identity", "layer3": f"identity | identity | {ONE}"})
    assert found.provenance == {"preset": "preset:phases", "backbone": "CifarResNet"}
    resnet = phases(timm.create_model("test_resnet"))
    assert resnet.places == ("image", "maxpool", "layer2", "layer3", "layer4")
    net = timm.create_model("tf_efficientnet_lite0")
    strided = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert strided[0] == "conv_stem"
    assert phases(net, input_size=(3, 64, 96)).places == ("image", *strided[1:])
    assert phases(timm.create_model("test_vit")).places == ("image",)


@torch.no_grad()
def test_the_preset_is_that_of_the_network(tmp_path):
    model, batch = deep("none", "preset:phases"), images(size=SIZE)
    own = phases(backbone(), input_size=SIZE)
    assert (model.genotype, model.T, model.plan.places) == (own, 3, ("layer2", "layer3"))
    expected = one_by_one(backbone(), {place: str(clip) for place, clip in own.sites}, batch, 3).mean(1)
    torch.testing.assert_close(model(batch), expected, atol=1e-5, rtol=1e-5)
    layer2, layer3 = (site.share_after for site in model.plan.clip_sites)
    assert model.cost() == pytest.approx(1 + layer2 + layer3)
    own.save(tmp_path / "phases.json")
    again = deep("none", tmp_path / "phases.json")
    assert torch.equal(again(batch), model(batch))
    model.save_pretrained(tmp_path / "saved")
    assert VideoWrap.from_pretrained(tmp_path / "saved", backbone()).genotype == own
    # Of a network whose image alone is strided it is a clip of the image.
    vit = VideoWrap(timm.create_model("test_vit"), "none", genotype="preset:phases")
    assert vit.genotype == FrameSet.parse(f"identity | {ONE}")


def test_phases_need_a_network_with_strides():
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    with pytest.raises(InputError, match=r"needs a layer with stride .*Sequential has 3 such places"):
        VideoWrap(flat, "none", genotype="preset:phases", input_size=SIZE)
    assert not any(module._forward_hooks for module in flat.modules())
    with pytest.raises(InputError, match="names its places, layer2, layer3, got clip_at='layer2'"):
        deep("none", "preset:phases", clip_at="layer2")
    with pytest.raises(MissingError, match=r"depends on the network: VideoWrap.*image2video\.phases\(network\)"):
        as_clip("preset:phases")
