"""A disk that is full, or a checkpoint that is damaged: what was there before stays and the search goes on from it."""

import errno
import io
import os
import pickletools
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from search_cases import blobs, tiny_network
from torch import Tensor, nn

from image2video.errors import InputError, StateError
from image2video.runs import atomic
from image2video.runs.folders import WriteError, atomic_torch_save, torch_load, torch_load_last
from image2video.search import SearchConfig, SearchSpace, register_space, search

register_space(SearchSpace("two", ("translate_x(0.1)", "rotate(10)"), nodes=2))
FILES = ("genotype.json", "tau.json", "scores.json")


def run(out: Path, network: nn.Module | None = None, **options: object) -> list[bytes]:
    config = SearchConfig(space="two", T=3, epochs=2, batch_size=16, fusion="none", tune_epochs=0, device="cpu")
    search(network or tiny_network(), blobs(60, 0), config, out=out, **options)
    return [(out / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A finished run, for tests to copy, and its files."""
    out = tmp_path_factory.mktemp("disk") / "whole"
    return out, run(out)


@pytest.fixture
def copied(whole: tuple[Path, list[bytes]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "run"))


class FullDisk:
    """Refuses the writes of one file from its `after`-th one on, at one of the steps of a write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: str, name: str, after: int) -> None:
        self.left, self.on = after, True
        original = getattr(atomic.os, step)

        def refuse(first: object, *rest: object) -> object:
            path = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else str(first)
            if self.on and name in path:
                self.left -= 1
                if self.left < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(first, *rest)

        monkeypatch.setattr(atomic.os, step, refuse)


def refusing(code: int) -> Callable[..., None]:
    """A function that fails as the system would."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("name", ["last.pt", "scores.json"])
def test_a_full_disk_stops_the_search_and_loses_nothing(
    whole: tuple[Path, list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, name: str
) -> None:
    out = tmp_path / "run"
    disk = FullDisk(monkeypatch, step, name, 2 if name == "last.pt" else 0)
    with pytest.raises(WriteError, match=rf"could not write .*{name}, which needs about \d{{4,}} bytes: no space left"):
        run(out)
    assert not [path for path in out.rglob("*") if path.name.endswith(".part")]
    saved = torch_load(out / "checkpoint" / "last.pt")
    assert saved["state"]["done"] == (2 if name == "last.pt" else 7)
    # The one before is still the one before, unless the very last step of the write was refused.
    before = torch_load(out / "checkpoint" / "last.previous.pt")["state"]["done"]
    assert before == saved["state"]["done"] - (0 if (step, name) == ("replace", "last.pt") else 1)
    disk.on = False
    assert run(out, resume=True) == whole[1]


def test_a_file_system_without_links_and_without_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    for step in range(2):
        atomic_torch_save(path, {"step": step}, keep_previous=True)

    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "link", refusing(errno.EPERM))
    monkeypatch.setattr(atomic.shutil, "copyfile", full)
    with pytest.raises(WriteError, match=r"no space left on the disk \(\d+ bytes are free\); what was written before"):
        atomic_torch_save(path, {"step": 2}, keep_previous=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.previous.pt", "last.pt"]
    assert torch_load(path) == {"step": 1}
    assert torch_load(tmp_path / "last.previous.pt") == {"step": 0}


def test_other_refusals_say_what_the_system_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic.os, "fsync", refusing(errno.EIO))
    with pytest.raises(WriteError, match=r"a\.txt, which needs about 3 bytes: Input/output error; what was written"):
        atomic.atomic_write_text(tmp_path / "a.txt", "abc")


def test_curves_that_find_no_space_name_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    monkeypatch.setattr(RecordWriter, "flush", refusing(errno.ENOSPC))
    with pytest.raises(WriteError, match=r"could not write .*tensorboard/events.*: no space left"):
        run(tmp_path / "run")
    assert torch_load(tmp_path / "run" / "checkpoint" / "last.pt")["state"]["done"] == 1


def middle_of_a_tensor(path: Path) -> int:
    """Where in a checkpoint the values of its largest tensor have their middle; between tensors there is padding."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    header = path.read_bytes()[largest.header_offset : largest.header_offset + 30]
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return largest.header_offset + 30 + names + largest.file_size // 2


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(whole: tuple[Path, list[bytes]], copied: Path) -> None:
    last = copied / "checkpoint" / "last.pt"
    data = bytearray(last.read_bytes())
    data[middle_of_a_tensor(last)] ^= 0xFF  # where only a checksum notices
    for content in (bytes(data), bytes(data[:1000]), b""):
        last.write_bytes(content)
        for name in FILES:
            (copied / name).unlink()
        with pytest.warns(UserWarning, match=r"last\.pt is not a readable checkpoint.*last\.previous\.pt"):
            assert run(copied, resume=True) == whole[1]
    for path in last.parent.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"last\.previous\.pt is not a readable checkpoint"):
        run(copied, resume=True)


def test_another_number_of_processes_is_said(whole: tuple[Path, list[bytes]], copied: Path) -> None:
    last = copied / "checkpoint" / "last.pt"
    saved = torch_load(last)
    atomic_torch_save(last, {**saved, "generators": saved["generators"] * 2})
    with pytest.warns(UserWarning, match="written with 2 processes and is resumed with 1: the search goes on, but"):
        assert run(copied, resume=True) == whole[1]  # it was complete


def test_the_checkpoint_before_alone_is_gone_on_from(whole: tuple[Path, list[bytes]], copied: Path) -> None:
    (copied / "checkpoint" / "last.pt").unlink()
    with pytest.warns(UserWarning, match=r"no checkpoint at .*last\.pt; going on from the one before"):
        assert run(copied, resume=True) == whole[1]


def test_a_checkpoint_holds_no_code(whole: tuple[Path, list[bytes]]) -> None:
    with zipfile.ZipFile(whole[0] / "checkpoint" / "last.pt") as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        operations = list(pickletools.genops(io.BytesIO(archive.read(name))))
    found = {argument for operation, argument, _ in operations if operation.name in ("GLOBAL", "STACK_GLOBAL")}
    assert found  # tensors are rebuilt by torch's own functions
    assert all(str(name).startswith(("torch", "collections OrderedDict")) for name in found), found


class Explodes(nn.Module):
    """A classifier that overflows from its seventh training batch on, if `active`: the τ step of the fourth pair."""

    def __init__(self, active: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.linear = nn.Linear(12 * 16, 3)
        self.active = active
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        return self.linear(x.flatten(1)) * (float("inf") if self.active and self.seen > 6 else 1.0)


def test_a_loss_that_is_not_finite_leaves_the_state_before_it(tmp_path: Path) -> None:
    expected = run(tmp_path / "whole", Explodes(False))
    out = tmp_path / "run"
    with pytest.raises(StateError, match=r"the validation loss is nan at step 3; .*its last checkpoint is kept"):
        run(out, Explodes(True))
    saved = torch_load_last(out / "checkpoint" / "last.pt")
    assert saved["state"]["done"] == 1
    assert all(value.isfinite().all() for value in saved["network"].values())
    assert saved["cell"]["tau"].isfinite().all()
    assert run(out, Explodes(False), resume=True) == expected
