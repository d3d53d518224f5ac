"""What genotypes and frame sets have in common as records: JSON, files, the Hub, a provenance."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack

from image2video.clip import hub
from image2video.clip.genotype_json import MAX_FILE_BYTES, freeze
from image2video.errors import ExistsError, InputError, InputTypeError
from image2video.runs.folders import atomic_write_text
from image2video.runs.texts import read_text


class Stored(ABC):
    """A frozen dataclass with a `provenance`, written as JSON."""

    provenance: Mapping[str, Any] | None
    refusal: ClassVar[str]
    """What a reader of chains says of it."""

    @abstractmethod
    def to_json(self) -> str:
        """Write the record as JSON.

        Returns:
            The text.
        """

    @classmethod
    @abstractmethod
    def _decode(cls, text: str, source: str) -> Self:
        """Read JSON; `source` names it in errors."""

    def _freeze_provenance(self) -> None:
        """Make the provenance read-only; raise where it holds no JSON values."""
        if self.provenance is None:
            return
        if not isinstance(self.provenance, Mapping):
            raise InputTypeError(f"provenance must be a mapping, got {type(self.provenance).__name__}")
        object.__setattr__(self, "provenance", freeze(self.provenance, "provenance"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read JSON; `InputError` and `InputTypeError` name the JSON path of what is wrong.

        Args:
            text: what `to_json` returned.

        Returns:
            What it holds, with its provenance.
        """
        return cls._decode(text, "the genotype's JSON")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a JSON file.

        Args:
            path: of the file.

        Returns:
            What it holds, with its provenance.

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

    def with_provenance(self, provenance: Mapping[str, Any] | None) -> Self:
        """Return the same clip with another provenance.

        Args:
            provenance: a mapping of JSON values, or None.

        Returns:
            The new one.
        """
        return replace(self, provenance=provenance)  # type: ignore[type-var]  # subclasses are dataclasses

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
    ) -> Self:
        """Read what `push_to_hub` uploaded, or that stands in a local folder.

        `MissingError` says that neither the folder nor the Hub has the file; `load` says what else is refused.

        Args:
            repo_id: OWNER/NAME, or a folder.
            filename: of the file in it.
            revision: a branch, tag or commit of the repository.
            token: for a private repository; by default that of `hf auth login`.

        Returns:
            What it holds, with its provenance.
        """
        return cls.load(hub.fetch(repo_id, filename=filename, revision=revision, token=token))
