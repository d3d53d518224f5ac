"""A table's YAML file as an `Experiment`: what is wrong in it is said with the file and the key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from image2video.clip.checks import check_choice, check_frames
from image2video.clip.genotype import Genotype
from image2video.clip.schedules import SCHEDULES
from image2video.data import Augmentation
from image2video.data.augment import FAMILIES
from image2video.errors import Image2VideoError, InputError
from image2video.experiments import check_arms
from image2video.fusion.registry import resolve_fusion
from image2video.report import Contrast
from image2video.reproduce.networks import VARIANTS
from image2video.reproduce.parse_values import build, check_keys, check_type, listed
from image2video.reproduce.spec import SCALES, Cell, Experiment, Row, Setting, UnionCase

LAYOUTS = ("right", "scrambled")
FIGURES = ("depth", "fields", "predictions", "unions")
_KEYS = ("title", "source", "rows", "arms", "contrasts", "notes", "figure", "images", "unions")
_NAME = re.compile(r"\w[\w.+-]*")  # names stand in the names of files


def experiment_from(record: Any, name: str, defaults: Mapping[str, Mapping[str, Any]]) -> Experiment:
    """The experiment that a YAML file states; `defaults` are the settings of every scale.

    Raises `InputError` for unknown keys, wrong types, values that nothing knows, and names that do not fit together;
    the message begins with the file and the key.
    """
    check_keys(record, _KEYS, name, needed=("title", "source"))
    if "unions" in record or record.get("figure") == "unions":
        return _of_unions(record, name)
    check_keys(record, _KEYS, name, needed=("rows", "arms"))
    texts = {key: record.get(key, "") for key in ("title", "source", "notes")}
    for key, text in texts.items():
        check_type(text, str, f"{name}: {key}")
    rows = tuple(_row(row, f"{name}: rows[{i}]", defaults) for i, row in enumerate(listed(record, "rows", name)))
    arms = tuple(_cell(arm, f"{name}: arms[{i}]") for i, arm in enumerate(listed(record, "arms", name)))
    stated = listed(record, "contrasts", name) if record.get("contrasts") else ()
    contrasts = tuple(build(Contrast, one, f"{name}: contrasts[{i}]") for i, one in enumerate(stated))
    figure, images = record.get("figure"), record.get("images", Experiment.images)
    check_type(images, int, f"{name}: images")
    try:
        check_arms(arms, contrasts)
        if figure is not None:
            check_choice("figure", figure, FIGURES)
        if images < 1:
            raise InputError(f"images={images}: at least 1 is needed")
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    names = [arm.name for arm in arms]
    for i, row in enumerate(rows):
        if row.name in [other.name for other in rows[:i]]:
            raise InputError(f"{name}: rows[{i}]: two rows are called {row.name!r}; names must differ")
        seeded = {arm for setting in row.settings.values() for arm in setting.more_seeds}
        for key, told in (("paper", row.paper), ("without", row.without), ("more_seeds", seeded)):
            for unknown in sorted(set(told) - set(names)):
                raise InputError(f"{name}: rows[{i}].{key}: {unknown!r} is no arm; the arms are {', '.join(names)}")
    return Experiment(name, texts["title"], texts["source"], rows, arms, contrasts, texts["notes"], figure, images)


def _of_unions(record: Any, name: str) -> Experiment:
    """The experiment of a figure of unions, which has neither rows nor arms."""
    check_keys(record, ("title", "source", "notes", "figure", "unions"), name, needed=("figure", "unions"))
    for key in ("title", "source", "notes"):
        check_type(record.get(key, ""), str, f"{name}: {key}")
    cases: list[UnionCase] = []
    for i, one in enumerate(listed(record, "unions", name)):
        where = f"{name}: unions[{i}]"
        case: UnionCase = build(UnionCase, one, where)
        try:
            check_choice("figure", record["figure"], ("unions",))
            Genotype.coerce(case.genotype)
            check_choice("schedule", case.schedule, SCHEDULES)
            check_frames(case.T)
            if len(case.field) != 4 or case.field[0] >= case.field[2] or case.field[1] >= case.field[3]:
                raise InputError(f"field={list(case.field)}: needed left, top, right and bottom, in pixels, y down")
            if len(case.image_size) != 2 or min(case.image_size) < 1:
                raise InputError(f"image_size={list(case.image_size)}: needed height and width, in pixels")
            clips = {(other.T, other.schedule, other.image_size) for other in (*cases, case)}
            if len(clips) > 1:
                raise InputError("T, schedule and image_size are one for all unions, which one figure shows")
            if case.name in [other.name for other in cases]:
                raise InputError(f"two unions are called {case.name!r}; names must differ")
        except Image2VideoError as error:
            raise InputError(f"{where}: {error}") from error
        cases.append(case)
    texts = [record.get(key, "") for key in ("title", "source", "notes")]
    return Experiment(name, texts[0], texts[1], (), (), (), texts[2], "unions", unions=tuple(cases))


def _row(record: Any, where: str, defaults: Mapping[str, Mapping[str, Any]]) -> Row:
    check_keys(record, ("name", "metric", "paper", "scales", "common", "without"), where, needed=("name", "scales"))
    parts = {key: record.get(key) or {} for key in ("paper", "scales", "common")}
    for key, part in parts.items():
        check_type(part, Mapping[str, Any], f"{where}.{key}")
    for key, value in parts["paper"].items():
        check_type(value, float, f"{where}.paper.{key}")
    without = listed(record, "without", where) if record.get("without") else ()
    for i, text in enumerate(without):
        check_type(text, str, f"{where}.without[{i}]")
    name, metric = record["name"], record.get("metric", "top-1")
    for key, text in (("name", name), ("metric", metric)):
        check_type(text, str, f"{where}.{key}")
    settings = {}
    for scale, given in parts["scales"].items():
        if scale not in SCALES:
            raise InputError(f"{where}.scales: unknown scale {scale!r}; the scales are {', '.join(SCALES)}")
        place = f"{where}.scales.{scale}"
        check_type(given or {}, Mapping[str, Any], place)
        settings[scale] = _setting({**defaults.get(scale, {}), **parts["common"], **(given or {})}, place)
    return Row(name, metric, dict(parts["paper"]), settings, tuple(without))


def _setting(record: Any, where: str) -> Setting:
    setting: Setting = build(Setting, record, where)
    for data, fields in setting.elsewhere.items():
        build(Setting, fields, f"{where}.elsewhere.{data}")
    try:
        if not _NAME.fullmatch(setting.data):
            raise InputError(f"data={setting.data!r}: needed a name, which --data says the place of")
        for key in ("epochs", "finetune_epochs", "batch_size", "seeds"):
            if getattr(setting, key) < 1:
                raise InputError(f"{key}={getattr(setting, key)}: at least 1 is needed")
        for arm, count in setting.more_seeds.items():
            check_type(count, int, f"{where}.more_seeds.{arm}")
        if setting.steps is not None and setting.steps < 1:
            raise InputError(f"steps={setting.steps}: at least 1 is needed")
        if not 0 <= setting.holdout < 1:
            raise InputError(f"holdout={setting.holdout}: it must be from 0 to 1 (excluded)")
        check_choice("schedule", setting.clip_schedule, SCHEDULES)
        setting.training(setting.epochs, setting.seed, finetune=False)
        setting.searching()
    except (Image2VideoError, TypeError) as error:
        raise InputError(f"{where}: {error}") from error
    return setting


def _cell(record: Any, where: str) -> Cell:
    cell: Cell = build(Cell, record, where)
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
