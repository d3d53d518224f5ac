"""Parameter groups for optimisers, for users without timm."""

from __future__ import annotations

import fnmatch
import math
import warnings
from typing import Any

from torch import nn

from image2video.errors import InputError
from image2video.fusion.base import Fusion


class NoFusionParametersWarning(UserWarning):
    """A learning rate for fusion parameters was asked for a model whose fusions have none."""


def param_groups(
    model: nn.Module, lr: float, *, fusion_lr_mult: float = 1.0, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Group the trainable parameters of a wrapped model for any torch optimiser.

    Up to four groups: backbone and fusion, each with and without weight decay. Biases, norms, residual scales (all of
    at most one dimension) and what the model's own `no_weight_decay()` names take none. The fusion groups have
    `lr · fusion_lr_mult`; each group has its `name`. A `NoFusionParametersWarning` says that `fusion_lr_mult` has no
    parameter to act on.

    Args:
        model: a `VideoWrap`, a module that holds one (DDP), or a bare model.
        lr: the learning rate of the backbone.
        fusion_lr_mult: what the learning rate of the fusions is multiplied by.
        weight_decay: of the parameters that take it.

    Returns:
        The groups, as optimisers take them.

    Raises:
        InputError: a negative or non-finite number, or a model without trainable parameters.

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
        is_fusion = id(parameter) in fusion
        decays = parameter.ndim > 1 and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        group_name = ("fusion" if is_fusion else "backbone") + ("" if decays else "_no_decay")
        if group_name not in groups:
            groups[group_name] = {
                "name": group_name,
                "params": [],
                "lr": lr * fusion_lr_mult if is_fusion else lr,
                "weight_decay": weight_decay if decays else 0.0,
            }
        groups[group_name]["params"].append(parameter)
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
    """Return the identities of all parameters that belong to fusion modules."""
    return {id(p) for module in model.modules() if isinstance(module, Fusion) for p in module.parameters()}


def _no_weight_decay(model: nn.Module) -> set[str]:
    """Collect what modules name in their own `no_weight_decay()`, as patterns of full parameter names."""
    patterns: set[str] = set()
    for path, module in model.named_modules():
        own = getattr(module, "no_weight_decay", None)
        if callable(own):
            patterns |= {f"{path}.{name}" if path else name for name in own()}
    return patterns
