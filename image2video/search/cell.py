"""The search cell: a small graph of clips whose edges are mixtures of all candidate transformations."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from image2video.errors import InputError, InputTypeError
from image2video.geometry import check_frames, inverse_affine, normalise, schedule_steps
from image2video.sampling import resample
from image2video.search.mixing import mixing_matrix
from image2video.search.space import SearchSpace

_CACHED_SIZES = 8
_CACHED_INDICES = 256


@dataclass
class CellTrace:
    """What several passes over the same images share: the nodes before `first`, and their warped copies.

    The mixing matrices of these passes must agree on all edges into nodes before `first`.
    """

    first: int
    frames: dict[int, Tensor] = field(default_factory=dict)
    warped: dict[int, tuple[Tensor, tuple[int, ...]]] = field(default_factory=dict)


class Cell(nn.Module):
    """The relaxed cell: images in, clip out, differentiable in τ and in the images.

    Node j is the mean (or sum) over its incoming edges of Σ_o softmax(τ)_o · op_o (Casarin et al., CVPR 2024, Eq. 1);
    the last node is the clip. Frame t uses every op at its power s(t), so a path through the cell with one op per edge
    has the matrices of the genotype read from it. (Its pixels differ where the path is longer than one op: the cell
    resamples once per edge, the genotype once in all.) Frames with s = 0 are the image itself and are never sampled.

    A source node is warped once by all ops for all its outgoing edges, in one call of the sampler; identity is not
    sampled. The cell computes in float32 (float64 for float64 images) under autocast too.

    Args:
        space: candidates and graph.
        T: frames of the clip.
        padding: see `image2video.sampling.warp`.
        interpolation: see `image2video.sampling.warp`.
        generator: draws τ's start, N(0, 0.001²) as in DARTS; without it τ starts at zero (equal weights).

    Shapes:
        tau: parameter `(edges, candidates)`.
        forward: `(B, C, H, W)` float -> `(B, T, C, H, W)`.

    Raises:
        InputError: a candidate that is singular within T frames.

    Example:
        >>> from image2video.search import get_space
        >>> Cell(get_space("affine5"), T=3)(torch.rand(2, 3, 16, 24)).shape
        torch.Size([2, 3, 3, 16, 24])

    """

    def __init__(
        self,
        space: SearchSpace,
        T: int = 5,
        *,
        padding: str = "zeros",
        interpolation: str = "bilinear",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.space = space
        self.T = check_frames(T)
        self.padding = padding
        self.interpolation = interpolation
        steps = schedule_steps(space.schedule, T)
        for candidate in space.candidates:
            candidate.check_steps(steps)
        shape = (len(space.edges), len(space.candidates))
        start = torch.zeros(shape) if generator is None else 1e-3 * torch.randn(shape, generator=generator)
        self.tau = nn.Parameter(start)
        # Equal powers give equal frames: each is computed once.
        self._powers = tuple(dict.fromkeys(s for s in steps if s != 0))
        distinct = (0.0, *self._powers) if 0.0 in steps else self._powers
        self._order = tuple(distinct.index(s) for s in steps)
        self._moving = tuple(o for o, candidate in enumerate(space.candidates) if candidate.chain)
        self._has_still = 0.0 in steps
        self._resting = tuple(o for o in range(len(space.candidates)) if o not in self._moving)
        self._indices: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}
        self._maps: dict[tuple[int, int, torch.device, torch.dtype], Tensor] = {}

    def mixing(self) -> Tensor:
        """The mixing matrix of τ as it is, `(edges, candidates)`; see `mixing_matrix`."""
        return mixing_matrix(self.tau, self.space)

    def matrices(self, height: int, width: int) -> Tensor:
        """The matrices of all candidates in all frames, `(candidates, T, 3, 3)` float64, in pixels."""
        return torch.stack([c.matrices(self.space.schedule, self.T, height, width) for c in self.space.candidates])

    def forward(self, images: Tensor, mixing: Tensor | None = None, *, trace: CellTrace | None = None) -> Tensor:
        """The clip of `images`; `mixing` takes the place of τ's matrix, `trace` shares work between passes.

        A mixing matrix on the CPU that needs no gradient lets the cell leave out what has weight zero.
        """
        if images.ndim != 4:
            raise InputError(f"the cell takes images (B, C, H, W), got shape {tuple(images.shape)}")
        if not images.is_floating_point():
            raise InputTypeError(f"the cell takes float images, got {images.dtype}; convert and normalise them first")
        dtype = torch.float64 if images.dtype == torch.float64 else torch.float32
        with torch.autocast(images.device.type, enabled=False):
            whole = mixing is None
            matrix = self.mixing() if mixing is None else mixing
            clip = self._clip(images.to(dtype), matrix.to(dtype), trace or CellTrace(first=0), whole)
        return clip.to(images.dtype)

    def _clip(self, images: Tensor, mixing: Tensor, trace: CellTrace, whole: bool) -> Tensor:
        B, C, H, W = images.shape
        space, last = self.space, self.space.num_nodes - 1
        # All images are channels of one picture: the sampler works out its weights once per frame and op.
        picture = images.reshape(1, B * C, H, W)
        weights = mixing.to(images.device)
        nodes: dict[int, Tensor] = dict(trace.frames)
        nodes.update(dict.fromkeys(range(space.inputs), picture.expand(len(self._powers), -1, -1, -1)))
        warped = None
        for source in range(last):
            if source == 0 or source >= space.inputs:  # all inputs are the same image
                warped = self._shared_warps(nodes[source], mixing, trace, source)
            assert warped is not None
            self._push(nodes, source, self._open(source, trace), weights, *warped)
            if space.inputs <= source + 1 < trace.first:
                trace.frames[source + 1] = nodes[source + 1]
        unique = nodes[last]
        if self._has_still:
            still = self._still(picture, weights, whole)
            unique = torch.cat([still, unique])
        if self._order != tuple(range(unique.shape[0])):
            unique = unique.index_select(0, self._index(self._order, unique.device))
        return unique.view(self.T, B, C, H, W).transpose(0, 1)

    def _open(self, source: int, trace: CellTrace) -> tuple[int, ...]:
        """The edges out of `source` whose targets the trace does not hold."""
        return tuple(e for e in self.space.outgoing(source) if self.space.edges[e][1] not in trace.frames)

    def _shared_warps(
        self, frames: Tensor, mixing: Tensor, trace: CellTrace, source: int
    ) -> tuple[Tensor, tuple[int, ...]]:
        """The warped frames of a source, from the trace where it may be shared."""
        if source in trace.warped:
            return trace.warped[source]
        is_input = source < self.space.inputs
        if source < trace.first:
            # Later passes over these images may need what this one masks.
            trace.warped[source] = self._warped(frames, self._moving, is_input)
            return trace.warped[source]
        sources = range(self.space.inputs) if is_input else (source,)
        edges = [edge for s in sources for edge in self._open(s, trace)]
        return self._warped(frames, self._live(mixing, edges), is_input)

    def _live(self, mixing: Tensor, edges: list[int]) -> tuple[int, ...]:
        """The moving candidates that have any weight on `edges`; all of them where looking would stall a device."""
        if mixing.requires_grad or mixing.device.type != "cpu":
            return self._moving
        used = (mixing[edges] != 0).any(dim=0).tolist()
        return tuple(o for o in self._moving if used[o])

    def _warped(self, frames: Tensor, ops: tuple[int, ...], is_input: bool) -> tuple[Tensor, tuple[int, ...]]:
        """`frames` `(S, B·C, H, W)` moved by every op, `(len(ops), S·B·C·H·W)`, and the ops."""
        S, channels, H, W = frames.shape
        if not ops or not S:
            return frames.new_zeros(0, frames.numel()), ()
        maps = self._backward_maps(H, W, frames.device, frames.dtype)
        if ops != self._moving:
            maps = maps.index_select(0, self._index(tuple(self._moving.index(o) for o in ops), frames.device))
        rows = len(ops) * S
        if is_input:
            stacked = frames[:1].expand(rows, -1, -1, -1)
        else:
            stacked = frames.expand(len(ops), -1, -1, -1, -1).reshape(rows, channels, H, W)
        out = resample(stacked, maps.reshape(rows, 3, 3), padding=self.padding, interpolation=self.interpolation)
        return out.view(len(ops), -1), ops

    def _push(
        self,
        nodes: dict[int, Tensor],
        source: int,
        edges: tuple[int, ...],
        weights: Tensor,
        warped: Tensor,
        ops: tuple[int, ...],
    ) -> None:
        """Add what `source` gives to its targets: one matrix product for all its outgoing edges."""
        if not edges:
            return
        frames = nodes[source]
        rows = weights.index_select(0, self._index(edges, weights.device))
        kept = moved = None
        if self._resting:
            kept = rows.index_select(1, self._index(self._resting, rows.device)).sum(dim=1).unbind(0)
        if ops:
            columns = rows.index_select(1, self._index(ops, rows.device))
            # Unbound, not indexed: the backward of an index fills a whole tensor with zeros for every edge.
            moved = (columns @ warped).view(len(edges), *frames.shape).unbind(0)
        for index, edge in enumerate(edges):
            target = self.space.edges[edge][1]
            total = nodes.get(target)
            if moved is not None:
                total = moved[index] if total is None else total + moved[index]
            if kept is not None:
                total = frames * kept[index] if total is None else torch.addcmul(total, frames, kept[index])
            nodes[target] = torch.zeros_like(frames) if total is None else total

    def _still(self, picture: Tensor, weights: Tensor, whole: bool) -> Tensor:
        """The frames with s = 0: the picture times the sum of all paths' weights.

        That sum is 1, and the picture is copied bit for bit, unless something is masked (not `whole`) or nodes sum.
        """
        space = self.space
        if whole and space.reduce == "mean":
            return picture
        rows = weights.sum(dim=1).unbind(0)
        amplitudes = [weights.new_ones(())] * space.inputs
        for node in range(space.inputs, space.num_nodes):
            terms = [rows[e] * amplitudes[space.edges[e][0]] for e in space.incoming(node)]
            amplitudes.append(torch.stack(terms).sum())
        return picture * amplitudes[-1]

    def _index(self, numbers: tuple[int, ...], device: torch.device) -> Tensor:
        """`numbers` as a tensor that stays on the device: a copy from the host would stall it."""
        key = (numbers, device)
        if key not in self._indices:
            if len(self._indices) >= _CACHED_INDICES:
                self._indices.clear()
            with torch.inference_mode(False):  # a later pass may need gradients
                self._indices[key] = torch.tensor(numbers, dtype=torch.long, device=device)
        return self._indices[key]

    def _backward_maps(self, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The normalised backward maps of the moving candidates, `(O, S, 3, 3)`; kept for the last few image sizes."""
        key = (height, width, device, dtype)
        if key not in self._maps:
            if len(self._maps) >= _CACHED_SIZES:
                self._maps.clear()
            with torch.inference_mode(False):
                moving = [self.space.candidates[o].step_matrices(self._powers, height, width) for o in self._moving]
                maps = normalise(inverse_affine(torch.stack(moving)), height, width)
                self._maps[key] = maps.to(dtype).to(device)
        return self._maps[key]
