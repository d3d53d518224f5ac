"""Frame sets: clips whose frames have a chain each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from image2video.clip.checks import check_size
from image2video.clip.genotype import Genotype
from image2video.clip.genotype_json import decode, encode_frames
from image2video.clip.genotype_text import FRAME_BAR, MAX_FRAMES, MAX_TEXT, NO_CHAIN, parse_frames
from image2video.clip.slices import Shift
from image2video.clip.stored import Stored
from image2video.errors import InputError, InputTypeError
from image2video.trace.capture import constant

SET_SCHEDULE = "from_zero"
"""The one schedule of frame sets: the step of frame t is its number t."""


@dataclass(frozen=True, repr=False)
class FrameSet(Stored):
    """A clip given as a list of frames with a chain each, `identity | flip_x | scale(1.2)`; frozen, hashable (ours).

    It stands wherever a genotype makes clips. Frame t of a genotype has the power s(t) of one chain (Casarin et al.,
    CVPR 2024, Eq. 7); frame t of a set has a chain of its own, once. Methods that take the step of a genotype's frame
    take the number of a set's frame, which is its step under the schedule `from_zero`.

    Attributes:
        frames: a genotype per frame, 1 … 256; their provenance is left out.
        provenance: how the set was found, a read-only mapping of JSON values; it is saved and loaded, and is no part of
            equality or hash.

    Raises:
        InputError: no frame, too many, or a text of more than 10 000 characters.
        InputTypeError: wrong types.

    >>> FrameSet.parse("identity | flip_x | scale(1.2) > translate_x(0.03)").T
    3
    """

    refusal = NO_CHAIN

    frames: tuple[Genotype, ...]
    provenance: Mapping[str, Any] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.frames, str) or not isinstance(self.frames, Sequence):
            raise InputTypeError(f"frames is a tuple of Genotype, got {self.frames!r:.80}; FrameSet.parse reads text")
        for index, frame in enumerate(self.frames):
            if not isinstance(frame, Genotype):
                raise InputTypeError(f"frames[{index}] must be a Genotype, got {frame!r:.80}")
        if not 1 <= len(self.frames) <= MAX_FRAMES:
            raise InputError(f"a frame set has 1 … {MAX_FRAMES} frames, got {len(self.frames)}")
        frames = tuple(frame if frame.provenance is None else frame.with_provenance(None) for frame in self.frames)
        object.__setattr__(self, "frames", frames)
        if len(str(self)) > MAX_TEXT:
            raise InputError(
                f"a frame set's text has at most {MAX_TEXT} characters, these {len(self.frames)} frames need "
                f"{len(str(self))}; use fewer frames or shorter chains"
            )
        self._freeze_provenance()

    @classmethod
    def parse(cls, text: str) -> FrameSet:
        """Read a frame set from its text; `InputError` names the position of what is wrong.

        Args:
            text: chains with bars between them, such as `identity | rotate(10)`; one chain alone is followed by a bar.

        Returns:
            The frame set, without provenance.
        """
        return cls(tuple(Genotype.of_items(chain) for chain in parse_frames(text)))

    def to_json(self) -> str:
        """Write the frame set as JSON.

        Returns:
            The text: `schema_version`, the chains of the frames and, where there is one, the provenance.
        """
        return encode_frames([frame.items for frame in self.frames], self.provenance)

    @property
    def T(self) -> int:  # noqa: N802 (the field's name for the number of frames)
        """How many frames there are."""
        return len(self.frames)

    @property
    def is_geometric(self) -> bool:
        """Whether no frame changes colours."""
        return all(frame.is_geometric for frame in self.frames)

    @property
    def geometric(self) -> FrameSet:
        """The geometric part of every frame, which predictions are unwarped by; without provenance."""
        return FrameSet(tuple(frame.geometric for frame in self.frames))

    @property
    def has_cells(self) -> bool:
        """Whether some magnitude is in cells; see `Genotype.has_cells`."""
        return any(frame.has_cells for frame in self.frames)

    def resolved(self, map_size: tuple[int, int]) -> FrameSet:
        """Turn magnitudes in cells into fractions; see `Genotype.resolved`.

        Args:
            map_size: (h, w) of the maps whose cells are meant.

        Returns:
            The frame set with its provenance; the same object where no magnitude is in cells.

        Raises:
            InputError: whatever `Genotype.resolved` refuses, or fractions whose text is too long for a frame set.
        """
        check_size(map_size, "map_size")
        if not self.has_cells:
            return self
        return FrameSet(tuple(frame.resolved(map_size) for frame in self.frames), self.provenance)

    def check_cells(self, map_size: tuple[int, int]) -> None:
        """Raise `InputError` where magnitudes in cells are out of their op's range.

        Args:
            map_size: (h, w) of the maps whose cells are meant.
        """
        for frame in self.frames:
            frame.check_cells(map_size)

    def frame(self, step: float) -> Genotype:
        """Return the chain of a frame.

        Args:
            step: its number.

        Returns:
            The chain.

        Raises:
            InputError: no number of a frame.
        """
        self.check_steps((step,))
        return self.frames[int(step)]

    def matrix(self, step: float, height: int, width: int) -> Tensor:
        """Compute the matrix of one frame; see `Genotype.matrix`.

        Args:
            step: the number of the frame.
            height: of the image, in pixels.
            width: likewise.

        Returns:
            The matrix `(3, 3)`, float64 on the CPU.
        """
        return self.step_matrices((step,), height, width)[0]

    def step_matrices(
        self,
        steps: Sequence[float],
        height: int,
        width: int,
        device: torch.device | str = "cpu",
        *,
        cells: tuple[int, int] | None = None,
    ) -> Tensor:
        """Compute the matrices of frames; see `matrix`.

        Args:
            steps: the numbers of the frames.
            height: of the image, in pixels.
            width: likewise.
            device: where to compute; it must know float64.
            cells: (h, w) of the map where the clip begins; see `Genotype.step_matrices`.

        Returns:
            The matrices `(S, 3, 3)`, float64.
        """
        chains = [self.frame(step) for step in steps]
        return constant(_rows, *(chain.step_matrices((1.0,), height, width, device, cells=cells) for chain in chains))

    def mirrored(self, step: float) -> tuple[int, ...] | None:
        """Tell which axes a frame mirrors, where its geometric part does nothing else; see `Genotype.mirrored`.

        Args:
            step: the number of the frame.

        Returns:
            The axes; `()` where every pixel stays in its place, and None where the frame has to be sampled.
        """
        return self.frame(step).mirrored(1.0)

    def whole_shift(self, step: float, height: int, width: int) -> Shift | None:
        """Tell by how many whole cells a frame shifts maps, where it mirrors and shifts alone.

        Args:
            step: the number of the frame.
            height: of the maps, in cells.
            width: likewise.

        Returns:
            The mirrored axes and the cells; None where the frame has to be sampled.
        """
        return self.frame(step).whole_shift(1.0, height, width)

    def is_still(self, step: float) -> bool:
        """Tell whether a frame is the image itself, bit for bit.

        Args:
            step: the number of the frame.

        Returns:
            True for `identity`, and where flips cancel each other.
        """
        return self.frame(step).is_still(1.0)

    def nearest(self, steps: Sequence[float]) -> int:
        """Find the frame that moves the image least, which stands in where no frame shows a place.

        Args:
            steps: the numbers of the frames.

        Returns:
            The index of the first that is the image, else of the first that changes colours alone, else of the first
            mirror image, else 0.
        """
        ranks = [2 * (self.mirrored(step) is None) + (self.mirrored(step) != ()) for step in steps]
        return min(range(len(ranks)), key=lambda index: (ranks[index], not self.is_still(steps[index])))

    def label(self, step: float) -> str:
        """Name a frame in figures.

        Args:
            step: the number of the frame.

        Returns:
            The text of its chain.
        """
        return str(self.frame(step))

    def check_steps(self, steps: Sequence[float]) -> None:
        """Check that steps are numbers of frames.

        Args:
            steps: the numbers to check.

        Raises:
            InputError: one that is none.
        """
        wrong = next((step for step in steps if step % 1 or not 0 <= step < self.T), None)
        if wrong is not None:
            raise InputError(
                f"the frame set has {self.T} frame{'s' if self.T > 1 else ''}, numbered from 0, and none of number "
                f"{wrong:g}; use T={self.T} or less, or list more frames"
            )

    def __str__(self) -> str:
        text = f" {FRAME_BAR} ".join(str(frame) for frame in self.frames)
        return text if self.T > 1 else f"{text} {FRAME_BAR}"

    def __repr__(self) -> str:
        return f"FrameSet.parse({str(self)!r})"

    @classmethod
    def _decode(cls, text: str, source: str) -> FrameSet:
        """Read JSON; `source` names it in errors."""
        record = decode(text, source)
        if not record.is_set:
            raise InputError(f"{source}: expected a frame set, got a chain; Genotype reads it")
        return cls(tuple(Genotype.of_items(chain) for chain in record.chains), record.provenance)


def _rows(*matrices: Tensor) -> Tensor:
    return torch.cat(matrices)
