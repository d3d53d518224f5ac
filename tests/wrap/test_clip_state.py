"""The clip is part of the model: it travels in the state dict, is compared on loading, and taken over where asked."""

import argparse
import copy
import io
import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.utils import ModelEma, ModelEmaV2, ModelEmaV3, get_state_dict
from torch import distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from wrap_helpers import CHAIN, COLOURFUL, backbone, images, same_state, state_of, stir, wrapped

from image2video.clip.genotype import Genotype
from image2video.clip.random_clips import RandomClips
from image2video.errors import InputError, MissingError
from image2video.fusion import GSFConfig
from image2video.training.checkpoint import load_weights, save_weights
from image2video.training.ema import Ema
from image2video.wrap.checkpoint import FreshFusionWarning
from image2video.wrap.clip_record import CLIP, ClipWarning, decode, encode
from image2video.wrap.video_wrap import VideoWrap

OTHERS = [
    ({"genotype": "rotate(45)"}, r"genotype='rotate\(45\)', the checkpoint has 'translate_x\(0.1\) > rotate"),
    ({"T": 5}, "T=5, the checkpoint has 3"),
    ({"schedule": "ramp"}, "schedule='ramp', the checkpoint has 'centred'"),
    ({"padding": "border"}, "padding='border', the checkpoint has 'reflection'"),
    ({"interpolation": "nearest"}, "interpolation='nearest', the checkpoint has 'bilinear'"),
    ({"aggregate": "mean_prob"}, "aggregate='mean_prob', the checkpoint has 'auto'"),
]


