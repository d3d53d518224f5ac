"""Torch files that name a class by a text longer than any name."""

import pickle
import signal
import zipfile
from collections.abc import Iterator

import pytest
import torch

from image2video.errors import InputError
from image2video.runs.atomic import torch_load
from image2video.runs.pickles import LONGEST_NAME, check_names


@pytest.fixture(autouse=True)
def _patience() -> Iterator[None]:
    """torch's own search through such a name would go on for hours."""

    def out_of_patience(*_: object) -> None:
        raise KeyboardInterrupt("no answer after 20 s")

    former = signal.signal(signal.SIGALRM, out_of_patience)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


def named(length: int, module: str = "torch") -> bytes:
    """A pickle of a class with a name of so many characters, its module and a point among them."""
    return b"\x80\x02c" + module.encode() + b"\n" + b"x" * (length - len(module) - 1) + b"\n."


def put(path, data: bytes, *, legacy: bool) -> None:
    """Write a torch file around a pickle."""
    if legacy:
        head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
        path.write_bytes(b"".join(head) + data + pickle.dumps([], 2))
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_name_without_end_is_refused_at_once(tmp_path, legacy):
    put(tmp_path / "a.pt", named(1_000_000), legacy=legacy)
    with pytest.raises(InputError, match=r"a\.pt is not a readable checkpoint .*got one with 1000000, .torch x"):
        torch_load(tmp_path / "a.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_name_of_a_class_that_is_not_allowed_is_left_to_torch(tmp_path, legacy):
    put(tmp_path / "a.pt", named(LONGEST_NAME), legacy=legacy)
    check_names(tmp_path / "a.pt")
    with pytest.raises(InputError, match="holds more than tensors and plain values"):
        torch_load(tmp_path / "a.pt")
    put(tmp_path / "a.pt", named(LONGEST_NAME + 1), legacy=legacy)
    with pytest.raises(InputError, match="characters"):
        check_names(tmp_path / "a.pt")


@pytest.mark.parametrize("zipped", [False, True])
def test_both_formats_of_torch_are_read(tmp_path, zipped):
    value = {"weights": torch.arange(6.0).view(2, 3), "name": "x" * 5000, "step": 3}
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    loaded = torch_load(tmp_path / "a.pt")
    assert torch.equal(loaded.pop("weights"), value.pop("weights"))
    assert loaded == value


def test_an_object_behind_a_name_in_another_alphabet_is_refused(tmp_path):
    put(tmp_path / "a.pt", named(1_000_000, "é"), legacy=False)
    with pytest.raises(InputError, match="not a readable checkpoint"):
        torch_load(tmp_path / "a.pt")
