"""Segmentors whose clip begins inside of their backbone: `video=dict(clip_at=…)`."""

import copy
import types

import pytest
import torch

pytest.importorskip("mmseg")

from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg_cases import SIZE, build, largest_difference, metas_of, pair, predictions, samples, tiny_config, total_loss

from image2video import Genotype, Image2Video
from image2video.errors import InputError
from image2video.integrations.openmmlab.heads import HeadOutputs
from image2video.integrations.openmmlab.mask_heads import frame_places

HOW = {"T": 3, "schedule": "from_zero", "padding": "border"}
MOVING = {"genotype": "translate_x(0.1) > rotate(4)", "fusion": "none", **HOW}
CELLS = {**MOVING, "genotype": "translate_x(1 cell)"}
STAGES = ("layer1", "layer2", "layer3", "layer4")


def maps_before(backbone, images, place):
    """The map that comes in at a stage of the tiny ResNet, and the features made before it."""
    maps, features = backbone.maxpool(backbone.stem(images)), []
    for stage in STAGES[: STAGES.index(place)]:
        maps = getattr(backbone, stage)(maps)
        features.append(maps)
    return maps, features


def by_hand(plain, images, place, video, content):
    """The logits `(B, K, H, W)` of a plain segmentor over the frames of the maps at a stage, averaged in the image."""
    found = []
    for image, (h, w) in zip(images.split(1), content, strict=True):
        maps, features = maps_before(plain.backbone, image, place)
        rows, columns = -(-h * maps.shape[2] // SIZE[0]), -(-w * maps.shape[3] // SIZE[1])
        frames = maps.repeat(video.T, 1, 1, 1)
        frames[:, :, :rows, :columns] = video.map_frames(maps[:, :, :rows, :columns], (h, w))
        features = [one.repeat(video.T, 1, 1, 1) for one in features]
        for stage in STAGES[STAGES.index(place) :]:
            frames = getattr(plain.backbone, stage)(frames)
            features.append(frames)
        logits = resize(plain.decode_head(tuple(features)), size=SIZE, mode="bilinear", align_corners=False)
        mean = logits.mean(0, keepdim=True)
        mean[:, :, :h, :w] = video.at_map((rows, columns)).unwarped_mean(logits[:, :, :h, :w], (h, w))
        found.append(mean)
    return torch.cat(found)


@pytest.mark.parametrize(
    ("decode", "options", "content"),
    [("psp", MOVING, (SIZE, SIZE)), ("psp", CELLS, (SIZE, (30, 41))), ("aspp", CELLS, (SIZE, SIZE))],
    ids=["psp", "psp-cells-padded", "aspp-cells"],
)
def test_predictions_are_those_of_the_warped_maps(decode, options, content):
    plain, wrapped = pair(decode, video={**options, "clip_at": "layer3"})
    video = Image2Video(options["genotype"], **HOW)
    inputs, _ = samples(2, content)
    with torch.no_grad():
        mine = wrapped.encode_decode(inputs, metas_of(content))
        expected = by_hand(plain, inputs, "layer3", video, content)
        still = plain.encode_decode(inputs, metas_of(content))
    torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-3)
    assert (mine - still).abs().max() > 0.1


@pytest.mark.parametrize(("mode", "unwarp"), [("whole", "head"), ("slide", "label")])
def test_still_clips_predict_and_lose_what_the_plain_segmentor_does(mode, unwarp):
    slide = {"mode": "slide", "crop_size": (28, 32), "stride": (16, 20)}
    video = {"genotype": "identity", "T": 3, "clip_at": "layer3", "unwarp": unwarp}
    plain, wrapped = pair(video=video, test_cfg=slide if mode == "slide" else None)
    assert {site.name.split(".")[0] for site in wrapped.video_fusion.plan.sites} == {"layer3", "layer4"}
    batch = samples(2, canvas=(44, 64), test=True)
    assert largest_difference(predictions(wrapped, *batch), predictions(plain, *batch)) < 1e-4
    inputs, found = samples(2, [SIZE, (33, 50)])
    losses, plain_losses = wrapped.loss(inputs, found), plain.loss(inputs, found)
    assert losses.keys() == plain_losses.keys()
    for key, value in plain_losses.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-4, atol=1e-4)


def test_the_loss_is_that_of_the_averaged_logits():
    plain, wrapped = pair(video={**CELLS, "clip_at": "layer3"})
    inputs, found = samples(2)
    logits = by_hand(plain, inputs, "layer3", Image2Video(CELLS["genotype"], **HOW), (SIZE, SIZE))
    expected = plain.decode_head.loss_by_feat(logits, found)["loss_ce"]
    torch.testing.assert_close(wrapped.loss(inputs, found)["decode.loss_ce"], expected, rtol=1e-3, atol=1e-3)


