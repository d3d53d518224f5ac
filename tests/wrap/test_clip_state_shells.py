"""Other people's ways to load and place a wrapped model: accelerate, meta devices, swapped tensors, timm's loaders."""

import gc
import warnings

import accelerate
import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from timm.models import load_checkpoint
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from wrap_helpers import CHAIN, backbone, images, state_of, wrapped

from image2video.errors import StateError
from image2video.wrap.checkpoint import FreshFusionWarning
from image2video.wrap.clip_record import CLIP, ClipWarning
from image2video.wrap.video_wrap import VideoWrap

FULL = StateDictOptions(full_state_dict=True, strict=False)


@pytest.fixture(scope="module")
def source():
    return wrapped(stirred=True)


@torch.no_grad()
def assert_same(model, source):
    torch.testing.assert_close(model(images()), source(images()), rtol=0, atol=0)


def empty(*, buffers=False, **options):
    """A wrapper that was made without values."""
    with accelerate.init_empty_weights(include_buffers=buffers):
        return VideoWrap(backbone(lively=False), **{"genotype": CHAIN, "T": 3} | options).eval()


def in_parts(state, count):
    names = list(state)
    return [{name: state[name] for name in names[part::count]} for part in range(count)]


@pytest.mark.parametrize("buffers", [True, False])
def test_a_wrapper_without_values_is_filled_by_a_checkpoint(source, buffers):
    model = empty(buffers=buffers)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.plan.names == source.plan.names
    model.load_state_dict(source.state_dict(), assign=True)
    assert_same(model, source)
    with pytest.warns(ClipWarning, match="T=5, the checkpoint has 3"):
        empty(buffers=buffers, T=5).load_state_dict(source.state_dict(), assign=True)


def test_a_backbone_without_values_is_wrapped(source):
    with accelerate.init_empty_weights():
        bare = backbone(lively=False)
    model = VideoWrap(bare, genotype=CHAIN, T=3).eval()
    with pytest.raises(StateError, match=r"fusions' weights hold no values.*load a checkpoint first"):
        model(images())
    model.load_state_dict(source.state_dict(), assign=True)
    assert_same(model, source)


def test_to_empty_and_a_checkpoint(source):
    with torch.device("meta"):
        model = VideoWrap(backbone(lively=False), genotype=CHAIN, T=3).eval()
    model.to_empty(device="cpu").load_state_dict(source.state_dict())
    assert_same(model, source)


@pytest.mark.filterwarnings("ignore:The following device_map keys do not match any submodules:UserWarning")
def test_the_recipe_for_accelerates_device_maps(source, tmp_path):
    """That of docs/wrapping.md: with a map, accelerate loads parameters and buffers, and knows no extra state."""
    save_file(state_of(source), tmp_path / "model.safetensors")
    device_map = {"backbone": "cpu", "fusion": "cpu", CLIP: "cpu"}
    with pytest.raises(ValueError, match="does not have a parameter or a buffer named _extra_state"):
        accelerate.load_checkpoint_and_dispatch(empty(), str(tmp_path / "model.safetensors"), device_map)
    model = empty()
    model.load_state_dict(load_file(tmp_path / "model.safetensors"), assign=True)
    options = {"main_device": "cpu", "force_hooks": True, "preload_module_classes": ["GSF"]}
    assert_same(accelerate.dispatch_model(model, device_map, **options), source)


