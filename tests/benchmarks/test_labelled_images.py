"""Labelled image files become the arrays of a row that trains nothing: pixels, labels and all names of classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from image2video.data import load_data

SHORT, SIZE = (
    36,
    32,
)  # timm resizes to floor(32 / 0.875) = 36 pixels before the crop: files of that size stay as they are


@pytest.fixture
def files(tmp_path: Path) -> list[np.ndarray]:
    """Two images that are not square, with labels far apart; what is in them."""
    generator = np.random.default_rng(0)
    pixels = [generator.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((SHORT, 44), (50, SHORT))]
    for name, image in zip("ab", pixels, strict=True):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    told = [{"file": "a.png", "class": 7, "name": "cock"}, {"file": "b.png", "class": 998, "name": "ear"}]
    (tmp_path / "labels.json").write_text(json.dumps(told))
    return pixels


def test_files_are_cropped_as_the_network_wants_it_and_no_level_is_lost(load, files, tmp_path, monkeypatch) -> None:
    script = load("labelled_images")
    argv = ["labelled_images.py", "--images", str(tmp_path), "--labels", str(tmp_path / "labels.json")]
    argv += ["--size", str(SIZE), "--model", "test_efficientnet", "--out", str(tmp_path / "new" / "images.npz")]
    config = {
        "input_size": (3, SIZE, SIZE),
        "interpolation": "bicubic",
        "mean": (0.5, 0.4, 0.3),
        "std": (0.5, 0.2, 0.3),
    }
    config |= {"crop_pct": 0.875, "crop_mode": "center"}
    monkeypatch.setattr("timm.data.resolve_data_config", lambda *about, **more: config)
    monkeypatch.setattr("sys.argv", argv)
    script.main()
    data = load_data(f"npz:{tmp_path / 'new' / 'images.npz'}", parts=("test",), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert (data.num_classes, data.test.labels.tolist()) == (1000, [7, 998])
    margin = (SHORT - SIZE) // 2
    crops = files[0][margin : margin + SIZE, 6 : 6 + SIZE], files[1][9 : 9 + SIZE, margin : margin + SIZE]
    for index, crop in enumerate(crops):
        assert torch.equal(data.test.raw(index), torch.from_numpy(crop).permute(2, 0, 1))
