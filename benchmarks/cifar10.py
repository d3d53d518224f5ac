r"""Does a wrapped network beat the bare one on CIFAR-10, at equal epochs and at equal compute?

    python benchmarks/cifar10.py --data npz:cifar10.npz --threads 2 --results benchmarks/results/cifar10_cpu.json
    python benchmarks/cifar10.py --data npz:cifar10.npz --model cifar_resnet18 --train-images null --epochs 60 \
        --batch-size 256 --finetune-epochs 10 --checkpoints --results benchmarks/results/cifar10_gpu.json

The arms are those of `image2video demo` and one translation by a pixel per step. Each finished run is a JSON file in
`OUT/runs`; a killed benchmark goes on with `--resume`. Genotypes are chosen on held-out training images, the search
and its time included; the test set is read once per run.
"""

from argparse import RawDescriptionHelpFormatter
from dataclasses import asdict
from typing import Any

import torch
from harness import write_result
from jsonargparse import ArgumentParser
from rich.console import Console

from image2video.cli.arguments import add_fields, collect
from image2video.cli.progress import progress_bars
from image2video.experiments import (
    DemoConfig,
    render_table,
    report_path,
    run_comparison,
    select_arms,
    standard_arms,
    standard_contrasts,
    verdict_sentence,
)
from image2video.report import ComparisonResult, arm_rows, verdicts

ONE_PIXEL = "translate_x(0.03125)"
DEFAULTS: dict[str, Any] = {
    "data": "torchvision:CIFAR10@data",
    "model": "cifar_resnet8",
    "train_images": 5000,
    "holdout": 0.1,
    "epochs": 10,
    "finetune_epochs": 3,
    "batch_size": 64,
    "lr": 0.1,
    "search_lr": 0.05,
    "search_epochs": 6,
    "out": "runs/cifar10",
}


def parser() -> ArgumentParser:
    """The options: every field of `DemoConfig`, as in `image2video demo`, and where the summary goes."""
    found = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    found.add_argument("--config", action="config", help="a YAML file with these options")
    add_fields(found, DemoConfig, defaults=DEFAULTS)
    found.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch on the CPU")
    found.add_argument("--translation", type=str, default=ONE_PIXEL, help="genotype of the translation arm")
    found.add_argument("--results", type=str, default=None, help="write the summary to this JSON file")
    return found


def summary(result: ComparisonResult) -> dict[str, Any]:
    """The figures of a comparison as a benchmark's payload: arms, paired differences, search, sentence."""
    by_name = {arm.name: arm for arm in result.arms}
    results = []
    for row in arm_rows(result):
        arm = by_name[row.name]
        results.append(
            {
                "arm": row.name,
                "title": row.title,
                "accuracy": round(row.accuracy.mean, 3),
                "half_width_95": None if row.accuracy.n == 1 else round(row.accuracy.half_width, 3),
                "n": row.accuracy.n,
                "by_seed": {str(seed): round(value, 3) for seed, value in arm.by_seed().items()},
                "genotypes": list(row.genotypes),
                "macs_per_image": row.macs,
                "ms_per_image": None if row.ms is None else round(row.ms, 4),
                "parameters": row.parameters,
                "training_frames": row.frames,
                "epochs": arm.runs[0].epochs,
                "seconds": round(sum(run.seconds for run in arm.runs), 1),
            }
        )
    differences = [
        {
            "question": verdict.contrast.lead,
            "a": verdict.contrast.a,
            "b": verdict.contrast.b,
            "difference": round(verdict.difference.mean, 3),
            "half_width_95": None if verdict.difference.n == 1 else round(verdict.difference.half_width, 3),
            "n": verdict.difference.n,
            "a_is": verdict.outcome,
        }
        for verdict in verdicts(result)
    ]
    search = None
    if result.search is not None:
        chosen = ("space", "genotype", "frames", "seconds")
        search = {name: value for name, value in asdict(result.search).items() if name in chosen}
    return {
        "settings": result.settings,
        "data": result.data,
        "environment": result.environment,
        "results": results,
        "differences": differences,
        "search": search,
        "sentence": verdict_sentence(result),
        "frames": result.frames,
        "seconds": round(result.seconds, 1),
    }


def main() -> None:
    """Run the comparison with bars, print its table, and write the summary."""
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    config = collect(DemoConfig, options)
    arms = select_arms(standard_arms(config.frames, config.fusion, options.translation), config.arms)
    with progress_bars() as progress:
        result = run_comparison(config, arms, standard_contrasts(translation=True), progress=progress)
    console = Console()
    console.print(render_table(result))
    console.print(verdict_sentence(result), highlight=False)
    console.print(f"report: {report_path(config).resolve()}", soft_wrap=True)
    write_result(options.results, "cifar10", summary(result), columns=("arm", "accuracy", "half_width_95", "n"))


if __name__ == "__main__":
    main()
