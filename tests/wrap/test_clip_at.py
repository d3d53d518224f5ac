"""Clips that begin inside of a backbone: every promise of the wrapper, against frames that are made one by one."""

import copy
import pickle
import re
import types

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn
from wrap_helpers import CHAIN, COLOURFUL, backbone, images, same_state, state_of, stir

from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError, StateError
from image2video.fusion import TSMConfig
from image2video.inject import inject_, plan
from image2video.integrations import timm_models  # noqa: F401 (registers the wrapped models)
from image2video.wrap.clip_record import ClipWarning
from image2video.wrap.video_wrap import VideoWrap

SIZE = (3, 32, 48)
VIT = {"img_size": SIZE[1:], "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3}
SWIN = {"img_size": (64, 96), "depths": (2, 2), "num_heads": (2, 2), "embed_dim": 8, "window_size": 4}
CASES = [
    pytest.param("cifar_resnet8", {}, "layer2", SIZE, "map", id="map"),
    pytest.param("vit_tiny_patch16_224", VIT, "blocks.1", SIZE, "tokens", id="tokens after a class token"),
    pytest.param("swin_tiny_patch4_window7_224", SWIN, "layers.1", (3, 64, 96), "last", id="channels last"),
]


def deep(fusion="gsf", name="cifar_resnet8", place="layer2", *, stirred=False, options=None, size=SIZE, **how):
    model = VideoWrap(
        backbone(name, **(options or {})), fusion, clip_at=place, input_size=size, **({"genotype": CHAIN, "T": 3} | how)
    )
    if stirred:
        stir(model.fusion)
    return model


def frame_by_frame(bare, place, batch, to_video, T=3, kind="map"):
    """The outputs `(B, T, …)` of a bare backbone whose map at a place is moved, one frame after the other."""
    outputs = []
    for t in range(T):

        def frame(maps, t=t):
            return to_video.map_frames(maps, batch.shape[2:], T).unflatten(0, (-1, T))[:, t]

        def moved(module, args, frame=frame):
            x = args[0]
            if kind == "map":
                return (frame(x), *args[1:])
            if kind == "last":
                return (frame(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), *args[1:])
            grid = batch.shape[2] // VIT["patch_size"], batch.shape[3] // VIT["patch_size"]
            patches = frame(x[:, 1:].transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
            return (torch.cat([x[:, :1], patches], 1), *args[1:])

        handle = bare.get_submodule(place).register_forward_pre_hook(moved)
        outputs.append(bare(batch))
        handle.remove()
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("fusion", ["none", "gsf"])
@pytest.mark.parametrize(("name", "options", "place", "size", "kind"), CASES)
@torch.no_grad()
def test_a_fresh_wrapper_is_the_average_over_the_frames(name, options, place, size, kind, fusion):
    model, bare = deep(fusion, name, place, options=options, size=size), backbone(name, **options)
    batch = images(size=size)
    made = Image2Video(CHAIN, T=3, schedule="centred", padding="reflection")
    expected = frame_by_frame(bare, place, batch, made, kind=kind)
    torch.testing.assert_close(model(batch), expected.mean(1), atol=1e-5, rtol=1e-5)
    assert (expected.mean(1) - bare(batch)).abs().max() > 1e-4
    model.aggregate = "none"
    torch.testing.assert_close(model(batch), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_fused_frames_are_those_of_the_rest_of_the_network_on_frames():
    model, bare = deep("tsm", T=4, residual=False), backbone()
    maps = {}
    bare.layer2.register_forward_pre_hook(lambda module, args: maps.update(x=args[0]))
    batch = images(size=SIZE)
    bare(batch)
    frames = model.to_video.map_frames(maps["x"], SIZE[1:], 4)

    class Rest(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer2, self.layer3, self.pool, self.fc = bare.layer2, bare.layer3, bare.global_pool, bare.fc

        def forward(self, x):
            return self.fc(self.pool(self.layer3(self.layer2(x))))

    rest = Rest().eval()
    bare.layer2._forward_pre_hooks.clear()
    injection = inject_(rest, plan(rest, fusion=TSMConfig(), input_size=(16, *maps["x"].shape[2:])), residual=False)
    assert injection.plan.names == model.plan.names
    with injection.frames(4):
        expected = rest(frames).unflatten(0, (2, 4)).mean(1)
    torch.testing.assert_close(model(batch), expected, atol=1e-6, rtol=1e-6)
    assert (model(batch) - deep("none", T=4)(batch)).abs().max() > 1e-3


def test_fusions_before_the_clip_are_left_out():
    names = deep().plan.names
    assert names
    assert all(name.startswith(("layer2", "layer3")) for name in names)
    assert any(place.name.startswith("layer1") for place in deep().plan.skipped)
    assert deep().clip_at == "layer2"
    assert "clip_at=layer2" in repr(deep())
    assert VideoWrap(backbone(), clip_at="image").clip_at is None


def test_keys_and_values_of_the_backbone_stay():
    bare = backbone()
    before = state_of(bare)
    model = VideoWrap(bare, clip_at="layer2", input_size=SIZE)
    assert same_state(state_of(model.backbone), before)
    with torch.no_grad():
        out = backbone()(images(size=SIZE))
        model(images(size=SIZE))
        assert model.unwrap() is bare
        assert torch.equal(bare(images(size=SIZE)), out)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in bare.modules())


@torch.no_grad()
def test_copies_and_files_compute_the_same(tmp_path):
    model, batch = deep(stirred=True, padding="border", schedule="from_zero"), images(size=SIZE)
    expected = model(batch)
    assert torch.equal(copy.deepcopy(model)(batch), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(batch), expected)
    model.save_pretrained(tmp_path)
    loaded = VideoWrap.from_pretrained(tmp_path, backbone())
    assert loaded.clip_at == "layer2"
    assert torch.equal(loaded(batch), expected)
    none = deep("none")
    none.save_pretrained(tmp_path / "none")
    again = VideoWrap.from_pretrained(tmp_path / "none", backbone())
    assert again.clip_at == "layer2"
    assert torch.equal(again(batch), none(batch))


@torch.no_grad()
def test_a_checkpoint_knows_where_its_clip_begins():
    model, batch = deep(stirred=True), images(size=SIZE)
    other = deep(place="layer3", genotype="rotate(5)")
    with pytest.warns(ClipWarning, match=r"clip_at='layer3', the checkpoint has 'layer2'"):
        other.load_state_dict(model.state_dict(), strict=False)
    at_image = VideoWrap(backbone(), genotype=CHAIN, T=3, input_size=SIZE)
    at_image.load_clip(model.state_dict())
    at_image.load_state_dict(model.state_dict())
    assert at_image.clip_at == "layer2"
    assert torch.equal(at_image(batch), model(batch))
    back = VideoWrap(backbone(), genotype=CHAIN, T=3, input_size=SIZE)
    model.load_clip(back.state_dict())
    assert model.clip_at is None
    torch.testing.assert_close(model(batch), back(batch))


@torch.no_grad()
def test_a_clip_at_the_image_is_written_as_before_there_were_others(tmp_path):
    text = bytes(VideoWrap(backbone(), T=3).state_dict()["_extra_state"].tolist())
    assert b"clip_at" not in text
    assert b'"image2video": 1' in text
    inside = bytes(deep().state_dict()["_extra_state"].tolist())
    assert b'"image2video": 2' in inside
    deep().save_pretrained(tmp_path)
    assert '"schema_version": 2' in (tmp_path / "config.json").read_text()


@torch.no_grad()
def test_every_t_and_every_size():
    model, bare = deep("none", genotype="rotate(7)"), backbone()
    for T, size in ((2, SIZE), (5, (3, 40, 24))):
        batch = images(size=size)
        made = Image2Video("rotate(7)", T=T, schedule="centred", padding="reflection")
        expected = frame_by_frame(bare, "layer2", batch, made, T).mean(1)
        torch.testing.assert_close(model(batch, T=T), expected, atol=1e-5, rtol=1e-5)
    model.set_frames(4)
    assert model.T == 4
    assert torch.equal(model(images(size=SIZE)), model(images(size=SIZE), T=4))


@torch.no_grad()
def test_the_other_doors():
    model, batch = deep(stirred=True), images(size=SIZE)
    features = model.forward_features(batch)
    assert features.shape[0] == 6
    torch.testing.assert_close(model.forward_head(features, image_size=SIZE[1:]), model(batch))
    early, middle, late = backbone().forward_intermediates(batch, indices=[1, 2, 3], intermediates_only=True)
    found = model.forward_intermediates(batch, indices=[1, 2, 3], intermediates_only=True)
    assert torch.equal(found[0], early)
    assert [item.shape for item in found] == [early.shape, middle.shape, late.shape]
    assert (found[2] - late).abs().max() > 1e-3


@torch.no_grad()
def test_maps_from_before_the_clip_are_those_of_the_images():
    bare = timm.create_model("cifar_resnet8", features_only=True).eval()
    before = bare(images(size=SIZE))
    model = VideoWrap(bare, "none", genotype="flip_x", T=2, schedule="from_zero", clip_at="layer3", input_size=SIZE)
    found = model(images(size=SIZE))
    assert [item.shape for item in found] == [item.shape for item in before]
    kept = [torch.equal(a, b) for a, b in zip(found, before, strict=True)]
    assert kept[:-1] == [True] * (len(kept) - 1)
    assert not kept[-1]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_steps_have_the_gradients_of_plain_ones_whatever_t_comes_between(reentrant):
    gradients = []
    for checkpointed in (False, True):
        model = deep(stirred=True).train().double()
        for module in model.modules():  # a recomputed block would move the statistics twice
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        if checkpointed:
            for block in (model.backbone.layer2, model.backbone.layer3):
                _checkpoint(block, reentrant)
        batch = images(size=SIZE).double().requires_grad_()
        losses = [model(batch, T=T).square().sum() for T in (3, 2, 4)]
        for loss in (losses[1], losses[0], losses[2]):
            loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, msg=name)


def _checkpoint(block, reentrant):
    """Let a block be recomputed with the hooks of its first layer inside; a copy of it runs its own layers."""

    def forward(self, x):
        plain = types.MethodType(type(self).forward, self)
        return torch.utils.checkpoint.checkpoint(plain, x, use_reentrant=reentrant)

    block.forward = types.MethodType(forward, block)


@torch.no_grad()
def test_compiled():
    # One graph is what can fail here; how GSF comes through the compilers is tests/fusion/test_fusion_compile.py's, and
    # in whole wrappers test_wrap_compile.py's.
    torch._dynamo.reset()
    model, batch = deep("tsm"), images(size=SIZE)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(batch), model(batch), atol=1e-5, rtol=1e-5)
    torch._dynamo.reset()


@torch.no_grad()
def test_exported():
    torch._dynamo.reset()
    model, batch = deep("tsm", stirred=True), images(size=SIZE)
    expected = model(batch)
    rows = torch.export.Dim("rows", min=1, max=64)
    program = torch.export.export(model, (images(4, SIZE),), dynamic_shapes=({0: rows},)).module()
    torch.testing.assert_close(program(batch), expected, atol=1e-5, rtol=1e-5)
    torch._dynamo.reset()


@torch.no_grad()
def test_dtypes_and_memory_formats():
    model, batch = deep(stirred=True), images(size=SIZE)
    expected = model(batch)
    double = copy.deepcopy(model).double()(batch.double())
    torch.testing.assert_close(expected.double(), double, atol=1e-4, rtol=1e-4)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(batch.to(memory_format=torch.channels_last)), expected, atol=1e-5, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch)
    torch.testing.assert_close(half.float(), expected, atol=0.1, rtol=0.1)


