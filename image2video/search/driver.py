"""`search`: one call from a backbone and labelled images to a genotype and its result folder."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from image2video.clip.colours import Colours, Values
from image2video.clip.frame_set import FrameSet
from image2video.errors import InputError
from image2video.protocols import ImageSet, Progress
from image2video.runs.folders import OutputDirectory, atomic_write_text, versions
from image2video.search.bare import BareRun
from image2video.search.places import searched_places
from image2video.search.rank.averaging import check_bare
from image2video.search.rank.greedy_frames import check_classification
from image2video.search.result import SearchResult, budget_warning, identity_warning, is_still, result_of
from image2video.search.run import SearchRun
from image2video.search.score.network import build_network
from image2video.search.score.task import ClassificationTask, Task
from image2video.search.select.selection import Selection, get_selection, without_effect
from image2video.search.setup import Setup
from image2video.search.space.deep_space import DeepSpace
from image2video.search.space.space import SearchSpace, get_space
from image2video.search.space.space_file import is_space_file
from image2video.search.state.seeds import derived_seed
from image2video.search.work import work
from image2video.settings.search import SearchConfig


def search(
    backbone: nn.Module,
    train: ImageSet,
    config: SearchConfig | None = None,
    *,
    validation: ImageSet | None = None,
    task: Task | None = None,
    mean: Values = None,
    std: Values = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    accelerator: Accelerator | None = None,
    progress: Progress | None = None,
    provenance: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> SearchResult:
    """Find a genotype for a backbone and a labelled data set (Casarin et al., CVPR 2024, section 3.1).

    The cell stands before a fused copy of the backbone (the backbone itself stays as it is); τ and the weights are
    trained on two parts of the images, then the cell is discretised as `config.selection` says. With
    `selection="one_shot"` the copy is trained on clips of sampled chains, and chains are ranked with its weights; with
    `selection="fixed_weights"` nothing is trained: chains are ranked for the backbone as it is, see `rank_genotypes`;
    with `selection="greedy_frames"` a set of frames is chosen for it, see `greedy_frames`.

    Seeds the global generators of python, numpy and torch once with `config.seed`. On a CPU, with the same versions
    and thread count, equal runs give byte-equal `genotype.json`, `tau.json` and `scores.json`, and a run that was
    killed and is resumed ends bit for bit as one that was not (unless `config.max_minutes` ends it). On CUDA the
    sampler's backward adds in no fixed order.

    Args:
        backbone: a classifier, images `(B, C, H, W)` -> logits `(B, K)`, or what `task` takes.
        train: the training images; never the test set. For `fixed_weights`: images that the backbone has not seen.
        config: the settings; `SearchConfig()` by default.
        validation: images for τ and selection in place of the part split from `train`; for `fixed_weights` what the
            chains are ranked on.
        task: model outputs, loss and metric; classification by default.
        mean: how the images are normalised, per channel or one for all; default what the backbone's `pretrained_cfg`
            says. Spaces with photometric ops need it.
        std: goes with `mean`.
        out: the result folder: `genotype.json`, `tau.json`, `scores.json`, `config.yaml`, `run.json`, `tensorboard/`,
            `checkpoint/`, and `space.yaml` where the space came from a file.
        resume: go on with the run in `out`, from its last complete epoch or decision.
        overwrite: replace the run in `out`.
        accelerator: for device, precision and processes; by default one with `config.precision`.
        progress: called after every step.
        provenance: JSON values for the genotype's provenance: `dataset`, `backbone`, … (no dates, no paths).
        settings: what to record in `config.yaml` in place of `config`, such as all options of a command.
        files: further texts for the folder, by file name.

    Returns:
        The genotype with all records.

    Raises:
        ExistsError: `out` holds another run.
        InputError: settings that contradict each other, a backbone whose outputs the task does not take, another run's
            checkpoint, photometric ops for images of unknown colours.
        StateError: a loss is NaN or infinite, and the message names the step and the last checkpoint stays; or another
            job writes into `out`.

    Example:
        >>> from image2video.data import load_data
        >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))
        >>> data = load_data("digits", train_images=64)
        >>> result = search(net, data.train, SearchConfig(selection="random", seed=1))
        >>> result.genotype.provenance["selection"]
        'random'
    """
    config = config or SearchConfig()
    setup = Setup(
        config,
        get_space(config.space_name),
        accelerator or make_accelerator(config),
        task or ClassificationTask(),
        Colours.coerce(mean, std) or Colours.of(backbone),
        progress,
    )
    selection, accelerator = get_selection(config.selection), setup.accelerator
    record = _provenance(backbone, train, validation, setup, provenance)
    unused = without_effect(config)
    if unused is not None and accelerator.is_main_process:
        warnings.warn(unused, stacklevel=2)
    # What can be refused is refused before the folder of an earlier run is replaced.
    if selection.only_classification:
        check_classification(setup.task)
    if selection.needs_trained:
        check_bare(backbone)
    else:  # a ranking for a trained backbone draws from generators of its own alone
        set_seed(config.seed, device_specific=accelerator.num_processes > 1)
    if selection.trains or selection.needs_trained:
        setup.check_colours()
    if not selection.needs_trained:  # a ranking takes places one by one, each with clips of its own
        setup = _over_places(setup, backbone, train, selection)
        if setup.places is not None:
            record["cost"] = setup.places.cost(config.T)
    run: SearchRun | BareRun
    if selection.trains:
        run = _prepare(backbone, train, validation, setup)
    else:
        run = BareRun(backbone, train if validation is None else validation, setup, record)
        if selection.needs_trained:
            run.check_places()
    path = None if out is None else Path(out)
    with contextlib.ExitStack() as opened:
        folder = None
        if path is not None and accelerator.is_main_process:
            folder = opened.enter_context(OutputDirectory(path, "search", overwrite=overwrite, resume=resume))
            _begin(folder, settings, files or {}, setup)
        accelerator.wait_for_everyone()
        if isinstance(run, SearchRun):
            work(run, selection, path, folder, resume=resume)
        else:
            for unit in selection.units(run.space, config):
                selection.decide(unit, run)
        result = result_of(run, config, record, path)
        if folder is not None:
            result.write(folder)
            folder.finish(seconds=result.seconds, frames=result.frames, genotype=str(result.genotype))
    _warn(result)
    return result


def _provenance(
    backbone: nn.Module,
    train: ImageSet,
    validation: ImageSet | None,
    setup: Setup,
    given: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the genotype's provenance begins with: the caller's own values, and what the arguments say."""
    images = train.num_images + (0 if validation is None else validation.num_images)
    record = {"backbone": type(backbone).__name__, "train_images": images, **dict(given or {})}
    if setup.task.metric != "accuracy":
        record["metric"] = setup.task.metric
    return record


