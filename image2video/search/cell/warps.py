"""How the candidates of a space move frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from image2video.clip.chain import apply_chain
from image2video.clip.genotype import Genotype
from image2video.clip.matrices import chain_matrices, inverse_affine, normalise
from image2video.clip.options import ClipOptions
from image2video.clip.sampling import resample
from image2video.search.cell.magnitudes import MagnitudeUnits
from image2video.search.cell.sums import Copies
from image2video.search.space.space import SearchSpace

_CACHED_SIZES = 8
_CACHED_CONSTANTS = 256


class CandidateWarps:
    """The candidates of a space as they act on frames `(S, N, H, W)`: N = B·C channels of one picture per power.

    All images are channels of one picture, so the sampler works out its weights once per power and candidate. Purely
    geometric candidates share one sampler call; one that holds a photometric transform goes through its chain alone.

    Args:
        space: the candidates.
        powers: the power of each of the S frames.
        options: padding, interpolation and colours of the clips.
        units: what learned magnitudes stand for, where they are learned.

    Attributes:
        resting: candidates that leave every frame as it is.
        moving: all others.
        geometric: candidates of geometric transforms alone.
        photometric: candidates that hold a photometric transform.
        bending: candidates that move pixels: all that the way back has to undo.
        straight: all others.
        own: candidates whose magnitudes every edge has for itself.
    """

    def __init__(
        self, space: SearchSpace, powers: tuple[float, ...], options: ClipOptions, units: MagnitudeUnits | None
    ) -> None:
        self.space, self.powers, self.options, self.units = space, powers, options, units
        chains = dict(enumerate(space.candidates))
        self.resting = tuple(o for o, c in chains.items() if not c.chain)
        self.geometric = tuple(o for o, c in chains.items() if c.chain and c.is_geometric)
        self.moving = tuple(o for o, c in chains.items() if c.chain)
        self.photometric = tuple(o for o, c in chains.items() if not c.is_geometric)
        self.bending = tuple(o for o, c in chains.items() if c.geometric.chain)
        self.straight = tuple(o for o in chains if o not in self.bending)
        self.own = self.bending if units is not None and units.per == "edge" else ()
        self._constants: dict[tuple[tuple[float, ...], torch.device, torch.dtype], Tensor] = {}
        self._maps: dict[tuple[int, int, torch.device, torch.dtype, bool], Tensor] = {}

    def copies(
        self,
        frames: Tensor,
        ops: tuple[int, ...],
        batch: int,
        *,
        same: bool,
        stacked: bool,
        values: Tensor | None,
        image_size: tuple[int, int] | None = None,
    ) -> Copies:
        """`frames` moved by the candidates `ops`, at the powers of the clip.

        `batch` is B; `same` says that all powers have the same frame; `stacked` puts photometric results into one block
        for one matrix product; `values` is the row of learned magnitudes; `image_size` is that of the images, where the
        frames are maps, which move in [−1, 1] coordinates as the images would.
        """
        if not frames.shape[0]:
            return Copies()
        blocks = []
        geometric = tuple(o for o in ops if o in self.geometric)
        if geometric:
            maps = self.maps(geometric, frames, values, inverse=True, size=image_size)
            how = {"padding": self.options.padding, "interpolation": self.options.interpolation}
            moved = sample(frames, maps, **how, same=same)
            blocks.append((geometric, moved))
        others = tuple(o for o in ops if o in self.photometric)
        flat = [self._through_chain(o, frames, batch, values).reshape(-1) for o in others]
        if others and stacked:
            blocks.append((others, torch.stack(flat)))
        else:
            blocks += [((o,), moved.unsqueeze(0)) for o, moved in zip(others, flat, strict=True)]
        return Copies(tuple(blocks))

    def maps(
        self,
        ops: tuple[int, ...],
        like: Tensor,
        values: Tensor | None,
        *,
        inverse: bool,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """The matrices of candidates that move pixels, or their inverses, in [−1, 1] coordinates: `(ops, S, 3, 3)`.

        In the device and dtype of `like`, for images of `size` (by default that of `like`). Fixed ones are kept for the
        last few sizes; learned ones are made anew, since they change from step to step.
        """
        height, width = size or (like.shape[-2], like.shape[-1])
        if values is not None:
            matrices = torch.stack([self._learned(o, values, height, width) for o in ops])
            return _in_unit_square(matrices, inverse, height, width).to(like.dtype)
        key = (height, width, like.device, like.dtype, inverse)
        if key not in self._maps:
            if len(self._maps) >= _CACHED_SIZES:
                self._maps.clear()
            with torch.inference_mode(False):  # a later pass may need gradients
                chains = [self.space.candidates[o] for o in self.bending]
                matrices = torch.stack([c.step_matrices(self.powers, height, width) for c in chains])
                matrices = _in_unit_square(matrices, inverse, height, width)
                self._maps[key] = matrices.to(like.dtype).to(like.device)
        maps = self._maps[key]
        if ops == self.bending:
            return maps
        rows = tuple(self.bending.index(o) for o in ops)
        return maps.index_select(0, self.index(rows, maps))

    def row(self, values: Sequence[Tensor] | None, edge: int) -> Tensor | None:
        """Of the learned magnitudes the row that an edge reads; None where they are fixed."""
        return None if values is None or self.units is None else values[self.units.row(edge)]

    def index(self, numbers: tuple[int, ...], like: Tensor) -> Tensor:
        """`numbers` as a tensor that stays on the device: a copy from the host would stall it."""
        return self._constant(numbers, like.device, torch.long)

    def _constant(self, numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        key = (numbers, device, dtype)
        if key not in self._constants:
            if len(self._constants) >= _CACHED_CONSTANTS:
                self._constants.clear()
            with torch.inference_mode(False):
                self._constants[key] = torch.tensor(numbers, dtype=dtype, device=device)
        return self._constants[key]

    def _learned(self, candidate: int, values: Tensor, height: int, width: int) -> Tensor:
        """The matrices of a candidate's geometric part at learned magnitudes, `(S, 3, 3)`; differentiable."""
        chain = self.space.candidates[candidate].geometric.chain
        return self._matrices([t.op for t in chain], self._magnitudes(candidate, values), height, width)

    def _magnitudes(self, candidate: int, values: Tensor) -> Tensor:
        assert self.units is not None, "values come with their units"
        # There are devices without float64.
        wide = values if values.device.type == "mps" else values.double()
        columns = self.units.columns[candidate]
        return self.units.magnitudes(wide)[columns[0] : columns[-1] + 1]

    def _matrices(self, ops: Sequence[str], magnitudes: Tensor, height: int, width: int) -> Tensor:
        powers = self._constant(self.powers, magnitudes.device, magnitudes.dtype)
        return chain_matrices(ops, magnitudes, powers, height, width)

    def _through_chain(self, candidate: int, frames: Tensor, batch: int, values: Tensor | None) -> Tensor:
        """`frames` through a chain that holds photometric transforms, `(S, B, C, H, W)`."""
        chain = self.space.candidates[candidate]
        clip = frames.unflatten(1, (batch, -1))
        if values is None or candidate not in self.bending:
            return self._apply(clip, chain)
        magnitudes = self._magnitudes(candidate, values)
        used = 0
        for run in chain.runs():
            if not run.is_geometric:
                clip = self._apply(clip, run)
                continue
            mine = magnitudes[used : used + len(run.chain)]
            used += len(run.chain)
            height, width = clip.shape[-2:]
            matrices = self._matrices([t.op for t in run.chain], mine, height, width)
            maps = _in_unit_square(matrices, True, height, width).to(frames.dtype)
            options = self.options
            moved = resample(clip.flatten(1, 2), maps, padding=options.padding, interpolation=options.interpolation)
            clip = moved.unflatten(1, (batch, -1))
        return clip

    def _apply(self, clip: Tensor, chain: Genotype) -> Tensor:
        return apply_chain(clip, chain, self.powers, self.options)


def sample(frames: Tensor, maps: Tensor, *, padding: str, interpolation: str, same: bool = False) -> Tensor:
    """`frames` `(S, N, H, W)` sampled at every row of maps `(ops, S, 3, 3)` in one call: `(ops, S·N·H·W)`."""
    (ops, S), channels, H, W = maps.shape[:2], *frames.shape[1:]
    if same:  # all powers have the same frame, which is read in place
        stacked = frames[:1].expand(ops * S, -1, -1, -1)
    else:
        stacked = frames.expand(ops, -1, -1, -1, -1).reshape(ops * S, channels, H, W)
    return resample(stacked, maps.reshape(ops * S, 3, 3), padding=padding, interpolation=interpolation).view(ops, -1)


def _in_unit_square(matrices: Tensor, inverse: bool, height: int, width: int) -> Tensor:
    """Matrices in pixels, or their inverses, in [−1, 1] coordinates."""
    return normalise(inverse_affine(matrices) if inverse else matrices, height, width)