@torch.no_grad()
def test_threads_with_other_frames_do_not_meet():
    from concurrent.futures import ThreadPoolExecutor

    model = deep(stirred=True)
    jobs = [(T, images(seed=T, size=SIZE)) for T in (2, 3, 4, 5)] * 3
    expected = [model(batch, T=T) for T, batch in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: torch.no_grad()(model)(job[1], T=job[0]), jobs))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"T": 1}, r"2 frames or more, got T=1"),
        ({"genotype": COLOURFUL, "mean": 0.5, "std": 0.5}, r"contrast"),
        ({"clip_at": "layer2.0.conv1"}, r"layer2\.0\.conv1"),
        ({"clip_at": "layer22"}, r"layer22.*layer2"),
        ({"clip_at": "fc"}, r"fc"),
        ({"clip_at": ""}, r"''"),
        ({"sites": "layer1.*"}, r"layer1"),
    ],
)
def test_what_cannot_be_is_said_before_the_first_change(how, said):
    bare = backbone()
    with pytest.raises(InputError, match=said):
        VideoWrap(bare, **({"clip_at": "layer2", "genotype": CHAIN, "input_size": SIZE} | how))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in bare.modules())


def test_frames_that_show_little_of_the_map_are_warned_of_once():
    model = deep("none", genotype="translate_x(0.4)", schedule="from_zero")
    with pytest.warns(ClipWarning, match=r"'layer2' has 32×48 cells .* frame 2 .* shows 20 % of them"):
        model(images(size=SIZE))
    model(images(size=SIZE))
    with pytest.warns(ClipWarning, match=r"images of 16×24, and frame 2"):
        model(images(size=(3, 16, 24)))


