"""`search`: one call from a backbone and labelled images to a genotype and its result folder."""

from __future__ import annotations

import copy
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch import nn

from image2video.files import OutputDirectory, atomic_write_text, versions
from image2video.protocols import ImageSet, Progress
from image2video.search.averaging import check_bare
from image2video.search.checkpoint import load_run, save_run
from image2video.search.config import SearchConfig
from image2video.search.fixed_weights import rank_genotypes
from image2video.search.network import build_network
from image2video.search.result import SearchResult, cell_result, identity_warning
from image2video.search.run import SearchRun
from image2video.search.selection import Drawn, Selection, derived_seed, get_selection
from image2video.search.space import SearchSpace, get_space
from image2video.search.state import CHECKPOINT, SearchState
from image2video.search.tensorboard import Curves
from image2video.search.units import Unit


def search(
    backbone: nn.Module,
    train: ImageSet,
    config: SearchConfig | None = None,
    *,
    validation: ImageSet | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    accelerator: Accelerator | None = None,
    progress: Progress | None = None,
    provenance: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> SearchResult:
    """Find a genotype for a backbone and a classification data set (Casarin et al., CVPR 2024, section 3.1).

    The cell stands before a fused copy of the backbone (the backbone itself stays as it is); τ and the weights are
    trained on two parts of the images, then the cell is discretised as `config.selection` says. With
    `selection="fixed_weights"` nothing is trained: chains are ranked for the backbone as it is, see `rank_genotypes`.

    Seeds the global generators of python, numpy and torch once with `config.seed`. On a CPU, with the same versions
    and thread count, equal runs give byte-equal `genotype.json`, `tau.json` and `scores.json`, and a run that was
    killed and is resumed ends bit for bit as one that was not. (On CUDA the sampler's backward adds in no fixed order.)

    Args:
        backbone: a classifier, images `(B, C, H, W)` -> logits `(B, K)`.
        train: the training images; never the test set. For `fixed_weights`: images that the backbone has not seen.
        config: the settings; `SearchConfig()` by default.
        validation: images for τ and selection in place of the part split from `train`; for `fixed_weights` what the
            chains are ranked on.
        out: the result folder: `genotype.json`, `tau.json`, `scores.json`, `config.yaml`, `run.json`, `tensorboard/`,
            `checkpoint/`.
        resume: go on with the run in `out`, from its last complete epoch or decision.
        overwrite: replace the run in `out`.
        accelerator: for device, precision and processes; by default one with `config.precision`.
        progress: called after every step.
        provenance: JSON values for the genotype's provenance: `dataset`, `backbone`, … (no dates, no paths).
        settings: what to record in `config.yaml` in place of `config`, such as all options of a command.

    Raises:
        ExistsError: `out` holds another run.
        InputError: settings that contradict each other, a backbone that is no classifier, another run's checkpoint.
        StateError: a loss is NaN or infinite; the message names the step and the last checkpoint stays.

    Example:
        >>> from image2video.data import load_data
        >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))
        >>> data = load_data("digits", train_images=64)
        >>> result = search(net, data.train, SearchConfig(selection="random", seed=1))
        >>> result.genotype.provenance["selection"]
        'random'

    """
    config = config or SearchConfig()
    space = get_space(config.space_name)
    accelerator = accelerator or make_accelerator(config)
    record = {"backbone": type(backbone).__name__, **dict(provenance or {})}
    # What can be refused is refused before the folder of an earlier run is replaced.
    selection, run = None, None
    if config.selection == "fixed_weights":
        check_bare(backbone)
    else:
        selection = get_selection(config.selection)
        set_seed(config.seed, device_specific=accelerator.num_processes > 1)
        run = _prepare(backbone, train, validation, config, space, accelerator, progress) if selection.trains else None
    path, folder = None if out is None else Path(out), None
    if path is not None and accelerator.is_main_process:
        folder = _claim(path, overwrite, resume, settings or config.to_dict(), accelerator)
    accelerator.wait_for_everyone()
    if selection is None:
        images = train if validation is None else validation
        result = _rank(backbone, images, config, space, accelerator, record, path, progress)
    else:
        state = _draw(selection, space, config) if run is None else _search(run, selection, path, folder, resume)
        result = cell_result(state, space, config, record, path)
    if folder is not None:
        result.write(folder)
        folder.finish(seconds=result.seconds, frames=result.frames, genotype=str(result.genotype))
    if not result.genotype.chain and result.state.epochs:
        warnings.warn(identity_warning(result), stacklevel=2)
    return result


def make_accelerator(config: SearchConfig) -> Accelerator:
    """The accelerator that the settings ask for."""
    return Accelerator(mixed_precision=config.precision, cpu=config.device == "cpu")


def _claim(
    out: Path, overwrite: bool, resume: bool, settings: Mapping[str, Any], accelerator: Accelerator
) -> OutputDirectory:
    """The result folder, with the settings in it from the start; those of a run that goes on stay."""
    folder = OutputDirectory(out, "search", overwrite=overwrite, resume=resume)
    folder.note(versions=versions(), processes=accelerator.num_processes, device=str(accelerator.device))
    path = folder / "config.yaml"
    if not (folder.resumed and path.is_file()):
        atomic_write_text(path, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))
    return folder


