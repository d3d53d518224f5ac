"""`image2video demo`."""

from __future__ import annotations

from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table

from image2video.assess.deployments import Deployment, run_deployments
from image2video.assess.story import columns, opening, rows
from image2video.cli.arguments import collect
from image2video.cli.commands.demo import StoryOptions
from image2video.cli.progress import progress_bars
from image2video.data import load_data
from image2video.experiments import DemoConfig, render_table, report_path, run_demo, verdict_sentence
from image2video.integrations.timm_backbones import build
from image2video.protocols import Progress
from image2video.report import Opening
from image2video.runs.folders import add_to_run, atomic_write_json

DEPLOYMENTS = "deployments.json"


def run(options: Namespace) -> None:
    """Tells what helps a trained network where it is used, runs the comparison, and prints the path of the report."""
    config, story = collect(DemoConfig, options), collect(StoryOptions, options)
    console = Console()
    told: list[Deployment] = []

    def tell(progress: Progress | None) -> Opening:
        told.extend(_deployments(config, story, progress))
        console.print(_table(told))
        first = opening(told, f"{config.model} on {config.data}")
        for sentence in first.sentences:
            console.print(sentence, highlight=False, markup=False)
        return first

    wanted = story.deployments if story.deployments is not None else config.data.startswith(("digits", "npz:"))
    with progress_bars() as progress:
        result = run_demo(config, progress=progress, opening=(lambda: tell(progress)) if wanted else None)
    if told:
        atomic_write_json(add_to_run(config.out, DEPLOYMENTS), {"deployments": [one.to_dict() for one in told]})
    console.print(render_table(result))
    console.print(verdict_sentence(result), highlight=False)
    console.print(f"report: {report_path(config).resolve()}", soft_wrap=True)


def _deployments(config: DemoConfig, story: StoryOptions, progress: Progress | None) -> tuple[Deployment, ...]:
    """A network that is trained on all training images, where it is used."""
    data = load_data(
        config.data, train_images=config.train_images, holdout=0.0, seed=config.seed, image_size=config.image_size
    )
    return run_deployments(
        lambda seed: build(config.model, num_classes=data.num_classes, in_chans=data.input_size[0]),
        data,
        config.training,
        epochs=story.deployment_epochs,
        tune_epochs=story.deployment_tune_epochs,
        seed=config.seed,
        candidates=story.deployment_candidates,
        progress=progress,
    )


def _table(deployments: list[Deployment]) -> Table:
    """What helps where."""
    title = f"accuracy in percent on {deployments[0].images} test images of each place, and the gain (95 % interval)"
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(columns(deployments)):
        first = number == 0
        table.add_column(name, justify="left" if first else "right", overflow="fold", no_wrap=first)
    for way, row in zip(deployments[0].ways, rows(deployments), strict=True):
        table.add_row(way.name, *row[1:])  # the report has the titles, which a terminal is too narrow for
    return table
