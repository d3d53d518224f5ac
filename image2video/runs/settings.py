"""Settings of a run as its checkpoint has them, against those of now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import Tensor

_Record = TypeVar("_Record")
_SHOWN = 200
"""Characters of one value in a message."""


def differences(saved: Mapping[Any, Any], now: Mapping[Any, Any]) -> str:
    """List the settings in which two records differ, `key: … then, … now`; nothing where they are the same.

    The saved ones come from a file, and may hold anything that a checkpoint may hold.
    """
    keys = [key for key in {**saved, **now} if not same(saved.get(key), now.get(key))]
    return "; ".join(f"{_cut(str(key))}: {_shown(saved.get(key))} then, {_shown(now.get(key))} now" for key in keys)


def same(a: Any, b: Any) -> bool:
    """Whether two settings are equal; a tensor, which no setting is, equals none."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return False
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if _is_row(a) and type(a) is type(b):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _is_row(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _shown(value: Any) -> str:
    """A value in a message; of a tensor what it is."""
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def built(kind: type[_Record], values: Any) -> _Record:
    """Make a dataclass of the values that a checkpoint has for its fields.

    Raises:
        TypeError: no mapping, other names, or a value of another type than the field's.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"expected a record, got a {type(values).__name__}")
    types = get_type_hints(kind)
    for name, value in values.items():
        if name in types and not _is_of(value, types[name]):
            raise TypeError(f"{name} is {_shown(value)}")
    return kind(**values)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type; whole numbers are floats too, bools are no numbers."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(_is_of(value, one) for one in inner)
    if origin is list:
        return isinstance(value, list) and all(_is_of(item, inner[0]) for item in value)
    if origin is not None:
        return isinstance(value, origin)
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind)
