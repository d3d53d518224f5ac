"""Tiny segmentors of mmsegmentation, and batches as its data preprocessor makes them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("mmseg")

from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import stack_batch
from mmseg_head_cases import CLASSES, HEADS, fcn_head

import image2video.integrations.openmmlab  # noqa: F401 (registers the video segmentors)

SIZE = (40, 56)
IGNORED = 255
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]

init_default_scope("mmseg")
# Building a model with init_weights logs a line for every parameter.
MMLogger.get_instance("mmengine", log_level="ERROR")
logging.getLogger("mmengine").setLevel(logging.ERROR)


def tiny_config(
    decode: str = "psp",
    *,
    video: Mapping[str, Any] | None = None,
    size: Sequence[int] | None = SIZE,
    auxiliary: bool = True,
    align_corners: bool = False,
    norm: str = "BN",
    dropout: float = 0.0,
    test_cfg: Mapping[str, Any] | None = None,
    preprocessor: Mapping[str, Any] | None = None,
    backbone: Mapping[str, Any] | None = None,
    **model: Any,
) -> ConfigDict:
    """The model part of a config: a ResNet-18 of 8 channels under a decode head.

    `decode` is one of `HEADS`. With `video`, the type is the video segmentor's; the plain one's without. `backbone`,
    `preprocessor` and `model` add to what stands here; `test_cfg=dict(mode="slide", crop_size=…, stride=…)` slides.
    """
    norm_cfg = {"type": norm, "requires_grad": True}
    shared = {
        "num_classes": CLASSES,
        "norm_cfg": norm_cfg,
        "align_corners": align_corners,
        "dropout_ratio": dropout,
    }
    head = HEADS[decode](shared)
    config: dict[str, Any] = {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": MEAN,
            "std": STD,
            "bgr_to_rgb": True,
            "pad_val": 0,
            "seg_pad_val": IGNORED,
            "size": None if size is None else tuple(size),
            **(preprocessor or {}),
        },
        "backbone": {**_resnet(norm_cfg), **(backbone or {})},
        "decode_head": head,
        "train_cfg": {},
        "test_cfg": dict(test_cfg or {"mode": "whole"}),
    }
    if decode == "pid":
        config["backbone"] = _pidnet(norm_cfg)
    elif auxiliary:
        config["auxiliary_head"] = fcn_head(shared, in_channels=32, in_index=2, loss_weight=0.4)
    if isinstance(head, list):
        config |= {"type": "CascadeEncoderDecoder", "num_stages": len(head)}
    if video is not None:
        config |= {"type": f"Video{config['type']}", "video": dict(video)}
    return ConfigDict(config | model)


def build(config: Mapping[str, Any], *, seed: int = 0) -> Any:
    """A segmentor with random weights in which every branch counts, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS.build(ConfigDict(copy.deepcopy(dict(config))))
        model.init_weights()
        _make_all_count(model)
    return model.eval()


