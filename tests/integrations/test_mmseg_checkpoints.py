"""Checkpoints of plain and of video segmentors, copies, and what mmengine does with models."""

import copy
import io
import logging

import pytest
import torch
from torch import nn

pytest.importorskip("mmseg")

from by_hand import CHAIN
from mmengine.logging import MMLogger
from mmengine.model import ExponentialMovingAverage, revert_sync_batchnorm
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import get_state_dict, weights_to_cpu
from mmseg_cases import build, largest_difference, pair, predictions, samples, tiny_config, total_loss

from image2video.errors import InputError
from image2video.integrations.openmmlab.loading import RECORD, FreshFusionWarning
from image2video.wrap.clip_record import CLIP, decode

VIDEO = {"genotype": CHAIN, "T": 3, "fusion": "gsf"}
STILL = {**VIDEO, "genotype": "identity"}


def trained(video=None, **options):
    """A video segmentor whose fusions are not as they started."""
    model = build(tiny_config(video=video or VIDEO, **options))
    for parameter in model.video_fusion.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(1))
    return model


def same_state(first, second):
    one, other = first.state_dict(), second.state_dict()
    del one[CLIP], other[CLIP]  # their clips may differ
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("fusion", ["gsf", "gsm", "conv3d", "none", "tsm"])
def test_keys_are_those_of_the_plain_one_and_the_fusions_beside_them(fusion):
    plain, wrapped = pair(video={**VIDEO, "fusion": fusion})
    own = [key for key in wrapped.state_dict() if key not in plain.state_dict()]
    own.remove(CLIP)
    assert plain.state_dict().keys() <= wrapped.state_dict().keys()
    assert all(key.startswith("video_fusion.") for key in own)
    assert bool(own) == (fusion not in ("none", "tsm"))


def test_a_plain_checkpoint_loads_with_nothing_missing():
    plain, wrapped = build(tiny_config()), build(tiny_config(video=STILL), seed=1)
    before = copy.deepcopy(wrapped.video_fusion.state_dict())
    count = len(before)
    with pytest.warns(FreshFusionWarning, match=rf"none of the {count} tensors of the fusions"):
        missing, unexpected = wrapped.load_state_dict(plain.state_dict(), strict=True)
    assert (missing, unexpected) == ([], [])
    assert all(torch.equal(value, before[key]) for key, value in wrapped.video_fusion.state_dict().items())
    batch = samples(1, test=True)
    assert largest_difference(predictions(wrapped, *batch), predictions(plain, *batch)) < 1e-4


class Heard(logging.Handler):
    def __init__(self):
        super().__init__()
        self.words = []

    def emit(self, record):
        self.words.append(record.getMessage())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_mmengine_loads_a_plain_checkpoint_with_nothing_missing(tmp_path, prefix):
    plain, wrapped = build(tiny_config()), build(tiny_config(video=STILL), seed=1)
    path = tmp_path / "plain.pth"
    state = {prefix + key: value for key, value in plain.state_dict().items()}
    torch.save({"state_dict": state, "meta": {}}, path)
    logger = logging.Logger("heard")
    logger.addHandler(heard := Heard())
    with pytest.warns(FreshFusionWarning):
        load_checkpoint(wrapped, str(path), map_location="cpu", strict=True, logger=logger)
    assert not [words for words in heard.words if "missing" in words or "unexpected" in words]
    state = wrapped.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in plain.state_dict().items())


def test_partly_missing_fusions_are_reported():
    model = trained()
    state = model.state_dict()
    lost = [key for key in state if key.startswith("video_fusion.")][3]
    del state[lost]
    with pytest.raises(RuntimeError, match=f'Missing key.*"{lost}"'):
        model.load_state_dict(state)


def test_assigned_tensors_leave_the_fusions_parameters():
    plain, wrapped = build(tiny_config()), build(tiny_config(video=STILL))
    with pytest.warns(FreshFusionWarning):
        wrapped.load_state_dict(plain.state_dict(), assign=True)
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in wrapped.video_fusion.parameters())


def saved(model, path):
    """A checkpoint as mmengine's runner writes it."""
    save_checkpoint({"meta": {}, "state_dict": weights_to_cpu(get_state_dict(model))}, str(path))
    return str(path)


