"""Seeded mutations of files and values: the same seed gives the same bytes, so a failure can be made again."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

TOKENS = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b'"',
        b"'",
        b"\\",
        b"\0",
        b"\xff",
        b"\n",
        b"\t",
        b" ",
        b"#",
        b"-",
        b">",
        b"(",
    ),
    *(
        b"*a",
        b"&a ",
        b"<<: ",
        b"!!timestamp ",
        b"!!int ",
        b"--- ",
        b"? ",
        b"| ",
        b"%YAML 9",
        b"\xef\xbb\xbf",
        b"\\ud800",
    ),
    *(b"null", b"true", b"NaN", b"Infinity", b"-1", b"0", b"1e999", b"1e-999", b"0x", b"0b_", b"9" * 30, b"9" * 5000),
    *(b"2020-13-45", b"1:30:30", b"../", b"/", b"~", b"~x/", b".json", b".yaml", b"preset:", b"identity", b"rotate(1)"),
    *(b"clips:", b"random:", b"@", b"=", b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"PK\x03\x04", b"a" * 300),
)
"""What parsers trip over."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 64, 65, 10**6, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.0, 1e308, 5e-324),
    *(
        "",
        "x",
        "x" * 300,
        "é",
        "\ud800",
        "a\0b",
        "../x",
        "/dev/null",
        "none.json",
        "NaN",
        "rotate(10)",
        "gsf",
        "(",
        "1",
    ),
    *([], {}, [[]], {"": None}, [None], ["x"], [0, 0], {"name": "x"}, [1e308, 1], {"op": "rotate", "magnitude": "x"}),
)
"""What takes the place of a value."""


def mutated_bytes(data: bytes, others: tuple[bytes, ...], draw: random.Random) -> bytes:
    """Change bytes in one to four places: flips, cuts, copies, tokens, splices with the other seeds."""
    for _ in range(draw.choice((1, 1, 1, 2, 3, 4))):
        data = draw.choice(_ON_BYTES)(data, others, draw)
    return data


def _flip(data: bytes, others: tuple[bytes, ...], draw: random.Random) -> bytes:
    if not data:
        return b"\x01"
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]


def _set(data: bytes, others: tuple[bytes, ...], draw: random.Random) -> bytes:
    place = draw.randrange(len(data) + 1)
    return data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :]


def _cut(data: bytes, others: tuple[bytes, ...], draw: random.Random) -> bytes:
    start, stop = _span(data, draw)
    return data[:start] + data[stop:]


def _truncate(data: bytes, others: tuple[bytes, ...], draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _repeat(data: bytes, others: tuple[bytes, ...], draw: random.Random) -> bytes:
    start, stop = _span(data, draw)
    return data[:stop] + data[start:stop] * draw.choice((1, 2, 50)) + data[stop:]


def _token(data: bytes, others: tuple[bytes, ...], draw: random.Random) -> bytes:
    start, stop = _span(data, draw)
    stop = start if draw.random() < 0.5 else stop  # put between, or in the place of something
    return data[:start] + draw.choice(TOKENS) * draw.choice((1, 1, 1, 3, 200)) + data[stop:]


def _splice(data: bytes, others: tuple[bytes, ...], draw: random.Random) -> bytes:
    other = draw.choice(others)
    return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]


def _swap(data: bytes, others: tuple[bytes, ...], draw: random.Random) -> bytes:
    (a, b), (c, d) = sorted((_span(data, draw), _span(data, draw)))
    return data if b > c else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _span(data: bytes, draw: random.Random) -> tuple[int, int]:
    """A short stretch of the bytes."""
    start = draw.randrange(len(data) + 1)
    return start, min(len(data), start + draw.choice((1, 2, 4, 8, 16, 64)))


_ON_BYTES: tuple[Callable[[bytes, tuple[bytes, ...], random.Random], bytes], ...]
_ON_BYTES = (_flip, _set, _cut, _truncate, _repeat, _token, _token, _splice, _swap)


def mutated_value(value: Any, draw: random.Random, values: tuple[Any, ...] = VALUES) -> Any:
    """Change one to three places inside lists and dicts: drop, swap for another type, rename, repeat, nest."""
    root = [copy.deepcopy(value)]
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        _change(root, draw, values)
    return root[0]


def _change(root: list[Any], draw: random.Random, values: tuple[Any, ...]) -> None:
    holder, key = draw.choice(list(_places(root)))
    kind = draw.randrange(6)
    if holder is root or kind <= 1:
        holder[key] = copy.deepcopy(draw.choice(values))
    elif kind == 2:
        del holder[key]
    elif kind == 3:
        other, place = draw.choice(list(_places(root)))  # another value of the same file, in the wrong place
        holder[key] = copy.deepcopy(other[place]) if other is not root else None
    elif kind == 4:
        holder[key] = draw.choice(([holder[key]], {"x": holder[key]}, [holder[key]] * 3))
    elif isinstance(holder, dict):
        holder[draw.choice((f"{key}x", "", "x" * 100, "é", "\ud800"))] = holder.pop(key)
    else:
        holder.extend(copy.deepcopy(holder[:100]))


def _places(value: Any) -> Any:
    """Every list or dict with each of its places."""
    if isinstance(value, dict | list):
        for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from _places(inner)