def _prepare(
    backbone: nn.Module,
    train: ImageSet,
    validation: ImageSet | None,
    config: SearchConfig,
    space: SearchSpace,
    accelerator: Accelerator,
    progress: Progress | None,
) -> SearchRun:
    """The cell and the fused copy of the backbone with their images, before the first step."""
    if validation is None:
        train, validation = train.split(1 - config.validation_share, seed=derived_seed(config.seed, "split"))
    images, _ = next(iter(train.batches(1).epoch(0)))
    size = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    network = build_network(backbone, config.fusion, residual=config.residual, input_size=size)
    return SearchRun(network, space, config, train, validation, accelerator, progress)


def _draw(selection: Selection, space: SearchSpace, config: SearchConfig) -> SearchState:
    drawn = Drawn(space, config)
    for unit in selection.units(space, config):
        selection.decide(unit, drawn)
    return drawn.state


def _search(
    run: SearchRun, selection: Selection, out: Path | None, folder: OutputDirectory | None, resume: bool
) -> SearchState:
    # The main process's folder also records that the checkpoints are its own.
    base = out if folder is None else folder
    checkpoint = None if base is None else base / CHECKPOINT
    if resume and checkpoint is not None and any(checkpoint.parent.glob("last*.pt")):
        load_run(run, checkpoint)
    curves = Curves(None if folder is None else folder / "tensorboard", run.space, run.state.done)
    try:
        _work(run, selection, checkpoint, curves)
    finally:
        curves.close()
    return run.state


def _work(run: SearchRun, selection: Selection, checkpoint: Path | None, curves: Curves) -> None:
    """Carry out the units that are left; after each the checkpoint is whole."""
    units = selection.units(run.space, run.config)
    tune_epochs = sum(unit.kind == "tune" for unit in units)
    run.measurements = sum(unit.kind in ("edge", "node", "score") for unit in units)
    for number in range(run.state.done, len(units)):
        begun = time.perf_counter()
        _carry_out(units[number], run, selection, tune_epochs)
        run.state.done = number + 1
        run.state.seconds += time.perf_counter() - begun
        if checkpoint is not None:
            save_run(run, checkpoint)
        curves.add(units[number], number, run.state)


def _carry_out(unit: Unit, run: SearchRun, selection: Selection, tune_epochs: int) -> None:
    if unit.kind == "search":
        run.search_epoch(unit.index, moves_tau=selection.moves_tau)
    elif unit.kind == "tune":
        run.tune_epoch(unit.index, tune_epochs)
    elif unit.kind == "score":
        run.score_chosen()
    else:
        selection.decide(unit, run)


def _rank(
    backbone: nn.Module,
    images: ImageSet,
    config: SearchConfig,
    space: SearchSpace,
    accelerator: Accelerator,
    provenance: dict[str, Any],
    out: Path | None,
    progress: Progress | None,
) -> SearchResult:
    tensors = [*backbone.parameters(), *backbone.buffers()]
    if any(tensor.device != accelerator.device for tensor in tensors):
        backbone = copy.deepcopy(backbone).to(accelerator.device)
    precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
    ranking = rank_genotypes(
        backbone,
        images,
        space=space,
        count=config.candidates,
        T=config.T,
        seed=config.seed,
        first_images=config.first_images,
        max_images=config.validation_images,
        batch_size=config.batch_size * config.T,
        padding=config.padding,
        interpolation=config.interpolation,
        autocast=precision,
        provenance=provenance,
        progress=progress,
    )
    if accelerator.num_processes > 1:
        # Every process has ranked all images; on a GPU the last digits may differ, the choice must not.
        (ranking,) = broadcast_object_list([ranking])
    return SearchResult(ranking.best, config, space, SearchState(), ranking, out)