@torch.no_grad()
def test_shifts_by_cells_are_slices_of_the_map_at_every_size():
    model, bare = deep("none", genotype="identity | translate_x(1 cell) > translate_y(-2 cells)", T=2), backbone()
    for size in (SIZE, (3, 24, 40)):
        maps, batch = {}, images(size=size)
        handle = bare.layer2.register_forward_pre_hook(lambda module, args, maps=maps: maps.update(x=args[0]))
        expected = bare(batch)
        handle.remove()
        # Reflection about the edge: one column comes in at the left, two rows at the bottom.
        moved = torch.cat([maps["x"][..., :1], maps["x"][..., :-1]], -1)
        moved = torch.cat([moved[..., 2:, :], moved[..., -1:, :], moved[..., -2:-1, :]], -2)
        handle = bare.layer2.register_forward_pre_hook(lambda module, args, moved=moved: (moved,))
        expected = (expected + bare(batch)) / 2
        handle.remove()
        torch.testing.assert_close(model(batch), expected, atol=1e-5, rtol=1e-5)


def test_one_frame_is_refused_later_too():
    model = deep()
    for call in (lambda: model.set_frames(1), lambda: model(images(size=SIZE), T=1)):
        with pytest.raises(InputError, match="2 frames or more, got T=1"):
            call()
    assert model.T == 3


