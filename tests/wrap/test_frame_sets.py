"""Wrapped networks whose clip is a frame set: outputs, records, files, checkpoints that bring one."""

import json
import warnings

import pytest
import torch
from frame_set_cases import frame_sets
from hypothesis import given, settings
from torch import nn
from wrap_helpers import CHAIN, backbone, bare_mean, images, state_of, wrapped

from image2video import ClipWarning, FrameSet, Genotype, InputError, TSMConfig, VideoWrap, param_groups
from image2video.training.trained import TrainedRun, network_record
from image2video.wrap.clip_files import record_in
from image2video.wrap.clip_record import CLIP, decode, encode

SET = "identity | flip_x | scale(1.2) > translate_x(0.03)"
WITH_SET = {"genotype": SET, "T": None}


def silently(load, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load(*args, **kwargs)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("form", [SET, FrameSet.parse(SET), "file"])
@torch.no_grad()
def test_without_fusion_the_outputs_are_the_mean_over_the_frames(form, tmp_path):
    if form == "file":
        form = tmp_path / "set.json"
        FrameSet.parse(SET).save(form)
    bare, batch = backbone(), images()
    model = VideoWrap(backbone(), "none", genotype=form)
    assert (model.T, model.to_video.schedule, model.to_video.padding) == (3, "from_zero", "reflection")
    zoomed = VideoWrap(backbone(), "none", genotype="scale(1.2) > translate_x(0.03)", T=1, schedule="ramp").to_video
    expected = torch.stack([bare(batch), bare(batch.flip(-1)), bare(zoomed(batch)[:, 0])]).mean(0)
    torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(batch, T=2), bare_mean(bare, model.to_video, batch, 2), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_tsm_mixes_neighbours_in_the_listed_order():
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3)
    net, batch = nn.Sequential(first, second), images()
    text = "translate_x(0.3) | scale(2) | identity"
    model = VideoWrap(
        net, TSMConfig(fold_div=4), genotype=text, sites=["1"], residual=False, aggregate="none", input_size=(3, 32, 40)
    )
    found = model(batch)
    model.unwrap()
    one, two, three = (first(frame) for frame in model.to_video(batch).unbind(1))
    nothing = torch.zeros_like(one[:, :2])
    mixed = [
        (two[:, :2], nothing, one[:, 4:]),
        (three[:, :2], one[:, 2:4], two[:, 4:]),
        (nothing, two[:, 2:4], three[:, 4:]),
    ]
    expected = torch.stack([second(torch.cat(parts, 1)) for parts in mixed], 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_print_and_parameter_groups():
    model = wrapped(**WITH_SET)
    assert f"Image2Video({SET}, T=3, padding=reflection, interpolation=bilinear" in str(model)
    names = {group["name"] for group in param_groups(model, lr=0.1, fusion_lr_mult=2.0)}
    assert any(name.startswith("fusion") for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"T": 4}, "the frame set has 3 frames.*use T=3 or less"),
        ({"schedule": "centred"}, "no schedule but 'from_zero'; got 'centred'"),
        ({"genotype": "identity | brightness(1.2)"}, r"changes colours \(brightness\)"),
    ],
)
def test_what_a_set_cannot_have_is_refused_before_the_backbone_changes(options, message):
    net = network()
    with pytest.raises(InputError, match=message):
        VideoWrap(net, "none", **{"genotype": SET} | options)
    assert not net[0]._forward_hooks
    model = VideoWrap(net, "none", genotype=SET)
    with pytest.raises(InputError, match="use T=3 or less"):
        model.set_frames(5)
    assert model.T == 3


@torch.no_grad()
def test_a_segmentor_that_commutes_with_flips_is_unchanged():
    net, batch = nn.Conv2d(3, 5, 1), images()
    model = VideoWrap(net, "none", genotype="flip_x > flip_y | identity | flip_x", input_size=(3, 32, 40))
    found = model(batch)
    torch.testing.assert_close(found, model.unwrap()(batch), rtol=0, atol=1e-6)
    net = nn.Conv2d(3, 2, (1, 3), padding="same")
    model = VideoWrap(net, "none", genotype="flip_x |", aggregate="unwarp", input_size=(3, 32, 40))
    found = model(batch)
    assert torch.equal(found, model.unwrap()(batch.flip(-1)).flip(-1))


