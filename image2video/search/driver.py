"""`search`: one call from a backbone and labelled images to a genotype and its result folder."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch import nn

from image2video.clip.chain import check_colours
from image2video.clip.colours import Colours, Values
from image2video.protocols import ImageSet, Progress
from image2video.runs.folders import OutputDirectory, atomic_write_text, versions
from image2video.search.rank.averaging import check_bare
from image2video.search.rank.fixed_weights import rank_genotypes
from image2video.search.result import SearchResult, budget_warning, cell_result, identity_warning
from image2video.search.run import SearchRun
from image2video.search.score.network import build_network
from image2video.search.score.task import ClassificationTask, Task
from image2video.search.select.strategies import get_selection, without_effect
from image2video.search.space.space import SearchSpace, get_space
from image2video.search.space.space_file import is_space_file
from image2video.search.state.config import SearchConfig
from image2video.search.state.seeds import derived_seed
from image2video.search.state.state import SearchState
from image2video.search.work import draw, work


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
    `selection="fixed_weights"` nothing is trained: chains are ranked for the backbone as it is, see `rank_genotypes`.

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

    Raises:
        ExistsError: `out` holds another run.
        InputError: settings that contradict each other, a backbone whose outputs the task does not take, another run's
            checkpoint, photometric ops for images of unknown colours.
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
    accelerator = accelerator or make_accelerator(config)
    setup = _Setup(
        config,
        get_space(config.space_name),
        accelerator,
        task or ClassificationTask(),
        Colours.coerce(mean, std) or Colours.of(backbone),
        progress,
    )
    images = train.num_images + (0 if validation is None else validation.num_images)
    record = {"backbone": type(backbone).__name__, "train_images": images, **dict(provenance or {})}
    if setup.task.metric != "accuracy":
        record["metric"] = setup.task.metric
    unused = without_effect(config)
    if unused is not None and accelerator.is_main_process:
        warnings.warn(unused, stacklevel=2)
    # What can be refused is refused before the folder of an earlier run is replaced.
    selection, run = None, None
    if config.selection == "fixed_weights":
        check_bare(backbone)
        setup.check_colours()
    else:
        selection = get_selection(config.selection)
        set_seed(config.seed, device_specific=accelerator.num_processes > 1)
        run = _prepare(backbone, train, validation, setup) if selection.trains else None
    path, folder = None if out is None else Path(out), None
    if path is not None and accelerator.is_main_process:
        folder = _claim(path, settings, files or {}, setup, overwrite=overwrite, resume=resume)
    accelerator.wait_for_everyone()
    if selection is None:
        result = _rank(backbone, train if validation is None else validation, setup, record, path)
    else:
        state = draw(selection, setup.space, config) if run is None else work(run, selection, path, folder, resume)
        result = cell_result(state, setup.space, config, record, path)
    if folder is not None:
        result.write(folder)
        folder.finish(seconds=result.seconds, frames=result.frames, genotype=str(result.genotype))
    _warn(result)
    return result


@dataclass(frozen=True)
class _Setup:
    """What all parts of a search need."""

    config: SearchConfig
    space: SearchSpace
    accelerator: Accelerator
    task: Task
    colours: Colours | None
    progress: Progress | None

    def check_colours(self) -> None:
        """Raise `InputError` where candidates change colours and nothing says how the images are normalised."""
        for candidate in self.space.candidates:
            check_colours(candidate, self.colours)


def make_accelerator(config: SearchConfig) -> Accelerator:
    """The accelerator that the settings ask for."""
    return Accelerator(mixed_precision=config.precision, cpu=config.device == "cpu")


def _claim(
    out: Path, settings: Mapping[str, Any] | None, files: Mapping[str, str], setup: _Setup, **how: bool
) -> OutputDirectory:
    """The result folder, with the settings in it from the start; those of a run that goes on stay."""
    folder = OutputDirectory(out, "search", **how)
    accelerator, space = setup.accelerator, setup.space
    folder.note(versions=versions(), processes=accelerator.num_processes, device=str(accelerator.device))
    records = {"config.yaml": dict(settings or {**setup.config.to_dict(), "space": space.name})}
    if is_space_file(setup.config.space_name):
        records["space.yaml"] = space.to_dict()  # the file may change, or be elsewhere, when the run is looked at
    texts = {n: yaml.safe_dump(content, sort_keys=False, allow_unicode=True) for n, content in records.items()}
    for name, text in {**texts, **files}.items():
        if not (folder.resumed and (folder / name).is_file()):
            atomic_write_text(folder / name, text)
    return folder


def _warn(result: SearchResult) -> None:
    spent = budget_warning(result)
    if spent is not None:
        warnings.warn(spent, stacklevel=3)
    if not result.genotype.chain and result.state.done > 0:
        warnings.warn(identity_warning(result), stacklevel=3)


def _prepare(backbone: nn.Module, train: ImageSet, validation: ImageSet | None, setup: _Setup) -> SearchRun:
    """The cell and the fused copy of the backbone with their images, before the first step."""
    setup.check_colours()
    # A space from a file is compared by its content, wherever the file lies.
    config = replace(setup.config, space=setup.space.name)
    if validation is None:
        train, validation = train.split(1 - config.validation_share, seed=derived_seed(config.seed, "split"))
    images, _ = next(iter(train.batches(1).epoch(0)))
    size = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    network = build_network(backbone, config.fusion, residual=config.residual, input_size=size, task=setup.task)
    return SearchRun(
        network,
        setup.space,
        config,
        train,
        validation,
        setup.accelerator,
        setup.task,
        setup.progress,
        setup.colours,
    )


def _rank(
    backbone: nn.Module, images: ImageSet, setup: _Setup, provenance: dict[str, Any], out: Path | None
) -> SearchResult:
    config, accelerator, colours = setup.config, setup.accelerator, setup.colours
    tensors = [*backbone.parameters(), *backbone.buffers()]
    if any(tensor.device != accelerator.device for tensor in tensors):
        backbone = copy.deepcopy(backbone).to(accelerator.device)
    precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
    ranking = rank_genotypes(
        backbone,
        images,
        space=setup.space,
        count=config.candidates,
        T=config.T,
        seed=config.seed,
        first_images=config.first_images,
        max_images=config.validation_images,
        max_seconds=None if config.max_minutes is None else 60 * config.max_minutes,
        max_frames=None if config.max_images is None else config.max_images * config.T,
        batch_size=config.batch_size * config.T,
        padding=config.padding,
        interpolation=config.interpolation,
        autocast=precision,
        task=setup.task,
        mean=None if colours is None else colours.mean,
        std=None if colours is None else colours.std,
        provenance=provenance,
        progress=setup.progress,
    )
    if accelerator.num_processes > 1:
        # Every process has ranked all images; on a GPU the last digits may differ, the choice must not.
        (ranking,) = broadcast_object_list([ranking])
    return SearchResult(ranking.best, config, setup.space, SearchState(), ranking, out)
