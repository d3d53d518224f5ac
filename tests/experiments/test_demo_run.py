"""The whole demo at its smallest: files, records, resuming, and what a resumed run refuses."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from pathlib import Path

import pytest
import torch

from image2video.clip.genotype import Genotype
from image2video.errors import ExistsError, InputError
from image2video.experiments import DemoConfig, run_demo
from image2video.experiments.comparison import Comparison
from image2video.experiments.runner import demo_bench
from image2video.report import ComparisonResult
from image2video.search import SearchSpace, register_space

SPACE = register_space(SearchSpace("demo_smoke", ("translate_x(0.06)", "rotate(10)"), nodes=2))
ARMS = 10


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[DemoConfig, ComparisonResult, list[tuple[str, int, int]]]:
    config = DemoConfig(
        frames=2,
        epochs=1,
        finetune_epochs=1,
        train_images=50,
        holdout=0.4,
        seeds=1,
        space=SPACE.name,
        search_epochs=1,
        fixed_candidates=3,
        device="cpu",
        out=str(tmp_path_factory.mktemp("demo") / "out"),
    )
    calls: list[tuple[str, int, int]] = []
    result = run_demo(config, lambda stage, done, total, **figures: calls.append((stage, done, total)))
    return config, result, calls


def test_every_arm_ran_and_every_frame_is_counted(finished) -> None:
    _, result, _ = finished
    runs = {arm.name: arm.runs[0] for arm in result.arms}
    assert len(runs) == ARMS
    images = 30  # 50 less two fifths held out
    frames = {name: run.frames for name, run in runs.items()}
    assert frames["bare"] == images
    assert frames["bare_long"] == frames["searched"] == frames["tuned_bare"] == frames["tuned"] == 2 * images
    assert frames["averaged"] == 0
    assert {runs[name].start_frames for name in ("averaged", "tuned_bare", "tuned_none", "tuned")} == {2 * images}
    assert result.search is not None
    assert result.frames == sum(frames.values()) + result.search.frames
    # One step: a clip of every training and held-out image. Then an epoch of tuning after each of three edges and of
    # one node; τ goes on as long as an edge is open.
    assert result.search.frames == 2 * (images + 20) + 2 * (2 * (images + 20) + 2 * images)


def test_genotypes_and_costs_are_those_of_the_arms(finished) -> None:
    _, result, _ = finished
    runs = {arm.name: arm.runs[0] for arm in result.arms}
    assert runs["bare"].genotype == runs["tuned_bare"].genotype == "none"
    assert runs["replica"].genotype == "identity"
    assert runs["searched"].genotype == runs["none"].genotype == result.search.genotype
    assert runs["averaged"].genotype == runs["tuned"].genotype == runs["tuned_none"].genotype
    assert runs["none"].macs == pytest.approx(2 * runs["bare"].macs)  # two frames, no fusion
    assert runs["searched"].macs > runs["none"].macs
    assert runs["averaged"].parameters == runs["bare"].parameters < runs["tuned"].parameters
    assert all(0 <= run.accuracy <= 100 and run.ms > 0 for run in runs.values())


def test_averaging_starts_from_the_trained_weights(finished) -> None:
    """With the identity chosen, averaging copies of the image is the bare network itself."""
    _, result, _ = finished
    averaged, start = result.arm("averaged").runs[0], result.arm("bare_long").runs[0]
    if averaged.genotype == "identity":
        assert averaged.accuracy == pytest.approx(start.accuracy)
        assert averaged.loss == pytest.approx(start.loss, rel=1e-4)
    record = json.loads((Path(finished[0].out) / "rankings" / "bare_long-seed0.json").read_text())
    assert record["best"] == averaged.genotype
    assert record["images"] == 20


def test_files(finished) -> None:
    config, result, _ = finished
    out = Path(config.out)
    assert len(list((out / "runs").iterdir())) == ARMS
    assert ComparisonResult.load(out / "result.json") == result
    html = (out / "report.html").read_text()
    for piece in ("Perturbation scores", "τ over time", "From image to clip", "at equal compute"):
        assert piece in html
    assert (out / "film.png").is_file()
    assert Genotype.load(out / "search" / "genotype.json") == Genotype.parse(result.search.genotype)
    text = (out / "result.json").read_text()
    assert str(out) not in text


def test_the_stages_are_timed(finished) -> None:
    config, result, _ = finished
    run = json.loads((Path(config.out) / "run.json").read_text())
    assert list(run["stages"]) == ["search", "rankings", "runs", "report"]
    assert min(run["stages"][name] for name in ("search", "runs")) > 0
    assert run["stages"]["runs"] == pytest.approx(sum(r.seconds for arm in result.arms for r in arm.runs), abs=0.1)
    began, ended = (datetime.fromisoformat(run[when]) for when in ("started", "finished"))
    assert sum(run["stages"].values()) <= (ended - began).total_seconds() + 1


def test_progress_ends_with_all_frames(finished) -> None:
    _, result, calls = finished
    own = sum(run.frames for arm in result.arms for run in arm.runs)
    assert calls[-1] == ("training frames of all arms", own, own)
    assert any("searched clip, GSF, seed 0" in stage for stage, _, _ in calls)


def test_the_report_shows_the_receptive_fields_of_bare_and_wrapped(finished) -> None:
    config, result, _ = finished
    rows = result.fields["rows"]
    assert [[panel["name"] for panel in row] for row in rows.values()] == [
        ["bare network", "searched clip, averaged", "searched clip, GSF"]
    ] * 2
    assert all(len(panel["map"]) == len(panel["map"][0]) == 16 for row in rows.values() for panel in row)
    assert "each network trained on digits (seed 0), 15 of its training images" in result.fields["caption"]
    found = json.loads((Path(config.out) / "result.json").read_text())
    assert all("fields" not in run for arm in found["arms"] for run in arm["runs"])
    page = (Path(config.out) / "report.html").read_text()
    assert "Receptive fields" in page
    assert "holds half of its gradient in" in page


def test_another_run_is_not_overwritten(finished) -> None:
    config, _, _ = finished
    with pytest.raises(ExistsError, match="demo"):
        run_demo(config)


def test_a_killed_demo_goes_on_where_it_was(finished, monkeypatch: pytest.MonkeyPatch) -> None:
    config, result, _ = finished
    out = Path(config.out)
    lost = out / "runs" / "tuned-seed0.json"
    before = json.loads(lost.read_text())
    lost.unlink()
    trained: list[str] = []
    original = Comparison._run

    def counted(self, arm, one):
        trained.append(one.stem)
        return original(self, arm, one)

    monkeypatch.setattr(Comparison, "_run", counted)
    again = run_demo(dataclasses.replace(config, resume=True))
    assert trained == ["tuned-seed0"]
    after = json.loads(lost.read_text())
    assert (after["accuracy"], after["loss"]) == (before["accuracy"], before["loss"])
    assert [arm.by_seed() for arm in again.arms] == [arm.by_seed() for arm in result.arms]
    assert again.search == result.search
    assert again.fixed_weights == result.fixed_weights


def test_resuming_with_other_settings_is_refused(finished) -> None:
    config, _, _ = finished
    with pytest.raises(InputError, match=r"epochs: 1 then, 2 now"):
        run_demo(dataclasses.replace(config, resume=True, epochs=2))


def test_equal_seeds_give_equal_weights(finished) -> None:
    config, _, _ = finished
    bench = demo_bench(config)
    first, second, other = (bench.network(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
