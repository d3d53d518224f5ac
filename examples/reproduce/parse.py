"""A table's YAML file as an `Experiment`: what is wrong in it is said with the file and the key."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from image2video.data import Augmentation
from image2video.data.augment import FAMILIES
from image2video.demo import check_arms
from image2video.errors import Image2VideoError, InputError
from image2video.fusion.registry import resolve_fusion
from image2video.genotype import Genotype
from image2video.geometry import SCHEDULES, check_choice, check_frames
from image2video.report import Contrast
from image2video.reproduce.networks import VARIANTS
from image2video.reproduce.spec import SCALES, Cell, Experiment, Row, Setting

LAYOUTS = ("right", "scrambled")
FIGURES = ("depth",)
_KEYS = ("title", "source", "rows", "arms", "contrasts", "notes", "figure")
_NAME = re.compile(r"\w[\w.+-]*")  # names stand in the names of files


def experiment_from(record: Any, name: str, defaults: Mapping[str, Mapping[str, Any]]) -> Experiment:
    """The experiment that a YAML file states; `defaults` are the settings of every scale.

    Raises `InputError` for unknown keys, wrong types, values that nothing knows, and names that do not fit together;
    the message begins with the file and the key.
    """
    _check_keys(record, _KEYS, name, needed=("title", "source", "rows", "arms"))
    texts = {key: record.get(key, "") for key in ("title", "source", "notes")}
    for key, text in texts.items():
        _check_type(text, str, f"{name}: {key}")
    rows = tuple(_row(row, f"{name}: rows[{i}]", defaults) for i, row in enumerate(_list(record, "rows", name)))
    arms = tuple(_cell(arm, f"{name}: arms[{i}]") for i, arm in enumerate(_list(record, "arms", name)))
    stated = _list(record, "contrasts", name) if record.get("contrasts") else ()
    contrasts = tuple(_build(Contrast, one, f"{name}: contrasts[{i}]") for i, one in enumerate(stated))
    figure = record.get("figure")
    try:
        check_arms(arms, contrasts)
        if figure is not None:
            check_choice("figure", figure, FIGURES)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    names = [arm.name for arm in arms]
    for i, row in enumerate(rows):
        if row.name in [other.name for other in rows[:i]]:
            raise InputError(f"{name}: rows[{i}]: two rows are called {row.name!r}; names must differ")
        for unknown in sorted(set(row.paper) - set(names)):
            raise InputError(f"{name}: rows[{i}].paper: {unknown!r} is no arm; the arms are {', '.join(names)}")
    return Experiment(name, texts["title"], texts["source"], rows, arms, contrasts, texts["notes"], figure)


def _row(record: Any, where: str, defaults: Mapping[str, Mapping[str, Any]]) -> Row:
    _check_keys(record, ("name", "metric", "paper", "scales", "common"), where, needed=("name", "scales"))
    parts = {key: record.get(key) or {} for key in ("paper", "scales", "common")}
    for key, part in parts.items():
        _check_type(part, Mapping[str, Any], f"{where}.{key}")
    for key, value in parts["paper"].items():
        _check_type(value, float, f"{where}.paper.{key}")
    name, metric = record["name"], record.get("metric", "top-1")
    for key, text in (("name", name), ("metric", metric)):
        _check_type(text, str, f"{where}.{key}")
    settings = {}
    for scale, given in parts["scales"].items():
        if scale not in SCALES:
            raise InputError(f"{where}.scales: unknown scale {scale!r}; the scales are {', '.join(SCALES)}")
        place = f"{where}.scales.{scale}"
        _check_type(given or {}, Mapping[str, Any], place)
        settings[scale] = _setting({**defaults.get(scale, {}), **parts["common"], **(given or {})}, place)
    return Row(name, metric, dict(parts["paper"]), settings)


def _setting(record: Any, where: str) -> Setting:
    setting: Setting = _build(Setting, record, where)
    try:
        if not _NAME.fullmatch(setting.data):
            raise InputError(f"data={setting.data!r}: needed a name, which --data says the place of")
        for key in ("epochs", "finetune_epochs", "batch_size", "seeds"):
            if getattr(setting, key) < 1:
                raise InputError(f"{key}={getattr(setting, key)}: at least 1 is needed")
        if not 0 <= setting.holdout < 1:
            raise InputError(f"holdout={setting.holdout}: it must be from 0 to 1 (excluded)")
        check_choice("schedule", setting.clip_schedule, SCHEDULES)
        setting.training(setting.epochs, setting.seed, finetune=False)
        setting.searching()
    except (Image2VideoError, TypeError) as error:
        raise InputError(f"{where}: {error}") from error
    return setting


def _cell(record: Any, where: str) -> Cell:
    cell: Cell = _build(Cell, record, where)
    try:
        if not _NAME.fullmatch(cell.name):
            raise InputError(f"name={cell.name!r}: letters, digits, and . _ + - between them are needed")
        check_choice("layout", cell.layout, LAYOUTS)
        check_choice("budget", cell.budget, ("scratch", "finetune", "none"))
        for value, what, choices in (
            (cell.variant, "variant", tuple(VARIANTS)),
            (cell.schedule, "schedule", SCHEDULES),
            *((scale, "scale", SCALES) for scale in cell.scales),
        ):
            if value is not None:
                check_choice(what, value, choices)
        if cell.T is not None:
            check_frames(cell.T)
        if cell.fusion is not None:
            resolve_fusion(cell.fusion)
        _check_clip(cell)
        if cell.augment is not None and cell.augment.partition(":")[0] != "search":
            Augmentation.parse(cell.augment)
        elif cell.augment is not None:
            check_choice("family of augmentations", cell.augment.partition(":")[2], tuple(FAMILIES))
    except Image2VideoError as error:
        raise InputError(f"{where}: {error}") from error
    return cell


def _check_clip(cell: Cell) -> None:
    """Refuse words for a genotype that nothing knows, and options without effect."""
    word, _, data = cell.genotype.partition("@")
    if cell.learned != (cell.genotype == "learned") or (cell.learned and cell.fusion != "none"):
        raise InputError("learned: true goes with genotype: learned and fusion: none, and they with it")
    if cell.equal_compute and cell.fusion is not None:
        raise InputError("equal_compute: true is for the bare network; a clip's compute is what it is equal to")
    if cell.layout == "scrambled" and cell.fusion is None:
        raise InputError("layout: scrambled needs a clip; the bare network has none")
    if not 0 < cell.magnitude < float("inf"):
        raise InputError(f"magnitude={cell.magnitude}: a factor above 0 is needed")
    if word == "searched" and (data or "@" not in cell.genotype):
        return
    if word.partition(":")[0] == "random" and not data:
        number = word.partition(":")[2]
        if word != "random" and not (number.isdecimal() and int(number) > 0):
            raise InputError(f"genotype={cell.genotype!r}: the draws are random:1, random:2, …")
    elif cell.genotype not in ("none", "identity", "learned", "fixed_weights"):
        Genotype.coerce(cell.genotype)


def _build(kind: Any, record: Any, where: str) -> Any:
    fields = {one.name: one for one in dataclasses.fields(kind)}
    needed = [n for n, f in fields.items() if f.default is dataclasses.MISSING is f.default_factory]
    _check_keys(record, tuple(fields), where, needed=needed)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    hints = typing.get_type_hints(kind)
    for key, value in values.items():
        _check_type(value, hints[key], f"{where}.{key}")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _check_keys(record: Any, known: Sequence[str], where: str, *, needed: Sequence[str] = ()) -> None:
    _check_type(record, Mapping[str, Any], where)
    for unknown in sorted(set(record) - set(known)):
        raise InputError(f"{where}: unknown key {unknown!r}; the keys are {', '.join(sorted(known))}")
    for key in needed:
        if key not in record:
            raise InputError(f"{where}: {key!r} is missing")


def _check_type(value: Any, hint: Any, where: str) -> None:
    if not _fits(value, hint):
        raise InputError(f"{where}: needed {_words(hint)}, got {value!r:.60} of type {type(value).__name__}")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, arguments[0]) for one in value)
    if origin is not None:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if hint is float else hint)


def _words(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_words(one) for one in arguments)
    if origin is typing.Literal:
        return f"one of {', '.join(arguments)}"
    if origin is tuple:
        return "a list"
    if origin is not None:
        return "a mapping"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(hint, str(hint))


def _list(record: Mapping[str, Any], key: str, where: str) -> Sequence[Any]:
    value = record.get(key)
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: {key} must be a list of at least one entry")
    return value