def silently(load, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load(*args, **kwargs)


@pytest.mark.parametrize(("options", "words"), OTHERS, ids=str)
@torch.no_grad()
def test_another_clip_is_a_warning_that_names_both(options, words):
    state, model = wrapped(stirred=True).state_dict(), wrapped(**options)
    before = model._record()
    with pytest.warns(ClipWarning, match=words) as record:
        result = model.load_state_dict(state)
    assert len(record) == 1
    assert result.missing_keys == result.unexpected_keys == []
    assert model._record() == before  # the model keeps its own
    silently(model.load_state_dict, state)  # and has said so


@pytest.mark.parametrize(("options", "words"), OTHERS, ids=str)
@torch.no_grad()
def test_load_clip_takes_it_over(options, words):
    source, model = wrapped(stirred=True), wrapped(**options)
    assert not torch.equal(model(images()), source(images()))
    model.load_clip(source.state_dict())
    silently(model.load_state_dict, source.state_dict())
    assert torch.equal(model(images()), source(images()))
    assert same_state(state_of(model), state_of(source))


@pytest.mark.parametrize(
    "options",
    [
        {"fusion": "tsm"},
        {"fusion": GSFConfig(ratio=0.5)},
        {"fusion": "none"},
        {"sites": r"layer[12]\..*"},
        {"residual": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("turned", [False, True])
@torch.no_grad()
def test_load_clip_takes_over_fusion_and_sites(options, turned):
    source, model = wrapped(stirred=True, T=4), wrapped(**options)
    if turned:
        source, model = wrapped(stirred=True, T=4, **options), wrapped()
    bare = model.backbone
    model.load_clip(source.state_dict())
    assert model.backbone is bare
    silently(model.load_state_dict, source.state_dict())
    assert torch.equal(model(images()), source(images()))
    assert (model.plan.names, model.T, model.fusion.training) == (source.plan.names, 4, False)
    twin = model.unwrap()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in twin.modules())


def test_fusions_that_do_not_fit_leave_the_model_as_it_was():
    source = wrapped(name="test_resnet")
    model = wrapped(T=2)
    before, fusion = model._record(), model.fusion
    with pytest.raises(InputError, match=r"layer1\.0"):
        model.load_clip(source.state_dict())
    assert model._record() == before
    assert model.fusion is fusion
    model(images())


@torch.no_grad()
def test_colours_count_where_they_matter():
    source = wrapped(stirred=True, genotype=COLOURFUL, mean=0.25, std=(0.1, 0.2, 0.3))
    model = wrapped(genotype=COLOURFUL)
    with pytest.warns(ClipWarning, match=r"mean=\[0\.49.*, the checkpoint has \[0\.25.*; std=\["):
        model.load_state_dict(source.state_dict())
    model.load_clip(source.state_dict())
    assert torch.equal(model(images()), source(images()))
    silently(wrapped(mean=0.25, std=0.5).load_state_dict, wrapped().state_dict())


@torch.no_grad()
def test_learned_magnitudes_are_exact():
    generator = torch.Generator().manual_seed(3)
    angle, shift = torch.rand(2, generator=generator).double().mul(0.1).tolist()
    source = wrapped(stirred=True, genotype=f"rotate({angle!r}) > translate_x({shift!r})")
    model = wrapped()
    model.load_clip(source.state_dict())
    assert model.genotype == source.genotype
    assert [t.magnitude for t in model.genotype.chain] == [angle, shift]


@torch.no_grad()
def test_sources_of_frames_are_recorded():
    def drawn(seed=0):
        return VideoWrap(backbone(), frames=RandomClips(("rotate(10)", "scale(1.1)", "rotate(-30)"), T=3, seed=seed))

    source = drawn(seed=4)
    source.train()(images())
    source.eval()
    assert decode(source.state_dict()[CLIP])["frames"]["kind"] == "random_clips"
    silently(drawn(seed=4).load_state_dict, source.state_dict())
    with pytest.warns(ClipWarning, match=r"frames=….*'seed': 0.*, the checkpoint has ….*'seed': 4"):
        drawn().load_state_dict(source.state_dict())
    plain = wrapped()
    with pytest.warns(ClipWarning, match=r"frames=None \(genotype='translate_x.*the checkpoint has \{'kind': 'random"):
        plain.load_state_dict(source.state_dict())
    plain.load_clip(source.state_dict())
    silently(plain.load_state_dict, source.state_dict())
    assert plain.to_video.drawn == 1
    assert torch.equal(plain(images()), source(images()))
    back = drawn()
    back.load_clip(wrapped(T=2).state_dict())
    assert (back.T, back.genotype) == (2, wrapped().genotype)
    # Another T alone is another T, not another source.
    longer = drawn(seed=4)
    longer.set_frames(5)
    with pytest.warns(ClipWarning, match=r"clip: T=5, the checkpoint has 3\. The model"):
        longer.load_state_dict(source.state_dict())


def test_a_deliberate_other_t_is_said_once():
    model = wrapped()
    state = model.state_dict()
    model.set_frames(5)
    with pytest.warns(ClipWarning, match="T=5, the checkpoint has 3") as record:
        model.load_state_dict(state)
    assert len(record) == 1
    for _ in range(3):
        silently(model.load_state_dict, state)
        silently(model, images())
    model.set_frames(3)
    silently(model.load_state_dict, state)


def test_old_bare_and_empty_checkpoints():
    old = wrapped(stirred=True).state_dict()
    del old[CLIP]
    model = wrapped()
    with pytest.warns(ClipWarning, match=r"does not say with which clip.*genotype='translate_x.*, T=3") as record:
        assert model.load_state_dict(old).missing_keys == []
    assert len(record) == 1
    with pytest.warns(FreshFusionWarning) as record:
        wrapped().load_state_dict(backbone().state_dict())
    assert len(record) == 1
    silently(wrapped().load_state_dict, {"backbone.fc.bias": old["backbone.fc.bias"]} | _fusions(old), strict=False)
    for nothing in (old, backbone().state_dict(), {}):
        with pytest.raises(MissingError, match="the state dict holds no clip"):
            model.load_clip(nothing)


def _fusions(state):
    return {name: value for name, value in state.items() if name.startswith("fusion.")}


@torch.no_grad()
def test_a_bare_model_may_have_an_extra_state_of_its_own():
    class Counting(nn.Sequential):
        seen = 0

        def get_extra_state(self):
            return torch.tensor(self.seen)

        def set_extra_state(self, state):
            self.seen = int(state)

    def net():
        return Counting(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))

    bare = net()
    bare.seen = 7
    model = VideoWrap(net(), "none", T=2)
    model.load_state_dict(bare.state_dict())
    assert model.backbone.seen == 7
    model.backbone.seen = 8
    twin = VideoWrap(net(), "none", T=3)
    with pytest.warns(ClipWarning, match="T=3, the checkpoint has 2"):
        twin.load_state_dict(model.state_dict())
    assert twin.backbone.seen == 8
    twin.load_clip(model.state_dict())
    assert twin.T == 2


def _through_torch(state, path):
    torch.save(state, path)
    return torch.load(path, weights_only=True)


def _through_safetensors(state, path):
    save_file({name: value.clone() for name, value in state.items()}, path)
    return load_file(path)


@pytest.mark.parametrize(
    "changed",
    [
        _through_torch,
        _through_safetensors,
        lambda state, _: {"module." + name: value for name, value in state.items()},
        lambda state, _: {"module._orig_mod." + name: value for name, value in state.items()},
        lambda state, _: {name: value.bfloat16() for name, value in state.items()},
        lambda state, _: {name: value * 0.9 + value * 0.1 for name, value in state.items()},
    ],
)
def test_the_clip_survives_files_shells_and_casts(changed, tmp_path):
    state = changed(wrapped(stirred=True).state_dict(), tmp_path / "state")
    silently(wrapped().load_state_dict, state)
    model = wrapped(T=5)
    with pytest.warns(ClipWarning, match="T=5, the checkpoint has 3"):
        model.load_state_dict(state)
    model.load_clip(state)
    assert model.T == 3


def test_load_clip_reads_files_and_folders(tmp_path):
    source = wrapped(T=4)
    state = source.state_dict()
    save_weights(tmp_path / "w.safetensors", state_of(source))
    torch.save(state, tmp_path / "plain.pt")
    # As timm writes checkpoints, with the parsed command line.
    trained = {"state_dict": state, "state_dict_ema": state, "args": argparse.Namespace(model="x"), "epoch": 3}
    torch.save(trained, tmp_path / "last.pth.tar")
    source.save_pretrained(tmp_path / "folder")
    parent = nn.ModuleDict({"net": source})
    for where in ("w.safetensors", "plain.pt", "last.pth.tar", "folder"):
        model = wrapped()
        model.load_clip(tmp_path / where)
        assert model._record() == source._record()
        model = wrapped()
        model.load_clip(str(tmp_path / where))
        assert model.T == 4
    model = wrapped()
    model.load_clip(parent.state_dict())
    assert model.T == 4
    with pytest.raises(MissingError, match="no checkpoint at"):
        model.load_clip(tmp_path / "gone.safetensors")
    with pytest.raises(MissingError, match="no checkpoint at"):
        model.load_clip(tmp_path / "gone.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        model.load_clip(tmp_path / "broken.safetensors")
    with pytest.raises(InputError, match="2 clips that differ"):
        model.load_clip({"state_dict": state, "state_dict_ema": wrapped(T=2).state_dict()})


@pytest.mark.parametrize("change", [None, "shorter", "zeros", "random", "later", "list", "string", "types", "deep"])
def test_a_damaged_clip_is_refused_by_name(change):
    state = wrapped().state_dict()
    clip = state[CLIP]
    record = decode(clip)

    def text(value):
        return torch.tensor(list(json.dumps(value).ljust(1024).encode()), dtype=torch.uint8)

    state[CLIP] = {
        None: None,
        "shorter": clip[:100],
        "zeros": torch.zeros_like(clip),
        "random": torch.randint(256, clip.shape, generator=torch.Generator().manual_seed(0)),
        "later": text({"image2video": 4}),
        "list": text([1, 2]),
        "string": "clip",
        "types": text({"image2video": 1, **record, "sites": [3]}),
        "deep": torch.tensor(list(b'{"image2video": 1, "a": ' + b"[" * 100_000), dtype=torch.uint8),
    }[change]
    words = "has the format 4" if change == "later" else r"clip \(the key '_extra_state'\) cannot be read"
    with pytest.raises(InputError, match=words):
        wrapped().load_state_dict(state)


@pytest.mark.parametrize("make", [lambda m: ModelEma(m, 0.5), lambda m: ModelEmaV2(m, 0.5), lambda m: Ema(m, 0.5)])
def test_moving_averages_keep_the_clip(make):
    _average(make, lambda average, model: average.update(model))


@pytest.mark.parametrize("options", [{}, {"foreach": False}, {"exclude_buffers": True}, {"dtype": torch.bfloat16}])
def test_timms_newest_average_keeps_the_clip(options):
    _average(lambda model: ModelEmaV3(model, 0.5, **options), lambda average, model: average.update(model))


@pytest.mark.parametrize("use_buffers", [True, False])
@pytest.mark.parametrize("ema", [True, False])
def test_torchs_average_keeps_the_clip(use_buffers, ema):
    how = {"multi_avg_fn": get_ema_multi_avg_fn(0.5)} if ema else {}
    _average(
        lambda model: AveragedModel(model, use_buffers=use_buffers, **how),
        lambda average, model: average.update_parameters(model),
    )


def _average(make, update):
    """Average a model that is trained, and given other frames on the way: both differ only in T then."""
    model = wrapped(stirred=True)
    average = make(model)
    for seed in range(3):
        stir(model.fusion, seed)
        update(average, model)
    state = get_state_dict(average)
    assert decode(state[CLIP]) == decode(model.state_dict()[CLIP])
    silently(wrapped().load_state_dict, state)
    model.set_frames(100)
    update(average, model)
    assert decode(get_state_dict(average)[CLIP])["T"] == 3
    assert decode(model.state_dict()[CLIP])["T"] == 100


def test_the_tensor_keeps_its_size_when_t_changes():
    model = wrapped("none")
    sizes = set()
    for length in range(1500):  # records of every length about the end of a block
        records = [{**model._record(), "genotype": "x" * length, "T": T} for T in (1, 10_000)]
        small, large = (encode(record, model) for record in records)
        assert small.shape == large.shape
        assert decode(small) == records[0]
        sizes.add(len(small))
    assert sizes == {1024, 2048}


@torch.no_grad()
def test_copies_pickles_and_assignment():
    model = wrapped(stirred=True)
    twin = copy.deepcopy(model)
    twin.set_frames(5)
    assert (decode(twin.state_dict()[CLIP])["T"], decode(model.state_dict()[CLIP])["T"]) == (5, 3)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert same_state(state_of(again), state_of(model))
    silently(again.load_state_dict, model.state_dict(), assign=True)
    silently(again.load_state_dict, model.state_dict(keep_vars=True), assign=True)
    assert torch.equal(again(images()), model(images()))
    assert CLIP not in dict(model.named_buffers()) | dict(model.named_parameters())


def test_models_without_values_keep_their_clip():
    with torch.device("meta"):
        model = VideoWrap(backbone(lively=False), genotype=CHAIN, T=3)
    assert decode(model.state_dict()[CLIP])["T"] == 3
    silently(model.load_state_dict, wrapped(stirred=True).state_dict(), assign=True)


@pytest.mark.parametrize("full", [True, False])
def test_distributed_checkpoints_list_the_clip(full):
    source = wrapped(stirred=True)
    options = StateDictOptions(full_state_dict=full)
    for shell in (lambda m: m, lambda m: torch.compile(m, backend="eager"), lambda m: nn.ModuleDict({"net": m})):
        state = get_model_state_dict(shell(source), options=options)
        assert [name for name in state if name.endswith(CLIP)]
        model = wrapped(T=5)
        with pytest.warns(ClipWarning, match="T=5, the checkpoint has 3"):
            set_model_state_dict(shell(model), state, options=options)
        assert same_state(state_of(model.fusion), state_of(source.fusion))


@pytest.fixture
def process_group(tmp_path):
    """One process that trains as one of many do."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.filterwarnings("ignore:Found a non-scalar tensor")  # torch's advice on a parameter of one number
def test_parallel_models_keep_the_clip():
    def ddp(model):
        return nn.parallel.DistributedDataParallel(model)

    def fsdp(model):
        return fully_shard(model, mesh=init_device_mesh("cpu", (1,)))

    options = StateDictOptions(full_state_dict=True)
    for parallel in (ddp, fsdp):
        source = parallel(wrapped(stirred=True, T=4))
        state = get_model_state_dict(source, options=options)
        with pytest.warns(ClipWarning, match="T=3, the checkpoint has 4"):
            wrapped().load_state_dict(state)
        with pytest.warns(ClipWarning, match="T=3, the checkpoint has 4"):  # it shards the tensors in `state`
            assert not any(set_model_state_dict(parallel(wrapped()), state, options=options))
    with pytest.warns(ClipWarning, match="T=3, the checkpoint has 4"):
        ddp(wrapped()).load_state_dict(ddp(wrapped(T=4)).state_dict())


def test_a_wrapper_within_a_module_and_two_of_them():
    parent = nn.ModuleList([wrapped(T=2), wrapped(T=3)])
    silently(parent.load_state_dict, parent.state_dict())
    other = nn.ModuleList([wrapped(T=3), wrapped(T=3)])
    with pytest.warns(ClipWarning, match="T=3, the checkpoint has 2") as record:
        other.load_state_dict(parent.state_dict())
    assert len(record) == 1


def test_the_weights_alone_go_into_a_bare_model():
    """The recipe of docs/wrapping.md."""
    state = wrapped(stirred=True).state_dict()
    bare = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    assert backbone(seed=3).load_state_dict(bare).missing_keys == []
    assert CLIP not in wrapped().unwrap().state_dict()


def test_load_weights_compares_clips_of_any_length(tmp_path):
    many = " > ".join(["translate_x(0.012345678)"] * 60)
    save_weights(tmp_path / "w.safetensors", state_of(wrapped(genotype=many)))
    with pytest.warns(ClipWarning, match="genotype='translate_x"):
        load_weights(wrapped(), tmp_path / "w.safetensors")


@torch.no_grad()
def test_the_config_of_a_saved_folder_counts(tmp_path):
    model = wrapped(stirred=True)
    model.save_pretrained(tmp_path)
    silently(VideoWrap.from_pretrained, tmp_path, backbone())
    config = json.loads((tmp_path / "config.json").read_text())
    config["padding"] = "border"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.warns(ClipWarning, match="padding='border', the checkpoint has 'reflection'"):
        twin = VideoWrap.from_pretrained(tmp_path, backbone())
    assert twin.to_video.padding == "border"


def test_other_defaults_do_not_change_a_saved_clip(tmp_path):
    """What was trained with another default clip keeps it, in folders and state dicts alike."""
    model = VideoWrap(backbone(), genotype="translate_x(0.07)", T=2, padding="reflection", schedule="centred")
    model.save_pretrained(tmp_path)
    twin = VideoWrap.from_pretrained(tmp_path, backbone())
    fresh = VideoWrap(backbone())
    fresh.load_clip(model.state_dict())
    assert twin._record() == fresh._record() == model._record()
    assert fresh.genotype == Genotype.parse("translate_x(0.07)")
