"""What the options of `image2video search` ask for, checked before any work."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from jsonargparse import Namespace
from torch import nn

from image2video.cli.arguments import collect, dashed, record
from image2video.cli.commands.search import RENAME, CompareOptions
from image2video.cli.follow import say
from image2video.cli.heads import load_weights_file, published_head
from image2video.cli.images import load_matching_data, warn_of_seen_images
from image2video.cli.models import bare_model
from image2video.cli.options import BackboneOptions, DataOptions, OutputOptions, TaskOptions
from image2video.data import DataSource
from image2video.data.absent import PARTS
from image2video.errors import InputError
from image2video.experiments.candidates import Candidate, check_candidates, parse_candidates
from image2video.experiments.settings import CompareConfig
from image2video.runs.yaml_text import read_yaml
from image2video.search import SearchConfig, SearchResult, get_selection, get_space, search
from image2video.search.score.task import Task, get_task
from image2video.settings.search import CHOICES
from image2video.training import make_accelerator
from image2video.training.trained import TrainedRun

CONFIG_FILE = "config.yaml"
_DEFAULT_CANDIDATES = "random:3,replica"
_ELSEWHERE = ("space", "device", "precision")  # a space's file may have moved: the checkpoint knows its content
_EPOCHS_SHARE = 10
_RESUMED = (
    *(field.name for field in fields(DataOptions) if field.name not in ("data", "workers")),
    *("model", "model_kwargs", "pretrained", "task_validation"),
    *(RENAME.get(field.name, field.name) for field in fields(SearchConfig) if field.name not in _ELSEWHERE),
)
"""The options that a resumed search must share with its beginning."""


@dataclass(frozen=True)
class SearchJob:
    """Everything that the options ask for, checked."""

    config: SearchConfig
    backbone: BackboneOptions
    data: DataSource
    accelerator: Accelerator
    candidates: tuple[Candidate, ...] | None
    final: CompareConfig
    out: Path

    @property
    def model(self) -> str:
        """The network's name, for records."""
        return self.backbone.model

    @property
    def task(self) -> Task:
        """What the data's labels ask for."""
        return get_task(self.data.task, self.data.num_classes)

    def network(self, seed: int) -> nn.Module:
        """The bare network with the weights that were asked for."""
        return _network(self.backbone, self.data, seed)[0]

    def search(self, config: SearchConfig, out: Path, **options: Any) -> SearchResult:
        """One search with these data and this network."""
        return search(
            self.network(self.config.seed),
            self.data.train,
            config,
            validation=self.data.holdout if get_selection(config.selection).needs_trained else None,
            task=self.task,
            mean=self.data.mean,
            std=self.data.std,
            out=out,
            accelerator=self.accelerator,
            provenance={"dataset": self.data.short_name, "backbone": self.backbone.model},
            **options,
        )


def _network(
    backbone: BackboneOptions, data: DataSource, seed: int, *, needed: bool = False
) -> tuple[nn.Module, str | None]:
    """The bare network with its weights, and a line where their classifier is left out."""
    model, _ = bare_model(backbone, data, seed)
    if backbone.weights is not None:
        return model, load_weights_file(model, backbone, data, needed=needed)
    return model, published_head(model, backbone, data, needed=needed) if backbone.pretrained else None