def make_accelerator(config: SearchConfig) -> Accelerator:
    """The accelerator that the settings ask for."""
    return Accelerator(mixed_precision=config.precision, cpu=config.device == "cpu")


def _begin(folder: OutputDirectory, settings: Mapping[str, Any] | None, files: Mapping[str, str], setup: Setup) -> None:
    """Write the settings into the result folder; a run that goes on keeps its own."""
    accelerator, space = setup.accelerator, setup.space
    folder.note(versions=versions(), processes=accelerator.num_processes, device=str(accelerator.device))
    records = {"config.yaml": dict(settings or {**setup.config.to_dict(), "space": space.name})}
    if is_space_file(setup.config.space_name):
        records["space.yaml"] = space.to_dict()  # the file may change, or be elsewhere, when the run is looked at
    texts = {n: yaml.safe_dump(content, sort_keys=False, allow_unicode=True) for n, content in records.items()}
    for name, text in {**texts, **files}.items():
        if not (folder.resumed and (folder / name).is_file()):
            atomic_write_text(folder / name, text)


def _warn(result: SearchResult) -> None:
    """Warn of a budget that left choices open, and of a search that found nothing but identities."""
    spent = budget_warning(result)
    if spent is not None:
        warnings.warn(spent, stacklevel=3)
    found = result.genotype
    if not isinstance(found, FrameSet) and is_still(found) and result.state.done > 0:
        warnings.warn(identity_warning(result), stacklevel=3)


def _prepare(backbone: nn.Module, train: ImageSet, validation: ImageSet | None, setup: Setup) -> SearchRun:
    """Make the cell and the fused copy of the backbone, with their images."""
    # A space from a file is compared by its content, wherever the file lies.
    config = replace(setup.config, space=setup.space.name)
    if validation is None:
        train, validation = train.split(1 - config.validation_share, seed=derived_seed(config.seed, "split"))
    network = build_network(
        backbone,
        config.fusion,
        residual=config.residual,
        input_size=_size_of(train),
        task=setup.task,
        places=None if setup.places is None else setup.places.places,
    )
    return SearchRun(network, replace(setup, config=config), train, validation)


def _over_places(setup: Setup, backbone: nn.Module, train: ImageSet, selection: Selection) -> Setup:
    """The search over the places that the settings name; refuses places that cannot be, or cost too much."""
    if setup.config.clip_at is None and setup.config.max_cost is None:
        return setup
    found = searched_places(backbone, setup.config, setup.task, _size_of(train))
    if found is None:
        return setup
    if not selection.over_places:
        raise InputError(
            f"selection={selection.name!r} searches at the image alone, got clip_at={list(found.places)}; take "
            "'perturbation' or 'one_shot', or 'fixed_weights' for a trained network"
        )
    assert isinstance(setup.space, SearchSpace), "places come in here"
    return replace(setup, space=DeepSpace(setup.space, found.places), places=found)


def _size_of(images: ImageSet) -> tuple[int, int, int]:
    """(C, H, W) of the images."""
    batch, _ = next(iter(images.batches(1).epoch(0)))
    return int(batch.shape[1]), int(batch.shape[2]), int(batch.shape[3])
