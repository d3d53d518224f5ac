"""Segmentors whose clip moves at several places: `video=dict(genotype={…})`."""

import copy
import importlib
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmseg")

from mmseg.models.utils import resize
from mmseg_cases import SIZE, build, largest_difference, metas_of, pair, predictions, samples, tiny_config, total_loss

from image2video import DeepClip, Image2Video, phases
from image2video.clip.deep_video import DeepVideo
from image2video.clip.options import ClipOptions
from image2video.errors import InputError, InputTypeError
from image2video.integrations.openmmlab.frames import mean_of_frames
from image2video.integrations.openmmlab.heads import HeadOutputs
from image2video.integrations.openmmlab.mask_heads import frame_places

HOW = {"T": 3, "schedule": "from_zero", "padding": "border"}
FROM_IMAGE = {"image": "translate_x(0.08)", "layer3": "rotate(6)"}
CELLS = {"layer2": "translate_x(1 cell) > translate_y(1 cell)", "layer4": "rotate(-4)"}
FLIPS = {"layer3": "identity | flip_x", "layer4": "identity | flip_y"}
STAGES = ("layer1", "layer2", "layer3", "layer4")


def moved(images, clip, t, size, inside):
    """Frame t of images or maps whose content of `size` is moved; the padding around it stays."""
    h, w = (-(-side * whole // full) for side, whole, full in zip(size, images.shape[2:], SIZE, strict=True))
    part = images[:, :, :h, :w]
    video = Image2Video(clip, **(HOW if "|" not in clip else {"padding": "border"}))
    out = images.clone()
    out[:, :, :h, :w] = video.map_frames(part, size)[t :: video.T] if inside else video(part)[:, t]
    return out


def frame_features(backbone, image, sites, t, size):
    """The features of frame t of one image, and the sizes of its content's maps at the places."""
    x, features, sizes = image, [], []
    if "image" in sites:
        x = moved(x, sites["image"], t, size, inside=False)
        sizes.append(None)
    x = backbone.maxpool(backbone.stem(x))
    for stage in STAGES:
        if stage in sites:
            h, w = (-(-side * whole // full) for side, whole, full in zip(size, x.shape[2:], SIZE, strict=True))
            sizes.append((h, w) if "cell" in sites[stage] else None)
            x = moved(x, sites[stage], t, size, inside=True)
        x = getattr(backbone, stage)(x)
        features.append(x)
    return tuple(features), tuple(sizes)


def by_hand(plain, images, sites, content):
    """The logits of a plain segmentor frame by frame, brought back by the product of all places, and averaged."""
    clip = DeepVideo(DeepClip.of(sites), ClipOptions(**HOW))
    found = []
    for image, (h, w) in zip(images.split(1), content, strict=True):
        frames = [frame_features(plain.backbone, image, sites, t, (h, w)) for t in range(3)]
        logits = torch.cat([plain.decode_head(features) for features, _ in frames])
        logits = resize(logits, size=SIZE, mode="bilinear", align_corners=False)
        mean = logits.mean(0, keepdim=True)
        mean[:, :, :h, :w] = clip.at_maps(frames[0][1]).unwarped_mean(logits[:, :, :h, :w], (h, w))
        found.append(mean)
    return torch.cat(found)


@pytest.mark.parametrize(
    ("decode", "sites", "content"),
    [("psp", FROM_IMAGE, (SIZE, (30, 41))), ("psp", CELLS, (SIZE, (30, 41))), ("aspp", FROM_IMAGE, (SIZE, SIZE))],
    ids=["psp-image-padded", "psp-cells-padded", "aspp-image"],
)
def test_predictions_and_losses_are_those_of_frames_one_by_one(decode, sites, content):
    plain, wrapped = pair(decode, video={"genotype": sites, "fusion": "none", **HOW})
    inputs, found = samples(2, content)
    with torch.no_grad():
        mine = wrapped.encode_decode(inputs, metas_of(content))
        expected = by_hand(plain, inputs, sites, content)
        loss = wrapped.loss(inputs, found)["decode.loss_ce"]
        one_place = {"genotype": dict([*sites.items()][:1]), "fusion": "none", **HOW}
        fewer = pair(decode, video=one_place)[1].encode_decode(inputs, metas_of(content))
    torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-3)
    assert (mine - fewer).abs().max() > 0.1
    torch.testing.assert_close(loss, plain.decode_head.loss_by_feat(expected, found)["loss_ce"], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_every_head_goes_back_by_the_places_that_it_has_passed():
    """The auxiliary head takes what is made between the places: mirrored along one axis, and the logits along both."""
    plain, wrapped = pair(video={"genotype": FLIPS, "fusion": "none"})
    inputs, found = samples(2)
    frames = [frame_features(plain.backbone, inputs, FLIPS, t, SIZE)[0] for t in range(2)]
    losses = wrapped.loss(inputs, found)
    for head, axes, key in ((plain.auxiliary_head, (-1,), "aux"), (plain.decode_head, (-2, -1), "decode")):
        logits = [resize(head(features), size=SIZE, mode="bilinear", align_corners=False) for features in frames]
        expected = head.loss_by_feat((logits[0] + logits[1].flip(axes)) / 2, found)["loss_ce"]
        torch.testing.assert_close(losses[f"{key}.loss_ce"], expected, rtol=1e-4, atol=1e-4)
        wrong = head.loss_by_feat((logits[0] + logits[1].flip((-2,))) / 2, found)["loss_ce"]
        assert (losses[f"{key}.loss_ce"] - wrong).abs() > 1e-4


@torch.no_grad()
def test_an_auxiliary_head_before_all_places_inside_sees_images_or_the_images_frames():
    inputs, found = samples(2)
    early = {"in_channels": 8, "in_index": 0}
    plain = build(tiny_config(auxiliary_head=dict(tiny_config().auxiliary_head) | early))
    for sites in (FLIPS, {"image": "identity | flip_x", **FLIPS}):
        config = tiny_config(video={"genotype": sites, "fusion": "none"})
        config.auxiliary_head |= early
        model = build(config)
        model.load_state_dict({**model.state_dict(), **plain.state_dict()})
        losses, expected = model.loss(inputs, found), plain.loss(inputs, found)
        if "image" in sites:
            frames = [frame_features(plain.backbone, inputs, sites, t, SIZE)[0] for t in range(2)]
            head = plain.auxiliary_head
            logits = [resize(head(one), size=SIZE, mode="bilinear", align_corners=False) for one in frames]
            expected["aux.loss_ce"] = head.loss_by_feat((logits[0] + logits[1].flip(-1)) / 2, found)["loss_ce"]
        torch.testing.assert_close(losses["aux.loss_ce"], expected["aux.loss_ce"], rtol=1e-4, atol=1e-4)
        assert (losses["decode.loss_ce"] - expected["decode.loss_ce"]).abs() > 1e-3


@pytest.mark.parametrize(("mode", "unwarp"), [("whole", "head"), ("slide", "label")])
def test_places_that_move_nothing_predict_and_lose_what_the_plain_segmentor_does(mode, unwarp):
    slide = {"mode": "slide", "crop_size": (28, 32), "stride": (16, 20)}
    video = {"genotype": {"image": "identity", "layer2": "identity", "layer4": "identity"}, "T": 3, "unwarp": unwarp}
    plain, wrapped = pair(video=video, test_cfg=slide if mode == "slide" else None)
    batch = samples(2, canvas=(44, 64), test=True)
    assert largest_difference(predictions(wrapped, *batch), predictions(plain, *batch)) < 1e-4
    inputs, found = samples(2, [SIZE, (33, 50)])
    losses, plain_losses = wrapped.loss(inputs, found), plain.loss(inputs, found)
    for key, value in plain_losses.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*use_reentrant")
@pytest.mark.parametrize(("decode", "checkpointed"), [("psp", True), ("ocr", False), ("knet", False)])
def test_training_reaches_every_weight(decode, checkpointed):
    video = {"genotype": FROM_IMAGE, "fusion": "gsf", **HOW}
    model = build(tiny_config(decode, video=video, backbone={"with_cp": checkpointed})).train()
    inputs, found = samples(2, [SIZE, (33, 50)])
    total_loss(model, inputs, found).backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.isfinite().all())
    ]
    assert [name for name in without if not name.startswith("video_fusion.")] == []
    assert model.backbone.layer1[0].conv1.weight.grad.abs().max() > 0


@torch.no_grad()
@pytest.mark.parametrize("content", [(SIZE, SIZE), (SIZE, (30, 41))], ids=["whole", "padded"])
def test_phases_are_those_of_the_backbone_and_share_rows_in_evaluation(content):
    model = build(tiny_config(video={"genotype": "preset:phases", "fusion": "none"}))
    own = phases(build(tiny_config()).backbone, input_size=(3, *SIZE))
    assert model.to_video.genotype == own
    assert len(own.places) + 1 == model.to_video.T
    seen = []
    model.backbone.stem.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    inputs, _ = samples(2, content)
    shared = model.encode_decode(inputs, metas_of(content))
    apart = copy.deepcopy(model)
    apart.video_fusion.plan = copy.copy(apart.video_fusion.plan)
    object.__setattr__(apart.video_fusion.plan, "shared", 0)
    torch.testing.assert_close(apart.encode_decode(inputs, metas_of(content)), shared, rtol=1e-4, atol=1e-4)
    assert model.video_fusion.plan.shared > 0
    assert seen[0] < seen[1] == 2 * model.to_video.T


def test_every_form_of_a_genotype_and_its_checkpoint(tmp_path):
    clip = DeepClip.of(CELLS)
    clip.with_provenance({"T": 2, "schedule": "from_zero"}).save(tmp_path / "deep.json")
    forms = [CELLS, str(clip), clip, str(tmp_path / "deep.json")]
    models = [build(tiny_config(video={"genotype": form, "fusion": "none"})) for form in forms]
    assert all(model.to_video.genotype == clip for model in models)
    assert [model.to_video.T for model in models] == [3, 3, 3, 2]
    assert models[3].to_video.schedule == "from_zero"
    state = copy.deepcopy(models[0].state_dict())
    assert models[0].video_record()["clip_at"] == ["layer2", "layer4"]
    models[1].load_state_dict(state)
    for other in ({"genotype": "identity"}, {"genotype": {**CELLS, "layer4": "rotate(9)"}}, {"genotype": FROM_IMAGE}):
        with pytest.raises(InputError, match=r"another video: model\.video\.genotype"):
            build(tiny_config(video={**other, "fusion": "none", "T": 3})).load_state_dict(state)
    # One place is the clip there.
    one = build(tiny_config(video={"genotype": {"layer3": "rotate(4)"}, "fusion": "none", "T": 3}))
    assert (one.clip_site.name, str(one.to_video.genotype)) == ("layer3", "rotate(4)")


def config_with(decode, video):
    """A tiny config under heads that take several features, or early ones."""
    config = tiny_config("fcn" if decode in ("uper", "early") else decode, video=video)
    head = dict(config.decode_head) if decode != "ocr" else None
    if decode == "uper":
        more = {"type": "UPerHead", "in_channels": [8, 16, 32, 64], "in_index": [0, 1, 2, 3], "pool_scales": (1, 2)}
        config.decode_head = {k: v for k, v in head.items() if k not in ("num_convs", "concat_input")} | more
    if decode == "early":
        config.decode_head = head | {"in_channels": 32, "in_index": 2}
    return config


@pytest.mark.parametrize(
    ("decode", "options", "message"),
    [
        (
            "uper",
            {"genotype": FROM_IMAGE},
            "place 'layer3' of model.video.genotype: what 'layer1' makes before its",
        ),
        (
            "early",
            {"genotype": CELLS},
            "place 'layer4' of .*the decode head FCNHead .* would see nothing",
        ),
        ("psp", {"genotype": CELLS, "clip_at": "layer2"}, r"names its places, layer2, layer4, got clip_at='layer2'"),
        ("psp", {"genotype": {"layer4": "flip_x", "layer2": "flip_x"}}, "the network passes 'layer2' first"),
        ("psp", {"genotype": {"layer9": "flip_x", "layer4": "flip_x"}}, "layer9.* must name a module that runs once"),
        ("psp", {"genotype": CELLS, "T": 1}, r"model.video \(genotype=.*2 frames or more, got T=1"),
        ("psp", {"genotype": {"image": "flip_x", "layer4": "invert(0.5)"}}, "begins at 'layer4' cannot change colours"),
        ("psp", {"genotype": {"image": "flip_x", "layer4": 3}}, "model.video .*at the place 'layer4': "),
        ("psp", {"genotype": CELLS, "sites": "layer1.*", "fusion": "tsm"}, "before the clip site 'layer2'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(decode, options, message):
    with pytest.raises((InputError, InputTypeError), match=message) as refused:
        build(config_with(decode, {"fusion": "none", **HOW, **options}))
    assert "model." in str(refused.value)


def test_points_are_lost_where_an_earlier_place_has_moved_them_out():
    """A shift to the right at the image and back at a later place: what left the frame between them is not seen."""
    clip = DeepVideo(DeepClip.of({"image": "translate_x(0.25)", "layer3": "translate_x(-0.25)"}), ClipOptions(T=2))
    canvas, content = (24, 40), ((24, 40), (20, 32))
    points = torch.rand(2, 50, 2, generator=torch.Generator().manual_seed(0))
    options = {"schedule": "from_zero"}
    clip = DeepVideo(clip.genotype, ClipOptions(T=2, **options))
    both = HeadOutputs(clip, content, canvas, canvas, begin=(None, None))
    places, weights = frame_places(points, both)
    torch.testing.assert_close(places, points[:, None].expand(2, 2, 50, 2))
    for row, (h, w) in enumerate(content):
        x, y = points[row, :, 0] * 40, points[row, :, 1] * 24
        padding = (x > w) | (y > h)
        assert torch.equal(weights[row, 1] == 1, padding | (x + 0.25 * w <= w))
    # Behind the first place alone, points are where the shift has put them.
    first, _ = frame_places(points, both.behind(1))
    inside = points[0, :, 0] < 0.7
    torch.testing.assert_close(first[0, 1, inside, 0], points[0, inside, 0] + 0.25)


def test_maps_are_not_kept_for_the_backward_pass(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    live_memory = importlib.import_module("live_memory")
    clip = DeepVideo(DeepClip.of({"image": "rotate(5)", "layer3": "translate_x(0.2)"}), ClipOptions(T=3))
    maps = torch.randn(3, 2, 24, 22, 30, requires_grad=True)

    def call():
        mean_of_frames(clip, lambda t: maps[t] * 2, ((22, 30), (17, 23)), (22, 30), (None, None))

    assert live_memory.saved_bytes(call, [maps]) < 0.5 * maps[0].numel() * 4


@torch.no_grad()
@pytest.mark.parametrize("first", ["image", "layer2"])
def test_a_backbone_aggregates_each_map_by_what_it_has_passed(first):
    sites = {first: "identity | flip_x", "layer4": "identity | flip_y"}
    bare = build(tiny_config()).backbone
    config = tiny_config(backbone=None)
    config.backbone = {"type": "VideoWrap", "backbone": dict(tiny_config().backbone), "video": {"genotype": sites}}
    config.backbone["video"]["fusion"] = "none"
    wrapped = build(config).backbone
    wrapped.backbone.load_state_dict(bare.state_dict())
    images, _ = samples(2)
    frames = [frame_features(bare, images, sites, t, SIZE)[0] for t in range(2)]
    for number, found in enumerate(wrapped(images)):
        axes = (-2, -1) if number == 3 else (-1,)
        image, mirrored = frames[0][number], frames[1][number]
        expected = image if first == "layer2" and number == 0 else (image + mirrored.flip(axes)) / 2
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert wrapped.video_record()["clip_at"] == [first, "layer4"]
    preset = build({**config, "backbone": {**config.backbone, "video": {"genotype": "preset:phases"}}}).backbone
    assert preset.to_video.genotype == phases(bare, input_size=(3, *SIZE))
