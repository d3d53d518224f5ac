"""Image files are read upright and at their depth, or refused by name."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from image2video.cli import main
from image2video.clip import memory
from image2video.data import load_data
from image2video.data.augment import FAMILIES
from image2video.data.image_file import pixels, read_image, unit_pixels
from image2video.data.transforms import TrainTransform, eval_transform
from image2video.errors import InputError

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 65536, (5, 8), dtype=np.uint16)
COLOURS = RNG.integers(0, 65536, (5, 8, 3), dtype=np.uint16)


def png16(path: Path, values: np.ndarray, alpha: bool = False) -> Path:
    """Write 16-bit colours, which Pillow cannot: filter 0, one chunk of data."""
    height, width = values.shape[:2]
    if alpha:
        values = np.dstack([values, np.full((height, width), 65535, np.uint16)])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 6 if alpha else 2, 0, 0, 0)
    chunks = b""
    for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def tiff(path: Path, values: np.ndarray, **tags: int) -> Path:
    """Write an uncompressed little-endian TIFF of one strip, for what Pillow does not write."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    bits, fields = values.dtype.itemsize * 8, []
    places = {"kind": 1, "photometric": 1 if channels == 1 else 2} | tags
    for tag, kind, count, value in (
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, bits if channels == 1 else 200),
        (259, 3, 1, 1), (262, 3, 1, places["photometric"]), (273, 4, 1, 256), (277, 3, 1, channels),
        (278, 3, 1, height), (279, 4, 1, len(data)), (339, 3, 1, places["kind"]),
    ):  # fmt: skip
        fields.append(struct.pack("<HHII", tag, kind, count, value))
    body = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(fields)) + b"".join(fields) + b"\0" * 4
    body = body.ljust(200, b"\0") + struct.pack(f"<{channels}H", *[bits] * channels)
    path.write_bytes(body.ljust(256, b"\0") + data)
    return path


def grey_file(folder: Path, kind: str) -> Path:
    path = folder / f"grey.{kind}"
    Image.fromarray(GREY).save(path)
    return path


@pytest.mark.parametrize("kind", ["png", "tif", "pgm"])
def test_sixteen_bits_of_grey_are_read_at_their_depth(tmp_path: Path, kind: str) -> None:
    image = read_image(grey_file(tmp_path, kind))
    assert isinstance(image, torch.Tensor)
    assert image.dtype == torch.float32
    assert torch.equal(image, torch.from_numpy(GREY.astype(np.float32) / 65535).expand(3, -1, -1))
    assert torch.equal(unit_pixels(image), image)
    assert torch.equal(pixels(image)[0], torch.from_numpy(np.rint(GREY / 257).astype(np.uint8)))


@pytest.mark.parametrize("alpha", [False, True])
def test_sixteen_bits_of_colours_are_refused_by_name(tmp_path: Path, alpha: bool) -> None:
    """Pillow reads them with 8, and says nothing."""
    path = png16(tmp_path / "colours.png", COLOURS, alpha)
    with Image.open(path) as image:
        assert image.mode in ("RGB", "RGBA")
    with pytest.raises(InputError, match=r"colours\.png: Pillow cuts the 16 bits of its colours to 8; save it with 8"):
        read_image(path)


def test_white_may_be_zero(tmp_path: Path) -> None:
    plain = unit_pixels(read_image(tiff(tmp_path / "plain.tif", GREY)))
    inverted = unit_pixels(read_image(tiff(tmp_path / "inverted.tif", GREY, photometric=0)))
    torch.testing.assert_close(plain, torch.from_numpy(GREY.astype(np.float32) / 65535).expand(3, -1, -1))
    torch.testing.assert_close(inverted, 1 - plain)


