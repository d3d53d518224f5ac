"""`image2video search`: help, what is refused before any work, the comparison, and its report."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml

from image2video.cli import main, search_job
from image2video.cli.app import build_parser
from image2video.cli.commands.search import _GROUPS, RENAME, CompareOptions
from image2video.cli.search_job import _candidates
from image2video.clip.genotype import Genotype
from image2video.errors import InputError
from image2video.search import SearchConfig

OPTIONS = ["--holdout", "0.2", "--device", "cpu", "--batch-size", "16", "--frames", "2", "--fusion", "tsm"]
OPTIONS += ["--epochs", "1", "--tune-epochs", "0"]
FINAL = ["--final-epochs", "1", "--final-seeds", "1"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A search of a few seconds: 40 images of noise, a cell of three edges."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), np.arange(40) % 4
    np.savez(folder / "noise.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    (folder / "small.yaml").write_text("name: small\nops: {rotate: 8, scale: 1.1, identity: null}\nnodes: 2\n")
    return ["search", "--data", f"npz:{folder / 'noise.npz'}", *OPTIONS, "--space", str(folder / "small.yaml")]


@pytest.fixture(scope="module")
def searched(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path, str]:
    """The arguments of one search with its comparison, its folder, and what it printed."""
    out, printed = tmp_path_factory.mktemp("searched") / "run", io.StringIO()
    argv = [*tiny, *FINAL, "--out", str(out)]
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one epoch on 16 images may choose anything
        assert main([*argv, "--compare", "random:1,argmax,rotate(5)"]) == 0
    return argv, out, " ".join(printed.getvalue().split())


def test_every_setting_of_a_search_has_an_option_under_a_heading(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    text = capsys.readouterr().out
    shown = set(re.findall(r"^  --([a-z-]+)", text, re.M))
    fields = {field.name for field in dataclasses.fields(SearchConfig)} - {"precision"}
    assert {RENAME.get(name, name).replace("_", "-") for name in fields} <= shown
    assert {"compare", "final-epochs", "final-seeds", "final-lr"} <= shown
    for heading in (*_GROUPS, "how it computes", "is it better than random?"):
        assert f"\n{heading}:\n" in text
    assert "`" not in text
    named = [name for names in _GROUPS.values() for name in names]
    assert len(named) == len(set(named))


def test_the_default_comparison_asks_about_random_clips_unless_something_else_is_wanted() -> None:
    def names(compare: str | None = None, **options) -> list[tuple[str, int]] | None:
        found = _candidates(CompareOptions(compare), SearchConfig(**options))
        return None if found is None else [(c.name, c.count) for c in found]

    assert names() == names(selection="one_shot") == [("random", 3), ("replica", 1)]
    assert names(selection="fixed_weights") is names(selection="random") is names(max_minutes=1.0) is None
    assert names(max_images=100) is None
    assert names("none") is None
    assert names("random", selection="fixed_weights", max_minutes=1.0) == [("random", 1)]


def test_a_search_its_comparison_and_its_report(searched) -> None:
    _, out, printed = searched
    assert "Is it better than a random clip? One seed does not tell" in printed
    assert "decided at two standard errors" in printed
    assert f"report: {out / 'report.html'}" in printed
    html = (out / "report.html").read_text()
    for piece in ("<h2>The clip</h2>", "<h2>Is it better than random?</h2>", "<h2>How decided is it?</h2>"):
        assert piece in html
    found = str(Genotype.load(out / "genotype.json"))
    assert found.replace(">", "&gt;") in html
    run = json.loads((out / "run.json").read_text())
    assert {"report.html", "comparison-1-epochs"} <= set(run["contents"])
    result = json.loads((out / "comparison-1-epochs" / "result.json").read_text())
    assert [arm["name"] for arm in result["arms"]][:3] == ["found", "bare", "bare_long"]
    assert {arm["pool"] for arm in result["arms"]} == {None, "random", "argmax", "genotype_rotate_5"}
    assert yaml.safe_load((out / "config.yaml").read_text())["compare"] == "random:1,argmax,rotate(5)"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--final-lr", "0.5"], "lr: None then, 0.5 now"),
        (["--train-images", "30"], "train_images: None then, 30 now"),
        (["--data", "digits", "--image-size", "8"], "data: 'npz:noise.npz' then, 'digits' now"),
        (["--model", "cifar_resnet14"], "model: 'cifar_resnet8' then, 'cifar_resnet14' now"),
        (["--batch-size", "20"], "batch_size: 16 then, 20 now"),
    ],
)
def test_a_search_does_not_go_on_with_other_images_or_settings(searched, changed, message, capsys) -> None:
    argv, out, _ = searched
    before = {path: path.read_bytes() for path in out.rglob("*.json") if path.name != "run.json"}
    assert main([*argv, "--compare", "random:1", *changed, "--resume"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert {path: path.read_bytes() for path in out.rglob("*.json") if path.name != "run.json"} == before


@pytest.mark.filterwarnings("ignore:the search with selection")
def test_a_finished_search_takes_up_further_candidates(searched, tmp_path: Path) -> None:
    argv, out, _ = searched
    folder = shutil.copytree(out, tmp_path / "moved")
    before = {path.name: path.read_bytes() for path in out.glob("*.json") if path.name != "run.json"}
    first = json.loads((out / "comparison-1-epochs" / "result.json").read_text())["arms"]
    assert main([*argv, "--compare", "random:2", "--resume", "--out", str(folder)]) == 0
    assert {path.name: path.read_bytes() for path in folder.glob("*.json") if path.name != "run.json"} == before
    again = json.loads((folder / "comparison-1-epochs" / "result.json").read_text())["arms"]
    runs = {arm["name"]: arm["runs"] for arm in first}
    assert all(arm["runs"] == runs[arm["name"]] for arm in again if arm["name"] in runs)
    assert [arm["name"] for arm in again if arm["pool"] == "random"] == ["random1", "random2"]


def test_several_processes_compare_only_afterwards(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    class Two:
        num_processes, is_main_process = 2, True

    monkeypatch.setattr(search_job, "make_accelerator", lambda device: Two())
    options = build_parser("search").parse_args(tiny).search
    with pytest.warns(UserWarning, match="one process with --resume --compare random:3,replica"):
        assert search_job.prepare(options).candidates is None
    options.compare = "random:2"
    with pytest.raises(InputError, match="this launch has 2"):
        search_job.prepare(options)
    options.compare = "none"
    assert search_job.prepare(options).candidates is None


def test_a_search_without_comparison_says_so(tiny, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    assert main([*tiny, "--selection", "random", "--out", str(out)]) == 0
    assert "That was not measured" in capsys.readouterr().out
    html = (out / "report.html").read_text()
    assert "nothing was measured" in html
    assert "τ over time" not in html
    assert not list(out.glob("comparison*"))


def test_ones_own_space_budget_and_magnitudes_from_the_shell(tiny, tmp_path: Path) -> None:
    space, out = tmp_path / "mine.yaml", tmp_path / "run"
    space.write_text("name: mine\nops: {rotate: [8, -8], scale: 1.1, identity: null}\nnodes: 2\n")
    argv = [*tiny, "--space", str(space), "--learn-magnitudes", "--max-images", "40", "--selection", "argmax"]
    assert main([*argv, "--out", str(out)]) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert scores["space"]["name"] == "mine"
    assert scores["magnitudes"] is not None
    assert (out / "report.html").is_file()
    assert main(["search", "--config", str(out / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "genotype.json").read_bytes() == (out / "genotype.json").read_bytes()


def test_segmentation_is_searched_compared_and_reported(tiny, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    argv = ["search", "--data", "digit_scenes", "--model", "small_fcn", "--train-images", "24", "--device", "cpu"]
    argv += ["--batch-size", "8", "--frames", "2", "--fusion", "tsm", "--epochs", "1", "--selection", "argmax", *FINAL]
    argv += ["--image-size", "24", "--compare", "bare", "--space", tiny[-1]]
    assert main([*argv, "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "held-out mIoU" in printed
    assert "mIoU on the test set" in printed
    result = json.loads((out / "comparison-1-epochs" / "result.json").read_text())
    assert result["data"]["metric"] == "mIoU"
    assert "Figures: mIoU on" in (out / "report.html").read_text()


def test_a_model_that_does_not_fit_is_refused_before_the_old_run_is_replaced(tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    for name, classes in (("three", 3), ("four", 4)):
        images, labels = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), np.arange(40) % classes
        np.savez(tmp_path / f"{name}.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    out = tmp_path / "run"
    argv = ["train", "--frames", "2", "--fusion", "tsm", "--epochs", "1", "--device", "cpu", "--batch-size", "20"]
    assert main([*argv, "--data", f"npz:{tmp_path / 'three.npz'}", "--out", str(out)]) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    weights = ["--weights", str(out / "pretrained"), "--head", "keep"]
    argv = ["train", "--epochs", "1", "--device", "cpu", "--data", f"npz:{tmp_path / 'four.npz'}", *weights]
    assert main([*argv, "--out", str(out), "--overwrite"]) == 2
    assert "pretrained tells 3 classes apart, npz:four.npz has 4" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
