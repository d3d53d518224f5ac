"""Parameter groups for optimisers, for users without timm."""

from __future__ import annotations

import fnmatch
import math
import warnings
from typing import Any

from torch import nn

from image2video.errors import InputError
from image2video.fusion.base import Fusion
from image2video.wrap.timm_like import TimmLike, heads_of


class NoFusionParametersWarning(UserWarning):
    """A learning rate for fusion parameters was asked for a model whose fusions have none."""


def param_groups(
    model: nn.Module,
    lr: float,
    *,
    fusion_lr_mult: float = 1.0,
    head_lr_mult: float = 1.0,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Group the trainable parameters of a wrapped model for any torch optimiser.

    Up to four groups: backbone and fusion, each with and without weight decay. Biases, norms, residual scales (all of
    at most one dimension) and what the model's own `no_weight_decay()` names take none. The fusion groups have
    `lr · fusion_lr_mult`; each group has its `name`. A `NoFusionParametersWarning` says that `fusion_lr_mult` has no
    parameter to act on. With a `head_lr_mult` other than 1 the classifier (what `get_classifier()` returns; the child
    `classifier`, `fc`, `head` or `heads` of networks that are not timm's) has up to two groups more.

    Args:
        model: a `VideoWrap`, a module that holds one (DDP), or a bare model.
        lr: the learning rate of the backbone.
        fusion_lr_mult: what the learning rate of the fusions is multiplied by.
        head_lr_mult: what the learning rate of the classifier is multiplied by.
        weight_decay: of the parameters that take it.

    Returns:
        The groups, as optimisers take them.

    Raises:
        InputError: a negative or non-finite number, a model without trainable parameters, or a `head_lr_mult` for one
            without a classifier.

    Example:
        >>> from torch import nn
        >>> [group["name"] for group in param_groups(nn.Linear(2, 2), lr=0.1, weight_decay=1e-4)]
        ['backbone', 'backbone_no_decay']
    """
    rates = {"lr": lr, "fusion_lr_mult": fusion_lr_mult, "head_lr_mult": head_lr_mult, "weight_decay": weight_decay}
    for name, number in rates.items():
        if not math.isfinite(number) or number < 0:
            raise InputError(f"{name} must be a finite number of at least 0, got {number!r}")
    fusion = _fusion_parameters(model)
    head = _head_parameters(model) if head_lr_mult != 1.0 else set()
    factors = {"backbone": 1.0, "fusion": fusion_lr_mult, "head": head_lr_mult}
    patterns = _no_weight_decay(model)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        kind = "fusion" if id(parameter) in fusion else "head" if id(parameter) in head else "backbone"
        decays = parameter.ndim > 1 and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        group_name = kind + ("" if decays else "_no_decay")
        if group_name not in groups:
            groups[group_name] = {
                "name": group_name,
                "params": [],
                "lr": lr * factors[kind],
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


def _head_parameters(model: nn.Module) -> set[int]:
    """Return the identities of the classifier's parameters, or raise `InputError` where none is found."""
    backbones = [module.backbone for module in model.modules() if isinstance(module, TimmLike)] or [model]
    heads = [head for backbone in backbones for head in heads_of(backbone)]
    found = {id(parameter) for head in heads for parameter in head.parameters()}
    if not found:
        raise InputError(
            f"head_lr_mult needs a classifier, and none is known in {type(backbones[0]).__name__}: it has no "
            "get_classifier() and no child classifier, fc, head or heads with parameters; make the groups by hand"
        )
    return found


def _no_weight_decay(model: nn.Module) -> set[str]:
    """Collect what modules name in their own `no_weight_decay()`, as patterns of full parameter names."""
    patterns: set[str] = set()
    for path, module in model.named_modules():
        own = getattr(module, "no_weight_decay", None)
        if callable(own):
            patterns |= {f"{path}.{name}" if path else name for name in own()}
    return patterns
