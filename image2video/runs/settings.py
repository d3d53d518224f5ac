"""Settings of a run as its checkpoint has them, against those of now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

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
