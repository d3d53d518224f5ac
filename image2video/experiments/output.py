"""What a comparison leaves behind: the settings it may be resumed with, `result.json`, `report.html`, `film.png`."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from image2video.clip.any_clip import Clip, options_for, parse_clip
from image2video.clip.frame_set import FrameSet
from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError
from image2video.experiments.bench import Bench
from image2video.experiments.comparison import Comparison
from image2video.experiments.config import DemoConfig
from image2video.experiments.fields import fields_record
from image2video.experiments.outcome import result_record
from image2video.experiments.settings import CompareConfig
from image2video.report import ComparisonResult, Contrast, Opening, film_figure, film_strip, write_report
from image2video.runs.folders import OutputDirectory, atomic_write_json, read_record
from image2video.version import __version__

SETTINGS = "settings.json"
_FILM_IMAGES = 3


def check_settings(folder: OutputDirectory, config: DemoConfig | CompareConfig, **more: str) -> None:
    """Write the settings, and `more`, into a folder.

    Raises:
        InputError: the folder was begun with other settings.
    """
    path, now = folder / SETTINGS, config.settings() | more
    if folder.resumed and path.is_file():
        saved = read_record(path)
        changed = [key for key in now if saved.get(key) != now[key]]
        if changed:
            listed = "; ".join(f"{key}: {saved.get(key)!r} then, {now[key]!r} now" for key in changed)
            raise InputError(
                f"cannot resume {folder.path} with other settings ({listed}); use the same, or replace that folder"
            )
    atomic_write_json(path, now)


def comparison_record(
    comparison: Comparison,
    config: DemoConfig | CompareConfig,
    contrasts: Sequence[Contrast],
    search: Mapping[str, Any] | None = None,
    rankings: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The JSON object of `result.json`; see `image2video.report.result`."""
    data = comparison.bench.data
    arms, described = comparison.arm_records(), data.describe()
    fields = fields_record(
        comparison.field_records(), model=config.model, data=f"{data.short_name} (seed {config.seed})"
    )
    runs = [run for arm in arms for run in arm["runs"]]
    work = runs if search is None else [*runs, search]
    rankings = rankings or {}
    return result_record(
        title=f"{data.short_name}: {config.model}, bare and as a video of {config.frames} frames",
        data={
            "name": data.short_name,
            "classes": described["classes"],
            "train": described["train_images"],
            "holdout": described["holdout_images"],
            "test": described["test_images"],
            "input_size": described["input_size"],
            **({"metric": "mIoU"} if data.task == "segmentation" else {}),
        },
        model=config.model,
        settings=config.settings() | {"data": data.short_name, "schedule": config.schedule, "seeds": config.seeds},
        arms=arms,
        contrasts=contrasts,
        environment=environment(comparison.bench.accelerator.device),
        search=search,
        fixed_weights=dict(rankings),
        fields=fields,
        frames=sum(part["frames"] for part in work),
        seconds=sum(part["seconds"] for part in [*work, *rankings.values()]),
    )


def stage_seconds(record: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of the search, the rankings and the runs of a comparison.

    Of finished runs, those before an interruption included; of a run that was killed, since it went on.
    """
    search = record["search"]
    return {
        "search": 0.0 if search is None else search["seconds"],
        "rankings": sum(ranking["seconds"] for ranking in record["fixed_weights"].values()),
        "runs": sum(run["seconds"] for arm in record["arms"] for run in arm["runs"]),
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware that the figures depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "image2video": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
    }


def write_outputs(
    folder: OutputDirectory,
    record: dict[str, Any],
    bench: Bench,
    opening: Opening | None = None,
    stages: Mapping[str, float] | None = None,
) -> ComparisonResult:
    """Write the result, the film strip of a few training images, and the report; return what the report reads.

    `stages` are the seconds of what came before, for `run.json`.
    """
    began = time.perf_counter()
    data, options = bench.data, bench.clip
    result = ComparisonResult.from_dict(record)
    atomic_write_json(folder / "result.json", record)
    film = None
    genotype = _shown_genotype(result)
    if isinstance(genotype, FrameSet):
        options = options_for(genotype, options)
    if genotype is not None and data.input_size[0] in (1, 3):
        images, labels = next(iter(data.train.batches(64).epoch(0)))
        images, labels = images[:_FILM_IMAGES], labels[:_FILM_IMAGES]
        colours: dict[str, Any] = {"mean": data.mean, "std": data.std}
        look = {**colours, "labels": [data.classes[int(i)] for i in labels]}
        film_strip(images, genotype, options.T, options.schedule, folder / "film.png", **look)
        film = film_figure(images, Image2Video(genotype, **options.arguments()), **look)
    write_report(folder / "report.html", result, film=film, opening=opening)
    timed = {**(stages or {}), "report": time.perf_counter() - began}
    folder.finish(
        seconds=record["seconds"],
        stages={name: round(seconds, 1) for name, seconds in timed.items()},
        runs=sum(len(arm.runs) for arm in result.arms),
    )
    return result


def _shown_genotype(result: ComparisonResult) -> Clip | None:
    """The genotype of the film strip: the searched one, else the first that an arm used."""
    used = [run.genotype for arm in result.arms for run in arm.runs if run.genotype != "none"]
    if result.search is not None:
        return parse_clip(result.search.genotype)
    return parse_clip(used[0]) if used else None


def report_path(config: DemoConfig) -> Path:
    """Where the report of a finished comparison is.

    Args:
        config: of the comparison.

    Returns:
        The path of `report.html` in the comparison's folder.
    """
    return Path(config.out) / "report.html"
