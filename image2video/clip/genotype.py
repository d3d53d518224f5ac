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
from image2video.clip.genotype_text import MAX_CHAIN, format_chain, parse_chain
from image2video.clip.schedules import schedule_steps
from image2video.clip.transform import Transform, check_invertible, run_matrices, split_runs
from image2video.errors import ExistsError, InputError, InputTypeError, MissingError
from image2video.runs.folders import atomic_write_text

__all__ = ["DEFAULT_GENOTYPE", "PRESET_PREFIX", "Genotype", "Transform"]

DEFAULT_GENOTYPE = "translate_x(0.03) > translate_y(0.03)"
"""The genotype of `VideoWrap` (ours: gentle, so that wrapping a trained model costs no accuracy)."""

PRESET_PREFIX = "preset:"


@dataclass(frozen=True, repr=False)
class Genotype:
    """An ordered chain of transforms, the first applied first; frozen, hashable, independent of the resolution.

    Transforms that do nothing vanish; equal neighbours are not merged. Geometric and photometric ones stand in any
    order. `provenance` is an optional read-only mapping of JSON values (how the genotype was found) that is saved and
    loaded but is no part of equality or hash.

    Raises `InputError` where the chain is singular (its matrix at step 1 cannot be inverted) or has more than 64
    transforms, and `InputTypeError` for wrong types.

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
        """The empty chain: every frame is the image itself (the replica control)."""
        return cls(())

    @classmethod
    def parse(cls, text: str) -> Genotype:
        """The genotype of a text such as `translate_x(0.06) > rotate(10)`; `identity` is the empty chain.

        Raises `InputError` with the position of what is wrong, `InputTypeError` for anything but a string.
        """
        return cls(tuple(Transform(op, magnitude) for op, magnitude in parse_chain(text)))

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """The genotype of a JSON text as `to_json` writes it; errors name the JSON path of what is wrong."""
        return cls._decode(text, "the genotype's JSON")

    def to_json(self) -> str:
        """The JSON text: `schema_version`, the chain and, where there is one, the provenance."""
        return encode(self._pairs(), self.provenance)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Genotype:
        """The genotype of a JSON file.

        Raises `MissingError` where there is no such file, `InputError` for a file of more than 1 000 000 bytes (which
        is not read), one that is not UTF-8, and everything that `from_json` refuses.
        """
        path = Path(path)
        if not path.exists():
            raise MissingError(f"there is no genotype file {str(path)!r}")
        if not path.is_file():
            raise InputError(f"{str(path)!r} is not a file; a genotype is loaded from a JSON file")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError(f"{str(path)!r} has {size} bytes; a genotype file has at most {MAX_FILE_BYTES}")
        return cls._decode_bytes(path.read_bytes(), repr(str(path)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON file; atomic: a killed process leaves the old file or the new one, never half of one.

        Raises `InputError` where the provenance makes the file larger than `load` reads.
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
        """The names of the genotypes that come with the library, sorted."""
        names = (entry.name for entry in _preset_folder().iterdir())
        return tuple(sorted(name.removesuffix(".json") for name in names if name.endswith(".json")))

    @classmethod
    def preset(cls, name: str) -> Genotype:
        """The genotype that comes with the library under that name; raises `MissingError` with the list of all."""
        if name not in cls.presets():
            raise MissingError(f"unknown preset {name!r:.80}; known presets: {', '.join(cls.presets()) or '(none)'}")
        return cls._decode_bytes(_preset_folder().joinpath(f"{name}.json").read_bytes(), f"preset {name!r}")

    @classmethod
    def coerce(cls, value: Genotype | str | os.PathLike[str]) -> Genotype:
        """The genotype that a user means by a `Genotype`, a text, the path of a .json file, or "preset:NAME".

        Raises `InputTypeError` for other types, and what `parse`, `load` and `preset` raise.
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
        """The same chain with another provenance record (a mapping of JSON values, or None)."""
        return replace(self, provenance=provenance)

    def push_to_hub(self, repo_id: str, *, filename: str = hub.GENOTYPE_FILE, **options: Unpack[hub.Upload]) -> str:
        """Upload the JSON file to a Hugging Face Hub repository, made where there is none; gives the commit's address.

        Options: `revision` (a branch, made where there is none), `private`, `commit_message`, `token` (by default that
        of `hf auth login`). Raises `InputError` for what is no OWNER/NAME, `StateError` where the Hub cannot be reached
        or refuses.
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
        """The genotype that `push_to_hub` uploaded, or that stands in a local folder; `load` says what is refused.

        Raises `MissingError` where neither the folder nor the Hub has the file, `InputError` for what is no OWNER/NAME.
        """
        return cls.load(hub.fetch(repo_id, filename=filename, revision=revision, token=token))

    @property
    def is_geometric(self) -> bool:
        """Whether the chain only moves pixels: no transform is photometric. So is the identity."""
        return all(t.geometric for t in self.chain)

    @property
    def geometric(self) -> Genotype:
        """The geometric part of the chain, without provenance: what predictions are unwarped by."""
        return Genotype(tuple(t for t in self.chain if t.geometric))

    def runs(self) -> tuple[Genotype, ...]:
        """The chain as maximal geometric runs, each one resampling, and single photometric transforms, in order."""
        return tuple(Genotype(run) for run in split_runs(self.chain))

    def matrix(self, step: float, height: int, width: int) -> Tensor:
        """The frame matrix at power `step`: `(3, 3)` float64 on the CPU, in centred pixels of `height` × `width`.

        Convention: x right, y down; it maps a point of the image to where its content stands in the frame. Photometric
        transforms have no part in it.
        """
        return self.step_matrices((step,), height, width)[0]

    def matrices(self, schedule: str, T: int, height: int, width: int) -> Tensor:
        """The frame matrices M(t) of all frames: `(T, 3, 3)` float64 on the CPU (see `matrix`)."""
        return self.step_matrices(schedule_steps(schedule, T), height, width)

    def step_matrices(
        self, steps: Sequence[float], height: int, width: int, device: torch.device | str = "cpu"
    ) -> Tensor:
        """The frame matrices at the given powers: `(S, 3, 3)` float64 on `device`, which must know float64."""
        return run_matrices([t for t in self.chain if t.geometric], steps, height, width, device)

    def check_steps(self, steps: Sequence[float]) -> None:
        """Raise `InputError` where the geometric part cannot be inverted in numbers at one of these powers."""
        check_invertible([t for t in self.chain if t.geometric], steps, str(self))

    def __str__(self) -> str:
        return format_chain(self._pairs())

    def __repr__(self) -> str:
        return f"Genotype.parse({str(self)!r})"

    def _pairs(self) -> list[tuple[str, float]]:
        return [(t.op, t.magnitude) for t in self.chain]

    @classmethod
    def _decode(cls, text: str, source: str) -> Genotype:
        chain, provenance = decode(text, source)
        return cls(tuple(Transform(op, magnitude) for op, magnitude in chain), provenance)

    @classmethod
    def _decode_bytes(cls, data: bytes, source: str) -> Genotype:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{source} is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}") from None
        return cls._decode(text, source)


def _preset_folder() -> Traversable:
    return resources.files("image2video.clip.presets")
