"""The values of a YAML file against the types that they must have, with the file and the key in every message."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from image2video.errors import InputError


def build(kind: Any, record: Any, where: str) -> Any:
    """A dataclass from a mapping; lists become tuples. Raises `InputError` for keys and types that are not its own."""
    fields = {one.name: one for one in dataclasses.fields(kind)}
    needed = [n for n, f in fields.items() if f.default is dataclasses.MISSING is f.default_factory]
    check_keys(record, tuple(fields), where, needed=needed)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    hints = typing.get_type_hints(kind)
    for key, value in values.items():
        check_type(value, hints[key], f"{where}.{key}")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def check_keys(record: Any, known: Sequence[str], where: str, *, needed: Sequence[str] = ()) -> None:
    """Refuse, as `InputError`, what is no mapping, unknown keys, and needed ones that are missing."""
    check_type(record, Mapping[str, Any], where)
    for unknown in sorted(set(record) - set(known)):
        raise InputError(f"{where}: unknown key {unknown!r}; the keys are {', '.join(sorted(known))}")
    for key in needed:
        if key not in record:
            raise InputError(f"{where}: {key!r} is missing")


def check_type(value: Any, hint: Any, where: str) -> None:
    """Refuse, as `InputError`, a value that is not of a type hint's type."""
    if not _fits(value, hint):
        raise InputError(f"{where}: needed {_words(hint)}, got {value!r:.60} of type {type(value).__name__}")


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


def listed(record: Mapping[str, Any], key: str, where: str) -> Sequence[Any]:
    """The list under a key; raises `InputError` where there is none, or nothing in it."""
    value = record.get(key)
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: {key} must be a list of at least one entry")
    return value
