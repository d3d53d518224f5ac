"""How the number of places along an axis follows from the size of the image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The places along one axis for an image of n pixels: `(n + offset) // step`.

    Convolutions, poolings, patches and strided slices are all of this form, and so is every chain of them. Padding and
    cropping by amounts that a model computes from the size are not: after them the offset is unknown (None), and the
    number is n / step rounded down or up.

    Args:
        step: pixels per place.
        offset: what is added before the division; None where it is unknown.
    """

    step: int
    offset: int | None = 0

    def then(self, inner: Scale) -> Scale:
        """Return the scale of this axis after a further operation on it.

        Args:
            inner: what the operation makes of the number of places.

        Returns:
            The scale from the image on.
        """
        step = self.step * inner.step
        if self.offset is None or inner.offset is None:
            return Scale(step, None)
        # ((n + a) // s + b) // t == (n + a + b·s) // (s·t)
        return Scale(step, self.offset + inner.offset * self.step)

    def sizes(self, pixels: int) -> tuple[int, ...]:
        """Return the numbers of places that an image of so many pixels can have along the axis."""
        if self.offset is not None:
            return ((pixels + self.offset) // self.step,)
        return (pixels // self.step, -(-pixels // self.step))


def window(kernel: int, stride: int, padding: int, dilation: int = 1) -> Scale:
    """Return what a convolution or a pooling makes of the number of places, `(n + 2p - d(k - 1) - 1) // s + 1`."""
    return Scale(stride, 2 * padding - dilation * (kernel - 1) - 1 + stride)


CROP = Scale(1, None)
"""Padding or cropping: as many pixels per place as before."""
