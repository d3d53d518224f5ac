"""Parameter groups for optimisers, for users without timm."""

from __future__ import annotations

import fnmatch
import math
import warnings
from typing import Any

from torch import nn

from image2video.errors import InputError


class NoFusionParametersWarning(UserWarning):
    """A learning rate for fusion parameters was asked for a model whose fusions have none."""


def param_groups(
    model: nn.Module, lr: float, *, fusion_lr_mult: float = 1.0, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Group the trainable parameters of a wrapped model for any torch optimiser.

    Up to four groups: backbone and fusion, each with and without weight decay. Biases, norms, residual scales (all of
    at most one dimension) and what the model's own `no_weight_decay()` names take none. The fusion groups have
    `lr · fusion_lr_mult`; each group has its `name`. The model may be a `VideoWrap`, bare, or hold one (DDP).

    Raises `InputError` for a negative or non-finite number. Where `fusion_lr_mult` has no parameter to act on, one
    `NoFusionParametersWarning`.

    >>> from torch import nn, optim
    >>> [group["name"] for group in param_groups(nn.Linear(2, 2), lr=0.1, weight_decay=1e-4)]
    ['backbone', 'backbone_no_decay']
    """
    for name, number in (("lr", lr), ("fusion_lr_mult", fusion_lr_mult), ("weight_decay", weight_decay)):
        if not math.isfinite(number) or number < 0:
            raise InputError(f"{name} must be a finite number of at least 0, got {number!r}")
    fusion = _fusion_parameters(model)
    patterns = _no_weight_decay(model)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "fusion" if id(parameter) in fusion else "backbone"
        decays = parameter.ndim > 1 and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        group = groups.setdefault(
            part if decays else f"{part}_no_decay",
            {
                "name": part if decays else f"{part}_no_decay",
                "params": [],
                "lr": lr * fusion_lr_mult if part == "fusion" else lr,
                "weight_decay": weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise InputError("the model has no trainable parameter; set requires_grad on some, or check the model")
    if fusion_lr_mult != 1.0 and not any(name.startswith("fusion") for name in groups):
        warnings.warn(
            f"fusion_lr_mult={fusion_lr_mult} has no effect: the model has no trainable fusion parameter",
            NoFusionParametersWarning,
            stacklevel=2,
        )
    return list(groups.values())


def _fusion_parameters(model: nn.Module) -> set[int]:
    """The identities of all parameters that belong to fusion modules."""
    from image2video.fusion.base import Fusion

    return {id(p) for module in model.modules() if isinstance(module, Fusion) for p in module.parameters()}


def _no_weight_decay(model: nn.Module) -> set[str]:
    """What modules name in their own `no_weight_decay()`, as patterns of full parameter names."""
    patterns: set[str] = set()
    for path, module in model.named_modules():
        own = getattr(module, "no_weight_decay", None)
        if callable(own):
            patterns |= {f"{path}.{name}" if path else name for name in own()}
    return patterns