def test_a_site_that_is_gone_is_missed():
    model = deep()
    model.backbone.layer2 = copy.deepcopy(backbone().layer2)
    with pytest.raises(StateError, match="layer2"):
        model(images(size=SIZE))


def test_plans_and_makers_belong_together():
    bare = backbone()
    injection = inject_(bare, plan(bare, fusion="tsm", input_size=SIZE, clip_at="layer2"))
    with pytest.raises(InputError, match="nothing makes the frames there"):
        injection.frames(3)
    injection.remove_()
    other = inject_(bare, plan(bare, fusion="tsm", input_size=SIZE))
    with pytest.raises(InputError, match="the clip begins at the image"):
        other.frames(3, maker=Image2Video(CHAIN, T=3))


def test_models_of_timm_follow_the_place_of_a_checkpoint_unless_one_was_given():
    saved = timm.create_model("i2v_cifar_resnet8", clip_at="layer2", T=4, input_size=SIZE).state_dict()
    follows = timm.create_model("i2v_cifar_resnet8", input_size=SIZE)
    with pytest.warns(ClipWarning, match="made anew"):
        follows.load_state_dict(saved)
    assert (follows.clip_at, follows.T) == ("layer2", 4)
    given = timm.create_model("i2v_cifar_resnet8", clip_at="layer3", input_size=SIZE)
    sites = given.plan.names
    with pytest.warns(ClipWarning, match=r"clip_at='layer3', the checkpoint has 'layer2'"):
        given.load_state_dict(saved, strict=False)
    assert (given.clip_at, given.T, given.plan.names) == ("layer3", 4, sites)


