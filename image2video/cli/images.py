"""The data set of a command, made ready as its network wants it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from image2video.cli.options import BackboneOptions, DataOptions
from image2video.data import DataSource
from image2video.data.absent import PARTS
from image2video.data.preparation import FIELDS, Preparation, preparation_sentence
from image2video.data.source import short_name, some
from image2video.errors import MissingError
from image2video.training.trained import TrainedRun
from image2video.wrap.builders import Builder, installed_builders
from image2video.wrap.pretrained_config import MAX_NUMBER, check_local, read_config


def load_matching_data(
    data: DataOptions,
    backbone: BackboneOptions,
    seed: int,
    *,
    run: TrainedRun | None = None,
    parts: Sequence[str] = PARTS,
    subset: bool = False,
) -> tuple[DataSource, str]:
    """The data set, its images made ready as the network's weights want them, and a line that says how.

    Args:
        data: what is asked for.
        backbone: the network and its weights.
        seed: draws the parts.
        run: what the weights come from.
        parts: which of `train` and `test` are read.
        subset: whether the data may have fewer classes than the run, as in an evaluation.
    """
    known = preparation_of(backbone)
    source = data.load(seed, known=known, classes=_run_classes(data, run), parts=parts)
    if run is not None and run.classes is not None and data.classes is None and source.classes != run.classes:
        names = set(source.classes)
        if names == set(run.classes) or (subset and names <= set(run.classes)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the first call has warned
                source = data.load(seed, known=known, classes=run.classes, parts=parts)
        elif len(names) == len(run.classes) and not _numbers(source.classes) and not _numbers(run.classes):
            warnings.warn(
                f"the run {run.folder} has other classes: {some(run.classes)} there, {some(source.classes)} here",
                stacklevel=2,
            )
    asked = {name: asdict(data)[name] for name in FIELDS}
    line = preparation_sentence(source.input_size, source.mean, source.std, source.resizing, asked=asked, known=known)
    return source, line


def preparation_of(backbone: BackboneOptions) -> Preparation | None:
    """What is known of the images of trained weights: from their run, else from the model's published config.

    A file of weights that no run is known of is taken for the published ones, or for some that were tuned from them.
    """
    guess = ""
    if backbone.weights is not None:
        path = Path(backbone.weights).expanduser()
        if not path.exists():
            raise MissingError(f"expected a file: no weights at {path}")
        known = Preparation.of(path)
        if path.is_dir():
            published = _published_backbone(path)
            return known.or_else(published) if known is not None else published
        if known is not None:
            return known
        guess = ", since no run of the weights is known"
    elif not backbone.pretrained:
        return None
    builder = bare_builder(backbone, {"pretrained": False})
    if builder.name.partition(":")[0] not in installed_builders():  # a function of the user's own: nothing is published
        return None
    published = Preparation.of(builder.build())
    return None if published is None else replace(published, origin=published.origin + guess)


def _published_backbone(folder: Path) -> Preparation | None:
    """What is published of the backbone in a folder of `save_pretrained`, where that says how it is built."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    config = read_config(path)
    if config["builder"] is None:
        return None
    # What a file names is checked before it is built: it may name places to read or to fetch from.
    check_local(config, str(path), largest=MAX_NUMBER)
    return Preparation.of(Builder.from_dict(config["builder"]).with_kwargs(pretrained=None).build())


def bare_builder(backbone: BackboneOptions, extra: dict[str, object]) -> Builder:
    """The recipe of the bare network; a name without a builder is timm's."""
    name = backbone.model if ":" in backbone.model else f"timm:{backbone.model}"
    return Builder(name, {**backbone.model_kwargs, **extra})


def warn_of_seen_images(run: TrainedRun | None, data: DataOptions, seed: int) -> None:
    """Warns where the weights were trained on another division of the data: held-out images may be seen ones."""
    then = {} if run is None else run.options
    now = {"data": data.data, "train_images": data.train_images, "holdout": data.holdout, "seed": seed}
    if not set(now) <= set(then) or then["data"] != data.data:
        return
    changed = [f"{name} {then[name]} then, {now[name]} now" for name in now if then[name] != now[name]]
    if changed:
        warnings.warn(
            f"the weights were trained on another division of {data.data} ({'; '.join(changed)}): the held-out images "
            "may be ones they have learned, and the ranking too good; use the same options",
            stacklevel=2,
        )


def _run_classes(data: DataOptions, run: TrainedRun | None) -> tuple[str, ...] | None:
    """The classes of the run, where these are its data."""
    if run is None or data.classes is not None or "data" not in run.options:
        return None
    return run.classes if short_name(str(run.options["data"])) == short_name(data.data) else None


def _numbers(classes: Sequence[str]) -> bool:
    """Whether the classes have no names but their numbers."""
    return all(name.isdecimal() for name in classes)