def test_an_auxiliary_head_behind_the_place_sees_frames_and_one_before_it_images():
    inputs, found = samples(2)
    plain, behind = pair(video={**MOVING, "clip_at": "layer3"})
    expected = plain.loss(inputs, found)
    assert (behind.loss(inputs, found)["aux.loss_ce"] - expected["aux.loss_ce"]).abs() > 1e-4
    _, before = pair(video={**MOVING, "clip_at": "layer4"})  # the head takes what layer3 gives
    losses = before.loss(inputs, found)
    torch.testing.assert_close(losses["aux.loss_ce"], expected["aux.loss_ce"])
    assert (losses["decode.loss_ce"] - expected["decode.loss_ce"]).abs() > 1e-3
    assert predictions(before, inputs, found)[0].shape == (5, *SIZE)


@pytest.mark.filterwarnings("ignore:.*use_reentrant")
@pytest.mark.parametrize(("decode", "checkpointed"), [("psp", True), ("aspp", False), ("knet", False), ("ocr", False)])
def test_training_reaches_every_weight(decode, checkpointed):
    video = {**MOVING, "fusion": "gsf", "clip_at": "layer3"}
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


@pytest.mark.parametrize(
    ("decode", "changes", "place", "message"),
    [
        ("sep", {}, "layer3", r"what 'layer1' makes before the clip begins leads past the place to 'decode_head"),
        ("uper", {}, "layer3", r"clip_at='layer3': what 'layer1' makes .* leads past the place to 'decode_head"),
        ("fcn", {"neck": True}, "layer3", r"what 'layer1' makes before the clip begins leads past the place to 'neck"),
        ("early", {}, "layer4", r"the decode head FCNHead takes features .* would see no frame"),
        ("psp", {}, "layer9", r"model.backbone \(ResNetV1c\): clip_at='layer9' must name a module that runs once"),
        ("psp", {}, "layer3.0.conv2", r"inside of a residual branch of 'layer3.0'"),
    ],
)
def test_what_leads_past_the_place_is_refused_by_name(decode, changes, place, message):
    config = tiny_config("fcn" if decode in ("sep", "uper", "early") else decode, video={**MOVING, "clip_at": place})
    head = dict(config.decode_head)
    if decode == "sep":
        more = {"type": "DepthwiseSeparableASPPHead", "dilations": (1, 2), "c1_in_channels": 8, "c1_channels": 4}
        config.decode_head = {k: v for k, v in head.items() if k not in ("num_convs", "concat_input")} | more
    if decode == "uper":
        more = {"type": "UPerHead", "in_channels": [8, 16, 32, 64], "in_index": [0, 1, 2, 3], "pool_scales": (1, 2)}
        config.decode_head = {k: v for k, v in head.items() if k not in ("num_convs", "concat_input")} | more
    if decode == "early":
        config.decode_head = head | {"in_channels": 16, "in_index": 1}
    if changes.get("neck"):
        config.neck = {"type": "FPN", "in_channels": [8, 16, 32, 64], "out_channels": 8, "num_outs": 4}
        config.decode_head = head | {"in_channels": 8, "in_index": 0}
        config.auxiliary_head = None
    with pytest.raises(InputError, match=message):
        build(config)
    if decode == "uper":  # a place before what it takes will do
        config.video.clip_at = "layer1"
        inputs, found = samples(1)
        assert predictions(build(config), inputs, found)[0].shape == (5, *SIZE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"T": 1}, r"model.backbone \(ResNetV1c\): a clip inside of the backbone .* has 2 frames or more, got T=1"),
        ({"genotype": "invert(0.5)"}, "cannot change colours"),
        ({"clip_at": 3}, "model.video.clip_at must be the name of a module of the backbone"),
        ({"sites": "layer1.*", "fusion": "tsm"}, "before the clip site 'layer3'"),
    ],
)
def test_clips_that_cannot_begin_there_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        build(tiny_config(video={**MOVING, "clip_at": "layer3", **options}))


def test_the_place_is_written_into_checkpoints_and_another_one_refused():
    inside = build(tiny_config(video={**MOVING, "clip_at": "layer3"}))
    state = copy.deepcopy(inside.state_dict())
    assert inside.video_record()["clip_at"] == "layer3"
    build(tiny_config(video={**MOVING, "clip_at": "layer3"}), seed=1).load_state_dict(state)
    for place in ("layer4", "image", None):
        other = build(tiny_config(video={**MOVING, "clip_at": place}), seed=1)
        with pytest.raises(InputError, match=r"another video: .*clip_at"):
            other.load_state_dict(state)


