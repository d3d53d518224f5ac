"""Clips at several places of a backbone: every promise of the wrapper, against frames that are made one by one."""

import copy
import json
import pickle
import types

import pytest
import timm
import torch
from deep_cases import SET_SITES, SITES, SIZE, deep, one_by_one
from torch import nn
from wrap_helpers import COLOURFUL, backbone, images, same_state, state_of, stir

from image2video.clip.deep_clip import DeepClip
from image2video.clip.random_clips import RandomClips
from image2video.errors import InputError, InputTypeError, StateError
from image2video.inject import inject_, plan
from image2video.search import get_space
from image2video.wrap.checkpoint import FreshFusionWarning
from image2video.wrap.clip_record import ClipWarning
from image2video.wrap.video_wrap import VideoWrap

VIT = {"img_size": SIZE[1:], "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3}
SWIN = {"img_size": (64, 96), "depths": (2, 2), "num_heads": (2, 2), "embed_dim": 8, "window_size": 4}
CASES = [
    pytest.param("cifar_resnet8", {}, SITES, SIZE, "map", id="image and maps"),
    pytest.param("cifar_resnet8", {}, SET_SITES, SIZE, "map", id="sets of maps"),
    pytest.param(
        "vit_tiny_patch16_224", VIT, {"blocks.1": "rotate(9)", "blocks.2": "scale(1.2)"}, SIZE, "tokens", id="tokens"
    ),
    pytest.param(
        "swin_tiny_patch4_window7_224",
        SWIN,
        {"image": "scale(1.1)", "layers.1": "rotate(-9)"},
        (3, 64, 96),
        "last",
        id="channels last",
    ),
]


@pytest.mark.parametrize("fusion", ["none", "gsf"])
@pytest.mark.parametrize(("name", "options", "sites", "size", "kind"), CASES)
@torch.no_grad()
def test_a_fresh_wrapper_is_the_average_over_the_frames(name, options, sites, size, kind, fusion):
    model = deep(fusion, sites, name=name, options=options, size=size)
    bare, batch = backbone(name, **options), images(size=size)
    expected = one_by_one(bare, sites, batch, 3, kind)
    torch.testing.assert_close(model(batch), expected.mean(1), atol=1e-5, rtol=1e-5)
    for t in (0, 1, 2):
        assert (expected[:, t] - expected[:, t - 1]).abs().max() > 1e-4
    model.aggregate = "none"
    torch.testing.assert_close(model(batch), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_fused_frames_are_moved_at_every_place():
    model, bare = deep("tsm", residual=False), backbone()
    batch = images(size=SIZE)
    fused = model(batch)
    assert (fused - deep("none")(batch)).abs().max() > 1e-3
    # Without the later places: the same fusions on the clip of the image alone.
    other = VideoWrap(bare, "tsm", genotype=SITES["image"], T=3, residual=False, input_size=SIZE)
    assert other.plan.names == model.plan.names
    assert (fused - other(batch)).abs().max() > 1e-3


@torch.no_grad()
def test_places_that_move_nothing_change_nothing():
    batch = images(size=SIZE)
    still = deep("tsm", {**SITES, "layer2": "identity", "layer3": "identity"}, stirred=True)
    alone = VideoWrap(backbone(), "tsm", genotype=SITES["image"], T=3, input_size=SIZE)
    stir(alone.fusion)
    torch.testing.assert_close(still(batch), alone(batch), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_clip_of_one_place_is_the_clip_there(tmp_path):
    batch = images(size=SIZE)
    inside = deep("gsf", {"layer2": "rotate(9)"}, stirred=True)
    same = VideoWrap(backbone(), "gsf", genotype="rotate(9)", T=3, clip_at="layer2", input_size=SIZE)
    stir(same.fusion)
    assert torch.equal(inside(batch), same(batch))
    assert (inside.clip_at, str(inside.genotype)) == ("layer2", "rotate(9)")
    assert torch.equal(inside.state_dict()["_extra_state"], same.state_dict()["_extra_state"])
    DeepClip.of({"layer2": "rotate(9)"}).with_provenance({"T": 4}).save(tmp_path / "deep.json")
    assert VideoWrap(backbone(), "none", genotype=tmp_path / "deep.json", input_size=SIZE).T == 4
    assert deep("none", {"image": "rotate(9)"}).clip_at is None


def test_fusions_before_the_first_place_are_left_out():
    names = deep().plan.names
    assert any(name.startswith("layer1") for name in names)
    inside = deep("gsf", SET_SITES).plan
    assert inside.names == tuple(name for name in names if not name.startswith("layer1"))
    (left,) = [place.name for place in inside.skipped if place.name.startswith("layer1")]
    assert "before the clip site 'layer2'" in next(place.reason for place in inside.skipped if place.name == left)
    assert inside.places == ("layer2", "layer3")
    assert deep().clip_at is None
    assert "clip_at=image, layer2, layer3" in repr(deep())


def test_keys_and_values_of_the_backbone_stay():
    bare = backbone()
    before = state_of(bare)
    model = VideoWrap(bare, genotype=SITES, T=3, input_size=SIZE)
    assert same_state(state_of(model.backbone), before)
    with pytest.warns(FreshFusionWarning):
        model.load_state_dict(before)  # a bare checkpoint
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
    for fusion, sites, made in (("gsf", SITES, model), ("none", SET_SITES, deep("none", SET_SITES))):
        folder = tmp_path / fusion
        made.save_pretrained(folder)
        assert '"schema_version": 3' in (folder / "config.json").read_text()
        loaded = VideoWrap.from_pretrained(folder, backbone())
        assert loaded.genotype == DeepClip.of(sites)
        assert torch.equal(loaded(batch), made(batch))
        fresh = VideoWrap(backbone(), fusion, input_size=SIZE)
        fresh.load_clip(folder)
        assert fresh.plan.places == tuple(sites)


@torch.no_grad()
def test_a_backbone_that_is_copied_alone_can_be_wrapped_again():
    for model in (deep(), deep("gsf", {"layer2": "rotate(9)"})):
        alone = copy.deepcopy(model.backbone)
        with pytest.raises(StateError, match="without its wrapper"):
            alone(images(size=SIZE))
        again = VideoWrap(alone, "none", genotype="rotate(9)", T=3, input_size=SIZE)
        assert torch.isfinite(again(images(size=SIZE))).all()


@torch.no_grad()
def test_a_checkpoint_knows_all_places():
    model, batch = deep(stirred=True), images(size=SIZE)
    assert b'"image2video": 3' in bytes(model.state_dict()["_extra_state"].tolist())
    other = VideoWrap(backbone(), genotype="rotate(5)", T=3, input_size=SIZE)
    with pytest.warns(ClipWarning, match=r"genotype='rotate\(5\)', the checkpoint has 'image: .*clip_at='image'"):
        other.load_state_dict(model.state_dict())
    other.load_clip(model.state_dict())
    other.load_state_dict(model.state_dict())
    assert other.genotype == model.genotype
    assert torch.equal(other(batch), model(batch))
    # And back to one place, then to others.
    one = VideoWrap(backbone(), genotype="rotate(5)", T=4, clip_at="layer2", input_size=SIZE)
    model.load_clip(one.state_dict())
    assert (model.clip_at, model.T) == ("layer2", 4)
    assert torch.equal(model(batch), one(batch))
    sets = deep("gsf", SET_SITES)
    model.load_clip(sets.state_dict())
    assert torch.equal(model(batch), sets(batch))


@torch.no_grad()
def test_a_model_that_follows_its_checkpoint_takes_all_places_or_none():
    saved = deep(stirred=True).state_dict()
    for options, followed in (({"genotype", "T", "schedule"}, False), (None, True)):
        model = VideoWrap(backbone(), genotype="rotate(5)", T=3, input_size=SIZE)
        model.follow_clip(options or {"genotype", "T", "schedule", "clip_at", "fusion", "sites", "residual"})
        with pytest.warns(ClipWarning, match="made anew" if followed else "another clip"):
            model.load_state_dict(saved)
        assert (model.plan.places == tuple(SITES)) is followed
        assert isinstance(model.genotype, DeepClip) is followed


def test_a_record_that_contradicts_itself_is_refused():
    model = deep("none")
    text = bytes(model.state_dict()["_extra_state"].tolist()).decode()
    record = json.loads(text)
    one = {"genotype": "layer2: rotate(3)", "clip_at": ["layer2"]}
    other_places = {"clip_at": ["image", "layer2"]}
    for change in (other_places, {"clip_at": "layer2"}, {"genotype": "rotate(3)"}, {"clip_at": [3]}, one):
        data = json.dumps({**record, **change}).ljust(1024).encode()
        with pytest.raises(InputError, match="cannot be read"):
            model.load_clip({"_extra_state": torch.frombuffer(bytearray(data), dtype=torch.uint8)})
    later = json.dumps({**record, "image2video": 4}).ljust(1024).encode()
    with pytest.raises(InputError, match="has the format 4, this version of image2video reads 1 … 3; install"):
        model.load_clip({"_extra_state": torch.frombuffer(bytearray(later), dtype=torch.uint8)})


@torch.no_grad()
def test_a_config_that_names_one_place_is_the_clip_there(tmp_path):
    deep("none").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["genotype"] = json.loads(DeepClip.of({"layer2": "rotate(3)"}).to_json())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.warns(ClipWarning, match="another clip"):  # the weights say the one that they were saved with
        found = VideoWrap.from_pretrained(tmp_path, backbone())
    model = VideoWrap(backbone(), "none", genotype="rotate(5)", T=3, input_size=SIZE)
    model.load_clip(tmp_path)
    assert found.clip_at == model.clip_at == "layer2"
    assert torch.equal(found(images(size=SIZE)), model(images(size=SIZE)))


@torch.no_grad()
def test_every_t_and_every_size():
    model, bare = deep("none"), backbone()
    for T, size in ((2, SIZE), (5, (3, 40, 24))):
        batch = images(size=size)
        expected = one_by_one(bare, SITES, batch, T).mean(1)
        torch.testing.assert_close(model(batch, T=T), expected, atol=1e-5, rtol=1e-5)
    model.set_frames(4)
    assert model.T == 4
    assert torch.equal(model(images(size=SIZE)), model(images(size=SIZE), T=4))
    sets = deep("none", SET_SITES)
    expected = one_by_one(bare, SET_SITES, images(size=SIZE), 2).mean(1)
    torch.testing.assert_close(sets(images(size=SIZE), T=2), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("sites", [SITES, SET_SITES])
def test_the_other_doors(sites):
    model, batch = deep("gsf", sites, stirred=True), images(size=SIZE)
    features = model.forward_features(batch)
    assert features.shape[0] == 6
    torch.testing.assert_close(model.forward_head(features, image_size=SIZE[1:]), model(batch))


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
    torch._dynamo.reset()
    model, batch = deep("tsm"), images(size=SIZE)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(batch), model(batch), atol=1e-5, rtol=1e-5)
    torch._dynamo.reset()


@pytest.mark.slow
@torch.no_grad()
def test_compiled_for_every_t_and_after_set_frames():
    torch._dynamo.reset()
    model, batch = deep("none", SET_SITES), images(size=SIZE)
    compiled = torch.compile(model, backend="eager")
    for T in (3, 2):
        torch.testing.assert_close(compiled(batch, T=T), model(batch, T=T), atol=1e-5, rtol=1e-5)
    model.set_frames(2)
    torch.testing.assert_close(compiled(batch), model(batch), atol=1e-5, rtol=1e-5)
    torch._dynamo.reset()


def test_a_number_of_frames_that_cannot_be_changes_nothing():
    model = deep("none", SET_SITES)
    model.set_frames(2)
    for T in (1, 4):
        with pytest.raises(InputError, match=r"2 frames or more, got T=1|3 frames"):
            model.set_frames(T)
    assert model.T == 2


def test_a_step_under_autocast_has_the_gradients_of_a_full_one():
    model, batch = deep("tsm", residual=False).train(), images(size=SIZE)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    found = []
    for half in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(batch).float().square().mean()
        loss.backward()
        found.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.99


@torch.no_grad()
def test_exported():
    sites = {"image": "identity | identity | rotate(5)", "layer2": "identity | flip_x | identity"}
    model, batch = deep("none", sites), images(size=SIZE)
    assert model.cost() < 3  # two of the frames are one row until layer2
    rows = torch.export.Dim("rows", min=1, max=64)
    program = torch.export.export(model, (images(4, SIZE),), dynamic_shapes=({0: rows},)).module()
    torch.testing.assert_close(program(batch), model(batch), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_dtypes_and_memory_formats():
    model, batch = deep(stirred=True), images(size=SIZE)
    expected = model(batch)
    double = copy.deepcopy(model).double()(batch.double())
    torch.testing.assert_close(expected.double(), double, atol=1e-4, rtol=1e-4)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    seen = []
    last.backbone.layer3.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    torch.testing.assert_close(last(batch.to(memory_format=torch.channels_last)), expected, atol=1e-5, rtol=1e-4)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch)
    torch.testing.assert_close(half.float(), expected, atol=0.1, rtol=0.1)


@torch.no_grad()
def test_threads_with_other_frames_do_not_meet():
    from concurrent.futures import ThreadPoolExecutor

    model = deep(stirred=True)
    jobs = [(T, images(seed=T, size=SIZE)) for T in (2, 3, 4, 5)] * 2
    expected = [model(batch, T=T) for T, batch in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: torch.no_grad()(model)(job[1], T=job[0]), jobs))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_gradients_reach_the_backbone_and_the_images_through_all_places():
    model = deep(stirred=True).train()
    batch = images(size=SIZE).requires_grad_()
    model(batch).square().sum().backward()
    assert batch.grad.abs().sum() > 0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"T": 1}, InputError, r"2 frames or more, got T=1 for 'image: "),
        ({"clip_at": "layer2"}, InputError, r"names its places, image, layer2, layer3, got clip_at='layer2'"),
        ({"genotype": {"layer22": "identity", "layer3": "identity"}}, InputError, r"layer22.*layer2.*the genotype"),
        ({"genotype": {"layer2": "identity", "layer2.0": "identity"}}, InputError, r"twice, 'layer2' and 'layer2\.0'"),
        ({"genotype": {"layer3": "identity", "layer2": "identity"}}, InputError, r"passes 'layer2' first; list the"),
        ({"genotype": {"layer2.0.conv1": "identity", "layer3": "identity"}}, InputError, r"layer2\.0\.conv1"),
        ({"genotype": {"image": "identity", "fc": "identity"}}, InputError, r"clip_at='fc' needs a map"),
        ({"genotype": {"image": "identity", "conv1": "identity"}}, InputError, r"conv1.*where the images come in"),
        ({"genotype": {"image": COLOURFUL, "layer2": COLOURFUL}, "mean": 0.5, "std": 0.5}, InputError, r"contrast"),
        ({"genotype": {"image": "rotate(1)", "layer2": "identity | flip_x"}}, InputError, r"a chain, layer2: 2 frames"),
        ({"genotype": SET_SITES, "T": 4}, InputError, r"3 frames, numbered from 0, and none of number 3"),
        ({"genotype": SET_SITES, "schedule": "ramp"}, InputError, r"no schedule but 'from_zero'"),
        ({"genotype": {}}, InputError, r"1 … 64 places, got 0"),
        ({"genotype": "rotate(3)", "clip_at": ["layer2", "layer3"]}, InputTypeError, r"genotype=\{'image': …"),
        ({"frames": RandomClips(get_space("affine5"), T=3)}, InputError, r"give it genotype"),
        ({"genotype": SET_SITES, "T": None, "sites": "layer1.*"}, InputError, r"layer1"),
    ],
)
def test_what_cannot_be_is_said_before_the_first_change(how, error, said):
    bare = backbone()
    with pytest.raises(error, match=f"(?s){said}") as caught:
        VideoWrap(bare, **({"genotype": SITES, "T": 3, "input_size": SIZE} | how))
    assert len(str(caught.value)) < 1200
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in bare.modules())


