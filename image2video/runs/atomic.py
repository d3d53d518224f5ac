"""Files that survive a kill: writes that are whole or not at all, and reads whose errors name the file."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import pickle
import shutil
import threading
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from image2video.errors import Image2VideoError, InputError, MissingError
from image2video.runs.pickles import check_names
from image2video.runs.texts import user_path

_PLAIN = (str, float, bool, type(None))


class WriteError(Image2VideoError, OSError):
    """A file could not be written; what stood there before is unchanged."""


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one, never a part.

    The bytes go to a hidden file beside `path`, are flushed to the disk, and take its place in one rename.

    Raises:
        WriteError: the disk is full or refuses the write; the old file is unchanged.

    """
    _write(Path(path), data, keep_previous=False)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all (see `atomic_write_bytes`)."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all.

    Equal values give equal bytes: keys keep the order in which they were put in, floats are written in full.

    Raises:
        InputError: `value` holds NaN, an infinity, or something that JSON does not know.
        WriteError: see `atomic_write_bytes`.

    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            # A path that is no UTF-8 reaches us with halves of characters, which only JSON's own escapes can hold.
            text = json.dumps(value, indent=2, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{Path(path).name} cannot be written as JSON: {error}") from error
    atomic_write_text(path, text + "\n")


def atomic_torch_save(path: str | os.PathLike[str], value: Any, *, keep_previous: bool = False) -> None:
    """Save tensors and plain containers to `path`, whole or not at all.

    `keep_previous=True` keeps the file that stood there as `<stem>.previous<suffix>`, which `torch_load_last` falls
    back to.

    Raises:
        InputError: `value` holds something that `torch.load(weights_only=True)` would refuse.
        WriteError: see `atomic_write_bytes`.

    """
    target = Path(path)
    buffer = io.BytesIO()
    torch.save(value, buffer)
    # To read the file again takes longer than to write it, so only what is not known to be read is tried.
    if not _is_surely_read(value):
        try:
            buffer.seek(0)
            torch.load(buffer, weights_only=True, map_location="meta")
        except pickle.UnpicklingError as error:
            raise InputError(f"{target.name} would hold more than tensors and plain values: {error}") from error
    _write(target, buffer.getbuffer(), keep_previous=keep_previous)


def _is_surely_read(value: Any) -> bool:
    """Whether `torch.load(weights_only=True)` takes what is saved of a value; it may take other values too."""
    waiting, seen = [value], set()
    while waiting:
        one = waiting.pop()
        kind = type(one)
        if kind in _PLAIN or (kind is int and -(2**63) <= one < 2**63):
            continue
        if kind is Tensor:
            # Of a strided tensor without attributes its numbers and its shape are saved, and nothing else.
            if one.layout is torch.strided and not one.is_quantized and not vars(one):
                continue
            return False
        if kind not in (dict, OrderedDict, list, tuple):
            return False
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values(), *getattr(one, "__dict__", {}).values()]
        else:
            waiting += one
    return True


def torch_load(path: str | os.PathLike[str], *, map_location: str | torch.device = "cpu") -> Any:
    """Load what `atomic_torch_save` wrote; no code in the file is ever run.

    Raises:
        MissingError: there is no such file.
        InputError: the file is damaged or holds more than tensors and plain values; the message names it.

    """
    source = user_path(path)
    if not os.path.isfile(source):
        raise MissingError(f"expected a file: no checkpoint at {source}")
    try:
        check_names(source)
        return torch.load(source, weights_only=True, map_location=map_location)
    except Exception as error:  # damaged bytes make torch's unpickler raise whatever they spell
        raise InputError(
            f"{source} is not a readable checkpoint ({_reason(error)}); use another file or restore a copy"
        ) from error


def torch_load_last(path: str | os.PathLike[str], *, map_location: str | torch.device = "cpu") -> Any:
    """Load `path`, or where it is missing or damaged the checkpoint before it, with a warning that names the file.

    The damaged file is set aside as `<stem>.damaged<suffix>`.

    Raises:
        MissingError: neither file exists.
        InputError: both are damaged, or one is and the other does not exist.

    """
    source = Path(path)
    previous = previous_name(source)
    try:
        return _load_whole(source, map_location)
    except (InputError, MissingError) as error:
        if not previous.is_file():
            raise
        value = _load_whole(previous, map_location)
        # Set aside, or the next save would keep it in place of the good one.
        with contextlib.suppress(OSError):
            os.replace(source, damaged_name(source))
        warnings.warn(f"{error}; going on from the one before, {previous}", stacklevel=2)
        return value


def previous_name(path: Path) -> Path:
    """Where `atomic_torch_save` keeps what stood at `path` before."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def damaged_name(path: Path) -> Path:
    """Where `torch_load_last` sets a damaged `path` aside."""
    return path.with_name(f"{path.stem}.damaged{path.suffix}")


def _load_whole(path: Path, map_location: str | torch.device) -> Any:
    """What `torch_load` gives, once the checksums are right: torch itself reads a tensor with a wrong byte as it is."""
    value = torch_load(path, map_location=map_location)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # as many types as there are ways to damage an archive
        raise InputError(f"{path} is not a readable checkpoint ({_reason(error)}); restore a copy") from error
    if damaged is not None:
        raise InputError(
            f"{path} is not a readable checkpoint (its part {damaged} does not fit its checksum); use another file or "
            "restore a copy"
        )
    return value


@contextlib.contextmanager
def writing(target: Path, size: int | None = None) -> Iterator[None]:
    """Turn what the system says of a refused write into a `WriteError` that names `target`; `size` is in bytes."""
    try:
        yield
    except OSError as error:
        if isinstance(error, WriteError):
            raise
        about = "" if size is None else f", which needs about {size} bytes"
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = f"no space left on the disk{_free(target)}"
        raise WriteError(
            f"could not write {target}{about}: {reason}; what was written before is unchanged; free space or choose "
            "another folder, then resume"
        ) from error


def _write(target: Path, data: bytes | memoryview, *, keep_previous: bool) -> None:
    # The process is not enough: its threads may write the same file.
    ending = f"{os.getpid()}.{threading.get_native_id()}.part"
    partial = target.with_name(f".{target.name}.{ending}")
    previous = previous_name(target)
    spare = previous.with_name(f".{previous.name}.{ending}")
    with writing(target, len(data)):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            # Only now, so that a disk too full for the new file leaves both old ones.
            if keep_previous and target.exists():
                _second_name(target, spare)
                os.replace(spare, previous)
                # After a kill right here both are names of one file, and then a rename leaves both.
                spare.unlink(missing_ok=True)
            os.replace(partial, target)
            flush_folder(target.parent)
        except OSError:
            for leftover in (partial, spare):
                with contextlib.suppress(OSError):
                    leftover.unlink(missing_ok=True)
            raise


def _second_name(path: Path, name: Path) -> None:
    """Make the bytes of `path` appear under `name` too, while `path` stays complete."""
    with contextlib.suppress(OSError):
        name.unlink(missing_ok=True)
    try:
        os.link(path, name)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, name)


def _free(target: Path) -> str:
    with contextlib.suppress(OSError):
        return f" ({shutil.disk_usage(target.parent).free} bytes are free)"
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # torch's own text advises to run the code in the file
        return "it is no torch file, or holds more than tensors and plain values"
    return (str(error).splitlines() or [type(error).__name__])[0]


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    # A rename itself reaches the disk with the folder; some systems cannot open one.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
