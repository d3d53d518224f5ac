"""Configs of small decode heads of all kinds, over the channels of the tiny ResNet of `mmseg_cases`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

CLASSES = 5


def _cross_entropy(weight: float = 1.0) -> dict[str, Any]:
    return {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": weight}


def fcn_head(
    shared: Mapping[str, Any], *, in_channels: int = 64, in_index: int = 3, loss_weight: float = 1.0, **more: Any
) -> dict[str, Any]:
    """FCNHead of one convolution, as decode or auxiliary head."""
    return {
        "type": "FCNHead",
        "in_channels": in_channels,
        "in_index": in_index,
        "channels": 8,
        "num_convs": 1,
        "concat_input": False,
        "loss_decode": _cross_entropy(loss_weight),
        **shared,
        **more,
    }


def _head(kind: str, shared: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    places = {"in_channels": 64, "in_index": 3, "channels": 8, "loss_decode": _cross_entropy()}
    return {"type": kind, **places, **shared, **options}


def _encnet(shared: Mapping[str, Any]) -> dict[str, Any]:
    places = {"in_channels": [16, 32, 64], "in_index": (1, 2, 3), "num_codes": 4, "use_se_loss": True}
    se_loss = {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 0.2}
    return _head("EncHead", shared, **places, add_lateral=False, loss_se_decode=se_loss)


def _pid_head(shared: Mapping[str, Any]) -> dict[str, Any]:
    ohem = {"type": "OhemCrossEntropy", "thres": 0.9, "min_kept": 100, "loss_weight": 1.0}
    head = {
        "type": "PIDHead",
        "in_channels": 32,
        "channels": 8,
        "act_cfg": {"type": "ReLU", "inplace": True},
        "loss_decode": [_cross_entropy(0.4), ohem, {"type": "BoundaryLoss", "loss_weight": 20.0}, ohem],
    }
    return {**head, **shared}


def _knet(shared: Mapping[str, Any]) -> dict[str, Any]:
    relu = {"type": "ReLU", "inplace": True}
    update = {
        "type": "KernelUpdateHead",
        "num_classes": CLASSES,
        "num_ffn_fcs": 2,
        "num_heads": 2,
        "num_mask_fcs": 1,
        "feedforward_channels": 16,
        "in_channels": 8,
        "out_channels": 8,
        "dropout": 0.0,
        "conv_kernel_size": 1,
        "ffn_act_cfg": relu,
        "with_ffn": True,
        "feat_transform_cfg": {"conv_cfg": {"type": "Conv2d"}, "act_cfg": None},
        "kernel_updator_cfg": {
            "type": "KernelUpdator",
            "in_channels": 8,
            "feat_channels": 8,
            "out_channels": 8,
            "act_cfg": relu,
            "norm_cfg": {"type": "LN"},
        },
    }
    return {
        "type": "IterativeDecodeHead",
        "num_stages": 2,
        "kernel_update_head": [copy.deepcopy(update) for _ in range(2)],
        "kernel_generate_head": fcn_head(shared),
    }


def _ocr(shared: Mapping[str, Any]) -> list[dict[str, Any]]:
    first = fcn_head(shared, in_channels=32, in_index=2, loss_weight=0.4)
    return [first, _head("OCRHead", shared, ocr_channels=8)]


HEADS: dict[str, Any] = {
    "psp": lambda shared: _head("PSPHead", shared, pool_scales=(1, 2, 3)),
    "fcn": fcn_head,
    "aspp": lambda shared: _head("ASPPHead", shared, dilations=(1, 2, 3)),
    "enc": _encnet,
    "da": lambda shared: _head("DAHead", shared, pam_channels=4),
    "pid": _pid_head,
    "knet": _knet,
    "ocr": _ocr,
}
"""The decode heads that `tiny_config` knows: a function of the options that all heads share."""