def test_accelerate_loads_the_clip_where_it_has_no_map(source, tmp_path):
    save_file(state_of(source), tmp_path / "model.safetensors")
    model = wrapped()
    accelerate.load_checkpoint_and_dispatch(model, str(tmp_path / "model.safetensors"))
    assert_same(model, source)
    with pytest.warns(ClipWarning, match="T=5, the checkpoint has 3"):
        accelerate.load_checkpoint_and_dispatch(wrapped(T=5), str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("fusion", ["gsf", "gsm", "tsm", "conv3d"])
@torch.no_grad()
def test_offloaded_fusions_work_or_say_how(fusion):
    model = wrapped(fusion, stirred=True)
    expected = model(images())
    names = {"gsf": "GSF", "gsm": "GSM"}
    if fusion in names:
        with pytest.raises(StateError, match=rf"preload_module_classes=\['{names[fusion]}'\]"):
            accelerate.cpu_offload(wrapped(fusion, stirred=True), "cpu")(images())
    offloaded = accelerate.cpu_offload(model, "cpu", preload_module_classes=[names.get(fusion, "none")])
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(offloaded(images()), expected)


@pytest.mark.parametrize("count", [2, 3])
def test_sharded_checkpoints_fill_a_model_shard_by_shard(source, count):
    """As accelerate loads them: torch fills up what a shard lacks, and an object of its own stands for the clip."""

    def load(model):
        for shard in in_parts(source.state_dict(), count):
            set_model_state_dict(model, shard, options=FULL)

    model = wrapped()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(model)
    assert_same(model, source)
    with pytest.warns(ClipWarning, match="T=5, the checkpoint has 3") as record:
        load(wrapped(T=5))
    assert len(record) == 1


def test_old_and_bare_checkpoints_through_set_model_state_dict(source):
    old = {name: value for name, value in source.state_dict().items() if name != CLIP}
    model = wrapped()
    with pytest.warns(ClipWarning, match="does not say with which clip") as record:
        set_model_state_dict(model, old, options=FULL)
    assert len(record) == 1
    assert_same(model, source)
    bare, model = backbone(seed=7).state_dict(), wrapped()
    with pytest.warns(FreshFusionWarning) as record:
        set_model_state_dict(model, dict(bare), options=FULL)
    assert len(record) == 1
    assert all(torch.equal(value, bare[name]) for name, value in model.backbone.state_dict().items())


@pytest.mark.parametrize("assign", [True, False])
def test_a_mapped_file(source, assign, tmp_path):
    torch.save(source.state_dict(), tmp_path / "w.pt")
    model = wrapped()
    model.load_state_dict(torch.load(tmp_path / "w.pt", mmap=True), assign=assign)
    assert_same(model, source)
    if assign:
        assert all(isinstance(p, nn.Parameter) for p in model.parameters())
    with pytest.warns(ClipWarning, match="T=5, the checkpoint has 3"):
        wrapped(T=5).load_state_dict(torch.load(tmp_path / "w.pt", mmap=True), assign=assign)


@pytest.mark.parametrize("overwrite", [True, False])
def test_conversions_that_swap_or_overwrite_parameters(source, overwrite):
    """torch swaps no tensor that something holds a weak reference to; planning leaves none."""
    gc.disable()  # what a collection would clear is no proof
    name = "set_overwrite_module_params_on_conversion" if overwrite else "set_swap_module_params_on_conversion"
    switch = getattr(torch.__future__, name)
    switch(True)
    try:
        model = wrapped()
        model.load_state_dict(source.state_dict())
        assert_same(model.double().float(), source)
        model.unwrap().double()
    finally:
        switch(False)
        gc.enable()


def test_what_safetensors_and_timm_load_strictly(source, tmp_path):
    save_model(source, str(tmp_path / "whole.safetensors"))
    model = wrapped()
    assert load_model(model, str(tmp_path / "whole.safetensors")) == (set(), [])
    assert_same(model, source)
    torch.save({"state_dict": source.state_dict(), "epoch": 3}, tmp_path / "last.pth.tar")
    for file in ("whole.safetensors", "last.pth.tar"):
        model = wrapped()
        load_checkpoint(model, str(tmp_path / file), strict=True)
        assert_same(model, source)
        with pytest.warns(ClipWarning, match="T=5, the checkpoint has 3"):
            load_checkpoint(wrapped(T=5), str(tmp_path / file), strict=True)


def test_compiled_models_exchange_checkpoints(source):
    compiled = torch.compile(wrapped(), backend="eager")
    compiled.load_state_dict(torch.compile(source, backend="eager").state_dict())
    assert_same(compiled._orig_mod, source)
    plain = wrapped(T=5)
    with pytest.warns(ClipWarning, match="T=5, the checkpoint has 3"):
        plain.load_state_dict(compiled.state_dict())
    state = get_model_state_dict(compiled)
    assert CLIP in state
