"""Genotypes: frozen chains of ops that say how an image becomes a video."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from image2video.clip.checks import check_size
from image2video.clip.genotype_json import decode, encode
from image2video.clip.genotype_text import IDENTITY_TEXT, MAX_CHAIN, NO_CHAIN, Item, parse_chain
from image2video.clip.named import DEFAULT_GENOTYPE, PRESET_PREFIX, preset_names, preset_text
from image2video.clip.schedules import schedule_steps
from image2video.clip.slices import Shift
from image2video.clip.stored import Stored
from image2video.clip.transform import (
    Transform,
    check_invertible,
    mirrored_axes,
    run_matrices,
    split_runs,
    whole_shift,
)
from image2video.errors import InputError, InputTypeError

__all__ = ["DEFAULT_GENOTYPE", "PRESET_PREFIX", "Genotype", "Transform"]


@dataclass(frozen=True, repr=False)
class Genotype(Stored):
    """An ordered chain of transforms, the first applied first; frozen, hashable, independent of the resolution.

    Transforms that do nothing vanish; equal neighbours are not merged. Geometric and photometric ones stand in any
    order.

    Attributes:
        chain: the transforms, at most 64.
        provenance: how the genotype was found, a read-only mapping of JSON values; it is saved and loaded, and is no
            part of equality or hash.

    Raises:
        InputError: a chain that is singular (its matrix at step 1 cannot be inverted) or too long.
        InputTypeError: wrong types.

    >>> g = Genotype.parse("translate_x(0.06) > rotate(10) > scale(1.1)")
    >>> Genotype.parse(str(g)) == g
    True
    """

    chain: tuple[Transform, ...] = ()
    provenance: Mapping[str, Any] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.chain, str) or not isinstance(self.chain, Sequence):
            raise InputTypeError(f"a chain is a tuple of Transform, got {self.chain!r:.80}; Genotype.parse reads text")
        for index, item in enumerate(self.chain):
            if not isinstance(item, Transform):
                raise InputTypeError(f"chain[{index}] must be a Transform, got {item!r:.80}")
        if len(self.chain) > MAX_CHAIN:
            raise InputError(f"the chain has {len(self.chain)} transforms; at most {MAX_CHAIN} are allowed")
        object.__setattr__(self, "chain", tuple(item for item in self.chain if not item.is_identity))
        self._freeze_provenance()
        self.check_steps((1.0,))

    @classmethod
    def identity(cls) -> Genotype:
        """Make the empty chain: every frame is the image itself (the replica control).

        Returns:
            The genotype `identity`.
        """
        return cls(())

    @classmethod
    def parse(cls, text: str) -> Genotype:
        """Read a genotype from its text; `InputError` names the position of what is wrong.

        Args:
            text: such as `translate_x(0.06) > rotate(10)`; `identity` is the empty chain.

        Returns:
            The genotype, without provenance.
        """
        return cls.of_items(parse_chain(text))

    @classmethod
    def of_pairs(cls, pairs: Sequence[tuple[str, float]], provenance: Mapping[str, Any] | None = None) -> Genotype:
        """Make a genotype of pairs of op and magnitude.

        Args:
            pairs: the pairs, in order.
            provenance: how it was found.

        Returns:
            The genotype.
        """
        return cls(tuple(Transform(op, magnitude) for op, magnitude in pairs), provenance)

    @classmethod
    def of_items(cls, items: Sequence[Item], provenance: Mapping[str, Any] | None = None) -> Genotype:
        """Make a genotype of ops with their magnitudes and units.

        Args:
            items: op, magnitude and unit of every transform, in order; see `Transform`.
            provenance: how it was found.

        Returns:
            The genotype.
        """
        return cls(tuple(Transform(*item) for item in items), provenance)

    def to_json(self) -> str:
        """Write the genotype as JSON.

        Returns:
            The text: `schema_version`, the chain and, where there is one, the provenance.
        """
        return encode(self.items, self.provenance)

    @classmethod
    def presets(cls) -> tuple[str, ...]:
        """List the genotypes that come with the library.

        Returns:
            Their names, sorted.
        """
        return preset_names()

    @classmethod
    def preset(cls, name: str) -> Genotype:
        """Read a genotype that comes with the library.

        Args:
            name: one of `presets()`.

        Returns:
            The genotype with its provenance.

        Raises:
            MissingError: another name; the message lists all.
        """
        return cls._decode(preset_text(name), f"preset {name!r}")

    @classmethod
    def coerce(cls, value: Genotype | str | os.PathLike[str]) -> Genotype:
        """Read a genotype in any form that a user may give.

        Args:
            value: a `Genotype`, a text, the path of a .json file, or `"preset:NAME"`.

        Returns:
            The genotype.

        Raises:
            InputTypeError: another type, a frame set among them. `parse`, `load` and `preset` raise their own errors.
        """
        if isinstance(value, Genotype):
            return value
        if isinstance(value, os.PathLike):
            return cls.load(value)
        if isinstance(value, Stored):
            raise InputTypeError(f"{value.refusal}: {str(value)!r:.80}")
        if not isinstance(value, str):
            raise InputTypeError(
                f"a genotype is given as a Genotype, a text such as {DEFAULT_GENOTYPE!r}, the path of a .json file or "
                f"'{PRESET_PREFIX}NAME'; got {value!r:.80} of type {type(value).__name__}"
            )
        if value.startswith(PRESET_PREFIX):
            return cls.preset(value.removeprefix(PRESET_PREFIX))
        return cls.load(value) if value.endswith(".json") else cls.parse(value)

    @property
    def pairs(self) -> tuple[tuple[str, float], ...]:
        """The op and magnitude of every transform; `InputError` where one is in cells, which pairs do not say."""
        counted = next((t for t in self.chain if t.unit), None)
        if counted is not None:
            raise InputError(
                f"the chain has a magnitude in cells, {counted}, and pairs of op and magnitude have no units; use "
                "items, or resolved(map_size).pairs"
            )
        return tuple((t.op, t.magnitude) for t in self.chain)

    @property
    def items(self) -> tuple[Item, ...]:
        """The op, magnitude and unit of every transform."""
        return tuple((t.op, t.magnitude, t.unit) for t in self.chain)

    @property
    def has_cells(self) -> bool:
        """Whether some magnitude is in cells, so that how far it moves depends on the map where the clip begins."""
        return any(t.unit for t in self.chain)

    @property
    def is_geometric(self) -> bool:
        """Whether no transform is photometric, so that the chain only moves pixels (or does nothing)."""
        return all(t.geometric for t in self.chain)

    @property
    def geometric(self) -> Genotype:
        """The geometric part of the chain, which predictions are unwarped by; without provenance."""
        return Genotype(tuple(t for t in self.chain if t.geometric))

    def resolved(self, map_size: tuple[int, int]) -> Genotype:
        """Turn magnitudes in cells into fractions, which move maps of every size alike.

        Args:
            map_size: (h, w) of the maps whose cells are meant.

        Returns:
            The genotype with its provenance; the same object where no magnitude is in cells.

        Raises:
            InputError: a size that is none, or cells that are a shift beyond the op's range on such maps.

        >>> str(Genotype.parse("translate_x(1 cell) > rotate(5)").resolved((7, 8)))
        'translate_x(0.125) > rotate(5)'
        """
        height, width = check_size(map_size, "map_size")
        if not self.has_cells:
            return self
        return Genotype(tuple(t.resolved(height, width) for t in self.chain), self.provenance)

    def check_cells(self, map_size: tuple[int, int]) -> None:
        """Raise `InputError` where magnitudes in cells are out of their op's range.

        Args:
            map_size: (h, w) of the maps whose cells are meant.
        """
        for transform in self.chain:
            transform.check_cells(*map_size)

    def runs(self) -> tuple[Genotype, ...]:
        """Split the chain into maximal geometric runs, each one resampling, and single photometric transforms.

        Returns:
            The parts in order.
        """
        return tuple(Genotype(run) for run in split_runs(self.chain))

    def matrix(self, step: float, height: int, width: int) -> Tensor:
        """Compute the frame matrix at one power.

        Convention: centred pixels, x right, y down; the matrix maps a point of the image to where its content stands in
        the frame. Photometric transforms have no part in it.

        Args:
            step: the power.
            height: of the image, in pixels.
            width: likewise.

        Returns:
            The matrix `(3, 3)`, float64 on the CPU.
        """
        return self.step_matrices((step,), height, width)[0]

    def matrices(self, schedule: str, T: int, height: int, width: int) -> Tensor:
        """Compute the frame matrices M(t) of a clip; see `matrix`.

        Args:
            schedule: the power of each frame.
            T: the number of frames.
            height: of the image, in pixels.
            width: likewise.

        Returns:
            The matrices `(T, 3, 3)`, float64 on the CPU.
        """
        return self.step_matrices(schedule_steps(schedule, T), height, width)

    def step_matrices(
        self,
        steps: Sequence[float],
        height: int,
        width: int,
        device: torch.device | str = "cpu",
        *,
        cells: tuple[int, int] | None = None,
    ) -> Tensor:
        """Compute the frame matrices at given powers; see `matrix`.

        Args:
            steps: the powers.
            height: of the image, in pixels.
            width: likewise.
            device: where to compute; it must know float64.
            cells: (h, w) of the map where the clip begins, whose cells magnitudes in cells mean; None: the pixels of
                the image.

        Returns:
            The matrices `(S, 3, 3)`, float64.
        """
        return run_matrices([t for t in self.chain if t.geometric], steps, height, width, device, cells)

    def mirrored(self, step: float) -> tuple[int, ...] | None:
        """Tell which axes the chain mirrors at one power, where its geometric part does nothing else.

        Args:
            step: the power.

        Returns:
            The axes, -1 for left and right and -2 for top and bottom; `()` where every pixel stays in its place, and
            None where the frame has to be sampled.
        """
        return mirrored_axes([t for t in self.chain if t.geometric], step)

    def whole_shift(self, step: float, height: int, width: int) -> Shift | None:
        """Tell by how many whole cells the chain shifts maps at one power, where it mirrors and shifts alone.

        Args:
            step: the power.
            height: of the maps, in cells.
            width: likewise.

        Returns:
            The mirrored axes and the cells; None where the frame has to be sampled.
        """
        return whole_shift([t for t in self.chain if t.geometric], step, height, width)

    def is_still(self, step: float) -> bool:
        """Tell whether the frame at one power is the image itself, bit for bit.

        Args:
            step: the power.

        Returns:
            True at step 0 and where nothing is left of the chain, as of a flip at an even power.
        """
        return step == 0 or (self.is_geometric and self.mirrored(step) == ())

    def nearest(self, steps: Sequence[float]) -> int:
        """Find the frame that moves the image least, which stands in where no frame shows a place.

        Args:
            steps: the powers of the frames.

        Returns:
            The index of the smallest |s|; the first of equals.
        """
        sizes = [abs(step) for step in steps]
        return sizes.index(min(sizes))

    def label(self, step: float) -> str:
        """Name the frame at one power in figures.

        Args:
            step: the power.

        Returns:
            Such as `s = 2`.
        """
        return f"s = {step:g}"

    def check_steps(self, steps: Sequence[float]) -> None:
        """Raise `InputError` where the geometric part cannot be inverted in numbers.

        Args:
            steps: the powers to check.
        """
        check_invertible([t for t in self.chain if t.geometric], steps, str(self))

    def __str__(self) -> str:
        return " > ".join(str(transform) for transform in self.chain) or IDENTITY_TEXT

    def __repr__(self) -> str:
        return f"Genotype.parse({str(self)!r})"

    @classmethod
    def _decode(cls, text: str, source: str) -> Genotype:
        """Read JSON; `source` names it in errors."""
        record = decode(text, source)
        if record.is_set:
            raise InputError(f"{source}: {NO_CHAIN} (it has {len(record.chains)} frames)")
        return cls.of_items(record.chains[0], record.provenance)
