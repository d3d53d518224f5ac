"""The values of a YAML file against the types that they must have, with the file and the key in every message."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from image2video.errors import Image2VideoError, InputError


def build(kind: Any, record: Any, where: str) -> Any:
    """A dataclass from a mapping; lists become tuples.

    Raises:
        InputError: keys or types that are not those of the dataclass.
    """
    fields = dataclasses.fields(kind)
    required = [f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    check_keys(record, [field.name for field in fields], where, needed=required)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    hints = typing.get_type_hints(kind)
    for key, value in values.items():
        check_type(value, hints[key], f"{where}.{key}")
    with located(where):
        return kind(**values)


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put the file and the key before the message of any error that a value of theirs causes."""
    try:
        yield
    except (Image2VideoError, TypeError) as error:
        raise InputError(f"{where}: {error}") from error


def check_keys(record: Any, known: Sequence[str], where: str, *, needed: Sequence[str] = ()) -> None:
    """Refuse what is no mapping, unknown keys, and needed ones that are missing.

    Raises:
        InputError: any of them.
    """
    check_type(record, Mapping[str, Any], where)
    for unknown in sorted(set(record) - set(known)):
        raise InputError(f"{where}: unknown key {unknown!r}; the keys are {', '.join(sorted(known))}")
    for key in needed:
        if key not in record:
            raise InputError(f"{where}: {key!r} is missing; the keys are {', '.join(sorted(known))}")


def check_type(value: Any, hint: Any, where: str) -> None:
    """Refuse a value that is not of a type hint's type.

    Raises:
        InputError: with the place, the type that is needed, and what came.
    """
    if not _fits(value, hint):
        raise InputError(f"{where}: must be {_words(hint)}, got {value!r:.60} of type {type(value).__name__}")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, arguments[0]) for one in value)
    if origin is not None:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if hint is float else hint)


def _words(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_words(one) for one in arguments)
    if origin is typing.Literal:
        return f"one of {', '.join(arguments)}"
    if origin is tuple:
        return "a list"
    if origin is not None:
        return "a mapping"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(hint, str(hint))


def listed(record: Mapping[str, Any], key: str, where: str) -> list[tuple[Any, str]]:
    """The entries of the list under a key, each with its place: `rows[2]`.

    Raises:
        InputError: there is no list, or nothing in it.
    """
    value = record.get(key)
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: {key} must be a list of at least one entry, got {value!r:.60}")
    dot = ": " if ":" not in where else "."
    return [(entry, f"{where}{dot}{key}[{i}]") for i, entry in enumerate(value)]
