"""Running a comparison: data, arms and seeds from a config, result and report into one folder."""

from __future__ import annotations

from collections.abc import Sequence

from image2video.data import load_data
from image2video.experiments.arms import Arm, check_arms, select_arms, standard_arms, standard_contrasts
from image2video.experiments.comparison import Comparison
from image2video.experiments.config import DemoConfig
from image2video.experiments.fields import SHOWN
from image2video.experiments.output import check_settings, comparison_record, write_outputs
from image2video.protocols import Progress
from image2video.report import ComparisonResult, Contrast
from image2video.runs.folders import OutputDirectory


def run_demo(config: DemoConfig | None = None, progress: Progress | None = None) -> ComparisonResult:
    """Search a genotype, train all `standard_arms` with every seed, and write `report.html` and `result.json`.

    Every choice (genotypes, magnitudes) is made on held-out training images; the test set is read once per run, at the
    end. Raises `ExistsError` where `config.out` holds another run, and what the data, search and training raise.

    >>> result = run_demo(DemoConfig(out="runs/demo"))  # doctest: +SKIP
    """
    config = config or DemoConfig()
    arms = select_arms(standard_arms(config.frames, config.fusion), config.arms)
    return run_comparison(config, arms, standard_contrasts(), progress=progress)


def run_comparison(
    config: DemoConfig, arms: Sequence[Arm], contrasts: Sequence[Contrast], *, progress: Progress | None = None
) -> ComparisonResult:
    """Run `arms` with every seed of `config`; contrasts whose arms are not among them are left out.

    The folder `config.out` gets `runs/<arm>-seed<k>.json` (one per finished run), `result.json`, `report.html` and
    `film.png`, `search/`, and `weights/` of the arms that others start from.
    """
    check_arms(arms)
    names = {arm.name for arm in arms}
    contrasts = [contrast for contrast in contrasts if {contrast.a, contrast.b} <= names]
    folder = OutputDirectory(config.out, "demo", overwrite=config.overwrite, resume=config.resume)
    check_settings(folder, config)
    data = load_data(
        config.data,
        train_images=config.train_images,
        holdout=config.holdout,
        seed=config.seed,
        image_size=config.image_size,
    )
    shown = [name for name in SHOWN if name in names]
    comparison = Comparison(config, arms, data, folder, progress, fields=shown)
    for seed in config.all_seeds:
        for arm in arms:
            comparison.run(arm, seed)
    record = comparison_record(comparison, contrasts)
    return write_outputs(folder, record, data, config)
