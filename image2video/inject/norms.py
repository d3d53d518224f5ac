"""The batch norms behind sites: folding one into its convolution would move a fusion to the other side of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from image2video.errors import StateError
from image2video.inject.plan import Site, some

_FOLDED_INTO = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class NormBehind(NamedTuple):
    """The batch norm that folding would put into the layer at a site.

    Args:
        site: path of the layer.
        parent: the module that holds both.
        name: of the norm in its parent.
        norm: the norm as it was when the fusions were injected.
    """

    site: str
    parent: nn.Module
    name: str
    norm: nn.Module


def norms_behind(backbone: nn.Module, sites: Sequence[Site]) -> list[NormBehind]:
    """Find the norm behind each site that acts on what its layer computes: the next one in the same parent.

    Tools that fold in place pair layers and norms by this order. A fusion before its layer stays before it.
    """
    found = []
    for site in sites:
        path, _, name = site.name.rpartition(".")
        parent = backbone.get_submodule(path)
        if site.placement == "before" or not isinstance(parent._modules[name], _FOLDED_INTO):
            continue
        children = list(parent._modules.items())
        start = [child for child, _ in children].index(name) + 1
        for child, module in children[start:]:
            if isinstance(module, _FOLDED_INTO):
                break
            if isinstance(module, _BatchNorm):
                found.append(NormBehind(site.name, parent, child, module))
                break
    return found


def check_norms(norms: Sequence[NormBehind]) -> None:
    """Raise `StateError` where a norm has given way to a module without weights and statistics: it was folded.

    A frozen norm, or one of another class, is none that was folded.
    """
    folded = [behind.site for behind in norms if _is_folded(behind)]
    if folded:
        raise StateError(
            f"the batch norms behind {len(folded)} sites were folded into their layers after wrapping (fuse_conv_bn): "
            f"{some(folded)}; the fusions there act between layer and norm, and would now act behind it; build the "
            "model anew, and fold only parts without such sites, or fold the bare backbone first, then wrap and "
            "train it as folded (fusions that act before their layer, such as TSM, allow folding everywhere)"
        )


def _is_folded(behind: NormBehind) -> bool:
    """Whether the norm is gone from its place, with nothing of its kind there."""
    now = behind.parent._modules.get(behind.name)
    if now is behind.norm:
        return False
    return now is None or not [*now.parameters(), *now.buffers()]
