"""The comparison result: what `image2video demo` and the benchmarks write, and what the report reads.

`result.json`, schema_version 1. Accuracy in percent, losses in nats, `seconds`, `ms` per image, `macs` per image of the
whole clip; `frames` = images × T that went forward and backward. Unknown keys are kept in the file and not read here.

    {"kind": "comparison", "schema_version": 1, "title": str,
     "data": {"name", "classes", "train", "holdout", "test", "input_size": [C, H, W]},
     "model": str, "settings": {"frames": int, …},
     "arms": [{"name", "title", "group", "genotype", "fusion", "start", "pool", "runs": [RUN]}],
     "contrasts": [{"name", "lead", "a", "b", "headline"}],  (a, b: an arm, or the pool of several)
     "search": SEARCH or null, "fixed_weights": {start: {"best", "sentence", …}},
     "environment": {…}, "frames": int, "seconds": float,
     "fields": {"caption", "rows": {unit: [PANEL]}} or {}}  (receptive fields of trained networks, see `ErfGrid.record`)
    RUN = {"seed", "genotype", "accuracy", "loss", "epochs", "frames", "start_frames", "seconds", "macs", "ms",
           "parameters", "curve": [{"epoch", "frames", "train_loss", "holdout"}]}
    SEARCH = {"space", "genotype", "inputs", "nodes", "edges": [[i, j]], "ops": [str], "epochs": [int],
              "weights": [epoch][edge][op], "drops": [edge][op or null], "chosen": [op per edge], "path": [edge],
              "frames", "seconds", "metric"}
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from image2video.errors import InputError
from image2video.runs.folders import read_record

KIND = "comparison"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class CurvePoint:
    """The end of one epoch.

    Attributes:
        epoch: its number.
        frames: training frames so far.
        train_loss: the mean over the epoch; None where it is not known.
        holdout: held-out top-1 in percent; None where it is not known.
    """

    epoch: int
    frames: int
    train_loss: float | None = None
    holdout: float | None = None


@dataclass(frozen=True)
class Run:
    """One arm with one seed.

    Attributes:
        seed: of the first weights, batches and augmentation.
        genotype: the chain that moved the frames; `none` for a bare network.
        accuracy: top-1 on the test set in percent, or another task's metric.
        loss: on the test set, in nats.
        epochs: of training.
        frames: images × T that went forward and backward.
        start_frames: what the weights that it started from had seen.
        parameters: of the network.
        macs: multiply-accumulates of one image, all frames of its clip.
        ms: milliseconds per image.
        seconds: of training.
        curve: a point per epoch.
    """

    seed: int
    genotype: str
    accuracy: float
    loss: float
    epochs: int
    frames: int
    start_frames: int
    parameters: int
    macs: float | None = None
    ms: float | None = None
    seconds: float = 0.0
    curve: tuple[CurvePoint, ...] = ()


@dataclass(frozen=True)
class ArmRuns:
    """One arm with its runs over seeds.

    Attributes:
        name: by which contrasts name it.
        title: in tables and figures.
        group: the heading under which tables list it.
        genotype: as text.
        fusion: by name; None for a bare network.
        start: the arm whose weights it starts from; None for fresh ones.
        runs: the finished ones.
        pool: a name that several random draws share, which are compared as one.
    """

    name: str
    title: str
    group: str
    genotype: str
    fusion: str | None
    start: str | None
    runs: tuple[Run, ...]
    pool: str | None = None

    def by_seed(self) -> dict[int, float]:
        """The runs' accuracies.

        Returns:
            Test accuracy in percent, by seed.
        """
        return {run.seed: run.accuracy for run in self.runs}


@dataclass(frozen=True)
class Contrast:
    """A question put to two arms: is `a` ahead of `b`?

    Attributes:
        name: of the question.
        lead: the question in words: "at equal compute".
        a: the name of an arm or a pool.
        b: the name of an arm or a pool.
        headline: whether the page's sentence answers it.
    """

    name: str
    lead: str
    a: str
    b: str
    headline: bool = False


@dataclass(frozen=True)
class SearchRecord:
    """A search as the figures need it.

    Attributes:
        space: its name.
        genotype: what was found.
        inputs: how many nodes are the image.
        nodes: how many nodes follow.
        edges: (from, to) of each edge, by the nodes' numbers.
        ops: the candidates on every edge.
        epochs: the entries of the history.
        weights: the softmax weight of `[epoch][edge][op]`.
        drops: the points of the held-out metric that masking `[edge][op]` costs; None where that was not measured.
        chosen: the op that each edge kept.
        path: the edges of the genotype, from input to output.
        frames: that went forward and backward.
        seconds: of the search.
        metric: what is lost when an op is masked.
    """

    space: str
    genotype: str
    inputs: int
    nodes: int
    edges: tuple[tuple[int, ...], ...]
    ops: tuple[str, ...]
    epochs: tuple[int, ...]
    weights: tuple[tuple[tuple[float, ...], ...], ...]
    drops: tuple[tuple[float | None, ...], ...]
    chosen: tuple[int, ...]
    path: tuple[int, ...]
    frames: int = 0
    seconds: float = 0.0
    metric: str = "accuracy"

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SearchRecord:
        """The record of a search's summary.

        Args:
            record: a JSON object.

        Returns:
            The record, checked.
        """
        return _build(cls, record, "search")


@dataclass(frozen=True)
class ComparisonResult:
    """A whole comparison, as `result.json` holds it.

    Attributes:
        title: of the page.
        data: name, classes, numbers of images and input size.
        model: the bare network's name.
        settings: of every run.
        arms: with their runs.
        contrasts: the questions put to them.
        search: the search that found a genotype; None where there was none.
        fixed_weights: what a ranking found, by the arm whose weights it took.
        fields: the record of an `ErfGrid`, or empty.
        environment: machine and versions.
        frames: of all runs.
        seconds: of all runs.
    """

    title: str
    data: dict[str, Any]
    model: str
    settings: dict[str, Any]
    arms: tuple[ArmRuns, ...]
    contrasts: tuple[Contrast, ...] = ()
    search: SearchRecord | None = None
    fixed_weights: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    frames: int = 0
    seconds: float = 0.0

    def arm(self, name: str) -> ArmRuns | None:
        """The arm of that name.

        Args:
            name: of an arm.

        Returns:
            The arm, or None where it has no finished run.
        """
        return next((arm for arm in self.arms if arm.name == name and arm.runs), None)

    def members(self, name: str) -> tuple[ArmRuns, ...]:
        """The arms that a side of a contrast stands for.

        Args:
            name: of an arm or a pool.

        Returns:
            Those of the arms that have finished runs.
        """
        return tuple(arm for arm in self.arms if arm.runs and name in (arm.name, arm.pool))

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], *, source: str = "result") -> ComparisonResult:
        """Read the JSON object of a `result.json`.

        Args:
            record: the object.
            source: names it in errors.

        Returns:
            The comparison.

        Raises:
            InputError: another kind or version, or a key that is missing or has another type.
        """
        kind, version = record.get("kind"), record.get("schema_version")
        if kind != KIND:
            raise InputError(
                f"{source} is of kind {kind!r:.80}; a report needs one of kind {KIND!r} (a demo's result.json)"
            )
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{source} has schema_version {version!r:.80}; this version of image2video reads {SCHEMA_VERSION}: "
                "make the result again, or upgrade image2video"
            )
        return _build(cls, record, source)

    @classmethod
    def load(cls, path: str | Path) -> ComparisonResult:
        """Read a `result.json`.

        Args:
            path: of the file.

        Returns:
            The comparison.

        Raises:
            InputError: a file that holds something else.
            MissingError: no file.
        """
        return cls.from_dict(read_record(path, "result"), source=str(path))


_T = TypeVar("_T")


def _build(cls: type[_T], record: Any, where: str) -> _T:
    """One dataclass from a JSON object; a missing key or a value of the wrong type is named by its path."""
    if not isinstance(record, Mapping):
        raise InputError(f"{where} must be an object with the keys of {cls.__name__}, got a {type(record).__name__}")
    hints = typing.get_type_hints(cls)
    values = {}
    for item in fields(cls):  # type: ignore[arg-type]
        if item.name in record:
            values[item.name] = _convert(hints[item.name], record[item.name], f"{where}.{item.name}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise InputError(
                f"{where} has no {item.name!r}; it has {', '.join(sorted(record))[:300] or 'no key at all'}"
            )
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotated type: nested dataclasses, homogeneous tuples, optionals and scalars."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        if value is None and type(None) in arguments:
            return None
        (wanted,) = (argument for argument in arguments if argument is not type(None))
        return _convert(wanted, value, where)
    if is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    plain = origin or hint
    if not isinstance(value, plain) or (plain is int and isinstance(value, bool)):
        raise InputError(f"{where} must be of type {getattr(hint, '__name__', hint)}, got {value!r:.80}")
    return value
