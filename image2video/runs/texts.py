"""The one reader of text files, and of JSON: limits come before work, and errors name the file.

Text comes from anywhere: a download, a colleague, a broken disk. So a file is opened only where it is a regular one, no
more of it is read than its kind may have, and JSON is parsed only where its values fit into `MAX_MEMORY`.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from image2video.errors import InputError, InputTypeError, MissingError

MAX_TEXT_BYTES = 1_000_000
"""Of a text that a person writes: a genotype, a search space, a config."""
MAX_RECORD_BYTES = 8_000_000
"""Of a record that a run writes."""
MAX_DEPTH = 64
"""How deeply lists and objects may be nested."""
MAX_MEMORY = 80_000_000
"""Bytes of memory that a JSON text and its values may take."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)
_NO_BRACKET = re.compile(r"[^\[\]{}]+")


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user wrote it, with `~` for the home folder.

    Raises:
        InputError: a NUL character, which no path has, or the home of a user that there is not.
        InputTypeError: no text and no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputTypeError(f"a path must be a text, got {path!r:.80} of type {type(path).__name__}")
    text = os.fsdecode(path)
    if "\0" in text:
        raise InputError(f"a path must hold no NUL character, got {text!r:.80}")
    try:
        os.fsencode(text)
        return Path(text).expanduser()
    except (RuntimeError, UnicodeEncodeError) as error:  # no such user; half of a character, as JSON can hold it
        raise InputError(f"the path {text!r:.80} cannot be used: {error}") from error


def read_text(path: str | os.PathLike[str], what: str = "file", *, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a text file.

    Args:
        path: of a regular file.
        what: what messages call it, such as "genotype file".
        max_bytes: of a larger one nothing is parsed, and no more than this is read.

    Returns:
        Its text.

    Raises:
        MissingError: there is no such file.
        InputError: a folder, pipe or device, a file that may not be read, more bytes, or bytes that are no UTF-8.
    """
    source = user_path(path)
    try:
        found = source.stat()
        if not stat.S_ISREG(found.st_mode):  # to open a pipe would wait for its writer
            raise InputError(f"{str(source)!r} is not a file; expected a regular file to read the {what} from")
        if found.st_size > max_bytes:
            raise _too_large(source, found.st_size, max_bytes)
        with source.open("rb") as handle:
            data = handle.read(max_bytes + 1)  # files of the kernel say that they have no bytes
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError(f"there is no {what} {str(source)!r}; check the path") from error
    except OSError as error:
        raise InputError(f"cannot read the {what} {str(source)!r:.300}: {error.strerror or error}") from error
    if len(data) > max_bytes:
        raise _too_large(source, len(data), max_bytes)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{source} must be UTF-8 text, got {data[error.start]:#04x} at byte {error.start}") from None


def read_json(path: str | os.PathLike[str], what: str = "file", *, max_bytes: int = MAX_RECORD_BYTES) -> Any:
    """Read a JSON file.

    Raises:
        MissingError: there is no such file.
        InputError: what `read_text` and `parse_json` refuse; the message names the file.

    """
    return parse_json(read_text(path, what, max_bytes=max_bytes), str(path))


def read_record(path: str | os.PathLike[str], what: str = "record", *, needed: Sequence[str] = ()) -> dict[str, Any]:
    """Read a JSON file that must hold an object with the keys `needed`.

    Raises:
        MissingError: there is no such file.
        InputError: what `read_json` refuses, another value, or a key that is missing.

    """
    record = read_json(path, what)
    if not isinstance(record, dict):
        raise InputError(f"{path} must hold a JSON object, got a {type(record).__name__}; restore a copy")
    missing = [key for key in needed if key not in record]
    if missing:
        raise InputError(f"{path} needs the key {missing[0]!r}; it has {', '.join(record)[:200] or 'none'}")
    return record


def parse_json(text: str, source: str) -> Any:
    """Parse JSON strictly.

    Args:
        text: the JSON.
        source: what messages call it: a path, or words.

    Returns:
        Its value.

    Raises:
        InputError: no JSON, a key that stands twice in one object, NaN or an infinity, nesting beyond `MAX_DEPTH`, an
            integer of thousands of digits, or values that would need more than `MAX_MEMORY`.
    """
    _check_memory(text, source)
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(text, source)
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{source}, line {error.lineno}, column {error.colno}: {error.msg}") from None
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(f"{source} is no JSON that can be read: {error}") from None


def _check_memory(text: str, source: str) -> None:
    """Refuse a text whose values would need more than `MAX_MEMORY`."""
    needed = memory_bound(text)
    if needed > MAX_MEMORY:
        raise InputError(
            f"{source} must need at most {MAX_MEMORY // 10**6} MB of memory, got {len(text)} characters with values of "
            f"up to {needed // 10**6} MB"
        )


def memory_bound(text: str) -> int:
    """Bound the bytes that a JSON text and its values take, from the text's punctuation alone."""
    # Lists and objects cost time besides: Python looks through all of them for circles as they come to be.
    containers = 250 * text.count("[") + 300 * text.count("{")
    return 3 * sys.getsizeof(text) + containers + 64 * text.count(",") + 164 * text.count(":")


def _check_depth(text: str, source: str) -> None:
    """Refuse nesting beyond `MAX_DEPTH`: the recursion of whatever goes through the value is bounded so."""
    depth = 0
    for bracket in _NO_BRACKET.sub("", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise InputError(f"{source} is nested too deeply; lists and objects may be nested {MAX_DEPTH} deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's pairs as a dict; refuse a key that stands twice."""
    record = dict(pairs)
    if len(record) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InputError(f"the key {twice!r:.80} stands twice in one object; keys must differ")
    return record


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python's parser would accept."""
    raise InputError(f"{name} is no JSON number; numbers must be finite")


def _too_large(path: Path, size: int, most: int) -> InputError:
    return InputError(f"{path} must have at most {most} bytes to be read here, got {size}")