def test_a_place_from_a_file_may_be_any_text(tmp_path):
    deep("none").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    for place, said in (("x" * 100_000, "at most 1000 characters"), ("nowhere", "nowhere"), ("image", None)):
        config.write_text(re.sub(r'"clip_at": "[^"]*"', f'"clip_at": "{place}"', config.read_text()))
        if said is None:
            with pytest.warns(ClipWarning, match="clip_at='image', the checkpoint has 'layer2'"):
                assert VideoWrap.from_pretrained(tmp_path, backbone()).clip_at is None
            continue
        with pytest.raises(InputError, match=said) as refused:
            VideoWrap.from_pretrained(tmp_path, backbone())
        assert len(str(refused.value)) < 1000


def test_a_plan_of_another_network_is_refused():
    with pytest.raises(InputError, match=r"begin at 'layer2\.0', which is not there in this Sequential"):
        inject_(nn.Sequential(nn.Conv2d(3, 3, 3)), deep("none").plan)


@torch.no_grad()
def test_cells_of_a_map_whose_size_is_rounded():
    """Padding that follows from the size of the image leaves it open where a side does not divide."""
    torch.manual_seed(0)
    layers = [Conv2dSame(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for size in (SIZE, (3, 24, 40), (3, 25, 41)):
        batch = images(size=size)
        maps = layers[0](batch)
        moved = torch.cat([maps[..., :1], maps[..., :-1]], -1)
        clip = {"genotype": "identity | translate_x(1 cell)", "clip_at": "1", "input_size": SIZE}
        vectors = VideoWrap(nn.Sequential(*copy.deepcopy(layers)), "none", **clip)
        expected = (nn.Sequential(*layers[1:])(maps) + nn.Sequential(*layers[1:])(moved)) / 2
        torch.testing.assert_close(vectors(batch), expected)
        back = VideoWrap(nn.Sequential(*copy.deepcopy(layers[:2])), "none", **clip)
        if size == (3, 25, 41):
            with pytest.raises(InputError, match="not known for images of 25×41"):
                back(batch)
        else:
            assert back(batch).shape == maps.shape


@pytest.mark.parametrize("genotype", ["translate_x(25 cells)", "identity | translate_x(25 cells)"])
def test_more_cells_than_the_map_has_are_refused_before_the_first_change(genotype):
    net = backbone()
    before = state_of(net)
    words = r"map at 'layer3' has 16×24 cells for images of 32×48: .*25 cells.*a place with a larger map"
    with pytest.raises(InputError, match=words):
        VideoWrap(net, "none", genotype=genotype, clip_at="layer3", input_size=SIZE)
    with pytest.raises(InputError, match=words):
        VideoWrap(net, "none", genotype={"image": genotype, "layer3": genotype}, input_size=SIZE)
    assert same_state(state_of(net), before)
    assert not any(module._forward_pre_hooks for module in net.modules())
    VideoWrap(net, "none", genotype=genotype, clip_at="layer2", input_size=SIZE)
