"""mmsegmentation's own tools on a video segmentor: training, validation, testing, drawing, inference."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg_tools_cases import TOOLS, forget_runs, load_config, read_checkpoint, run_python, run_tool, small_config
from PIL import Image

import image2video.integrations.openmmlab  # noqa: F401 (registers the video segmentors)
from image2video import InputError
from image2video.reproduce.miniatures import make_cityscapes
from image2video.wrap.clip_record import decode

pytestmark = [
    pytest.mark.filterwarnings("ignore:The draw is False"),
    pytest.mark.filterwarnings("ignore:Failed to add .*LocalVisBackend"),
    pytest.mark.filterwarnings("ignore:The shape of value will convert"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where `tools/train.py` has trained the small config for two iterations and validated once."""
    folder = tmp_path_factory.mktemp("trained")
    config = small_config(folder, make_cityscapes(folder / "data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_tool(patch, "train", config)
    yield folder
    forget_runs()


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own with a copy of what was trained."""
    shutil.copytree(trained, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


CHECKPOINT = "work_dirs/small/iter_2.pth"


def test_train_saves_a_checkpoint_that_says_what_clip_it_was_trained_with(trained: Path) -> None:
    checkpoint = read_checkpoint(trained / CHECKPOINT)
    assert checkpoint["meta"]["iter"] == 2
    record = decode(checkpoint["state_dict"]["_extra_state"])
    assert (record["genotype"], record["T"]) == ("translate_x(0.02) > scale(1.05)", 5)
    assert any(name.startswith("video_fusion.") for name in checkpoint["state_dict"])
    scalars = next((trained / "work_dirs" / "small").glob("*/vis_data/scalars.json")).read_text()
    assert "decode.loss_ce" in scalars
    assert "mIoU" in scalars


def test_test_draws_and_writes_predictions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = ("--cfg-options", "default_hooks.visualization.interval=1")
    run_tool(monkeypatch, "test", "small.py", CHECKPOINT, "--show-dir", "shown", "--out", "out", *every)
    images = sorted(path.stem for path in (folder / "data" / "leftImg8bit" / "val").rglob("*.png"))
    written = sorted((folder / "out").glob("*.png"))
    assert [path.stem for path in written] == images
    assert np.asarray(Image.open(written[0])).shape == (48, 64)
    assert len(list((folder / "shown").rglob("*.png"))) == len(images)


def test_test_with_augmented_copies_of_every_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_tool(monkeypatch, "test", "small.py", CHECKPOINT, "--tta", "--out", "out")
    assert len(list((folder / "out").glob("*.png"))) == 3


def test_a_checkpoint_of_another_clip_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"model\.video\.T=3, the checkpoint has 5.*allow_mismatch"):
        run_tool(monkeypatch, "test", "small.py", CHECKPOINT, "--cfg-options", "model.video.T=3")


def test_a_wrong_key_is_named_as_the_config_spells_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"model\.video\.frames is no option"):
        run_tool(monkeypatch, "train", "small.py", "--cfg-options", "model.video.frames=3")


def test_inference_of_one_image_and_its_drawing(folder: Path) -> None:
    from mmseg.apis import inference_model, init_model, show_result_pyplot

    model = init_model("small.py", CHECKPOINT, device="cpu")
    image = str(next((folder / "data" / "leftImg8bit" / "val").rglob("*.png")))
    result = inference_model(model, image)
    assert result.pred_sem_seg.data.shape == (1, 48, 64)
    assert torch.equal(result.seg_logits.data.argmax(0), result.pred_sem_seg.data[0])
    drawn = show_result_pyplot(model, image, result, show=False, out_file="drawn.png")
    assert drawn.shape == (48, 64, 3)
    assert (folder / "drawn.png").exists()


def test_predictions_of_windows(folder: Path) -> None:
    from mmseg.apis import inference_model, init_model

    slide = {"mode": "slide", "crop_size": (32, 48), "stride": (16, 16)}
    config = load_config(folder / "small.py", **{"model.test_cfg": slide})
    image = str(next((folder / "data" / "leftImg8bit" / "val").rglob("*.png")))
    by_windows = inference_model(init_model(config, CHECKPOINT, device="cpu"), image).seg_logits.data
    whole = inference_model(init_model("small.py", CHECKPOINT, device="cpu"), image).seg_logits.data
    assert by_windows.shape == whole.shape == (19, 48, 64)
    assert by_windows.isfinite().all()
    assert not torch.equal(by_windows, whole)


@pytest.mark.slow  # two more processes; the same tools run in this process above
def test_the_tools_from_a_command_line(folder: Path) -> None:
    done = run_python([TOOLS / "test.py", "small.py", CHECKPOINT, "--show-dir", "shown", "--out", "out"], folder=folder)
    assert "Traceback" not in done.stderr
    assert len(list((folder / "out").glob("*.png"))) == 3
    resumed = run_python(
        [TOOLS / "train.py", "small.py", "--resume", "--cfg-options", "train_cfg.max_iters=4"], folder=folder
    )
    assert "Traceback" not in resumed.stderr
    assert (folder / "work_dirs" / "small" / "iter_4.pth").exists()