def metas_of(content: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """What mmsegmentation says of images whose content has these sizes, padded to SIZE on the right and below."""
    return [
        {"img_shape": size, "ori_shape": size, "pad_shape": SIZE, "padding_size": (0, SIZE[1] - w, 0, SIZE[0] - h)}
        for size in content
        for h, w in [size]
    ]


def pair(decode: str = "psp", *, video: Mapping[str, Any], **options: Any) -> tuple[Any, Any]:
    """A plain segmentor and the video segmentor with its weights."""
    plain = build(tiny_config(decode, **options))
    wrapped = build(tiny_config(decode, video=video, **options), seed=1)
    missing, unexpected = wrapped.load_state_dict(
        {**plain.state_dict(), **{k: v for k, v in wrapped.state_dict().items() if k.startswith("video_fusion.")}}
    )
    assert not missing
    assert not unexpected
    return plain, wrapped


def samples(
    count: int = 2,
    sizes: Sequence[tuple[int, int]] = (SIZE,),
    canvas: tuple[int, int] | None = None,
    *,
    test: bool = False,
    classes: int = CLASSES,
    edges: bool = False,
    seed: int = 0,
) -> tuple[Tensor, list[SegDataSample]]:
    """Inputs `(B, 3, H, W)` and their samples as mmsegmentation's data preprocessor hands them to a model.

    Contents have the `sizes` in turn and are padded to `canvas` (None: the largest) on the right and below: for
    training with labels and `padding_size`, for tests (`test=True`, one size) the image alone, with
    `img_padding_size`. Labels are blocks of classes with some ignored pixels; `edges` adds edge maps.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = [sizes[index % len(sizes)] for index in range(count)]
    images = [torch.randn(3, *shape, generator=generator) for shape in shapes]
    found = [_sample(shape, classes, edges, generator) for shape in shapes]
    canvas = canvas or (max(h for h, _ in shapes), max(w for _, w in shapes))
    if not test:
        inputs, found = stack_batch(images, found, size=canvas, pad_val=0, seg_pad_val=IGNORED)
        return inputs, found
    assert len(set(shapes)) == 1, "mmsegmentation tests images of one size at a time"
    inputs, padded = stack_batch(images, size=canvas)
    for sample, meta in zip(found, padded, strict=True):
        sample.set_metainfo(meta)
    return inputs, found


def total_loss(model: nn.Module, inputs: Tensor, found: Sequence[SegDataSample]) -> Tensor:
    """The sum of all losses of a batch."""
    return sum((value for key, value in model.loss(inputs, found).items() if "loss" in key), start=torch.zeros(()))


def predictions(model: nn.Module, inputs: Tensor, found: Sequence[SegDataSample]) -> list[Tensor]:
    """The logits `(K, h, w)` of every image, cropped and resized to its original size; the samples stay as they are."""
    with torch.no_grad():
        return [sample.seg_logits.data for sample in model.predict(inputs, copy.deepcopy(list(found)))]


def largest_difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """The largest absolute difference of tensors in pairs."""
    assert [one.shape for one in first] == [one.shape for one in second]
    return max((a - b).abs().max().item() for a, b in zip(first, second, strict=True))


def _sample(shape: tuple[int, int], classes: int, edges: bool, generator: torch.Generator) -> SegDataSample:
    meta = {"img_shape": shape, "ori_shape": shape, "pad_shape": shape, "img_path": "made.png", "flip": False}
    sample = SegDataSample(metainfo=meta)
    coarse = torch.randint(0, classes, (1, 1, 4, 5), generator=generator).float()
    label = nn.functional.interpolate(coarse, shape, mode="nearest").long()[0]
    label[:, : max(1, shape[0] // 8), : max(1, shape[1] // 6)] = IGNORED
    sample.gt_sem_seg = PixelData(data=label)
    if edges:
        edge = torch.zeros_like(label)
        edge[:, 1:] = (label[:, 1:] != label[:, :-1]).long()
        sample.gt_edge_map = PixelData(data=edge)
    return sample


def _make_all_count(model: nn.Module) -> None:
    """Gains that are not zero (mmsegmentation's residual branches start at zero), statistics unlike 0 and 1, logits
    that differ by more than hundredths."""
    generator = torch.Generator().manual_seed(torch.initial_seed() % 2**31)
    for name, module in model.named_modules():
        if name.endswith("conv_seg"):
            module.weight.data.normal_(std=0.3, generator=generator)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            for tensor, centre, spread in (
                (module.weight, 0.8, 0.3),
                (module.bias, 0.0, 0.2),
                (module.running_mean, 0.0, 0.1),
                (module.running_var, 1.0, 0.3),
            ):
                noise = torch.rand(tensor.shape, generator=generator) * 2 - 1
                tensor.data.copy_(centre + spread * noise)


def _resnet(norm_cfg: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "ResNetV1c",
        "depth": 18,
        "base_channels": 8,
        "stem_channels": 8,
        "num_stages": 4,
        "out_indices": (0, 1, 2, 3),
        "dilations": (1, 1, 2, 4),
        "strides": (1, 2, 1, 1),
        "norm_cfg": norm_cfg,
        "norm_eval": False,
        "style": "pytorch",
        "contract_dilation": True,
    }


def _pidnet(norm_cfg: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "PIDNet",
        "in_channels": 3,
        "channels": 8,
        "ppm_channels": 8,
        "num_stem_blocks": 1,
        "num_branch_blocks": 1,
        "align_corners": False,
        "norm_cfg": norm_cfg,
        "act_cfg": {"type": "ReLU", "inplace": True},
    }
