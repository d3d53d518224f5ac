"""A published network through the command line: its own accuracy, as timm measures it."""

import json
import os
import shutil
from pathlib import Path

import pytest
from timm.data import ImageNetInfo

from image2video.cli import main

SAMPLE = "IMAGE2VIDEO_IMAGENET_SAMPLE"
"""A folder with images/, labels.json (file, class) and tf_efficientnet_lite0.safetensors."""


@pytest.mark.data
def test_a_published_network_evaluates_to_its_own_accuracy(tmp_path, capsys):
    if SAMPLE not in os.environ:
        pytest.skip(f"{SAMPLE} names no folder")
    sample, names = Path(os.environ[SAMPLE]), ImageNetInfo().label_names()
    for row in json.loads((sample / "labels.json").read_text()):
        place = tmp_path / "images" / "val" / names[row["class"]] / row["file"]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample / "images" / row["file"], place)
    (tmp_path / "names.txt").write_text("\n".join(names))
    argv = ["evaluate", "--json", "--model", "tf_efficientnet_lite0", "--genotype", "none", "--workers", "0"]
    argv += ["--weights", str(sample / "tf_efficientnet_lite0.safetensors"), "--device", "cpu", "--batch-size", "50"]
    argv += ["--data", f"folder:{tmp_path / 'images'}", "--classes", str(tmp_path / "names.txt")]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 500
    assert found["top1"] == pytest.approx(0.884, abs=0.004)  # timm's own transforms give 0.884, ImageNet's mean 0.768
