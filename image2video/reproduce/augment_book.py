"""The scores of a search over policies while it runs: on disk after every policy, taken up by a resumed search."""

from __future__ import annotations

from typing import Any

from image2video.errors import InputError
from image2video.reproduce.augment_result import NO_POLICY, PolicyScore, PolicySearchResult, ranked
from image2video.runs.folders import OutputDirectory, atomic_write_json, read_json
from image2video.training.checkpoint import check_same

RESULT_FILE = "augment.json"
SCHEMA_VERSION = 1


class PolicyBook:
    """The scores so far.

    names: all policies, the reference among them as `none`; record: what must be equal when a search is resumed.
    """

    def __init__(self, family: str, names: list[str], minutes: float, record: dict[str, Any]) -> None:
        self.family, self.names, self.minutes, self.record = family, names, minutes, record
        self.scores: dict[str, PolicyScore] = {}
        self.seconds = 0.0
        self._folder: OutputDirectory | None = None

    def open(self, folder: OutputDirectory) -> None:
        """Writes to this folder, and takes up what a resumed search has left there."""
        self._folder = folder
        path = folder / RESULT_FILE
        if not folder.resumed or not path.is_file():
            return
        saved = read_json(path)
        if not isinstance(saved, dict) or saved.get("schema_version") != SCHEMA_VERSION:
            raise InputError(f"{path} is no augmentation search of format {SCHEMA_VERSION}; begin anew with overwrite")
        check_same(saved["search"], self._search(), "augmentation search")
        result = PolicySearchResult.from_dict(saved)
        done = [*result.scores, *([] if result.reference is None else [result.reference])]
        self.scores = {score.policy: score for score in done}
        self.seconds = result.seconds

    def add(self, score: PolicyScore | None, seconds: float) -> None:
        """Adds a policy's score (None: it was not done in time) and the time that it took."""
        self.seconds += seconds
        if score is not None:
            self.scores[score.policy] = score
        if self._folder is not None:
            record = {"schema_version": SCHEMA_VERSION, "search": self._search(), **self.result().to_dict()}
            atomic_write_json(self._folder / RESULT_FILE, record)

    def result(self) -> PolicySearchResult:
        """The scores so far, ranked."""
        found = [score for name, score in self.scores.items() if name != NO_POLICY]
        return PolicySearchResult(
            self.family,
            ranked(found),
            self.scores.get(NO_POLICY),
            tuple(name for name in self.names if name not in self.scores),
            self.minutes,
            self.seconds,
            None if self._folder is None else self._folder.path,
        )

    def finish(self) -> None:
        """Marks the folder as done."""
        if self._folder is not None:
            self._folder.finish(seconds=self.seconds)

    def _search(self) -> dict[str, Any]:
        return {"family": self.family, "policies": self.names, **self.record}
