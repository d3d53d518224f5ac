"""A table's YAML file as an `Experiment`: what is wrong in it is said with the file and the key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from image2video.clip.any_clip import as_clip, steps_of
from image2video.clip.checks import check_choice, check_frames
from image2video.clip.sampling import PADDINGS
from image2video.clip.schedules import SCHEDULES
from image2video.data import Augmentation
from image2video.data.augment import FAMILIES
from image2video.errors import InputError
from image2video.experiments import check_arms
from image2video.fusion.registry import resolve_fusion
from image2video.report import Contrast
from image2video.reproduce.networks import VARIANTS
from image2video.reproduce.parse_values import build, check_keys, check_type, listed, located
from image2video.reproduce.poses import check_pose
from image2video.reproduce.pretrained import check_pretrained
from image2video.reproduce.spec import SCALES, Cell, Experiment, Row, Setting, UnionCase
from image2video.reproduce.untrained import check_untrained_arms, check_untrained_setting
from image2video.search import get_space

LAYOUTS = ("right", "scrambled")
FIGURES = ("depth", "fields", "gains", "predictions", "unions")
_TEXTS = ("title", "source", "notes")
_OF_TABLES = (*_TEXTS, "rows", "arms", "contrasts", "figure", "images", "unions")
_OF_UNIONS = (*_TEXTS, "figure", "unions")
_OF_ROWS = ("name", "metric", "paper", "scales", "common", "without")
_NAME = re.compile(r"\w[\w.+-]*")  # names stand in the names of files


def experiment_from(record: Any, name: str, defaults: Mapping[str, Mapping[str, Any]]) -> Experiment:
    """The experiment that a YAML file states; `defaults` are the settings of every scale.

    Raises:
        InputError: unknown keys, wrong types, values that nothing knows, or names that do not fit together. The message
            begins with the file and the key.
    """
    check_keys(record, _OF_TABLES, name, needed=("title", "source"))
    if "unions" in record or record.get("figure") == "unions":
        return _of_unions(record, name)
    check_keys(record, _OF_TABLES, name, needed=("rows", "arms"))
    title, source, notes = _texts(record, name)
    rows = tuple(_row(one, where, defaults) for one, where in listed(record, "rows", name))
    arms = tuple(_cell(one, where) for one, where in listed(record, "arms", name))
    stated = listed(record, "contrasts", name) if record.get("contrasts") else []
    contrasts = tuple(build(Contrast, one, where) for one, where in stated)
    figure, images = record.get("figure"), record.get("images", Experiment.images)
    check_type(images, int, f"{name}: images")
    with located(name):
        check_arms(arms, contrasts)
        if figure is not None:
            check_choice("figure", figure, FIGURES)
        if figure == "gains" and not any(arm.equal_compute for arm in arms):
            raise InputError("figure: gains needs an arm with equal_compute: true, over which gains are")
        _check_least("images", images)
        _check_different("rows", [row.name for row in rows])
    _check_arms_of_rows(rows, [arm.name for arm in arms], name)
    experiment = Experiment(name, title, source, rows, arms, contrasts, notes, figure, images)
    check_untrained_arms(experiment)
    return experiment


def _texts(record: Mapping[str, Any], name: str) -> tuple[str, str, str]:
    """Title, source and notes."""
    title, source, notes = (record.get(key, "") for key in _TEXTS)
    for key, text in zip(_TEXTS, (title, source, notes), strict=True):
        check_type(text, str, f"{name}: {key}")
    return title, source, notes


def _check_arms_of_rows(rows: Iterable[Row], names: list[str], where: str) -> None:
    """Refuse a row that says something of an arm that there is not."""
    for i, row in enumerate(rows):
        seeded = {arm for setting in row.settings.values() for arm in setting.more_seeds}
        for key, told in (("paper", row.paper), ("without", row.without), ("more_seeds", seeded)):
            for unknown in sorted(set(told) - set(names)):
                raise InputError(f"{where}: rows[{i}].{key}: {unknown!r} is no arm; the arms are {', '.join(names)}")


def _check_least(key: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{key} must be at least 1, got {value}")


def _check_different(what: str, names: list[str]) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise InputError(f"two {what} are called {name!r}; names must differ")


def _of_unions(record: Any, name: str) -> Experiment:
    """The experiment of a figure of unions, which has neither rows nor arms."""
    check_keys(record, _OF_UNIONS, name, needed=("figure", "unions"))
    title, source, notes = _texts(record, name)
    cases = tuple(_union(one, where) for one, where in listed(record, "unions", name))
    with located(f"{name}: unions"):
        check_choice("figure", record["figure"], ("unions",))
        _check_different("unions", [case.name for case in cases])
        if len({(case.T, case.schedule, case.image_size) for case in cases}) > 1:
            raise InputError("T, schedule and image_size must be those of the first union; one figure shows all")
    return Experiment(name, title, source, (), (), (), notes, "unions", unions=cases)


def _union(record: Any, where: str) -> UnionCase:
    case: UnionCase = build(UnionCase, record, where)
    with located(where):
        check_choice("schedule", case.schedule, SCHEDULES)
        check_frames(case.T)
        steps_of(as_clip(case.genotype), case.schedule, case.T)
        if len(case.field) != 4 or case.field[0] >= case.field[2] or case.field[1] >= case.field[3]:
            raise InputError(f"field must be left, top, right and bottom, in pixels, y down; got {list(case.field)}")
        if len(case.image_size) != 2 or min(case.image_size) < 1:
            raise InputError(f"image_size must be height and width, in pixels; got {list(case.image_size)}")
    return case


def _row(record: Any, where: str, defaults: Mapping[str, Mapping[str, Any]]) -> Row:
    check_keys(record, _OF_ROWS, where, needed=("name", "scales"))
    parts = {key: record.get(key) or {} for key in ("paper", "scales", "common")}
    for key, part in parts.items():
        check_type(part, Mapping[str, Any], f"{where}.{key}")
    for key, value in parts["paper"].items():
        check_type(value, float, f"{where}.paper.{key}")
    without = listed(record, "without", where) if record.get("without") else []
    for text, place in without:
        check_type(text, str, place)
    name, metric = record["name"], record.get("metric", "top-1")
    check_type(name, str, f"{where}.name")
    check_type(metric, str, f"{where}.metric")
    settings = {}
    for scale, given in parts["scales"].items():
        if scale not in SCALES:
            raise InputError(f"{where}.scales: unknown scale {scale!r}; the scales are {', '.join(SCALES)}")
        place = f"{where}.scales.{scale}"
        check_type(given or {}, Mapping[str, Any], place)
        settings[scale] = _setting({**defaults.get(scale, {}), **parts["common"], **(given or {})}, place)
    return Row(name, metric, dict(parts["paper"]), settings, tuple(text for text, _ in without))


def _setting(record: Any, where: str) -> Setting:
    setting: Setting = build(Setting, record, where)
    for data, fields in setting.elsewhere.items():
        build(Setting, fields, f"{where}.elsewhere.{data}")
    for arm, count in setting.more_seeds.items():
        check_type(count, int, f"{where}.more_seeds.{arm}")
    with located(where):
        if not _NAME.fullmatch(setting.data):
            raise InputError(f"data must be a name, which --data says the place of; got {setting.data!r}")
        for key in ("finetune_epochs", "batch_size", "seeds"):
            _check_least(key, getattr(setting, key))
        if setting.epochs < 0:
            raise InputError(
                f"epochs must be at least 1, or 0 for a network as its published weights are; got {setting.epochs}"
            )
        if setting.epochs == 0:
            check_untrained_setting(setting)
        if setting.steps is not None:
            _check_least("steps", setting.steps)
        if not 0 <= setting.holdout < 1:
            raise InputError(f"holdout must be at least 0 and below 1, got {setting.holdout}")
        check_choice("schedule", setting.clip_schedule, SCHEDULES)
        if setting.weights is not None:
            check_pretrained(setting.weights, setting.model if setting.config is None else None)
        if setting.redraw and setting.config is not None:
            raise InputError(
                "redraw: true is for classification; the frames of segmentation are divided by the first seed"
            )
        if setting.padding is not None:
            check_choice("padding", setting.padding, PADDINGS)
        if setting.rank_space is not None:
            get_space(setting.rank_space)
        if setting.measures and (setting.config is not None or not setting.holdout):
            raise InputError(
                "measures: true is for classification with held-out images, which holdout above 0 sets aside"
            )
        # These refuse what they do not take.
        setting.training(max(1, setting.epochs), setting.seed, finetune=False)
        setting.searching()
    return setting


def _cell(record: Any, where: str) -> Cell:
    cell: Cell = build(Cell, record, where)
    with located(where):
        if not _NAME.fullmatch(cell.name):
            raise InputError(f"name must be letters, digits, and . _ + - between them; got {cell.name!r}")
        check_choice("layout", cell.layout, LAYOUTS)
        if cell.variant is not None:
            check_choice("variant", cell.variant, tuple(VARIANTS))
        if cell.schedule is not None:
            check_choice("schedule", cell.schedule, SCHEDULES)
        for scale in cell.scales:
            check_choice("scale", scale, SCALES)
        if cell.T is not None:
            check_frames(cell.T)
        if cell.fusion is not None:
            resolve_fusion(cell.fusion)
        _check_clip(cell)
        _check_genotype(cell.genotype)
        if cell.pose is not None:
            check_pose(cell.pose)
        if cell.augment is not None:
            _check_policy(cell.augment)
    return cell


def _check_clip(cell: Cell) -> None:
    """Refuse options that have no effect together."""
    if cell.learned != (cell.genotype == "learned") or (cell.learned and cell.fusion != "none"):
        raise InputError("learned: true goes with genotype: learned and fusion: none, and they with it")
    if cell.equal_compute and cell.fusion is not None:
        raise InputError("equal_compute: true is for the bare network; a clip's compute is what it is equal to")
    if cell.clip_at is not None and (cell.fusion is None or cell.learned or cell.layout == "scrambled"):
        raise InputError(f"clip_at: {cell.clip_at} needs a clip of the right layout whose motion is not learned")
    if cell.layout == "scrambled" and cell.fusion is None:
        raise InputError("layout: scrambled needs a clip; the bare network has none")
    if not 0 < cell.magnitude < float("inf"):
        raise InputError(f"magnitude must be a factor above 0, got {cell.magnitude}")


def _check_genotype(text: str) -> None:
    """Refuse a genotype that is neither one of the words nor a chain or frame set."""
    word, at, data = text.partition("@")
    kind, colon, number = word.partition(":")
    if word == "searched" and (data or not at):
        return
    if kind == "random" and not data:
        if colon and not (number.isdecimal() and int(number) > 0):
            raise InputError(f"genotype={text!r}: the draws are random:1, random:2, …")
    elif text not in ("none", "identity", "learned", "fixed_weights"):
        as_clip(text)


def _check_policy(text: str) -> None:
    """Refuse a policy that is neither stated nor searched for in a known family."""
    word, _, family = text.partition(":")
    if word == "search":
        check_choice("family of augmentations", family, tuple(FAMILIES))
    else:
        Augmentation.parse(text)