def test_one_frame_is_refused_later_too():
    model = deep()
    for call in (lambda: model.set_frames(1), lambda: model(images(size=SIZE), T=1)):
        with pytest.raises(InputError, match="2 frames or more, got T=1"):
            call()
    assert model.T == 3
    assert [video.T for video in model.to_video.videos] == [3, 3, 3]


def test_a_place_that_is_gone_is_missed():
    model = deep()
    model.backbone.layer3 = copy.deepcopy(backbone().layer3)
    with pytest.raises(StateError, match="layer3"):
        model(images(size=SIZE))


def test_plans_and_makers_belong_together():
    bare = backbone()
    made = plan(bare, fusion="tsm", input_size=SIZE, clip_at=[*SITES])
    with pytest.raises(InputError, match=r"the plan has clip_at=\('image', 'layer2', 'layer3'\), got clip_at=None"):
        VideoWrap(bare, "tsm", genotype="rotate(3)", sites=made)
    with pytest.raises(InputError, match=r"got clip_at=\('image', 'layer2'\)"):
        VideoWrap(bare, "tsm", genotype={"image": "identity", "layer2": "identity"}, sites=made)
    model = VideoWrap(bare, "tsm", genotype={**SITES}, T=3, sites=made)
    assert model.plan is made
    bare = model.unwrap()
    injection = inject_(bare, made)
    batch, video = images(size=SIZE), model.to_video
    with pytest.raises(InputError, match=r"'layer2', 'layer3', .*maker=DeepVideo"):
        injection.frames(3)
    with pytest.raises(InputTypeError, match="at 2 places, got a Image2Video"):
        injection.frames(3, maker=video.place_videos()[0])
    with pytest.raises(InputError, match=r"makes 4 frames at 2 places.*and T = 3"):
        injection.frames(3, maker=video.frames_of_call(4))
    frames = video.frames_of_call(3)
    with injection.frames(3, maker=frames):
        rows = bare(frames.image_frames(batch))
        with pytest.raises(InputError, match="a multiple of T = 3, got 2"):
            bare(batch)
    assert rows.shape[0] == 6
    injection.remove_()


