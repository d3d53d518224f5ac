"""`search --clip-at` with selections that go through cells: one at each place."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from image2video.cli import main
from image2video.clip.deep_clip import DeepClip

OPTIONS = ["--holdout", "0.2", "--device", "cpu", "--batch-size", "16", "--frames", "2", "--fusion", "tsm"]
OPTIONS += ["--epochs", "1", "--tune-epochs", "0"]
pytestmark = pytest.mark.filterwarnings("ignore:.*chose the identity")


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), np.arange(40) % 4
    np.savez(folder / "noise.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    (folder / "small.yaml").write_text("name: small\nops: {rotate: 8, scale: 1.1, identity: null}\nnodes: 1\n")
    return ["search", "--data", f"npz:{folder / 'noise.npz'}", *OPTIONS, "--space", str(folder / "small.yaml")]


def test_a_search_over_places_is_written_shown_and_trained(search: list[str], tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    assert main([*search, "--clip-at", "image,layer2", "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    found = DeepClip.load(out / "genotype.json")
    assert found.places == ("image", "layer2")
    assert f"found: {found}" in printed
    assert re.search(r"by where the clip begins: image \(2.00 times the image\) .*, layer2 \(1.\d\d times", printed)
    assert "networks trained on this clip and on random ones at the same places would tell" in printed
    assert yaml.safe_load((out / "config.yaml").read_text())["clip_at"] == "image,layer2"
    assert json.loads((out / "scores.json").read_text())["space"]["places"] == ["image", "layer2"]
    page = (out / "report.html").read_text()
    assert "layer2: in → 1" in page
    assert "clip from layer2 on" in page
    assert main([*search, "--clip-at", "image,layer2", "--resume", "--out", str(out)]) == 0
    assert main([*search, "--clip-at", "image,layer3", "--resume", "--out", str(out)]) == 2
    assert "clip_at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clip-at", "image,layer2", "--compare", "replica"], "--clip-at decides the frames in the search"),
        (["--clip-at", "image,layer2", "--max-cost", "1.5"], "max_cost=1.5 is less than what clips cost"),
        (["--clip-at", "all"], "name them"),
        (["--clip-at", "layer9"], "must name a module that runs once"),
    ],
)
def test_what_cannot_be_is_refused_before_the_folder(
    search: list[str], options: list[str], message: str, tmp_path: Path, capsys
) -> None:
    assert main([*search, *options, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_one_shot_over_places(search: list[str], tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    options = ["--selection", "one_shot", "--candidates", "4", "--clip-at", "image,layer2"]
    assert main([*search, *options, "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert DeepClip.load(out / "genotype.json").places == ("image", "layer2")
    assert re.search(r"by where the clip begins: image \(2.00 times the image\) .*, layer2 \(1.\d\d times", printed)
    page = (out / "report.html").read_text()
    assert "Ranked chains" in page
    assert "the reference" in page


@pytest.mark.parametrize("clip_at", ["layer3, image | layer2", "[layer3, image | layer2]"])
def test_trained_weights_rank_places_alone_and_together(search: list[str], clip_at: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    data, space = search[1 : search.index("--data") + 2], search[search.index("--space") :]
    data += OPTIONS[: OPTIONS.index("--fusion")]
    bare = ["train", *data, "--epochs", "1", "--genotype", "none", "--out", str(tmp_path / "bare")]
    assert main(bare) == 0
    options = ["--selection", "fixed_weights", "--candidates", "3", "--clip-at", clip_at, "--max-cost", "2"]
    weights = ["--weights", str(tmp_path / "bare" / "best.safetensors")]
    assert main(["search", *data, *space, *options, *weights, "--out", str(out)]) == 0
    entries = json.loads((out / "scores.json").read_text())["ranking"]["entries"]
    assert {entry.get("place") for entry in entries} == {None, "layer3"}
    assert any("| layer2: " in entry["genotype"] for entry in entries)
    assert all(entry["cost"] <= 2 for entry in entries)
