"""The demo, `search --compare` and a table are one engine: equal settings give equal runs, and all know the colours."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from reproduce_cases import TINY

from image2video.clip.genotype import Genotype
from image2video.data import load_data
from image2video.experiments import Arm, DemoConfig, run_comparison
from image2video.experiments import genotypes as chosen
from image2video.experiments.candidate_runs import compare
from image2video.experiments.runner import demo_bench
from image2video.experiments.settings import CompareConfig
from image2video.integrations.timm_backbones import build
from image2video.reproduce import Worker, load_experiment
from image2video.search import SearchConfig, SearchResult, SearchSpace, get_space, register_space
from image2video.search.state.state import SearchState

MOVING = "translate_x(0.1)"
SHARED = ("loss", "frames", "epochs", "parameters", "macs")
COLOURS = register_space(SearchSpace("engine_colours", ("brightness(1.3)", "equalize(1)"), nodes=2))
SETTINGS: dict[str, Any] = {
    **{"frames": TINY["T"], "train_images": TINY["train_images"], "holdout": TINY["holdout"], "seeds": 1},
    **{"image_size": TINY["image_size"], "epochs": TINY["epochs"], "batch_size": TINY["batch_size"], "lr": 0.1},
    **{"search_epochs": 1, "tune_epochs": 0, "fixed_candidates": 4, "finetune_epochs": 1, "device": "cpu"},
}


def figures(record: dict[str, Any]) -> dict[str, Any]:
    """What of a run's record must not depend on the door; the genotype `none` and the score's name may."""
    genotype = record["genotype"]
    return {
        "score": record["score"] if "score" in record else record["accuracy"],
        "genotype": None if genotype == "none" else genotype,
        **{key: record[key] for key in SHARED},
    }


def of_the_demo(folder: Path) -> dict[str, dict[str, Any]]:
    arms = [Arm("bare", "bare"), Arm("moving", "moving", MOVING, "tsm")]
    run_comparison(DemoConfig(**SETTINGS, out=str(folder / "demo")), arms, [])
    return {arm.name: json.loads((folder / "demo" / "runs" / f"{arm.name}-seed0.json").read_text()) for arm in arms}


def of_a_search(folder: Path) -> dict[str, dict[str, Any]]:
    config = CompareConfig(
        model="cifar_resnet8",
        frames=TINY["T"],
        schedule="from_zero",
        fusion="tsm",
        epochs=TINY["epochs"],
        seeds=1,
        batch_size=TINY["batch_size"],
        lr=0.1,
        device="cpu",
    )
    options = {key: TINY[key] for key in ("train_images", "holdout", "image_size")}
    found = SearchResult(Genotype.parse(MOVING), SearchConfig(T=2), get_space("affine5"), SearchState())
    compare(
        found,
        (),
        config,
        data=load_data("digits", **options),
        out=folder / "compare",
        network=lambda seed: build("cifar_resnet8", num_classes=10, in_chans=1),
        search_again=lambda *_: pytest.fail("nothing is searched for"),
    )
    files = {"bare": "bare-seed0.json", "moving": "found-seed0.json"}
    return {name: json.loads((folder / "compare" / "runs" / file).read_text()) for name, file in files.items()}


def of_a_table(folder: Path) -> dict[str, dict[str, Any]]:
    moving = {"name": "moving", "title": "moving", "genotype": MOVING, "fusion": "tsm"}
    record = {
        "title": "t",
        "source": "s",
        "rows": [{"name": "digits", "scales": {"smoke": {**TINY, "seeds": 1, "lr": 0.1}}}],
        "arms": [{"name": "bare", "title": "bare"}, moving],
    }
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(record))
    experiment, worker = load_experiment(str(path)), Worker(folder / "table", device="cpu")
    worker.run(experiment, "smoke")
    runs = {run.arm.name: worker.book.read(run) for run in worker.planned(experiment, "smoke")}
    return {name: run for name, run in runs.items() if run is not None}


def test_all_doors_give_one_equal_record(tmp_path: Path) -> None:
    demo, search, table = of_the_demo(tmp_path), of_a_search(tmp_path), of_a_table(tmp_path)
    for name in ("bare", "moving"):
        first = figures(demo[name])
        assert figures(search[name]) == first
        assert figures(table[name]) == first
    assert figures(demo["bare"]) != figures(demo["moving"])


@pytest.mark.filterwarnings("ignore:the search with selection")
def test_a_demo_in_a_space_of_colours_runs_on_digits(tmp_path: Path) -> None:
    config = DemoConfig(**SETTINGS, space=COLOURS.name, fixed_space=COLOURS.name, out=str(tmp_path / "out"))
    arms = [
        Arm("bare", "bare"),
        Arm("averaged", "averaged", "fixed_weights", "none", "none", start="bare"),
        Arm("searched", "searched", "searched", "tsm"),
    ]
    result = run_comparison(config, arms, [])
    assert all(len(arm.runs) == 1 for arm in result.arms)


def test_search_and_ranking_of_a_demo_know_the_colours_of_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 4
    np.savez(tmp_path / "rgb.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    seen: dict[str, Any] = {}

    def stop(name: str) -> Any:
        def called(*_: Any, **options: Any) -> None:
            seen[name] = (options["mean"], options["std"])
            raise KeyboardInterrupt

        return called

    for name, arm in (
        ("search", Arm("searched", "searched", "searched", "tsm")),
        ("rank_genotypes", Arm("averaged", "averaged", "fixed_weights", "none", "none", start="bare")),
    ):
        monkeypatch.setattr(chosen, name, stop(name))
        options = {**SETTINGS, "data": f"npz:{tmp_path / 'rgb.npz'}", "train_images": None, "image_size": None}
        with pytest.raises(KeyboardInterrupt):
            run_comparison(DemoConfig(**options, out=str(tmp_path / name)), [Arm("bare", "bare"), arm], [])
    data = load_data(f"npz:{tmp_path / 'rgb.npz'}", holdout=TINY["holdout"])
    assert seen == dict.fromkeys(("search", "rank_genotypes"), (data.mean, data.std))


def test_a_ranking_sees_the_clips_that_the_arms_get(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(chosen, "rank_genotypes", lambda *_, **options: seen.update(options))
    bench = demo_bench(DemoConfig(**SETTINGS))
    clip = bench.clip.replace(T=2, schedule="ramp", padding="reflection", interpolation="nearest")
    arm = Arm("averaged", "averaged", "fixed_weights", "none", "none", start="bare")
    chosen.rank_on(dataclasses.replace(bench, clip=clip), arm, bench.build(0), seed=0, space="gentle")
    assert clip.arguments().items() <= seen.items()
