"""The text forms of a chain, `translate_x(0.06) > rotate(10) > scale(1.1)`, and of a frame set, `identity | flip_x`.

Printing, and parsing with positions.
"""

from __future__ import annotations

import re

from image2video.clip.ops.op import CELL, Op
from image2video.clip.ops.registry import get_op
from image2video.errors import Image2VideoError, InputError, InputTypeError

MAX_TEXT = 10_000
MAX_CHAIN = 64
MAX_FRAMES = 256
IDENTITY_TEXT = "identity"
FRAME_BAR = "|"
NO_CHAIN = (
    "expected a chain, got a frame set; VideoWrap, Image2Video and receptive fields take frame sets, "
    "searches, rankings of chains and random clips do not"
)
NO_DEEP = (
    "expected a clip of images, got one with places of a network; VideoWrap(network, genotype=…) and the segmentors of "
    "mmsegmentation take it; Image2Video, searches, rankings and random clips do not"
)

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CELLS = re.compile(rf"({_NUMBER.pattern})\s+{CELL}s?")
_ARGUMENT = re.compile(r"[^()>,]*")

Item = tuple[str, float, str]
"""A transform as its op, its magnitude and the unit of that: `""` for the op's own, or `"cell"`."""


def format_number(value: float) -> str:
    """Write a number as the shortest decimal text that reads back as the same float: 10.0 is "10"."""
    return repr(value).removesuffix(".0")


def format_magnitude(value: float, unit: str) -> str:
    """Write a magnitude as texts of genotypes have it: `0.06`, `1 cell`, `-2 cells`."""
    number = format_number(value)
    return number if not unit else f"{number} {unit}" + ("" if abs(value) == 1 else "s")


def parse_chain(text: str) -> tuple[Item, ...]:
    """Read the ops, magnitudes and units of a genotype's text; `identity` and flips take no number.

    Raises `InputTypeError` for anything but a string, and `InputError` (with the position and a caret below it) for a
    syntax error, an unknown op, a magnitude that is no finite number in the op's range, a text of more than
    10 000 characters or a chain of more than 64 ops.
    """
    parser = Parser(checked_length(text))
    chain = parser.chain()
    if text.startswith(FRAME_BAR, parser.at):
        raise parser.error(NO_CHAIN)
    if parser.at < len(text):
        parser.expect(">", "between two ops")
    return chain


def parse_frames(text: str) -> tuple[tuple[Item, ...], ...]:
    """Read the chains of a frame set's text, `identity | flip_x | scale(1.2)`; a set of one frame ends with a bar.

    Raises as `parse_chain` does, and `InputError` for a set of more than 256 frames or a text without a bar.
    """
    parser = Parser(checked_length(text))
    chains = [parser.chain()]
    while parser.at < len(text):
        parser.expect(FRAME_BAR, "between two frames, or '>' between two ops")
        parser.skip_space()
        if parser.at == len(text) and len(chains) == 1:
            return tuple(chains)
        if len(chains) == MAX_FRAMES:
            raise parser.error(f"a frame set has at most {MAX_FRAMES} frames")
        chains.append(parser.chain())
    if len(chains) == 1:
        raise parser.error(f"a frame set needs a {FRAME_BAR!r} between its frames, or after the only one")
    return tuple(chains)


def checked_length(text: str) -> str:
    """Return a genotype's text; raise for what is none, or is too long."""
    if not isinstance(text, str):
        raise InputTypeError(f"a genotype's text is a string, got {text!r:.80} of type {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise InputError(f"the genotype's text has {len(text)} characters; at most {MAX_TEXT} are read")
    return text


class Parser:
    """Reads a text from left to right; `at` is where it stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def chain(self) -> tuple[Item, ...]:
        """Read transforms with `>` between them, to the first thing that is neither."""
        items: list[Item] = []
        while True:
            self.skip_space()
            if len(items) == MAX_CHAIN:
                raise self.error(f"a chain has at most {MAX_CHAIN} ops")
            items.append(self.transform())
            self.skip_space()
            if not self.text.startswith(">", self.at):
                return tuple(items)
            self.at += 1

    def transform(self) -> Item:
        """Read `op(magnitude)` or `op(2 cells)`, or an op that takes none: `identity`, `flip_x`."""
        start = self.at
        match = _NAME.match(self.text, start)
        if match is None:
            what = "the text ends" if start == len(self.text) else f"found {self.text[start]!r}"
            raise self.error(f"expected an op, as in 'rotate(10)' or 'identity', but {what}")
        name = match.group()
        if self.text[match.end() :].lstrip().startswith(":"):
            raise self.error(NO_DEEP)
        try:
            op = get_op(name)
        except Image2VideoError as error:
            raise self.error(str(error)) from None
        self.at = match.end()
        self.skip_space()
        if not self.text.startswith("(", self.at):
            if name == IDENTITY_TEXT:
                return name, op.neutral, ""
            if op.mirrors:
                return name, op.default, ""
        self.expect("(", f"with the magnitude of {name}, as in '{name}({op.default:g})'")
        self.skip_space()
        number_at = self.at
        magnitude, unit = self.magnitude(op)
        try:
            magnitude = op.check(magnitude, unit)
        except Image2VideoError as error:
            raise self.error(str(error), number_at) from None
        self.skip_space()
        self.expect(")", f"after the magnitude of {name}")
        return name, magnitude, unit

    def magnitude(self, op: Op) -> tuple[float, str]:
        """Read the magnitude of an op, and its unit."""
        argument = _ARGUMENT.match(self.text, self.at)
        assert argument is not None, "the pattern matches the empty string"
        found = argument.group().strip()
        cells = _CELLS.fullmatch(found)
        if cells is None and _NUMBER.fullmatch(found) is None:
            shown = found if len(found) <= 40 else found[:40] + "…"
            or_cells = "" if op.shifts is None else f", or a number of cells, as in '{op.name}(1 {CELL})'"
            raise self.error(f"the magnitude of {op.name} must be one finite decimal number{or_cells}, got {shown!r}")
        self.at += len(found)
        return (float(found), "") if cells is None else (float(cells.group(1)), CELL)

    def expect(self, symbol: str, where: str) -> None:
        """Step over a symbol; `where` says in the error where it is needed."""
        if not self.text.startswith(symbol, self.at):
            found = "the text ends" if self.at == len(self.text) else f"found {self.text[self.at]!r}"
            raise self.error(f"expected {symbol!r} {where}, but {found}")
        self.at += 1

    def skip_space(self) -> None:
        """Step over white space."""
        match = _SPACE.match(self.text, self.at)
        assert match is not None, "the pattern matches the empty string"
        self.at = match.end()

    def error(self, message: str, at: int | None = None) -> InputError:
        """Make an error that shows the text around a position, with a caret below it."""
        at = self.at if at is None else at
        first = max(0, at - 60)
        window = "".join(c if c.isprintable() else " " for c in self.text[first : at + 60])
        return InputError(f"{message}\n  at position {at} of the genotype:\n  {window}\n  {' ' * (at - first)}^")
