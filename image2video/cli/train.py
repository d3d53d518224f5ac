"""`image2video train`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace
from rich.console import Console

from image2video.cli.arguments import collect
from image2video.cli.commands.train import FieldOptions
from image2video.cli.follow import follow_run, say
from image2video.cli.images import load_matching_data
from image2video.cli.models import build_model, check_classes, settings
from image2video.cli.options import BackboneOptions, DataOptions, OutputOptions, WrapOptions
from image2video.cli.own_code import imported
from image2video.cli.progress import progress_bars
from image2video.cli.tables import cost_line, metrics_table
from image2video.cli.train_fields import print_fields, wanted
from image2video.runs.folders import FolderLock, add_to_run
from image2video.settings.training import FINE_TUNING
from image2video.training import TrainConfig, load_weights, make_accelerator, measure_cost, train
from image2video.wrap.video_wrap import VideoWrap


def run(options: Namespace) -> None:
    """Trains, evaluates, and prints accuracies, cost and the folder of the results."""
    options, origin, notes = follow_run(options)
    config = collect(TrainConfig, options)
    data_options, output = collect(DataOptions, options), collect(OutputOptions, options)
    backbone, wrap = collect(BackboneOptions, options), collect(WrapOptions, options)
    if config.lr is None and (backbone.weights is not None or backbone.pretrained):
        config = replace(config, lr=FINE_TUNING * config.peak_lr)
    accelerator = make_accelerator(config.device)
    say("train", notes, show=accelerator.is_main_process)
    data, images = load_matching_data(data_options, backbone, config.seed, run=origin)
    model, changes = build_model(backbone, wrap, data, config.seed)
    check_classes(model, data)
    say("train", [images, *changes], show=accelerator.is_main_process)
    # The whole command holds the folder: it adds to the run after its training.
    with FolderLock(output.out, wanted=accelerator.is_main_process):
        with progress_bars(show=accelerator.is_main_process) as progress:
            result = train(
                model,
                data,
                config,
                out=output.out,
                resume=output.resume,
                overwrite=output.overwrite,
                progress=progress,
                accelerator=accelerator,
                settings=settings(data_options, backbone, wrap) | imported(options),
            )
        if not accelerator.is_main_process or result.out is None:
            return
        cost = measure_cost(model, data.input_size, batch=min(config.batch_size, 32))
        if isinstance(model, VideoWrap):
            load_weights(model, result.out / "best.safetensors")
            model.save_pretrained(add_to_run(result.out, "pretrained"))
        console = Console()
        rows = [("last epoch", result.test_last)]
        if data.holdout is not None:
            rows.insert(0, (f"best held-out epoch ({result.best_epoch + 1})", result.test_best))
        console.print(metrics_table(f"{data.short_name}, {data.test.num_images} test images", rows))
        console.print(cost_line(cost))
        if isinstance(model, VideoWrap) and wanted(collect(FieldOptions, options), data):
            print_fields(model, data, backbone.model, Path(result.out), console)
        console.print(f"results: {Path(result.out).resolve()}", soft_wrap=True)
