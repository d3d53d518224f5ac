"""What the options of `image2video search --task` ask for: network, images and losses of another library's config."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from jsonargparse import Namespace

from image2video.cli.arguments import collect, dashed
from image2video.cli.options import BackboneOptions, DataOptions, OutputOptions, TaskOptions
from image2video.cli.search_job import RENAME, CompareOptions, check_resumed
from image2video.errors import InputError
from image2video.runs.texts import read_json
from image2video.search import Problem, Request, SearchConfig, SearchResult, build_problem, get_selection, search
from image2video.search.score.task import Task
from image2video.training import make_accelerator

TASK_FILE = "task.json"
"""What of the task's config decides the result, in the folder of the search."""
_TAKEN = {DataOptions: ("train_images", "holdout", "workers"), BackboneOptions: ("weights",), CompareOptions: ()}
"""The options that a task takes; its config says what the others do."""


@dataclass(frozen=True)
class TaskJob:
    """A search with what a task's builder gave."""

    config: SearchConfig
    data: Problem
    accelerator: Accelerator
    out: Path

    @property
    def model(self) -> str:
        """The network's name, for records."""
        return self.data.model

    @property
    def task(self) -> Task:
        """What the network is for."""
        return self.data.task

    def search(self, config: SearchConfig, out: Path, **options: Any) -> SearchResult:
        """One search with these images and this network."""
        return search(
            self.data.network,
            self.data.train,
            config,
            validation=self.data.holdout,
            task=self.task,
            mean=self.data.mean,
            std=self.data.std,
            out=out,
            accelerator=self.accelerator,
            provenance={"dataset": self.data.short_name, "backbone": self.model},
            files={TASK_FILE: _text(self.data)},
            **options,
        )


def prepare_task(options: Namespace) -> TaskJob:
    """What the options mean; whatever can be refused is refused here."""
    config = collect(SearchConfig, options, rename=RENAME, device="auto")  # the accelerator decides
    asked, data = collect(TaskOptions, options), collect(DataOptions, options)
    weights = collect(BackboneOptions, options).weights
    _check_options(options)
    fixed = get_selection(config.selection).needs_trained
    if fixed and weights is None:
        raise InputError(f"--selection {config.selection} ranks chains for a trained network; give --weights FILE")
    if data.holdout != DataOptions().holdout and (not fixed or asked.task_validation != "train"):
        raise InputError(
            "--holdout: no effect here; it is the share of the training images that --selection fixed_weights ranks "
            "chains on (elsewhere: --validation-share)"
        )
    output = collect(OutputOptions, options)
    accelerator = make_accelerator(options.device)
    request = Request(
        config=config,
        train_images=data.train_images,
        holdout=data.holdout,
        held_out=asked.task_validation,
        size=asked.task_size,
        weights=weights,
        workers=data.workers,
    )
    problem = build_problem(str(asked.task), request)
    out = Path(output.out)
    if output.resume:
        check_resumed(out, options)
        _check_same(out, problem)
    if accelerator.is_main_process:
        for note in problem.notes:
            print(f"image2video search: {note}", file=sys.stderr)
    return TaskJob(config, problem, accelerator, out)


def _check_options(options: Namespace) -> None:
    """Refuse what the task's config decides, and final networks, which its own library trains."""
    given = []
    for source, taken in _TAKEN.items():
        asked = asdict(collect(source, options))
        for name, default in asdict(source()).items():
            no_comparison = name == "compare" and asked[name] == "none"  # which is what a task makes anyway
            if name not in taken and asked[name] != default and not no_comparison:
                given.append(dashed(name))
    if given:
        raise InputError(
            f"{', '.join(given)}: no effect with --task, whose config says which images and which network; final "
            "networks are trained by the config's own library, with the genotype that is found"
        )


def _text(problem: Problem) -> str:
    """What of the config decides the result, as JSON."""
    return json.dumps(dict(problem.settings), indent=1, sort_keys=True) + "\n"


def _check_same(out: Path, problem: Problem) -> None:
    """Refuse to go on where the config has changed, in what decides the result."""
    path = out / TASK_FILE
    if not path.is_file():
        return
    then, now = read_json(path), json.loads(_text(problem))
    if not isinstance(then, dict):
        raise InputError(f"{path} must hold the settings of a task, got a {type(then).__name__}; restore a copy")
    changed = [_first_change(key, then.get(key), now.get(key)) for key in now if then.get(key) != now.get(key)]
    if changed:
        raise InputError(
            f"cannot resume the search in {out}: the config of --task is another now ({'; '.join(changed)}); use the "
            "same, or replace it with --overwrite"
        )


def _first_change(key: str, then: Any, now: Any) -> str:
    """The innermost setting that differs, with both of its values."""
    if isinstance(then, dict) and isinstance(now, dict):
        name = next(name for name in {**then, **now} if then.get(name) != now.get(name))
        return _first_change(f"{key}.{name}", then.get(name), now.get(name))
    return f"{key}: {then!r:.80} then, {now!r:.80} now"
