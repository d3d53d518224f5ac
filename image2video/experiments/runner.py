"""Running a comparison: data, arms and seeds from a config, result and report into one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from torch import nn

from image2video.clip.options import ClipOptions
from image2video.data import load_data
from image2video.experiments.arms import Arm, check_arms, select_arms, standard_arms, standard_contrasts
from image2video.experiments.bench import Bench
from image2video.experiments.comparison import Comparison
from image2video.experiments.config import DemoConfig
from image2video.experiments.fields import SHOWN
from image2video.experiments.genotypes import DemoGenotypes
from image2video.experiments.output import check_settings, comparison_record, stage_seconds, write_outputs
from image2video.integrations.timm_backbones import build
from image2video.protocols import Progress
from image2video.report import ComparisonResult, Contrast, Opening
from image2video.runs.folders import OutputDirectory
from image2video.training import make_accelerator


def run_demo(
    config: DemoConfig | None = None, progress: Progress | None = None, opening: Callable[[], Opening] | None = None
) -> ComparisonResult:
    """Search a genotype, train all `standard_arms` with every seed, and write `report.html` and `result.json`.

    Every choice (genotypes, magnitudes) is made on held-out training images. The test set is read once per run, at the
    end.

    Args:
        config: what is compared; None for the defaults.
        progress: called with the steps of the search and of every training.
        opening: makes what the report tells first; called before anything is compared.

    Returns:
        The comparison, as `result.json` holds it.

    Raises:
        ExistsError: `config.out` holds another run.

    >>> result = run_demo(DemoConfig(out="runs/demo"))  # doctest: +SKIP
    """
    config = config or DemoConfig()
    arms = select_arms(standard_arms(config.frames, config.fusion), config.arms)
    return run_comparison(config, arms, standard_contrasts(), progress=progress, opening=opening)


def run_comparison(
    config: DemoConfig,
    arms: Sequence[Arm],
    contrasts: Sequence[Contrast],
    *,
    progress: Progress | None = None,
    opening: Callable[[], Opening] | None = None,
) -> ComparisonResult:
    """Run arms with every seed of `config`.

    The folder `config.out` gets `runs/<arm>-seed<k>.json` (one per finished run), `result.json`, `report.html` and
    `film.png`, `search/`, and `weights/` of the arms that others start from. `stages` in its `run.json` are the seconds
    of the opening, the search, the rankings, the runs and the report.

    Args:
        config: the images, the network and the recipe.
        arms: those that start from another come after it.
        contrasts: the questions of the report; those whose arms are not among `arms` are left out.
        progress: called with the steps of the search and of every training.
        opening: makes what the report tells first; called before anything is compared.

    Returns:
        The comparison, as `result.json` holds it.

    Raises:
        InputError: arms that do not fit together, or a folder that was begun with other settings.
        ExistsError: `config.out` holds another run.
        StateError: another job writes into `config.out`.
    """
    check_arms(arms)
    names = {arm.name for arm in arms}
    contrasts = [contrast for contrast in contrasts if {contrast.a, contrast.b} <= names]
    with OutputDirectory(config.out, "demo", overwrite=config.overwrite, resume=config.resume) as folder:
        check_settings(folder, config)
        began = perf_counter()
        first = None if opening is None else opening()
        stages = {} if opening is None else {"opening": perf_counter() - began}
        bench = demo_bench(config)
        genotypes = DemoGenotypes(config, bench, folder, progress)
        comparison = Comparison(
            bench,
            arms,
            folder,
            genotypes,
            seeds=config.all_seeds,
            checkpoints=config.checkpoints,
            fields=[name for name in SHOWN if name in names],
            progress=progress,
        )
        for seed in config.all_seeds:
            for arm in arms:
                comparison.run(arm, seed)
        record = comparison_record(comparison, config, contrasts, genotypes.search_record, genotypes.rankings)
        return write_outputs(folder, record, bench, first, stages | stage_seconds(record))


def demo_bench(config: DemoConfig) -> Bench:
    """The images, the network, the clip and the recipe of a demo."""
    data = load_data(
        config.data,
        train_images=config.train_images,
        holdout=config.holdout,
        seed=config.seed,
        image_size=config.image_size,
    )

    def bare(seed: int) -> nn.Module:
        return build(config.model, num_classes=data.num_classes, in_chans=data.input_size[0])

    return Bench(
        data=data,
        build=bare,
        # Zeros, as the search pads.
        clip=ClipOptions(T=config.frames, schedule=config.schedule, padding="zeros", mean=data.mean, std=data.std),
        recipe=config.training,
        epochs=config.epochs,
        finetune_epochs=config.finetune_epochs,
        accelerator=make_accelerator(config.device),
    )
