"""What is known of the latest calls, and the words that tell one kind of call from another."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor

MAX_CALLS = 64
"""Kinds of calls that are kept: each value of a keyword is one, and a number may be another in every call."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

Key = TypeVar("Key")
Found = TypeVar("Found")


class Recent(OrderedDict[Key, Found]):
    """A dict that keeps the last `MAX_CALLS` keys that came in."""

    def __setitem__(self, key: Key, value: Found) -> None:
        super().__setitem__(key, value)
        while len(self) > MAX_CALLS:
            del self[next(iter(self))]


def told(value: Any) -> str:
    """Say an argument: of a tensor what its shape says, of an object nothing of where it lies in memory."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(told, value))}]"
    if isinstance(value, Mapping):
        return f"{{{told_all(value.items())}}}"
    return _ADDRESS.sub("", repr(value))


def told_all(arguments: Iterable[tuple[Any, Any]]) -> str:
    """Say arguments with their names, sorted by these."""
    return ", ".join(sorted(f"{name}={told(value)}" for name, value in arguments))
