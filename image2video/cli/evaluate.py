"""`image2video evaluate`."""

from __future__ import annotations

import json
import sys

from jsonargparse import Namespace
from rich.console import Console

from image2video.cli.arguments import collect
from image2video.cli.commands.evaluate import EvaluateOptions
from image2video.cli.follow import follow_run, say
from image2video.cli.images import load_matching_data
from image2video.cli.models import build_model, check_classes
from image2video.cli.options import BackboneOptions, DataOptions, MachineOptions, WrapOptions
from image2video.cli.progress import progress_bars
from image2video.cli.tables import cost_line, metrics_table
from image2video.errors import InputError
from image2video.search.rank.averaging import frames_at_once
from image2video.training import evaluate, make_accelerator, measure_cost
from image2video.wrap.video_wrap import VideoWrap


def run(options: Namespace) -> None:
    """Prints top-1, loss and cost."""
    options, origin, notes = follow_run(options)
    backbone, machine = collect(BackboneOptions, options), collect(MachineOptions, options)
    how = collect(EvaluateOptions, options)
    if backbone.weights is None and not backbone.pretrained:
        raise InputError("without --weights FILE or --pretrained the network is random; say which weights to evaluate")
    if backbone.head == "drop":
        raise InputError("--head drop: an evaluation needs the classifier of the weights; leave it out")
    read = "test" if how.part == "test" else "train"
    data_options = collect(DataOptions, options)
    say("evaluate", notes)
    data, line = load_matching_data(data_options, backbone, machine.seed, run=origin, parts=(read,), subset=True)
    images = {"test": data.test, "holdout": data.holdout, "train": data.train}[how.part]
    if images is None:
        raise InputError("--part holdout needs held-out images; give --holdout above 0")
    device = make_accelerator(machine.device).device
    wrap = collect(WrapOptions, options)
    model, changes = build_model(backbone, wrap, data, machine.seed, device=device, evaluated=True)
    check_classes(model, data)
    say("evaluate", [line, *changes])
    T = model.T if isinstance(model, VideoWrap) else 1
    batch_size = max(1, frames_at_once(device) // T) if how.batch_size is None else how.batch_size
    with progress_bars(show=not how.json) as progress:
        metrics = evaluate(model, images.batches(batch_size, device=device), device, progress=progress)
    cost = measure_cost(model, data.input_size, batch=32 if how.batch_size is None else min(how.batch_size, 32))
    if how.json:
        record = {"data": data.name, "part": how.part, **metrics.to_dict(), "cost": cost.to_dict()}
        record["images"] = {"input_size": data.input_size, "mean": data.mean, "std": data.std}
        if data.resizing is not None:
            record["images"]["resizing"] = data.resizing.to_dict()
        json.dump(record, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    console = Console()
    console.print(metrics_table(f"{data.short_name}, {how.part} images", [(backbone.weights or "pretrained", metrics)]))
    console.print(cost_line(cost))
