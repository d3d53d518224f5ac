"""Stock configs of mmsegmentation as models that need no network, no compiled operators and small images."""

from __future__ import annotations

import copy
import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmcv
import mmseg
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CONFIGS = Path(mmseg.__path__[0]) / ".mim" / "configs"
SEGMENTORS = {"EncoderDecoder": "VideoEncoderDecoder", "CascadeEncoderDecoder": "VideoCascadeEncoderDecoder"}
MISSING = "mmcv was installed without its compiled operators"
IGNORED = 255


def folders() -> list[str]:
    """The model folders of the installed configs."""
    return sorted(p.name for p in CONFIGS.iterdir() if p.is_dir() and p.name != "_base_" and list(p.glob("*.py")))


def read(path: Path | str) -> ConfigDict | None:
    """The model of a config, as `plain` makes it; None for a config that has none (of a dataset alone).

    `path` is absolute or below `CONFIGS`. Imports that the config asks for are not done.
    """
    config = Config.fromfile(CONFIGS / path, import_custom_modules=False)
    model = config.get("model")
    return None if model is None else plain(model)


def plain(model: ConfigDict) -> ConfigDict:
    """A copy of a model's config without pretrained weights, whose batch norms need no other process."""
    return _plain(copy.deepcopy(model))


def packages_of(model: ConfigDict) -> list[str]:
    """The packages beside mmsegmentation whose classes a model names (`mmdet.…`, `mmpretrain.…`)."""
    text = repr(model.to_dict())
    return [package for package in ("mmdet", "mmpretrain") if f"'{package}." in text]


def imports(model: ConfigDict) -> None:
    """Import those packages; raises where one is missing."""
    for package in packages_of(model):
        importlib.import_module(f"{package}.models")


def shrunk(model: ConfigDict, size: tuple[int, int]) -> ConfigDict:
    """The model for images of `size`: its preprocessor, its sliding window, and the position embeddings made so."""
    model = copy.deepcopy(model)
    if "data_preprocessor" in model:
        preprocessor = model.data_preprocessor
        preprocessor.pop("size_divisor", None)
        preprocessor.pop("test_cfg", None)
        preprocessor.size = size
    if "img_size" in model.get("backbone", {}):
        model.backbone.img_size = size
    if model.get("test_cfg", {}).get("mode") == "slide":
        model.test_cfg.update(crop_size=size, stride=tuple(n * 2 // 3 for n in size))
    return model


def build(model: ConfigDict) -> nn.Module:
    """Build a model with random weights."""
    # Not before `stand_in_for_compiled_operators`: mmsegmentation looks for the operators when its models are imported.
    importlib.import_module("image2video.integrations.openmmlab")
    init_default_scope("mmseg")
    return MODELS.build(copy.deepcopy(model))


def comparable(net: nn.Module) -> nn.Module:
    """With plain batch norms, and where a head draws at random in every forward (SegNeXt's), the same for every row."""
    for module in net.modules():
        if hasattr(module, "rand_init"):
            module._build_bases = _Same(module._build_bases)
    return revert_sync_batchnorm(net)


class _Same:
    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def __call__(self, rows: int, *sizes: int, **options: Any) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.draw(1, *sizes, **options).repeat(rows, 1, 1)


class _OnMeta(TorchFunctionMode):
    """Keeps on the CPU what constructors read values from: the rates of drop path."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.linspace, torch.arange):
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def parameters(model: ConfigDict) -> int:
    """The number of parameters, counted without allocating them where the constructors allow that."""
    try:
        with torch.device("meta"), _OnMeta():
            net = build(model)
    except (NotImplementedError, RuntimeError):
        net = build(model)
    return sum(p.numel() for p in net.parameters())


def stand_in_for_compiled_operators() -> None:
    """Let `mmcv.ops` be imported where mmcv has no compiled operators: calling one raises, Python code works.

    In this process alone. Must come before the first import of `mmcv.ops` by a model.
    """
    if importlib.util.find_spec("mmcv._ext") is not None:
        return
    module = _Operators("mmcv._ext")
    module.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)
    sys.modules["mmcv._ext"] = module
    mmcv._ext = module


class _Operators(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(f"{MISSING}: {name}")

        return missing


def batch(count: int, size: tuple[int, int], classes: int, seed: int = 0) -> tuple[Tensor, list[SegDataSample]]:
    """Random images and labels, some of them ignored, with the edge map that PIDNet's head asks for."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(count):
        blocks = torch.randint(0, classes, (1, 1, size[0] // 8, size[1] // 8), generator=generator).float()
        labels = nn.functional.interpolate(blocks, size=size, mode="nearest")[0].long()
        labels[:, :3] = IGNORED
        meta = {"img_shape": size, "ori_shape": size, "pad_shape": size, "padding_size": [0] * 4}
        sample = SegDataSample(metainfo=meta)
        sample.gt_sem_seg = PixelData(data=labels)
        sample.gt_edge_map = PixelData(data=torch.randint(0, 2, (1, *size), generator=generator))
        samples.append(sample)
    return torch.randn(count, 3, *size, generator=generator), samples


def _plain(value: Any) -> Any:
    """Change a config in place: what `pretrained` and `init_cfg` name is on the network."""
    if isinstance(value, Mapping):
        if value.get("type") == "SyncBN":
            value["type"] = "BN"
        for key in value:
            if key == "pretrained" or (key == "init_cfg" and _names_weights(value[key])):
                value[key] = None
            else:
                _plain(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _plain(item)
    return value


def _names_weights(init: Any) -> bool:
    kinds = init if isinstance(init, list | tuple) else [init]
    return any(isinstance(kind, Mapping) and kind.get("type") == "Pretrained" for kind in kinds)
