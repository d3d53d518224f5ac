"""What a call would need is compared with what the machine has, before it is asked for."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from image2video import VideoWrap
from image2video.cli import main
from image2video.clip import memory
from image2video.clip.image_to_video import Image2Video
from image2video.clip.memory import check_memory, machine_memory, size_text
from image2video.clip.options import ClipOptions
from image2video.clip.random_clips import RandomClips
from image2video.data import AugmentedFrames, load_data
from image2video.errors import InputError
from image2video.search import Cell, SearchSpace, get_space


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 1 GB, where nothing is too small to be looked at."""
    monkeypatch.setattr(memory, "machine_memory", lambda: 10**9)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def wrapped(T: int = 2) -> VideoWrap:
    return VideoWrap(network(), "none", T=T, input_size=(3, 400, 560))


IMAGES = torch.zeros(2, 3, 400, 560)
CLIPS: dict[str, Callable[[], object]] = {
    "a clip": lambda: Image2Video("rotate(5)")(IMAGES, T=400),
    "a clip with colours": lambda: Image2Video("brightness(1.1)", mean=0.5, std=0.2)(IMAGES, T=400),
    "a wrapper's call": lambda: wrapped()(IMAGES, T=400),
    "random clips": lambda: RandomClips(get_space("affine5"))(IMAGES, T=400),
    "augmented copies": lambda: AugmentedFrames("randaugment", mean=(0.5,) * 3, std=(0.2,) * 3)(IMAGES, T=400),
    "a search's cell": lambda: Cell(SearchSpace("two", ("translate_x(0.1)", "identity"), nodes=1), 400)(IMAGES),
}


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize("way", CLIPS)
def test_a_clip_that_is_larger_than_the_memory_is_refused(way: str) -> None:
    with pytest.raises(
        InputError,
        match=r"T=400: the clip of 2 images of 3×400×560 would need 2\.15 GB, this machine has 1 GB; lower T, the",
    ):
        CLIPS[way]()


@pytest.mark.usefixtures("small_machine")
def test_a_wrapper_is_refused_before_anything_is_made() -> None:
    with pytest.raises(InputError, match=r"T=400: the clip of an image of 3×400×560 would need 1\.08 GB"):
        wrapped(T=400)
    model = wrapped()
    with pytest.raises(InputError, match=r"T=400: the clip of an image"):
        model.set_frames(400)
    assert model.T == 2
    model(IMAGES)


@pytest.mark.parametrize("make", [lambda T: ClipOptions(T=T), lambda T: Image2Video("rotate(5)", T=T), wrapped])
def test_frames_without_number_need_more_than_any_machine_has(make: Callable[[int], object]) -> None:
    if machine_memory() is None:
        pytest.skip("this system does not say how much memory it has")
    with pytest.raises(
        InputError, match=r"T=10000000000000: the matrices of the frames would need 720 TB, this machine"
    ):
        make(10**13)


def test_small_calls_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 1)
    wrapped()(IMAGES)
    with pytest.raises(InputError, match="this would need 300 MB, this machine has 1 bytes; do less"):
        check_memory(300_000_000, "this", "do less")


def test_a_machine_that_does_not_say_what_it_has_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: None)
    check_memory(10**20, "this", "do less")
    check_memory(10**20, "this", "do less", device="meta")


def test_the_memory_is_that_of_the_machine_or_of_its_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = memory.machine_memory.__wrapped__
    monkeypatch.setattr(memory, "_CONTAINER_LIMITS", (tmp_path / "none",))
    machine = whole()
    assert machine is None or machine > 10**8
    for text, limit in (("123456789", 123456789), ("max", machine), (str(2**63 - 4096), machine)):
        (tmp_path / "limit").write_text(f"{text}\n")
        monkeypatch.setattr(memory, "_CONTAINER_LIMITS", (tmp_path / "none", tmp_path / "limit"))
        assert whole() == (limit if machine is not None else whole())


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "1 bytes"), (999, "999 bytes"), (1000, "1 kB"), (190e9, "190 GB"), (1.234e9, "1.23 GB"), (5e15, "5,000 TB")],
)
def test_sizes_in_words(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.usefixtures("small_machine")
def test_sizes_of_images_have_limits_that_name_memory(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(InputError, match=r"image_size=1000: 1797 images of 1×1000×1000 would need 7\.19 GB"):
        load_data("digits", image_size=1000)
    with pytest.raises(InputError, match=r"image_size=2000: 2000 images of 2×2000×2000 would need 16 GB"):
        load_data("digit_scenes", image_size=2000)
    images, labels = np.zeros((12, 8, 8, 3), np.uint8), np.arange(12) % 3
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(InputError, match=r"image_size=9000: 24 images of 3×9000×9000 would need 5\.83 GB"):
        load_data(f"npz:{tmp_path / 'a.npz'}", image_size=9000)
    for part in ("train", "val"):
        (tmp_path / part / "cat").mkdir(parents=True)
        (tmp_path / part / "cat" / "0.png").write_bytes(b"never read")
    with pytest.raises(InputError, match=r"image_size=90000: an image of 3×90000×90000 would need 97\.2 GB"):
        load_data(f"folder:{tmp_path}", image_size=90000)
    rf = ["rf", "--model", "cifar_resnet8", "--size", "16", "--count", "1000000", "--device", "cpu"]
    assert main([*rf, "--frames", "2", "--out", str(tmp_path / "rf")]) == 2
    assert "--count 1000000: 1000000 images of 3×16×16 would need 3.07 GB" in capsys.readouterr().err


@pytest.mark.usefixtures("small_machine")
def test_the_drawing_of_an_image_has_a_limit(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    argv = ["show", "--image", str(tmp_path / "a.png"), "--out", str(tmp_path / "clip.png")]
    assert main([*argv, "--image-size", "30000"]) == 2
    assert "--image-size 30000: an image of 3×20000×30000 would need 7.2 GB" in capsys.readouterr().err
    assert main([*argv, "--frames", "1000000"]) == 2
    assert "T=1000000: the clip of an image of 3×20×30 would need 7.2 GB" in capsys.readouterr().err


def test_arrays_that_unpack_to_more_than_the_memory_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 270_000_000)
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x_train.npy", "w") as member,
    ):
        for _ in range(17):
            member.write(bytes(1 << 24))
    assert (tmp_path / "bomb.npz").stat().st_size < 2_000_000
    with pytest.raises(InputError, match=r"bomb\.npz: its arrays would need 285 MB, this machine has 270 MB"):
        load_data(f"npz:{tmp_path / 'bomb.npz'}")