def test_the_clip_travels_in_the_checkpoint(tmp_path):
    model = trained()
    path = saved(model, tmp_path / "video.pth")
    record = decode(torch.load(path, weights_only=True)["state_dict"][CLIP])
    assert record == model.video_record()
    assert (record["genotype"], record["T"], record["fusion"]["name"]) == (CHAIN, 3, "gsf")
    again = build(tiny_config(video=VIDEO), seed=2)
    load_checkpoint(again, path, map_location="cpu", strict=True)
    assert same_state(again, model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"T": 5}, r"model\.video\.T=5, the checkpoint has 3"),
        ({"genotype": "identity"}, r"model\.video\.genotype='identity', the checkpoint has 'translate_x"),
        ({"schedule": "ramp"}, r"model\.video\.schedule='ramp', the checkpoint has 'centred'"),
        ({"fusion": "gsm"}, r"model\.video\.fusion=\{'name': 'gsm'.*the checkpoint has \{'name': 'gsf'"),
        ({"residual": False}, r"model\.video\.residual=False, the checkpoint has True"),
        ({"sites": r"layer[34].*conv2"}, r"model\.video\.sites=\['layer3"),
    ],
    ids=str,
)
def test_another_clip_than_the_checkpoints_is_refused(tmp_path, change, words):
    model, other = trained(), build(tiny_config(video={**VIDEO, **change}))
    path = saved(model, tmp_path / "video.pth")
    for load in (
        lambda: other.load_state_dict(model.state_dict()),
        lambda: load_checkpoint(other, path, map_location="cpu"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            load()
        assert "model.video.allow_mismatch=True" in str(caught.value)


def earlier(state, record):
    """The state dict as version 0.1 wrote it: the clip in the metadata."""
    del state[CLIP]
    known = ("genotype", "T", "schedule", "padding", "interpolation", "fusion", "sites", "residual")
    state._metadata[""][RECORD] = {name: record[name] for name in known}
    return state


def test_a_checkpoint_with_its_clip_in_the_metadata_is_compared_too(tmp_path):
    model = trained()
    torch.save({"state_dict": earlier(model.state_dict(), model.video_record())}, tmp_path / "earlier.pth")
    path = str(tmp_path / "earlier.pth")
    again = build(tiny_config(video=VIDEO), seed=2)
    load_checkpoint(again, path, map_location="cpu", strict=True)
    assert same_state(again, model)
    with pytest.raises(InputError, match=r"model\.video\.T=5, the checkpoint has 3"):
        load_checkpoint(build(tiny_config(video={**VIDEO, "T": 5})), path, map_location="cpu")


def test_the_clip_survives_what_loses_metadata():
    """Safetensors, and tools that make a new dict of the weights."""
    state = dict(trained().state_dict())
    with pytest.raises(InputError, match=r"model\.video\.T=5, the checkpoint has 3"):
        build(tiny_config(video={**VIDEO, "T": 5})).load_state_dict(state)


def test_another_clip_may_be_asked_for():
    model = trained()
    other = build(tiny_config(video={**VIDEO, "T": 2, "allow_mismatch": True}))
    with pytest.warns(UserWarning, match=r"model\.video\.T=2, the checkpoint has 3"):
        other.load_state_dict(model.state_dict())
    assert same_state(other, model)


def saved_whole(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, saved_whole])
def test_copies_predict_alike_and_are_independent(copied):
    model, batch = trained(), samples(1, test=True)
    before = predictions(model, *batch)
    twin = copied(model)
    assert same_state(twin, model)
    assert largest_difference(predictions(twin, *batch), before) == 0
    for parameter in twin.parameters():
        parameter.data.mul_(0.5)
    twin.to_video.set_frames(2)
    assert largest_difference(predictions(twin, *batch), before) > 1e-3
    assert largest_difference(predictions(model, *batch), before) == 0
    # The copy's hooks of saving and loading are its own.
    assert decode(twin.state_dict()[CLIP])["T"] == 2
    with pytest.raises(InputError, match=r"model\.video\.T=2, the checkpoint has 3"):
        twin.load_state_dict(model.state_dict())
    model.load_state_dict(model.state_dict())


def test_a_moving_average_of_the_model_is_one_of_its_own():
    model, (inputs, found) = trained(), samples(2, test=True)
    average = ExponentialMovingAverage(model, momentum=0.5, update_buffers=True)
    before = predictions(model, inputs, found)
    assert largest_difference(predictions(average.module, inputs, found), before) == 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    total_loss(model.train(), inputs, found).backward()
    optimizer.step()
    model.eval()
    # The first update copies; the second is half way.
    average.update_parameters(trained())
    average.update_parameters(model)
    name = "video_fusion.layer2.0.conv2.gsf.conv3D.weight"
    halfway = (trained().get_parameter(name) + model.get_parameter(name)) / 2
    torch.testing.assert_close(average.module.get_parameter(name), halfway)
    state = weights_to_cpu(average.state_dict())
    average.load_state_dict(copy.deepcopy(state))


def test_synchronised_norms_are_reverted_after_wrapping():
    model = revert_sync_batchnorm(build(tiny_config(video=VIDEO, norm="SyncBN")))
    assert not [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm)]
    total_loss(model.train(), *samples(2)).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_frozen_stages_and_norms_stay_frozen():
    model = build(tiny_config(video=VIDEO, backbone={"frozen_stages": 2, "norm_eval": True})).train()
    before = copy.deepcopy(model.state_dict())
    total_loss(model, *samples(2)).backward()
    assert not [name for name, p in model.backbone.layer2.named_parameters() if p.requires_grad or p.grad is not None]
    after = model.state_dict()
    moved = {key.split(".")[0] for key in after if not torch.equal(after[key], before[key])}
    assert moved == {"decode_head", "auxiliary_head", "video_fusion"}
    frozen = [p for name, p in model.video_fusion.named_parameters() if name.startswith(("layer1", "layer2"))]
    assert frozen
    assert all(p.grad is not None for p in frozen)


def test_rules_of_initialisation_leave_the_fusions_as_they_start():
    config = tiny_config(video={**STILL, "fusion": "gsm"}, init_cfg={"type": "Constant", "layer": "Conv3d", "val": 3.0})
    model = build(config)
    gates = [value for name, value in model.video_fusion.named_parameters() if "conv3D" in name]
    assert gates
    assert all((gate == 0).all() for gate in gates)


def test_a_model_initialised_from_a_checkpoint_takes_its_fusions(tmp_path):
    model = trained()
    path = saved(model, tmp_path / "video.pth")
    again = build(tiny_config(video=VIDEO, init_cfg={"type": "Pretrained", "checkpoint": path}), seed=3)
    name = "layer2.0.conv2.gsf.conv3D.weight"
    assert torch.equal(again.video_fusion.get_parameter(name), model.video_fusion.get_parameter(name))


def test_the_summary_says_what_was_injected(capsys):
    logger = MMLogger.get_current_instance()
    logger.addHandler(heard := Heard())
    level = logger.level
    logger.setLevel("INFO")
    try:
        build(tiny_config(video=VIDEO))
    finally:
        logger.setLevel(level)
        logger.removeHandler(heard)
    assert [w for w in heard.words if w.startswith("VideoEncoderDecoder: ") and "gsf at 8 sites" in w]