@pytest.mark.parametrize("found", ["layer4", "image", None])
def test_a_genotype_begins_where_it_was_found_unless_another_place_is_named(tmp_path, found):
    file = tmp_path / "found.json"
    Genotype.parse("flip_x").with_provenance({"T": 2, "schedule": "from_zero", "clip_at": found}).save(file)
    config = {"genotype": str(file), "fusion": "none"}
    there = None if found == "image" else found
    for video in (config, {**config, "clip_at": found}):
        site = build(tiny_config(video=video)).clip_site
        assert (site if site is None else site.name) == there
    with pytest.warns(UserWarning, match=rf"model.video.clip_at='layer3', found with '{found or 'image'}'"):
        assert build(tiny_config(video={**config, "clip_at": "layer3"})).clip_site.name == "layer3"


def test_a_backbone_begins_where_the_genotype_was_found(tmp_path):
    file = tmp_path / "found.json"
    Genotype.parse("flip_x").with_provenance({"T": 2, "clip_at": "layer4"}).save(file)
    inner = tiny_config(auxiliary=False).backbone
    model = MODELS.build({"type": "VideoWrap", "backbone": inner, "video": {"genotype": str(file), "fusion": "none"}})
    assert model.fusion.plan.clip_site.name == "layer4"
    Genotype.parse("flip_x").with_provenance({"T": 2, "clip_at": "layer9"}).save(file)
    with pytest.raises(InputError, match=r"the genotype was found there, as its provenance says"):
        MODELS.build({"type": "VideoWrap", "backbone": inner, "video": {"genotype": str(file), "fusion": "none"}})


def test_points_are_read_where_cells_of_the_map_put_them():
    canvas, content = (24, 40), ((24, 40), (20, 32))
    points = torch.rand(2, 50, 2, generator=torch.Generator().manual_seed(0))
    by_cells = HeadOutputs(Image2Video("translate_x(1 cell)", T=2), content, canvas, canvas, begin=((3, 5),))
    places, weights = frame_places(points, by_cells)
    for row, step in ((0, 1 / 5), (1, 1 / 4)):
        alone = HeadOutputs(Image2Video(f"translate_x({step})", T=2), content, canvas, canvas)
        expected = frame_places(points, alone)
        torch.testing.assert_close(places[row], expected[0][row])
        assert torch.equal(weights[row], expected[1][row])


def test_a_backbone_aggregates_what_is_behind_the_place_alone():
    bare = build(tiny_config()).backbone
    backbone = dict(tiny_config().backbone)
    config = tiny_config(backbone=None)
    config.backbone = {"type": "VideoWrap", "backbone": backbone, "video": {**CELLS, "clip_at": "layer3"}}
    wrapped = build(config).backbone
    wrapped.backbone.load_state_dict(bare.state_dict())
    images, _ = samples(2)
    video = Image2Video(CELLS["genotype"], **HOW)
    with torch.no_grad():
        found, still = wrapped(images), bare(images)
        maps, features = maps_before(bare, images, "layer3")
        frames = bare.layer3(video.map_frames(maps, SIZE))
    assert torch.equal(found[0], still[0])
    assert torch.equal(found[1], features[1])
    torch.testing.assert_close(found[2], video.at_map((5, 7)).unwarped_mean(frames, SIZE), rtol=1e-4, atol=1e-4)
    assert found[3].shape == still[3].shape
    assert wrapped.video_record()["clip_at"] == "layer3"


@pytest.mark.parametrize("place", ["clip_at", "later"])
def test_what_leads_past_a_place_in_training_alone_is_refused(place):
    how = {"clip_at": "layer3"} if place == "clip_at" else {}
    genotype = "rotate(6)" if how else {"image": "translate_x(0.1)", "layer3": "rotate(6)"}
    model = build(tiny_config(video={"genotype": genotype, "T": 2, "fusion": "none", **how}, auxiliary=False)).eval()
    plain = type(model.backbone).forward

    def forward(self, x):
        *before, last = plain(self, x)
        # As wide as the last: the stage before the place, added on in training.
        return (*before, last + before[1].mean((1, 2, 3), keepdim=True)) if self.training else (*before, last)

    model.backbone.forward = types.MethodType(forward, model.backbone)
    inputs, found = samples(1)
    model.encode_decode(inputs, metas_of([SIZE]))
    with pytest.raises(
        InputError, match=r"must be on every path to the outputs, and in training mode what 'layer2.* leads past"
    ):
        model.train().loss(inputs, found)


def test_what_leads_past_a_place_into_a_head_in_training_alone_is_refused():
    video = {"genotype": {"image": "translate_x(0.1)", "layer4": "rotate(6)"}, "T": 2, "fusion": "none"}
    model = build(tiny_config(video=video, auxiliary=False)).eval()
    plain = type(model.decode_head).forward

    def forward(self, features):
        found = plain(self, features)
        return found + features[1].mean((1, 2, 3), keepdim=True) if self.training else found

    model.decode_head.forward = types.MethodType(forward, model.decode_head)
    inputs, found = samples(1)
    model.encode_decode(inputs, metas_of([SIZE]))
    with pytest.raises(InputError, match=r"place 'layer4' .* in training mode what 'layer2.* makes leads past it"):
        model.train().loss(inputs, found)
