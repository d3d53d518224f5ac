"""Learned magnitudes: what the cell's parameter stands for, its bounds, and the genotypes with its values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from image2video.clip.checks import check_choice
from image2video.clip.genotype import Genotype, Transform
from image2video.clip.ops.registry import get_op
from image2video.errors import InputError
from image2video.search.space.space import SearchSpace

SHARINGS: tuple[str, ...] = ("node", "edge")
_MARGIN = 1e-6


class MagnitudeUnits:
    """The magnitudes of a space's geometric transforms, in units in which each starts at 1 (ours).

    magnitude = neutral + value · (initial − neutral), so 0 does nothing, 1 is the space's own magnitude and −1 the step
    of the other sign; one learning rate then suits degrees, fractions and factors alike. A value stays within ±`bound`
    and the magnitude within its op's range. Photometric magnitudes are not learned.

    Args:
        space: candidates and graph.
        per: `"node"`: the edges out of a source share a transform's value (the inputs count as one source), or
            `"edge"`.
        bound: largest value, either sign, at least 1.
        steps: the powers of the frames.

    Attributes:
        rows: rows of the parameter: sources of edges, or edges.
        columns: per candidate the columns of its geometric transforms, in their order.

    Raises:
        InputError: no geometric transform in the space, a bound below 1, or one that lets a chain become singular.
    """

    def __init__(self, space: SearchSpace, per: str, bound: float, steps: Sequence[float]) -> None:
        self.space = space
        self.per = check_choice("sharing of magnitudes", per, SHARINGS)
        if not (isinstance(bound, int | float) and 1 <= bound < math.inf):
            raise InputError(f"magnitude_bound must be a finite number of at least 1 (the start), got {bound!r}")
        columns: list[tuple[int, ...]] = []
        transforms: list[Transform] = []
        for chain in space.candidates:
            geometric = chain.geometric.chain
            flip = next((t.op for t in geometric if get_op(t.op).mirrors), None)
            if flip is not None:
                raise InputError(
                    f"magnitudes cannot be learned in the space {space.name!r}: {flip} mirrors the image and has none; "
                    "leave learn_magnitudes off, or take it out of the space"
                )
            columns.append(tuple(range(len(transforms), len(transforms) + len(geometric))))
            transforms += geometric
        if not transforms:
            raise InputError(
                f"the space {space.name!r} has no geometric transform whose magnitude could be learned: "
                f"{', '.join(space.labels)}; leave learn_magnitudes off or add one, such as 'rotate(10)'"
            )
        self.columns = tuple(columns)
        self.transforms = tuple(transforms)
        self.rows = len(space.edges) if per == "edge" else space.num_nodes - space.inputs
        self._neutral = [float(get_op(t.op).neutral) for t in transforms]
        self._deviation = [t.magnitude - n for t, n in zip(transforms, self._neutral, strict=True)]
        limits = [_limits(*item, bound) for item in zip(transforms, self._neutral, self._deviation, strict=True)]
        self._low, self._high = [low for low, _ in limits], [high for _, high in limits]
        self._constants: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        for candidate in range(len(space.candidates)):
            self._check_ends(candidate, bound, steps)

    def start(self) -> Tensor:
        """The parameter at its start: ones `(rows, transforms)`."""
        return torch.ones(self.rows, len(self.transforms))

    def row(self, edge: int) -> int:
        """The row that an edge reads."""
        return edge if self.per == "edge" else self.source_row(self.space.edges[edge][0])

    def source_row(self, source: int) -> int:
        """The row of a source's edges, where they share one."""
        return max(0, source - self.space.inputs + 1)

    def magnitudes(self, values: Tensor) -> Tensor:
        """Values `(…, transforms)` as magnitudes in the ops' own units, differentiable."""
        neutral, deviation, _, _ = self._tensors(values)
        return neutral + values * deviation

    def clamp_(self, values: Tensor) -> None:
        """Project values into their bounds, in place."""
        _, _, low, high = self._tensors(values)
        values.copy_(torch.minimum(torch.maximum(values, low), high))

    def genotype(self, candidate: int, values: Sequence[float]) -> Genotype:
        """A candidate with the magnitudes of one row; photometric transforms keep theirs."""
        learned = iter(self.numbers(candidate, values))
        chain = self.space.candidates[candidate].chain
        return Genotype(tuple(Transform(t.op, next(learned)) if t.geometric else t for t in chain))

    def numbers(self, candidate: int, values: Sequence[float]) -> list[float]:
        """The magnitudes of a candidate's geometric transforms, in the ops' own units, from one row of values."""
        return [self._neutral[c] + values[c] * self._deviation[c] for c in self.columns[candidate]]

    def _check_ends(self, candidate: int, bound: float, steps: Sequence[float]) -> None:
        """Refuse bounds within which the candidate could not be inverted; scales are most extreme at the ends."""
        columns = self.columns[candidate]
        for ends in (self._low, self._high):
            for moved in [columns, *((c,) for c in columns)]:
                values = [ends[c] if c in moved else 1.0 for c in range(len(self.transforms))]
                try:
                    self.genotype(candidate, values).check_steps(steps)
                except InputError as error:
                    name = self.space.labels[candidate]
                    raise InputError(f"magnitude_bound={bound:g} is too wide for {name!r}: {error}") from None

    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Neutral points, deviations and bounds, kept on the device: a copy from the host would stall it."""
        key = (like.device, like.dtype)
        if key not in self._constants:
            with torch.inference_mode(False):  # a later pass may need gradients
                neutral, deviation, low, high = (
                    torch.tensor(numbers, dtype=like.dtype, device=like.device)
                    for numbers in (self._neutral, self._deviation, self._low, self._high)
                )
            self._constants[key] = (neutral, deviation, low, high)
        return self._constants[key]


def _limits(transform: Transform, neutral: float, deviation: float, bound: float) -> tuple[float, float]:
    """The bounds of a value: ±`bound`, and no further than just inside the op's range, for the sake of rounding."""
    op = get_op(transform.op)
    margin = _MARGIN * (op.high - op.low)
    ends = sorted(((op.low + margin - neutral) / deviation, (op.high - margin - neutral) / deviation))
    return max(-bound, min(ends[0], 0.0)), min(bound, max(ends[1], 1.0))
