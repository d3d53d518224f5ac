"""The windows of sliding inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Box = tuple[int, int, int, int]


def windows(size: Sequence[int], crop: Sequence[int], stride: Sequence[int]) -> Iterator[Box]:
    """(top, left, bottom, right) of windows of `crop` pixels, `stride` apart, that cover an image of `size`.

    All are (height, width) in pixels. The last window of a row or column is moved back to the image's edge; an image
    smaller than the crop is one window. (The windows of mmsegmentation's `slide_inference`.)
    """
    for top, bottom in _spans(size[0], crop[0], stride[0]):
        for left, right in _spans(size[1], crop[1], stride[1]):
            yield top, left, bottom, right


def _spans(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    steps = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(step * stride + crop, length) for step in range(steps)]
    return [(max(end - crop, 0), end) for end in ends]