def prepare(options: Namespace, origin: TrainedRun | None = None, notes: Sequence[str] = ()) -> SearchJob:
    """What the options mean; whatever can be refused is refused here.

    origin: the run behind the weights, whose record the options follow, as the `notes` say.
    """
    if collect(TaskOptions, options) != TaskOptions():
        raise InputError("--task-validation and --task-size are for --task; give that, or leave them out")
    config = collect(SearchConfig, options, rename=RENAME, device="auto")  # the accelerator decides
    data_options, backbone = collect(DataOptions, options), collect(BackboneOptions, options)
    asked = collect(CompareOptions, options)
    trained = backbone.weights is not None or backbone.pretrained
    fixed = get_selection(config.selection).needs_trained
    if fixed and not trained:
        raise InputError(f"--selection {config.selection} ranks chains for a trained network; give --weights FILE")
    if fixed and not data_options.holdout:
        raise InputError(
            f"--selection {config.selection} needs images the network was not trained on: --holdout above 0"
        )
    candidates = _candidates(asked, config)
    _check_comparable(candidates, config)
    check_candidates(candidates or (), trained=trained, held_out=data_options.holdout > 0)
    final = CompareConfig(
        model=backbone.model,
        frames=config.T,
        schedule=get_space(config.space_name).schedule,
        fusion=config.fusion,
        epochs=max(1, round(config.epochs / _EPOCHS_SHARE)) if asked.final_epochs is None else asked.final_epochs,
        seeds=asked.final_seeds,
        seed=config.seed,
        batch_size=config.batch_size,
        lr=asked.final_lr,
        trained=trained,
        padding=config.padding,
        interpolation=config.interpolation,
    )
    accelerator = make_accelerator(options.device)
    if candidates is not None and accelerator.num_processes > 1:
        _refuse_comparison(asked, accelerator)
        candidates = None
    parts = PARTS if candidates else ("train",)  # final networks are tested, a search is not
    data, line = load_matching_data(data_options, backbone, config.seed, run=origin, parts=parts)
    ranked = fixed or any(candidate.name == "fixed_weights" for candidate in candidates or ())
    if ranked:
        warn_of_seen_images(origin, data_options, config.seed)
    change = _network(backbone, data, config.seed, needed=ranked)[1] if trained else None
    say("search", [*notes, line, *([] if change is None else [change])], show=accelerator.is_main_process)
    output = collect(OutputOptions, options)
    if output.resume:
        check_resumed(Path(output.out), options, data)
    return SearchJob(config, backbone, data, accelerator, candidates, final, Path(output.out))


def _check_comparable(candidates: Sequence[Candidate] | None, config: SearchConfig) -> None:
    """Refuse final networks for what may be found, where their clips cannot be told beforehand."""
    if candidates is None:
        return
    choices = [dashed(name) for name in CHOICES if getattr(config, name) is not None]
    if config.selection == "greedy_frames" or choices:
        what = "--selection greedy_frames" if config.selection == "greedy_frames" else ", ".join(choices)
        raise InputError(
            f"--compare trains networks on clips of --frames frames, and {what} decides the frames in the search; "
            "leave --compare out, and train on the genotype.json that is found"
        )


def _refuse_comparison(asked: CompareOptions, accelerator: Accelerator) -> None:
    """Say that several processes make no comparison: an error where one was asked for, else a warning."""
    if asked.compare is not None:
        raise InputError(
            f"--compare runs in one process, this launch has {accelerator.num_processes}; leave it out, and start the "
            "command again in one process with --resume --compare"
        )
    if accelerator.is_main_process:
        warnings.warn(
            f"no comparison with random clips in a launch of {accelerator.num_processes} processes; the same command "
            f"in one process with --resume --compare {_DEFAULT_CANDIDATES} makes it",
            stacklevel=3,
        )


def check_resumed(out: Path, options: Namespace, data: DataSource | None = None) -> None:
    """Refuse to go on with other images or another network, which a checkpoint does not know by their options."""
    path = out / CONFIG_FILE
    if not path.is_file():
        return
    saved, now = read_yaml(path, "config of the search"), record(options)
    if not isinstance(saved, dict):
        raise InputError(f"{path} must hold the options of a run, got a {type(saved).__name__}; restore a copy")
    if "selection" not in saved:  # no search: the folder is refused by its kind
        return
    pairs = {name: (saved[name], now[name]) for name in _RESUMED if name in saved}
    if "data" in saved and data is not None:  # it may lie in another folder now
        pairs["data"] = (replace(data, name=str(saved["data"])).short_name, data.short_name)
    changed = [f"{name}: {then!r} then, {this!r} now" for name, (then, this) in pairs.items() if then != this]
    if changed:
        raise InputError(
            f"cannot resume the search in {out} with other settings ({'; '.join(changed)}); use the same, or replace "
            "it with --overwrite"
        )


def _candidates(asked: CompareOptions, config: SearchConfig) -> tuple[Candidate, ...] | None:
    """The candidates that are asked for, or the default's; None for no comparison."""
    wanted = asked.compare
    if wanted is None:
        # Who sets a budget, or picks a selection that trains nothing, did not ask for hours of final networks.
        trains = get_selection(config.selection).trains
        budget = config.max_images is not None or config.max_minutes is not None
        inside = config.clip_at is not None  # final networks have their clips at the image
        wanted = _DEFAULT_CANDIDATES if trains and not budget and not inside else None
    return parse_candidates(wanted) or None
