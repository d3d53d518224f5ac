"""An .npz file that is damaged anywhere is an `InputError`, or gives the arrays that were written."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from image2video.data import load_data
from image2video.data.npz import NpzArrays
from image2video.errors import InputError

ARRAYS = {"x": np.arange(12, dtype=np.uint8).reshape(3, 4), "classes": np.array(["a", "bc"])}


def written(compress: bool) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, **ARRAYS)
    return buffer.getvalue()


def read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays; None where the file is refused."""
    try:
        with NpzArrays(path) as file:
            return {name: file[name] for name in file.files}
    except InputError as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message
    return None


@pytest.mark.parametrize("compress", [False, True])
def test_every_flipped_bit_is_noticed_or_harmless(compress: bool, tmp_path: Path) -> None:
    whole, path = written(compress), tmp_path / "a.npz"
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        found = read(path)
        refused += found is None
        for name, array in (found or {}).items():  # a flip in a name gives another name
            assert any(np.array_equal(array, own) for own in ARRAYS.values()), (place, name)
    assert refused > len(whole) / 2


def test_a_header_that_claims_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6, 10**6)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"abc")
    with (
        NpzArrays(tmp_path / "a.npz") as file,
        pytest.raises(InputError, match=r"'x' must hold 1000000000000000000 bytes to have the shape .* got 131"),
    ):
        file["x"]


def test_labels_beyond_the_images_make_no_names(tmp_path: Path) -> None:
    images, labels = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 2, 2**62])
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(InputError, match=r"the training labels go up to \d+ with 4 images; every class needs an image"):
        load_data(f"npz:{tmp_path / 'a.npz'}")


def test_a_labels_file_is_named_with_its_line(tmp_path: Path) -> None:
    for part in ("train/cat", "train/dog", "val/images"):
        (tmp_path / part).mkdir(parents=True)
    for name in ("train/cat/a.png", "train/dog/b.png", "val/images/c.png"):
        (tmp_path / name).touch()
    annotations = tmp_path / "val" / "val_annotations.txt"
    for text, message in (
        ("c.png\tcat\t0\nc.png cat", r"line 2: expected IMAGE, a tab and CLASS, got 'c\.png cat'"),
        ("c.png\tcow", "line 1 needs a class that train/ has, got 'cow'"),
        ("../../train/cat/a.png\tcat", "line 1, names; restore it"),
        ("d.png\tcat", "line 1, names; restore it"),
        ("a\0b\tcat", "line 1, names; restore it"),
        ("a" * 300 + "\tcat", "line 1, names; restore it"),
    ):
        annotations.write_text(text)
        with pytest.raises((InputError, FileNotFoundError), match=rf"val_annotations\.txt, {message}"):
            load_data(f"folder:{tmp_path}", image_size=8)
    annotations.write_bytes(b"c.png\t\xff")
    with pytest.raises(InputError, match=r"val_annotations\.txt must be UTF-8 text, got 0xff at byte 6"):
        load_data(f"folder:{tmp_path}", image_size=8)
