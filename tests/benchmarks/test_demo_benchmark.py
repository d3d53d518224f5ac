"""The CIFAR-10 benchmark: its options, and the summary that it commits."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
from report_cases import arm, result_record

from image2video.cli.arguments import collect
from image2video.experiments import DemoConfig
from image2video.report import ComparisonResult, mean_interval

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def cifar10() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("benchmark_cifar10", BENCHMARKS / "cifar10.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def test_options_are_those_of_the_demo(cifar10: ModuleType) -> None:
    options = cifar10.parser().parse_args(["--data", "npz:x.npz", "--train-images", "400", "--seeds", "5", "--resume"])
    config = collect(DemoConfig, options)
    assert (config.data, config.train_images, config.seeds, config.resume) == ("npz:x.npz", 400, 5, True)
    assert (config.frames, config.epochs, config.out) == (3, cifar10.DEFAULTS["epochs"], "runs/cifar10")
    assert options.translation == "translate_x(0.03125)"


def test_summary_holds_the_figures(cifar10: ModuleType) -> None:
    result = ComparisonResult.from_dict(result_record())
    summary = json.loads(json.dumps(cifar10.summary(result), allow_nan=False))
    rows = {row["arm"]: row for row in summary["results"]}
    interval = mean_interval([94.4, 95.1, 94.0])
    assert rows["searched"]["accuracy"] == pytest.approx(interval.mean, abs=1e-3)
    assert rows["searched"]["half_width_95"] == pytest.approx(interval.half_width, abs=1e-3)
    assert rows["searched"]["by_seed"] == {"0": 94.4, "1": 95.1, "2": 94.0}
    assert rows["tuned"]["training_frames"] == 12_000
    compute = next(d for d in summary["differences"] if d["question"] == "at equal compute")
    assert (compute["a"], compute["b"], compute["a_is"]) == ("searched", "bare_long", "behind")
    assert set(summary["search"]) == {"space", "genotype", "frames", "seconds"}
    assert summary["sentence"].startswith("At equal epochs")


def test_summary_of_one_seed_has_no_interval(cifar10: ModuleType) -> None:
    record = result_record([arm("bare", [90.0]), arm("searched", [91.0])]) | {"search": None}
    summary = cifar10.summary(ComparisonResult.from_dict(record))
    assert all(row["half_width_95"] is None for row in summary["results"])
    assert summary["differences"][0]["half_width_95"] is None
    assert not math.isnan(summary["differences"][0]["difference"])
