"""`image2video search` for a trained network: frames chosen one by one, and the choices of a ranking."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from image2video.cli import main
from image2video.clip.frame_set import FrameSet
from image2video.integrations.timm_backbones import build


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The beginning of a command: 60 images of noise, 30 of them held out, and weights."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8), np.arange(60) % 4
    np.savez(folder / "noise.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build("cifar_resnet8", num_classes=4, in_chans=1)
    save_file(network.state_dict(), folder / "weights.safetensors")
    command = ["search", "--data", f"npz:{folder / 'noise.npz'}", "--weights", str(folder / "weights.safetensors")]
    return [*command, "--holdout", "0.5", "--device", "cpu"]


@pytest.fixture
def greedy(trained: list[str]) -> list[str]:
    return [*trained, "--selection", "greedy_frames", "--frames", "3", "--candidates", "8"]


def test_a_set_is_found_and_its_folder_holds_set_and_curve(greedy: list[str], tmp_path: Path, capsys) -> None:
    assert main([*greedy, "--padding", "reflection", "--out", str(tmp_path / "run")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    found = FrameSet.load(tmp_path / "run" / "genotype.json")
    assert f"found: {found}" in printed
    assert "frames chosen one by one" in printed
    assert "--compare" not in printed
    assert "images that chose nothing" in printed
    record = json.loads((tmp_path / "run" / "scores.json").read_text())["frame_choice"]
    assert record["best"] == str(found)
    assert record["candidates"] == 8
    assert record["points"][0]["frames"] == "identity |"
    assert json.loads((tmp_path / "run" / "genotype.json").read_text())["schema_version"] == 2
    html = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>The clip</h2>" in html
    assert "<h2>Gain against the number of frames</h2>" in html
    assert "search: frames forward and backward</dt><dd>0<" in html.replace("\n", "")


def test_cost_and_average_are_options(greedy: list[str], tmp_path: Path) -> None:
    assert main([*greedy, "--max-cost", "1", "--choose-aggregate", "[mean_prob]", "--out", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "scores.json").read_text())["frame_choice"]
    assert FrameSet.load(tmp_path / "run" / "genotype.json").T == 1
    assert {point["aggregate"] for point in record["points"]} == {"mean_prob"}


def test_a_ranking_chooses_frames_schedule_padding_and_average(trained: list[str], tmp_path: Path, capsys) -> None:
    choices = ["--choose-frames", "[2,3]", "--choose-schedule", "[from_zero,centred]", "--max-cost", "3"]
    choices += ["--choose-padding", "[zeros,reflection]", "--choose-aggregate", "[mean,mean_prob]"]
    out = tmp_path / "run"
    argv = [*trained, "--selection", "fixed_weights", "--frames", "2", "--candidates", "3", *choices, "--out", str(out)]
    assert main(argv) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "gain against cost (frames per image; one standard error):" in printed
    assert "T = 3, " in printed
    entries = json.loads((out / "scores.json").read_text())["ranking"]["entries"]
    assert {entry["T"] for entry in entries if entry["genotype"] != "identity"} == {2, 3}
    assert {entry["aggregate"] for entry in entries} == {"mean", "mean_prob"}


def test_a_ranking_chooses_the_place_too(trained: list[str], tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    argv = [*trained, "--selection", "fixed_weights", "--frames", "2", "--candidates", "4", "--max-cost", "1.9"]
    assert main([*argv, "--clip-at", "[image,layer2,layer3]", "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Left out for their cost (multiples of the bare network): image with T = 2 (2)." in printed
    assert "at layer2" in printed
    ranking = json.loads((out / "scores.json").read_text())["ranking"]
    places = {entry.get("place") for entry in ranking["entries"] if entry["genotype"] != "identity"}
    assert places == {"layer2", "layer3"}
    assert max(entry["cost"] for entry in ranking["entries"]) < 1.9
    assert " at layer3</" in (out / "report.html").read_text().replace("(chosen)", "")
    capsys.readouterr()
    resumed = [*argv, "--clip-at", "layer2", "--out", str(out), "--resume"]
    assert main(resumed) == 2
    assert "clip_at: ['image', 'layer2', 'layer3'] then, 'layer2' now" in capsys.readouterr().err
    assert main([*argv, "--clip-at", "layer9", "--out", str(tmp_path / "other")]) == 2
    assert "clip_at='layer9' must name a module that runs once" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compare", "random:1"], "--selection greedy_frames decides the frames in the search; leave --compare out"),
        (["--max-cost", "0.5"], "max_cost must be a finite number of at least 1"),
        (["--choose-aggregate", "[first]"], "unknown aggregate 'first'"),
    ],
)
def test_what_cannot_be_is_refused(greedy: list[str], options: list[str], message: str, tmp_path: Path, capsys) -> None:
    assert main([*greedy, *options, "--out", str(tmp_path / "run")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
    ranked = [*greedy, "--selection", "fixed_weights", "--choose-frames", "[2,3]", "--compare", "random:1"]
    assert main([*ranked, "--out", str(tmp_path / "run")]) == 2
    assert "--choose-frames decides the frames in the search" in " ".join(capsys.readouterr().err.split())
