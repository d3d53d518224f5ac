"""The way back through the relaxed cell: maps of the frames in the image, summed over all paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from image2video.clip.checks import check_size
from image2video.clip.cover import covered_mean
from image2video.clip.image_to_video import frames_to_clip
from image2video.errors import InputError, InputTypeError
from image2video.search.cell.mixed_frames import Mix
from image2video.search.cell.sums import Copies, add_mixed, add_one, amplitude, live
from image2video.search.cell.warps import CandidateWarps, sample


class RelaxedUnwarp:
    """Walks cells from their last node to their inputs with every candidate's inverse warp and the same weights.

    Args:
        warps: the candidates at each place, in the order in which the frames pass the places; at the powers of the
            clip's frames.
        steps: the power of each frame.
    """

    def __init__(self, warps: Sequence[CandidateWarps], steps: tuple[float, ...]) -> None:
        self.warps, self.steps = tuple(warps), steps
        self._still = [t for t, s in enumerate(steps) if s == 0]
        self._sampled = tuple(t for t, s in enumerate(steps) if s != 0)

    def mean(self, maps: Tensor, image_size: tuple[int, int], mixes: Sequence[Mix | None]) -> Tensor:
        """See `Cell.unwarped_mean`; `mixes` has one for each place, None where the frames were left as they are."""
        _check(maps, image_size)
        clip = frames_to_clip(maps, len(self.steps))
        clip = clip.to(torch.float64 if maps.dtype == torch.float64 else torch.float32)
        B, _, K, h, w = clip.shape
        # All maps are channels of one picture per frame, and one more channel of ones gives the mask.
        frames = clip.transpose(0, 1).reshape(len(self.steps), B * K, h, w)
        picture = torch.cat([frames, frames.new_ones(len(self.steps), 1, h, w)], dim=1)
        walks = [
            _Walk(warps, mix.matrix, mix.matrix.to(clip), mix.active, mix.values, image_size)
            for warps, mix in zip(self.warps, mixes, strict=True)
            if mix is not None
        ]
        shares = [
            walk.weights.new_ones(()) if mix.whole else amplitude(walk.warps.space, walk.weights)
            for walk, mix in zip(walks, filter(None, mixes), strict=True)
        ]
        total = self._total(picture, walks, shares)
        whole = all(mix.whole for mix in mixes if mix is not None)
        share = torch.stack(shares).prod() if shares else picture.new_ones(())
        if not whole:
            total = total / torch.where(share == 0, 1.0, share)

        def nearest_frame() -> Tensor:
            nearest = min(range(len(self.steps)), key=lambda t: abs(self.steps[t]))
            moved = picture[nearest : nearest + 1]
            for walk in reversed(walks):
                moved = walk.back(moved, self._powers(walk, (nearest,)), "border")
            return moved[0][:-1] / torch.where(share == 0, 1.0, share)

        # A frame that is the image itself shows every pixel.
        mean = covered_mean(total[:-1], total[-1:], None if self._still else nearest_frame)
        return mean.view(B, K, h, w).to(maps.dtype)

    def _total(self, picture: Tensor, walks: Sequence[_Walk], shares: Sequence[Tensor]) -> Tensor:
        """The sum of all frames, brought back through one place after the other, the last one first.

        What is outside at a place counts as not seen from there on, whatever the places before it bring back.
        """
        for walk, share in reversed(list(zip(walks, shares, strict=True))[1:]):
            frames = [picture[t] * share for t in range(len(self.steps))]
            if self._sampled:
                moved = walk.back(self._chosen(picture), self._powers(walk, self._sampled), "zeros")
                for t, frame in zip(self._sampled, moved.unbind(0), strict=True):
                    frames[t] = frame
            picture = torch.stack(frames)
        if not walks:
            return picture.sum(dim=0)
        total = picture.new_zeros(picture.shape[1:])
        if self._sampled:
            total = walks[0].back(self._chosen(picture), self._powers(walks[0], self._sampled), "zeros").sum(dim=0)
        # Frames with s = 0 are the image itself: every path brings them back as they are.
        for t in self._still:
            total = total + picture[t] * shares[0]
        return total

    def _chosen(self, picture: Tensor) -> Tensor:
        """The frames that are moved."""
        return torch.stack([picture[t] for t in self._sampled]) if self._still else picture

    def _powers(self, walk: _Walk, frames: Sequence[int]) -> tuple[int, ...]:
        return tuple(walk.warps.powers.index(self.steps[t]) for t in frames)


@dataclass
class _Walk:
    """One pass of maps back through the graph; see `CellWalk` for the attributes."""

    warps: CandidateWarps
    mixing: Tensor
    weights: Tensor
    active: tuple[int, ...] | None
    values: Sequence[Tensor] | None
    image_size: tuple[int, int]

    def back(self, picture: Tensor, powers: tuple[int, ...], padding: str) -> Tensor:
        """The inputs' sum of frames `(S, N, h, w)` whose powers are `powers` of the clip's."""
        space = self.warps.space
        nodes = {space.num_nodes - 1: picture}
        for node in reversed(range(space.inputs, space.num_nodes)):
            frames = nodes.pop(node, None)
            if frames is None:  # a path may leave a node out
                continue
            # Learned magnitudes are those of an edge's source, so that edges into one node differ.
            groups = [space.incoming(node)] if self.values is None else [(e,) for e in space.incoming(node)]
            for edges in groups:
                copies = self._copies(frames, self._used(edges), powers, padding, edges[0])
                self._return(nodes, frames, edges, copies)
        return nodes[0] if 0 in nodes else torch.zeros_like(picture)

    def _used(self, edges: tuple[int, ...]) -> tuple[int, ...]:
        """The candidates on some edges that move pixels."""
        if self.active is None:
            return live(self.mixing, self.warps.bending, edges)
        chosen = {self.active[edge] for edge in edges}
        return tuple(op for op in self.warps.bending if op in chosen)

    def _return(self, nodes: dict[int, Tensor], frames: Tensor, edges: tuple[int, ...], copies: Copies) -> None:
        """Add to the sources of some edges what their target's frames give; `copies` are the moved ones."""
        warps = self.warps
        if self.active is None:
            rows = self.weights.index_select(0, warps.index(edges, self.weights))
            add_mixed(nodes, [self._source(edge) for edge in edges], frames, rows, copies, warps.straight, warps.index)
            return
        moved = copies.by_candidate()
        for edge in edges:
            op = self.active[edge]
            if op >= 0:  # else the edge's node ignores it
                back = moved[op].view(frames.shape) if op in moved else frames
                add_one(nodes, self._source(edge), back, self.weights[edge, op])

    def _source(self, edge: int) -> int:
        """The node that an edge leads back to; the inputs, which are one image, are node 0."""
        source = self.warps.space.edges[edge][0]
        return source if source >= self.warps.space.inputs else 0

    def _copies(self, frames: Tensor, ops: tuple[int, ...], powers: tuple[int, ...], padding: str, edge: int) -> Copies:
        """Frames moved by the inverse of each op, at the magnitudes of `edge`."""
        if not ops:
            return Copies()
        values = self.warps.row(self.values, edge)
        # The way back reads the frame at M · p, so a candidate's own matrix is the backward map; in [−1, 1] coordinates
        # it is the same for maps of every size.
        maps = self.warps.maps(ops, frames, values, inverse=False, size=self.image_size)
        if powers != tuple(range(maps.shape[1])):
            maps = maps.index_select(1, self.warps.index(powers, maps))
        mode = "nearest" if self.warps.options.interpolation == "nearest" else "bilinear"
        return Copies(((ops, sample(frames, maps, padding=padding, interpolation=mode)),))


def _check(maps: Tensor, image_size: tuple[int, int]) -> None:
    """Refuse what is no `(B·T, K, h, w)` of floats, and sizes that are none."""
    if maps.ndim != 4:
        raise InputError(f"maps of frames have the shape (B·T, K, h, w), got {tuple(maps.shape)}")
    if not maps.is_floating_point():
        raise InputTypeError(f"maps of frames must be floating point to be resampled, got {maps.dtype}")
    check_size(image_size, "image_size")
