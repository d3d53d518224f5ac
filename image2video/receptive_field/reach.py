"""How far the units of a map reach, followed through the operations of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from image2video.errors import UnsupportedError


@dataclass(frozen=True)
class Span:
    """The reach along one axis: unit u of `count` covers low + u·stride … high + u·stride in pixels of the image."""

    low: float
    high: float
    stride: float
    count: int

    def window(self, first: float, last: float, stride: float, count: int) -> Span:
        """The reach after a layer whose unit u reads the units u·stride + first … u·stride + last."""
        return Span(self.low + first * self.stride, self.high + last * self.stride, stride * self.stride, count)

    def layer(self, kernel: int, stride: int, dilation: int, padding: int, *, count: int) -> Span:
        """The reach after a convolution or pooling."""
        return self.window(-padding, dilation * (kernel - 1) - padding, stride, count)

    def spread(self, count: int) -> Span:
        """The reach of `count` units that all read the one unit of this map."""
        return replace(self, stride=0.0, count=count)

    def join(self, other: Span) -> Span:
        """The reach of units that read their own places of two maps; the smallest that holds both for every unit."""
        count = max(self.count, other.count)
        a, b = (span.spread(count) if span.count == 1 < count else span for span in (self, other))
        if a.stride == 0:
            a, b = b, a
        # The strides may differ: the last unit of `b` is this much further from that of `a` than the first one is.
        drift = (count - 1) * (b.stride - a.stride)
        low, high = min(a.low, b.low, b.low + drift), max(a.high, b.high, b.high + drift)
        return Span(low, high, a.stride, count)


@dataclass(frozen=True)
class Reach:
    """The reach of every unit of a value along rows and columns.

    `whole` names what lets every unit see everything, `unknown` what the rules do not know.
    """

    rows: Span
    columns: Span
    whole: str = ""
    unknown: str = ""

    @classmethod
    def of_image(cls, height: int, width: int) -> Reach:
        """The reach of the image itself: every pixel sees itself."""
        return cls(Span(0, 1, 1, height), Span(0, 1, 1, width))

    @property
    def axes(self) -> tuple[Span, Span]:
        """Rows and columns."""
        return self.rows, self.columns

    def along(self, rows: Span, columns: Span) -> Reach:
        """The same knowledge with another reach."""
        return replace(self, rows=rows, columns=columns)

    def check(self, layer: str) -> None:
        """Raise `UnsupportedError` where the reach is not known."""
        if self.unknown and not self.whole:
            raise UnsupportedError(
                f"the receptive field of {layer} cannot be read off the model: the reach of {self.unknown} is not "
                "known; support(model, size, unit) measures it by gradients, or name an earlier layer: layer=…"
            )


def join(reaches: Sequence[Reach]) -> Reach:
    """What a value that reads its own place of several maps reaches."""
    first, *others = reaches
    for other in others:
        first = Reach(
            first.rows.join(other.rows),
            first.columns.join(other.columns),
            first.whole or other.whole,
            first.unknown or other.unknown,
        )
    return first
