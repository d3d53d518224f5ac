"""The weighted sums of the cell: what candidates make of a node's frames, added to other nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from image2video.search.space.space import SearchSpace

Index = Callable[[tuple[int, ...], Tensor], Tensor]


@dataclass(frozen=True)
class Copies:
    """Frames moved by candidates, in blocks: the candidates, and their frames `(candidates, S·N·H·W)`."""

    blocks: tuple[tuple[tuple[int, ...], Tensor], ...] = ()

    def by_candidate(self) -> dict[int, Tensor]:
        """Each candidate's frames, flat."""
        return {o: frames for ops, block in self.blocks for o, frames in zip(ops, block.unbind(0), strict=True)}


def add_mixed(
    nodes: dict[int, Tensor],
    targets: Sequence[int],
    frames: Tensor,
    rows: Tensor,
    copies: Copies,
    resting: tuple[int, ...],
    index: Index,
) -> None:
    """Add to each of `targets` the mixture of `copies` by its row of weights `(targets, candidates)`.

    The candidates `resting` add the frames themselves. One matrix product makes all sums. `index` makes index tensors.
    """
    kept = moved = None
    if resting:
        kept = rows.index_select(1, index(resting, rows)).sum(dim=1).unbind(0)
    for ops, block in copies.blocks:
        columns = rows.index_select(1, index(ops, rows))
        moved = columns @ block if moved is None else torch.addmm(moved, columns, block)
    # Unbound, not indexed: the backward of an index fills a whole tensor with zeros for every edge.
    parts = None if moved is None else moved.view(len(targets), *frames.shape).unbind(0)
    for number, target in enumerate(targets):
        total = nodes.get(target)
        if parts is not None:
            total = parts[number] if total is None else total + parts[number]
        if kept is not None:
            total = frames * kept[number] if total is None else torch.addcmul(total, frames, kept[number])
        nodes[target] = torch.zeros_like(frames) if total is None else total


def live(mixing: Tensor, ops: tuple[int, ...], edges: Sequence[int]) -> tuple[int, ...]:
    """Those of `ops` that have any weight on `edges`; all of them where looking would stall a device."""
    if mixing.requires_grad or mixing.device.type != "cpu":
        return ops
    used = (mixing[list(edges)] != 0).any(dim=0).tolist()
    return tuple(o for o in ops if used[o])


def add_one(nodes: dict[int, Tensor], target: int, moved: Tensor, weight: Tensor) -> None:
    """Add frames with a 0-d weight to `target`."""
    total = nodes.get(target)
    nodes[target] = moved * weight if total is None else torch.addcmul(total, moved, weight)


def amplitude(space: SearchSpace, weights: Tensor) -> Tensor:
    """The sum over all paths of the product of their weights, 0-d: 1 unless something is masked or nodes sum."""
    rows = weights.sum(dim=1).unbind(0)
    amplitudes = [weights.new_ones(())] * space.inputs
    for node in range(space.inputs, space.num_nodes):
        terms = [rows[e] * amplitudes[space.edges[e][0]] for e in space.incoming(node)]
        amplitudes.append(torch.stack(terms).sum())
    return amplitudes[-1]