@pytest.mark.parametrize(
    ("values", "tags", "message"),
    [
        (GREY.astype(np.float32), {"kind": 3}, r"got floating-point numbers \(mode F\)"),
        (GREY.astype(np.int32), {"kind": 2}, r"got whole numbers of 32 bits \(mode I\)"),
        (GREY.astype(np.uint32), {}, r"got whole numbers of 32 bits \(mode I\)"),
        ((GREY // 2).astype(np.int16), {"kind": 2}, r"\(mode I\)"),
        (COLOURS, {}, "Pillow cuts the 16 bits of its colours to 8; save it with 8 bits"),
    ],
)
def test_depths_without_a_white_are_refused_by_name(tmp_path: Path, values, tags, message: str) -> None:
    path = tiff(tmp_path / "deep.tif", values, **tags)
    with pytest.raises(InputError, match=rf"deep\.tif.*{message}"):
        read_image(path)
    assert main(["show", "--image", str(path), "--out", str(tmp_path / "clip.png")]) == 2


@pytest.mark.parametrize("white", [65535, 1023])
def test_colours_of_more_than_eight_bits_in_ppm_are_refused(tmp_path: Path, white: int) -> None:
    path = tmp_path / "deep.ppm"
    path.write_bytes(b"P6 8 5 %d\n" % white + np.minimum(COLOURS, white).astype(">u2").tobytes())
    with pytest.raises(InputError, match=r"deep\.ppm: Pillow cuts the 16 bits"):
        read_image(path)


def test_grey_of_ten_bits_has_its_own_white(tmp_path: Path) -> None:
    path = tmp_path / "deep.pgm"
    path.write_bytes(b"P5 8 5 1023\n" + (GREY % 1024).astype(">u2").tobytes())
    wanted = torch.from_numpy((GREY % 1024).astype(np.float32) / 1023)
    torch.testing.assert_close(unit_pixels(read_image(path))[0], wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LA"])
def test_eight_bits_are_read_as_pillow_converts_them(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (5, 8, 3), dtype=np.uint8)).convert(mode)
    path = tmp_path / ("image.tif" if mode in ("CMYK", "YCbCr") else "image.png")
    image.save(path)
    found = read_image(path)
    assert isinstance(found, Image.Image)
    assert found.mode == "RGB"
    with Image.open(path) as again:
        assert np.array_equal(np.array(found), np.array(again.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "tif, grey", "png, 16 bits", "tif, 16 bits"])
def test_the_orientation_of_exif_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    deep = "16" in kind
    colours = RNG.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    stored = Image.fromarray(GREY if deep else colours[..., 0] if "grey" in kind else colours)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{kind[:3]}"
    stored.save(path, exif=exif.tobytes(), **({"quality": 100, "subsampling": 0} if kind == "jpg" else {}))
    found = unit_pixels(read_image(path))
    # By hand: what each orientation means, from the stored rows and columns to the upright ones.
    values = np.array(stored).astype(np.float32) / (65535 if deep else 255)
    turns = {
        1: values, 2: values[:, ::-1], 3: values[::-1, ::-1], 4: values[::-1], 5: values.swapaxes(0, 1),
        6: np.rot90(values, -1), 7: np.rot90(values, 2).swapaxes(0, 1), 8: np.rot90(values),
    }  # fmt: skip
    wanted = torch.from_numpy(np.ascontiguousarray(turns[orientation]))
    wanted = wanted.expand(3, -1, -1) if wanted.ndim == 2 else wanted.permute(2, 0, 1)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < (0.03 if kind == "jpg" else 1e-6)


def write_classes(root: Path, values: dict[str, np.ndarray]) -> str:
    for part in ("train", "val"):
        for name, array in values.items():
            (root / part / name).mkdir(parents=True)
            for number in range(2):
                Image.fromarray(array).save(root / part / name / f"{number}.png")
    return f"folder:{root}"


def test_a_folder_of_deep_images_keeps_its_shades(tmp_path: Path) -> None:
    """12 bits in files of 16: all were one colour, or of sixteen shades."""
    dark = np.tile(np.arange(0, 4096, 64, dtype=np.uint16), (64, 1))
    data = load_data(write_classes(tmp_path, {"dark": dark, "bright": dark * 15}), image_size=64, holdout=0, workers=0)
    images, labels = next(iter(data.test.batches(4).epoch(0)))
    shades = images[labels == 1][0, 0] * data.std[0] + data.mean[0]
    assert len(shades[0].unique()) > 50
    assert 0.9 * 4032 / 65535 < float(shades.max()) <= 4032 / 65535 + 1e-6  # the crop's edge is cut off
    bright = images[labels == 0][0, 0] * data.std[0] + data.mean[0]
    assert 0.9 * 15 * 4032 / 65535 < float(bright.max()) <= 15 * 4032 / 65535 + 1e-6
    assert data.test.raw(2).dtype == torch.uint8
    assert int(data.test.raw(0).max()) == round(15 * 4032 / 257)


def test_deep_images_are_augmented_as_others_are() -> None:
    """The same picture with 8 and with 16 bits: equal but for rounding, by every policy."""
    array = np.kron(RNG.integers(0, 256, (6, 6), dtype=np.uint8), np.ones((8, 8), np.uint8))
    shallow = Image.fromarray(array).convert("RGB")
    deep = torch.from_numpy(array.astype(np.float32) / 255).expand(3, -1, -1)
    mean, std = (0.5,) * 3, (0.25,) * 3
    assert (eval_transform(32, mean, std)(shallow) - eval_transform(32, mean, std)(deep)).abs().max() < 0.05
    policies = [family.grid()[0] for family in FAMILIES.values()]
    assert len(policies) == 5
    for policy in [None, *policies]:
        train = TrainTransform(32, mean, std, policy=policy)
        for seed in range(8):
            torch.manual_seed(seed)
            wanted = train(shallow)
            torch.manual_seed(seed)
            found = train(deep)
            assert (wanted - found).abs().mean() < 0.1, (policy, seed)


def test_an_image_of_pillow_that_would_be_clipped_is_refused_by_the_transforms() -> None:
    for image in (Image.fromarray(GREY), Image.fromarray(GREY.astype(np.float32))):
        with pytest.raises(InputError, match=r"must have pixels of 8 or 16 bits a channel, got .* numbers"):
            eval_transform(8, (0.5,) * 3, (0.5,) * 3)(image)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path):
        with pytest.raises(InputError, match="it must be a regular file"):
            read_image(path)


@pytest.mark.parametrize("cut", range(8, 80, 6))
def test_damaged_files_are_named(tmp_path: Path, cut: int) -> None:
    for path in (grey_file(tmp_path, "png"), grey_file(tmp_path, "tif")):
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(InputError, match=rf"cannot read the image .*{path.name}: .*; replace or delete it"):
            read_image(path)


def test_an_image_that_the_memory_cannot_hold_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wide.png"
    Image.new("L", (9000, 8000)).save(path)
    monkeypatch.setattr(memory, "machine_memory", lambda: 280_000_000)
    with pytest.raises(
        InputError, match=r"wide\.png of 9000×8000 pixels would need 288 MB, this machine has 280 MB; use a smaller one"
    ):
        read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match=r"wide\.png: Image size .72000000 pixels. exceeds limit"):
        read_image(path)
