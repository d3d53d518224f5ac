"""Norms on the statistics of the batch before them, with nothing moved: how masked cells are scored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

_RUNNING = "running_"
"""How torch, timm and others name the buffers that a norm averages over batches."""


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Make the norms that have running statistics use those of the batch; afterwards everything is as it was.

    Running statistics were collected from whole clips. A clip with a part masked is smaller by that part's weight, and
    under statistics that do not follow, the largest weight costs most, whatever its op does. So the batch's own are
    used, as the reference code of the cited selection does (Wang et al., ICLR 2021), which scores in training mode.
    Here no statistic and no counter moves, and what else training mode would switch on, such as dropout, stays off:
    call it within evaluation mode. Each process takes the statistics of its own batch, SyncBatchNorm too.

    Norms with fixed statistics ("frozen") and those of single images (LayerNorm, GroupNorm) are not touched.
    """
    hidden: list[tuple[_NormBase, bool, bool, Tensor | None, Tensor | None]] = []
    foreign: list[tuple[nn.Module, bool]] = []
    copies: list[tuple[Tensor, Tensor]] = []
    for module in network.modules():
        if isinstance(module, _NormBase):
            if module.running_mean is not None or module.running_var is not None:
                hidden.append(
                    (module, module.training, module.track_running_stats, module.running_mean, module.running_var)
                )
        else:
            own = [b for name, b in module.named_buffers(recurse=False) if name.startswith(_RUNNING)]
            if own:
                foreign.append((module, module.training))
                copies += [(buffer, buffer.clone()) for buffer in own]
    try:
        for norm, *_ in hidden:
            # Without running statistics evaluation mode takes the batch's. (Training mode would let SyncBatchNorm wait
            # for processes that have another number of batches.)
            norm.training, norm.track_running_stats, norm.running_mean, norm.running_var = False, False, None, None
        for module, _ in foreign:  # a norm of another library takes the batch's in training mode alone
            module.training = True
        yield
    finally:
        for norm, training, tracks, mean, var in hidden:
            norm.training, norm.track_running_stats, norm.running_mean, norm.running_var = training, tracks, mean, var
        for module, training in foreign:
            module.training = training
        with torch.no_grad():
            for buffer, value in copies:
                buffer.copy_(value)