def test_frames_that_show_little_of_a_map_are_warned_of_once():
    model = deep("none", {"image": "rotate(3)", "layer3": "translate_x(0.7)"}, schedule="from_zero", T=2)
    with pytest.warns(ClipWarning, match=r"'layer3' has 16×24 cells .* frame 1 .* shows 30 % of them"):
        model(images(size=SIZE))
    model(images(size=SIZE))


def test_other_names_of_a_place_become_its_own():
    model = deep("none", {"image": "rotate(3)", "layer2.0": "rotate(4)"})
    assert str(model.genotype) == "image: rotate(3) | layer2: rotate(4)"
    made = plan(backbone(), fusion="none", input_size=SIZE, clip_at=["image", "layer2"])
    assert VideoWrap(backbone(), "none", genotype={"image": "identity", "layer2.0": "identity"}, sites=made).T == 3


@torch.no_grad()
def test_maps_between_the_places_go_back_by_what_moved_them():
    """Of feature maps at every level each has passed other places; mirror images come back bit for bit."""
    bare = timm.create_model("cifar_resnet8", features_only=True).eval()
    sites = {"layer2": "identity | flip_x", "layer3": "identity | flip_y"}
    batch = images(size=SIZE)
    before = bare(batch)
    model = VideoWrap(bare, "none", genotype=sites, input_size=SIZE, aggregate="none")
    found = model(batch)
    outside = [site.outputs_before for site in model.plan.clip_sites]
    assert [len(paths) for paths in outside] == [len(before) - 2, len(before) - 1]
    model.aggregate = "auto"
    averaged = model(batch)
    for number, (level, mean, image) in enumerate(zip(found, averaged, before, strict=True)):
        axes = {len(before) - 2: (-1,), len(before) - 1: (-1, -2)}.get(number)
        if axes is None:
            assert torch.equal(level, image)
            assert torch.equal(mean, image)
        else:
            torch.testing.assert_close(mean, (level[:, 0] + level[:, 1].flip(axes)) / 2, atol=1e-6, rtol=1e-6)
            assert (mean - (level[:, 0] + level[:, 1].flip((-2,))) / 2).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("first", ["image", "layer1"])
