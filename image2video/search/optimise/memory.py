"""Activation checkpointing of the network behind the cell: less memory, one more forward pass."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from image2video.search.score.network import FrameNetwork
from image2video.trace.recompute import backward_task


def checkpoint_activations_(network: FrameNetwork) -> None:
    """Make the backbone keep no activations inside its blocks: they are computed again in the backward pass.

    A backbone that has timm's `set_grad_checkpointing` decides itself what its blocks are. Elsewhere a block is each
    child of the outermost `nn.Sequential` or `nn.ModuleList` that has parts of its own, such as a residual block; a
    backbone without any is one block. Gradients, dropout and BatchNorm's running statistics are those of a network
    that is not checkpointed.
    """
    if not _own_checkpointing(network.backbone):
        for block in outer_blocks(network.backbone):
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            _KeepStatistics().watch(module)


def outer_blocks(backbone: nn.Module) -> list[nn.Module]:
    """The outermost blocks of a backbone: children of a container that have children themselves.

    A backbone without any is one block.
    """
    found: list[nn.Module] = []

    def walk(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(module, nn.Sequential | nn.ModuleList) and not isinstance(child, nn.Sequential):
                if next(child.children(), None) is not None:
                    found.append(child)
            else:
                walk(child)

    walk(backbone)
    return found or [backbone]


def _own_checkpointing(backbone: nn.Module) -> bool:
    """Switch on the checkpointing that a backbone has itself; False where it has none."""
    switch: Any = getattr(backbone, "set_grad_checkpointing", None)
    if not callable(switch):
        return False
    try:
        switch(True)
    except AssertionError:  # how timm's models say that they cannot
        return False
    return True


class _KeepStatistics:
    """Lends a BatchNorm copies of its running statistics while a block is computed again.

    Else every step would count its batch twice. The statistics themselves must not be written to during a backward
    pass: autograd has saved them.
    """

    def __init__(self) -> None:
        self._own: dict[str, Tensor] = {}

    def watch(self, norm: nn.Module) -> None:
        """Put the hooks on a norm."""
        norm.register_forward_pre_hook(self._lend)
        # A recomputation is broken off by an exception once it has what it needs.
        norm.register_forward_hook(self._return, always_call=True)

    def _lend(self, norm: nn.Module, args: Any) -> None:
        if norm.training and backward_task() != -1:
            self._own = {name: buffer for name, buffer in norm._buffers.items() if buffer is not None}
            norm._buffers.update({name: buffer.clone() for name, buffer in self._own.items()})

    def _return(self, norm: nn.Module, args: Any, output: Any) -> None:
        norm._buffers.update(self._own)
        self._own = {}
