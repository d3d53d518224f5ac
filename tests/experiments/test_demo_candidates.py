"""`--compare`: which candidates are meant, which networks they become, and that a comparison goes on where it was."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.data import DataSource, load_data
from image2video.data.seeds import seeded_generator
from image2video.errors import InputError, StateError
from image2video.experiments import check_arms
from image2video.experiments.candidate_runs import compare, compare_bench, comparison_folder, planned_frames, shared_tau
from image2video.experiments.candidates import (
    CONTROLS,
    SEARCHES,
    Candidate,
    candidate_arms,
    check_candidates,
    key_of,
    parse_candidates,
)
from image2video.experiments.comparison import Comparison
from image2video.experiments.settings import CompareConfig
from image2video.integrations.timm_backbones import build
from image2video.report import ComparisonResult
from image2video.search import (
    SearchConfig,
    SearchResult,
    SearchSpace,
    get_space,
    random_genotype,
    register_space,
    search,
)
from image2video.search.state.state import SearchState
from image2video.training import make_accelerator

FOUND = Genotype.parse("rotate(10)")
CONFIG = CompareConfig(
    model="cifar_resnet8", frames=2, schedule="from_zero", fusion="tsm", epochs=1, seeds=2, device="cpu"
)


def found(selection: str = "perturbation", **options) -> SearchResult:
    config = SearchConfig(selection=selection, T=2, space="affine5", **options)
    return SearchResult(FOUND, config, get_space("affine5"), SearchState())


def test_a_list_of_candidates_is_read() -> None:
    items = parse_candidates("random:5, frozen, argmax,replica,averaging,bare, rotate(5) > scale(1.1),preset:cifar10")
    named = [(c.name, c.count) for c in items[:6]]
    assert named == [("random", 5), ("frozen", 1), ("argmax", 1), ("replica", 1), ("averaging", 1), ("bare", 1)]
    assert items[6] == Candidate("genotype", 1, Genotype.parse("rotate(5) > scale(1.1)"))
    assert items[7].genotype == Genotype.preset("cifar10")
    assert parse_candidates(None) == parse_candidates("none") == parse_candidates(" none ") == ()


def test_a_genotype_file_is_a_candidate(tmp_path: Path) -> None:
    FOUND.save(tmp_path / "mine.json")
    (item,) = parse_candidates(str(tmp_path / "mine.json"))
    assert item.genotype == FOUND
    assert key_of(item) == "genotype_rotate_10"


def test_long_chains_that_differ_at_the_end_have_files_and_titles_of_their_own() -> None:
    head = " > ".join(f"rotate({5 + 1 / 3 + i})" for i in range(5))
    items = parse_candidates(f"{head} > scale(1.1),{head} > scale(1.2)")
    keys = [key_of(item) for item in items]
    assert len(set(keys)) == 2
    assert all(len(key) < 110 for key in keys)
    chains = {"found": [FOUND], **{key: [item.genotype] for key, item in zip(keys, items, strict=True)}}
    arms, contrasts = candidate_arms(items, chains, T=2, fusion="gsf", space="affine5")
    check_arms(arms, contrasts)
    assert len({arm.title for arm in arms}) == len(arms)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("randon:5", r"unknown candidate 'randon:5'; known are random, replica.*perturbation.*preset:NAME$"),
        ("random:0", "at least 1"),
        ("random:x", "at least 1"),
        ("random:-1", "at least 1"),
        ("random:", "at least 1"),
        ("replica:2", "replica is always the same"),
        ("random,random:3", "twice"),
        ("rotate(5),rotate(5)", "twice"),
        ("none,random:3", "stands alone; without fusion is 'averaging'"),
        ("random,,frozen", "unknown candidate ''"),
        ("", "unknown candidate ''"),
        ("missing.json", r"missing\.json"),
        ("preset:nothing", "known presets"),
        ("rotat(5)", "did you mean 'rotate'"),
    ],
)
def test_a_bad_list_is_refused_with_what_is_known(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_candidates(text)


def test_a_ranking_needs_weights_and_held_out_images() -> None:
    items = parse_candidates("fixed_weights")
    check_candidates(items, trained=True, held_out=True)
    check_candidates(parse_candidates("random"), trained=False, held_out=False)
    with pytest.raises(InputError, match="--weights"):
        check_candidates(items, trained=False, held_out=True)
    with pytest.raises(InputError, match="--holdout"):
        check_candidates(items, trained=True, held_out=False)


def test_every_candidate_becomes_arms_and_a_question() -> None:
    text = ",".join(
        (*(f"{name}:2" if name in ("random", "frozen") else name for name in (*CONTROLS, *SEARCHES)), "scale(1.1)")
    )
    items = parse_candidates(text)
    chains = {key_of(c): [FOUND] * c.count for c in items if c.name not in ("bare", "averaging")} | {"found": [FOUND]}
    arms, contrasts = candidate_arms(items, chains, T=3, fusion="gsf", space="affine5")
    check_arms(arms, contrasts)
    by_name = {arm.name: arm for arm in arms}
    assert {"found", "averaging", "bare", "bare_long", "random1", "random2", "replica", "frozen", "frozen2"} < set(
        by_name
    )
    assert by_name["bare_long"].epochs_factor == 3
    assert by_name["averaging"].fusion == "none"
    assert by_name["averaging"].genotype == by_name["found"].genotype == "rotate(10)"
    assert [arm.pool for arm in arms if arm.name.startswith("random")] == ["random", "random"]
    assert {c.a for c in contrasts} == {"found"}
    assert [c.name for c in contrasts if c.headline] == ["equal_compute", "random"]
    groups = [arm.group for arm in arms]
    assert len(set(groups)) == 1 + sum(a != b for a, b in itertools.pairwise(groups))  # each once, in a row


def test_the_bare_controls_are_always_there() -> None:
    arms, contrasts = candidate_arms((), {"found": [FOUND]}, T=5, fusion="gsf", space="affine5")
    assert [arm.name for arm in arms] == ["found", "bare", "bare_long"]
    assert [c.name for c in contrasts] == ["equal_compute", "equal_epochs"]


def test_files_of_a_longer_list_begin_with_those_of_a_shorter_one() -> None:
    names = []
    for count in (1, 3):
        chains = {"found": [FOUND], "random": [FOUND] * count}
        arms, _ = candidate_arms(parse_candidates(f"random:{count}"), chains, T=2, fusion="gsf", space="affine5")
        names.append([arm.name for arm in arms if arm.pool == "random"])
    assert names == [["random1"], ["random1", "random2", "random3"]]


def test_planned_frames_are_those_of_all_arms() -> None:
    items = parse_candidates("random:3,replica,averaging,bare")
    config = dataclasses.replace(CONFIG, epochs=4, frames=5, seeds=3)
    # Per image and epoch: found, three random, replica, averaging: 5 frames each; bare 1 and 5.
    assert planned_frames(items, config, images=100, space=get_space("affine5")) == 3 * 4 * 100 * (6 * 5 + 1 + 5)


def test_settings_are_checked_and_fine_tuning_is_gentler() -> None:
    for change, message in (
        ({"epochs": 0}, "--final-epochs must be at least 1, got 0"),
        ({"seeds": 0}, "--final-seeds must be at least 1, got 0"),
        ({"lr": -1}, "lr"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(CONFIG, **change)
    scratch, tuned = (dataclasses.replace(CONFIG, trained=t).training(4, 1, finetune=False) for t in (False, True))
    assert tuned.peak_lr == pytest.approx(0.1 * scratch.peak_lr)
    assert dataclasses.replace(CONFIG, trained=True, lr=0.3).training(4, 1, finetune=False).peak_lr == 0.3
    assert comparison_folder(CONFIG) == "comparison-1-epochs"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    """30 images of noise to train on, 10 held out, 20 to test."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "noise.npz"
    images, labels = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), np.arange(40) % 4
    np.savez(path, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    return load_data(f"npz:{path}", holdout=0.25)


@pytest.mark.filterwarnings("ignore:the search with selection")  # one epoch on 15 images may choose anything
def test_the_largest_tau_of_the_same_search_is_read_where_argmax_would_have_trained_it(data: DataSource) -> None:
    register_space(SearchSpace("shared_tau", ("rotate(10)", "translate_x(0.1)", "identity"), nodes=3))
    network = build("cifar_resnet8", num_classes=4, in_chans=1)
    options = {"T": 2, "fusion": "tsm", "epochs": 1, "tune_epochs": 0, "tau_lr": 0.1, "batch_size": 8, "device": "cpu"}
    options["space"] = "shared_tau"
    results = {
        name: search(network, data.train, SearchConfig(selection=name, **options))
        for name in ("perturbation", "argmax")
    }
    assert shared_tau(results["perturbation"]) == results["argmax"].genotype
    assert shared_tau(results["argmax"]) is None
    budgeted = dataclasses.replace(results["perturbation"].config, max_images=100)
    assert shared_tau(dataclasses.replace(results["perturbation"], config=budgeted)) is None


@pytest.fixture(scope="module")
def compared(data: DataSource, tmp_path_factory: pytest.TempPathFactory):
    searched: list[tuple[str, int]] = []

    def search_again(selection: str, number: int, folder: Path) -> Genotype:
        searched.append((selection, number))
        return Genotype.parse(f"scale({1 + 0.1 * (number + 1):.1f})")

    def network(seed: int) -> nn.Module:
        return build("cifar_resnet8", num_classes=4, in_chans=1)

    def run(
        text: str, config: CompareConfig = CONFIG, result: SearchResult | None = None, **options
    ) -> ComparisonResult:
        more = {"data": data, "out": out, "network": network, "search_again": search_again, **options}
        return compare(result or found(seed=3), parse_candidates(text), config, **more)

    out = tmp_path_factory.mktemp("compare") / "out"
    return run, run("random:2,frozen:2,averaging,replica"), searched, out


def test_every_candidate_is_trained_with_every_seed(compared) -> None:
    _, result, searched, out = compared
    assert searched == [("frozen", 0), ("frozen", 1)]
    runs = {arm.name: arm.runs for arm in result.arms}
    assert all(len(found) == 2 for found in runs.values())
    drawn = [str(random_genotype(get_space("affine5"), seeded_generator(3, number))) for number in range(2)]
    assert [runs[name][0].genotype for name in ("random1", "random2")] == drawn
    assert [runs[name][0].genotype for name in ("frozen", "frozen2")] == ["scale(1.1)", "scale(1.2)"]
    assert runs["found"][0].genotype == runs["averaging"][0].genotype == "rotate(10)"
    assert runs["replica"][0].genotype == "identity"
    images = 30
    assert {run.frames for run in (*runs["found"], *runs["bare_long"], *runs["random1"])} == {2 * images}
    assert runs["bare"][0].frames == images
    assert result.arm("random2").pool == "random"
    assert not list((out / "training").iterdir())  # no checkpoints stay
    assert str(out) not in (out / "result.json").read_text()


def test_a_comparison_goes_on_and_trains_only_what_is_new(compared, monkeypatch: pytest.MonkeyPatch) -> None:
    run, before, _, out = compared
    trained: list[str] = []
    original = Comparison._run

    def counted(self, arm, one):
        trained.append(one.stem)
        return original(self, arm, one)

    monkeypatch.setattr(Comparison, "_run", counted)
    (out / "runs" / "replica-seed1.json").unlink()
    after = run("random:3,replica")
    assert sorted(trained) == ["random3-seed0", "random3-seed1", "replica-seed1"]
    for name in ("found", "random1", "replica"):
        assert after.arm(name).by_seed() == before.arm(name).by_seed()
    assert after.arm("frozen") is None


def test_other_settings_or_another_genotype_are_refused(compared) -> None:
    run, _, _, out = compared
    files = sorted(path.name for path in (out / "runs").iterdir())
    with pytest.raises(InputError, match=r"lr: None then, 0\.5 now"):
        run("replica", dataclasses.replace(CONFIG, lr=0.5))
    with pytest.raises(InputError, match=r"genotype: 'rotate\(10\)' then, 'scale\(1.1\)' now"):
        run("replica", result=dataclasses.replace(found(), genotype=Genotype.parse("scale(1.1)")))
    assert sorted(path.name for path in (out / "runs").iterdir()) == files


def test_the_searchs_own_selection_begins_with_the_next_seed(
    compared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, searched, out = compared
    record = json.loads((out / "runs" / "found-seed0.json").read_text())
    monkeypatch.setattr(Comparison, "_run", lambda self, arm, one: (record, {}))
    del searched[:]
    one = dataclasses.replace(CONFIG, seeds=1)
    run("frozen:2", one, result=found("frozen"), out=tmp_path / "out")
    assert searched == [("frozen", 1), ("frozen", 2)]


def test_several_processes_are_refused(compared, tmp_path: Path) -> None:
    run, _, _, _ = compared

    class Two:
        num_processes = 2

    with pytest.raises(StateError, match="one process"):
        run("replica", accelerator=Two(), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_final_networks_see_the_clip_of_the_search_and_keep_trained_weights(data: DataSource) -> None:
    def bare(seed: int) -> nn.Module:
        return build("cifar_resnet8", num_classes=4, in_chans=1)

    found_arm = candidate_arms((), {"found": [FOUND]}, T=2, fusion="gsf", space="affine5")[0][0]
    images = next(iter(data.test.batches(8).epoch(0)))[0]
    for trained in (False, True):
        config = dataclasses.replace(CONFIG, trained=trained, padding="border", interpolation="nearest")
        bench = compare_bench(config, data, bare, make_accelerator("cpu"))
        network = bench.network(0).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):  # its blocks begin as the identity, which hides every fusion
                nn.init.ones_(module.weight)
        clip = Image2Video(FOUND, T=2, padding="border", interpolation="nearest")(images)
        with torch.no_grad():
            average = network(clip.flatten(0, 1)).unflatten(0, clip.shape[:2]).mean(1)
            video = bench.wrapped(network, found_arm, FOUND, 0).eval()
            assert torch.equal(video.to_video(images), clip)
            # On trained weights a fusion begins as the average of the bare network over the frames.
            assert torch.allclose(video(images), average, atol=1e-5) is trained


def test_photometric_candidates_train(compared, tmp_path: Path) -> None:
    run, _, _, _ = compared
    result = run("equalize(1) > rotate(5)", dataclasses.replace(CONFIG, seeds=1), out=tmp_path / "out")
    (arm,) = [arm for arm in result.arms if arm.pool]
    assert arm.runs[0].genotype == "equalize(1) > rotate(5)"
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["genotype"] == "rotate(10)"