def test_half_precision_and_gradients():
    model = wrapped(**WITH_SET, stirred=True).train()
    model(images().to(memory_format=torch.channels_last)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    half = VideoWrap(network().bfloat16(), "none", genotype=SET, input_size=(3, 32, 40))
    assert half(images().bfloat16()).dtype == torch.bfloat16


@settings(deadline=None, max_examples=20)
@given(frame_sets(colours=True))
def test_the_record_of_any_set_reads_back(some):
    model = VideoWrap(nn.Conv2d(3, 4, 1), "none", genotype=some, mean=0.5, std=0.25)
    record = decode(encode(model._record(), model))
    fresh = VideoWrap(nn.Conv2d(3, 4, 1), "none")
    fresh.load_clip(model.state_dict())
    assert fresh._record() == record == model._record()
    assert fresh.genotype == some


@pytest.mark.parametrize(
    "options", [{}, {"genotype": "rotate(5)", "T": 5, "schedule": "ramp"}, {"genotype": "flip_y |", "T": None}]
)
@torch.no_grad()
def test_a_checkpoint_brings_its_set(options):
    source, model, batch = wrapped(stirred=True, **WITH_SET), wrapped(**options), images()
    with pytest.warns(ClipWarning, match=r"genotype='.*', the checkpoint has 'identity \| flip_x"):
        model.load_state_dict(source.state_dict())
    model.load_clip(source.state_dict())
    silently(model.load_state_dict, source.state_dict())
    assert torch.equal(model(batch), source(batch))
    back = wrapped(stirred=True)
    model.load_clip(back.state_dict())  # and a chain takes the place of a set
    silently(model.load_state_dict, back.state_dict())
    assert model.genotype == Genotype.parse(CHAIN)
    assert torch.equal(model(batch), back(batch))


@pytest.mark.parametrize(
    ("own", "saved", "follows", "taken"),
    [
        (CHAIN, SET, {"genotype", "T", "schedule"}, True),
        (CHAIN, SET, {"genotype", "schedule"}, True),  # its first three frames
        (CHAIN, "identity | flip_x", {"genotype", "schedule"}, False),  # two, and three were asked for
        (CHAIN, SET, {"genotype", "T"}, False),  # the schedule was asked for
        (CHAIN, SET, {"T", "schedule"}, False),
        (SET, CHAIN, {"T", "schedule", "padding"}, False),
        (SET, CHAIN, {"genotype", "schedule"}, True),
        (SET, "identity | flip_y", {"genotype", "T", "schedule"}, True),
    ],
)
def test_a_set_is_followed_whole_or_not_at_all(own, saved, follows, taken):
    def of(genotype):
        return wrapped(genotype=genotype, T=None if "|" in genotype else 3)

    source, model = of(saved), of(own)
    before = model._record()
    model.follow_clip(follows)
    if taken:
        silently(model.load_state_dict, source.state_dict())
        assert (str(model.genotype), model.to_video.schedule) == (saved, source.to_video.schedule)
    else:
        with pytest.warns(ClipWarning, match="The model keeps its own"):
            model.load_state_dict(source.state_dict())
        assert model._record() == before


def test_the_text_in_a_checkpoint_names_no_file(tmp_path):
    path = tmp_path / "set.json"
    FrameSet.parse(SET).save(path)
    model = wrapped()
    state = state_of(model)
    state[CLIP] = encode({**model._record(), "genotype": str(path)}, model)
    with pytest.raises(InputError, match="expected an op"):
        model.load_clip(state)


@torch.no_grad()
def test_a_saved_folder_holds_the_set_and_its_provenance(tmp_path):
    some = FrameSet.parse(SET).with_provenance({"score": 0.8, "T": 2})
    model = wrapped(genotype=some, T=None, stirred=True)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["genotype"]["schema_version"] == 2
    twin = silently(VideoWrap.from_pretrained, tmp_path, backbone())
    assert (twin.genotype, twin.genotype.provenance) == (some, some.provenance)
    assert torch.equal(twin(images()), model(images()))
    assert record_in(tmp_path)["genotype"] == SET
    fresh = wrapped()
    fresh.load_clip(tmp_path)
    assert fresh.genotype == some


def test_a_run_records_the_set(tmp_path):
    model = wrapped(**WITH_SET)
    record = network_record(model)
    assert (record["genotype"], record["T"], record["schedule"]) == (SET, 3, "from_zero")
    # A run of before there was a record says it in the folder of save_pretrained.
    model.save_pretrained(tmp_path / "pretrained")
    (tmp_path / "run.json").write_text(json.dumps({"kind": "train"}))
    run = TrainedRun.of(tmp_path)
    assert run is not None
    assert (run.network["genotype"], run.network["T"]) == (SET, 3)