def test_intermediates_go_back_by_what_moved_them(first):
    bare, batch = backbone(), images(size=SIZE)
    sites = {first: "identity | flip_x", "layer2": "identity | flip_y", "layer3": "identity | flip_x"}
    model = VideoWrap(bare, "none", genotype=sites, input_size=SIZE)
    model.aggregate = "none"
    frames = model.forward_intermediates(batch, indices=[1, 2, 3])[1]
    model.aggregate = "auto"
    final, found = model.forward_intermediates(batch, indices=[1, 2, 3])
    for axes, level, mean in zip(((-1,), (-1, -2), (-2,)), frames, found, strict=True):
        torch.testing.assert_close(mean, (level[:, 0] + level[:, 1].flip(axes)) / 2, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(final, found[-1], atol=1e-6, rtol=1e-6)
    only = model.forward_intermediates(batch, indices=[1, 2], intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(only, found[:2], strict=True))


class MoreInTraining(nn.Module):
    """Returns a map from between its places in training, or where it is asked to."""

    output_fmt = "NCHW"

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x, between=False):
        middle = self.second(self.first(x))
        last = self.third(middle)
        return {"out": last, "aux": middle} if self.training or between else {"out": last}


@torch.no_grad()
def test_maps_that_the_plan_does_not_know_go_back_by_what_moved_them():
    sites = {"second": "identity | flip_x", "third": "identity | flip_y"}
    model = VideoWrap(MoreInTraining().eval(), "none", genotype=sites, input_size=SIZE)
    batch = images(size=SIZE)
    for found in (model.train()(batch), model.eval()(batch, between=True)):
        model.aggregate = "none"
        frames = model(batch, between=True)
        model.aggregate = "auto"
        for name, axes in (("aux", (-1,)), ("out", (-1, -2))):
            expected = (frames[name][:, 0] + frames[name][:, 1].flip(axes)) / 2
            torch.testing.assert_close(found[name], expected, atol=1e-6, rtol=1e-6)
    assert model.plan.shared == 1
    assert set(model(batch)) == {"out"}


def test_a_graph_for_images_of_other_sizes_holds_the_way_back():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 2, 1))
    sites = {"image": "rotate(9)", "1": "translate_x(0.1)"}
    model = VideoWrap(net, "none", genotype=sites, T=2, input_size=SIZE).eval()
    sizes = ({2: torch.export.Dim("height", min=16, max=256), 3: torch.export.Dim("width", min=16, max=256)},)
    with torch.no_grad():
        program = torch.export.export(model, (images(2, SIZE),), dynamic_shapes=sizes).module()
        for size in (SIZE, (3, 40, 26)):
            batch = images(2, size)
            torch.testing.assert_close(program(batch), model(batch), atol=1e-4, rtol=1e-4)
