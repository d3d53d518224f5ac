"""Genotypes: frozen chains of ops that say how an image becomes a video."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from image2video.clip import hub
from image2video.clip.genotype_json import MAX_FILE_BYTES, decode, encode, freeze
from image2video.clip.genotype_text import IDENTITY_TEXT, MAX_CHAIN, parse_chain
from image2video.clip.schedules import schedule_steps
from image2video.clip.transform import Transform, check_invertible, mirrored_axes, run_matrices, split_runs
from image2video.errors import ExistsError, InputError, InputTypeError, MissingError
from image2video.runs.folders import atomic_write_text
from image2video.runs.texts import read_text

__all__ = ["DEFAULT_GENOTYPE", "PRESET_PREFIX", "Genotype", "Transform"]

DEFAULT_GENOTYPE = "translate_x(0.03)"
"""The genotype of `VideoWrap` (ours). With the defaults of `ClipOptions` it costs trained networks no accuracy, as the
page on results shows: it was chosen by that."""

PRESET_PREFIX = "preset:"


@dataclass(frozen=True, repr=False)
class Genotype:
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
        if self.provenance is not None:
            if not isinstance(self.provenance, Mapping):
                raise InputTypeError(f"provenance must be a mapping, got {type(self.provenance).__name__}")
            object.__setattr__(self, "provenance", freeze(self.provenance, "provenance"))
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
        return cls(tuple(Transform(op, magnitude) for op, magnitude in parse_chain(text)))

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Read a genotype from JSON; `InputError` and `InputTypeError` name the JSON path of what is wrong.

        Args:
            text: what `to_json` returned.

        Returns:
            The genotype with its provenance.
        """
        return cls._decode(text, "the genotype's JSON")

    def to_json(self) -> str:
        """Write the genotype as JSON.

        Returns:
            The text: `schema_version`, the chain and, where there is one, the provenance.
        """
        return encode([(t.op, t.magnitude) for t in self.chain], self.provenance)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Genotype:
        """Read a genotype from a JSON file.

        Args:
            path: of the file.

        Returns:
            The genotype with its provenance.

        Raises:
            MissingError: no such file.
            InputError: a file of more than 1 000 000 bytes (it is not read), one that is not UTF-8, and whatever
                `from_json` refuses.
        """
        return cls._decode(read_text(path, "genotype file", max_bytes=MAX_FILE_BYTES), repr(os.fsdecode(path)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON file; a killed process leaves the old file or the new one, never half of one.

        Args:
            path: of the file.

        Raises:
            InputError: a provenance that makes the file larger than `load` reads.
            ExistsError: a path that is a folder.
        """
        text = self.to_json()
        size = len(text.encode())
        if size > MAX_FILE_BYTES:
            raise InputError(
                f"the genotype's file would have {size} bytes, more than the {MAX_FILE_BYTES} that load reads; "
                "shorten its provenance"
            )
        if Path(path).is_dir():
            raise ExistsError(f"{os.fspath(path)!r} is a folder; a genotype is saved to a file")
        atomic_write_text(Path(path), text)

    @classmethod
    def presets(cls) -> tuple[str, ...]:
        """List the genotypes that come with the library.

        Returns:
            Their names, sorted.
        """
        names = (entry.name for entry in _preset_folder().iterdir())
        return tuple(sorted(name.removesuffix(".json") for name in names if name.endswith(".json")))

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
        if name not in cls.presets():
            raise MissingError(f"unknown preset {name!r:.80}; known presets: {', '.join(cls.presets()) or '(none)'}")
        return cls._decode(_preset_folder().joinpath(f"{name}.json").read_text("utf-8"), f"preset {name!r}")

    @classmethod
    def coerce(cls, value: Genotype | str | os.PathLike[str]) -> Genotype:
        """Read a genotype in any form that a user may give.

        Args:
            value: a `Genotype`, a text, the path of a .json file, or `"preset:NAME"`.

        Returns:
            The genotype.

        Raises:
            InputTypeError: another type. `parse`, `load` and `preset` raise their own errors.
        """
        if isinstance(value, Genotype):
            return value
        if isinstance(value, os.PathLike):
            return cls.load(value)
        if not isinstance(value, str):
            raise InputTypeError(
                f"a genotype is given as a Genotype, a text such as {DEFAULT_GENOTYPE!r}, the path of a .json file or "
                f"'{PRESET_PREFIX}NAME'; got {value!r:.80} of type {type(value).__name__}"
            )
        if value.startswith(PRESET_PREFIX):
            return cls.preset(value.removeprefix(PRESET_PREFIX))
        return cls.load(value) if value.endswith(".json") else cls.parse(value)

    def with_provenance(self, provenance: Mapping[str, Any] | None) -> Genotype:
        """Return the same chain with another provenance.

        Args:
            provenance: a mapping of JSON values, or None.

        Returns:
            The new genotype.
        """
        return replace(self, provenance=provenance)

    def push_to_hub(self, repo_id: str, *, filename: str = hub.GENOTYPE_FILE, **options: Unpack[hub.Upload]) -> str:
        """Upload the JSON file to a Hugging Face Hub repository, which is made where there is none.

        `InputError` refuses what is no OWNER/NAME; `StateError` says that the Hub cannot be reached or refuses.

        Args:
            repo_id: OWNER/NAME.
            filename: of the file in the repository.
            **options: `revision` (a branch, made where there is none), `private`, `commit_message`, and `token` (by
                default that of `hf auth login`).

        Returns:
            The address of the commit.
        """
        title = f"Genotype {self}"[:72]
        return hub.push(self.to_json().encode(), repo_id, filename=filename, title=title, **options)

    @classmethod
    def from_hub(
        cls,
        repo_id: str | os.PathLike[str],
        *,
        filename: str = hub.GENOTYPE_FILE,
        revision: str | None = None,
        token: str | None = None,
    ) -> Genotype:
        """Read a genotype that `push_to_hub` uploaded, or that stands in a local folder.

        `MissingError` says that neither the folder nor the Hub has the file; `load` says what else is refused.

        Args:
            repo_id: OWNER/NAME, or a folder.
            filename: of the file in it.
            revision: a branch, tag or commit of the repository.
            token: for a private repository; by default that of `hf auth login`.

        Returns:
            The genotype with its provenance.
        """
        return cls.load(hub.fetch(repo_id, filename=filename, revision=revision, token=token))

    @property
    def is_geometric(self) -> bool:
        """Whether no transform is photometric, so that the chain only moves pixels (or does nothing)."""
        return all(t.geometric for t in self.chain)

    @property
    def geometric(self) -> Genotype:
        """The geometric part of the chain, which predictions are unwarped by; without provenance."""
        return Genotype(tuple(t for t in self.chain if t.geometric))

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
        self, steps: Sequence[float], height: int, width: int, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Compute the frame matrices at given powers; see `matrix`.

        Args:
            steps: the powers.
            height: of the image, in pixels.
            width: likewise.
            device: where to compute; it must know float64.

        Returns:
            The matrices `(S, 3, 3)`, float64.
        """
        return run_matrices([t for t in self.chain if t.geometric], steps, height, width, device)

    def mirrored(self, step: float) -> tuple[int, ...] | None:
        """Tell which axes the chain mirrors at one power, where its geometric part does nothing else.

        Args:
            step: the power.

        Returns:
            The axes, -1 for left and right and -2 for top and bottom; `()` where every pixel stays in its place, and
            None where the frame has to be sampled.
        """
        return mirrored_axes([t for t in self.chain if t.geometric], step)

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
        chain, provenance = decode(text, source)
        return cls(tuple(Transform(op, magnitude) for op, magnitude in chain), provenance)


def _preset_folder() -> Traversable:
    """Return the folder of the genotypes that come with the library."""
    return resources.files("image2video.clip.presets")
