"""The walk through the cell's graph: every source's frames, moved by the candidates, added to its targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from image2video.search.cell.sums import Copies, add_mixed, add_one, live
from image2video.search.cell.warps import CandidateWarps


@dataclass
class CellTrace:
    """What several passes over the same images share: the nodes before `first`, and the copies made of them.

    The mixing matrices of these passes must agree on all edges into nodes before `first`, and the magnitudes of all.
    """

    first: int
    frames: dict[int, Tensor] = field(default_factory=dict)
    copies: dict[tuple[str, int], Copies] = field(default_factory=dict)


@dataclass
class CellWalk:
    """One pass of images through the graph.

    Attributes:
        warps: the candidates.
        mixing: the weights where they came from; the CPU's tell what has none.
        weights: the same on the images' device.
        trace: what other passes share.
        active: the one candidate of every edge that is computed, −1 for none; None where all are.
        values: learned magnitudes, a row per source or edge; None where they are fixed.
        batch: B.
        image_size: (H, W) of the images, where the frames are maps of another size.
    """

    warps: CandidateWarps
    mixing: Tensor
    weights: Tensor
    trace: CellTrace
    active: tuple[int, ...] | None
    values: Sequence[Tensor] | None
    batch: int
    image_size: tuple[int, int] | None = None
    nodes: dict[int, Tensor] = field(default_factory=dict)
    _same: bool = False

    def run(self, picture: Tensor) -> Tensor:
        """The last node's frames `(S, B·C, H, W)`, one for each of the S powers, none of which is 0.

        They are made of one picture `(1, B·C, H, W)`, or of one per power, `(S, B·C, H, W)`.
        """
        space, last = self.warps.space, self.warps.space.num_nodes - 1
        self._same = picture.shape[0] == 1
        still = picture.expand(len(self.warps.powers), -1, -1, -1)
        self.nodes = dict(self.trace.frames)
        for source in (0, *range(space.inputs, last)):  # all inputs are the same image: one source
            frames = still if source == 0 else self.nodes.get(source)
            if frames is not None:  # a path may leave a node out
                self._spread(source, frames)
            following = max(source + 1, space.inputs)
            if following < self.trace.first:
                self.trace.frames[following] = self.nodes[following]
        return self.nodes[last] if last in self.nodes else torch.zeros_like(still)

    def _spread(self, source: int, frames: Tensor) -> None:
        """Add what `source` gives to its targets."""
        inputs = range(self.warps.space.inputs) if source == 0 else (source,)
        bundles = [self._open(i) for i in inputs]  # the same targets in the same order for every input
        if not bundles[0]:
            return
        if self.active is None:
            self._spread_all(source, frames, bundles)
        else:
            self._spread_active(source, frames, [e for bundle in bundles for e in bundle if self.active[e] >= 0])

    def _spread_all(self, source: int, frames: Tensor, bundles: list[tuple[int, ...]]) -> None:
        """Add the mixtures of all candidates, each of which moves the source once for all edges where it can."""
        warps = self.warps
        edges = [edge for bundle in bundles for edge in bundle]
        moving = tuple(op for op in warps.moving if op not in warps.own)
        copies = self._copies(("node", source), source, frames, moving, edges, self._row(edges[0]))
        # The inputs are one image: the weights of their edges into one target add up.
        first, *others = (self._rows(bundle) for bundle in bundles)
        targets = [warps.space.edges[edge][1] for edge in bundles[0]]
        add_mixed(self.nodes, targets, frames, sum(others, first), copies, warps.resting, warps.index)
        if warps.own:
            for edge in edges:
                copies = self._copies(("edge", edge), source, frames, warps.own, [edge], self._row(edge))
                target = warps.space.edges[edge][1]
                add_mixed(self.nodes, [target], frames, self._rows((edge,)), copies, (), warps.index)

    def _spread_active(self, source: int, frames: Tensor, edges: list[int]) -> None:
        """Add the one candidate that each edge has; edges with the same one share its frames where they can."""
        assert self.active is not None
        warps = self.warps
        shared: dict[int, Tensor] = {}
        if edges:
            chosen = {self.active[edge] for edge in edges}
            ops = tuple(op for op in warps.moving if op in chosen and op not in warps.own)
            shared = self._moved(source, frames, ops, self._row(edges[0]))
        for edge in edges:
            op = self.active[edge]
            if op in warps.resting:
                moved = frames
            elif op in shared:
                moved = shared[op].view(frames.shape)
            else:
                moved = self._moved(source, frames, (op,), self._row(edge))[op].view(frames.shape)
            add_one(self.nodes, warps.space.edges[edge][1], moved, self.weights[edge, op])

    def _open(self, source: int) -> tuple[int, ...]:
        """The edges out of `source` whose targets the trace does not hold."""
        space = self.warps.space
        return tuple(e for e in space.outgoing(source) if space.edges[e][1] not in self.trace.frames)

    def _copies(
        self,
        key: tuple[str, int],
        source: int,
        frames: Tensor,
        ops: tuple[int, ...],
        edges: list[int],
        values: Tensor | None,
    ) -> Copies:
        """The moved frames of a source for `edges`; passes that share a trace share them."""
        if key in self.trace.copies:
            return self.trace.copies[key]
        shared = source < self.trace.first
        # Later passes over these images may need what this one masks.
        used = ops if shared else live(self.mixing, ops, edges)
        copies = self._copied(source, frames, used, values, stacked=True)
        if shared:
            self.trace.copies[key] = copies
        return copies

    def _moved(self, source: int, frames: Tensor, ops: tuple[int, ...], values: Tensor | None) -> dict[int, Tensor]:
        return self._copied(source, frames, ops, values, stacked=False).by_candidate()

    def _copied(
        self, source: int, frames: Tensor, ops: tuple[int, ...], values: Tensor | None, *, stacked: bool
    ) -> Copies:
        same = source == 0 and self._same
        how = {"same": same, "stacked": stacked}
        return self.warps.copies(frames, ops, self.batch, **how, values=values, image_size=self.image_size)

    def _row(self, edge: int) -> Tensor | None:
        return self.warps.row(self.values, edge)

    def _rows(self, edges: tuple[int, ...]) -> Tensor:
        """The weights of some edges, `(edges, candidates)`."""
        return self.weights.index_select(0, self.warps.index(edges, self.weights))
