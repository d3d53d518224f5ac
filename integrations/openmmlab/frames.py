"""Clips of padded batches and their way back: each image is warped about its own centre, its padding stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from image2video.clip.way_back import WayBack
from image2video.functional import Image2Video, InputError, UnsupportedError, clip_to_frames
from image2video.integrations.openmmlab.cover import Cells, Size, Video, back_of, cover_of

_CHUNK = 1 << 21  # values that are resampled at a time: 8 MiB in float32, which the next step finds in the cache


def content_sizes(canvas: Size, metas: Sequence[Mapping[str, Any]]) -> tuple[Size, ...]:
    """(height, width) of every image without its padding, which mmsegmentation puts on the right and below.

    `canvas` is the size of the padded batch. Raises `UnsupportedError` for padding on the left or above, `InputError`
    for padding that leaves nothing.
    """
    sizes = []
    for meta in metas:
        left, right, top, bottom = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
        if left or top:
            raise UnsupportedError(
                f"an image has {left} pixels of padding on the left and {top} above; the clip knows padding on the "
                "right and below, which is what mmsegmentation's data preprocessors add"
            )
        height, width = canvas[0] - int(bottom), canvas[1] - int(right)
        if not (0 < height <= canvas[0] and 0 < width <= canvas[1]):
            raise InputError(
                f"padding must leave some of a batch of {canvas[0]} × {canvas[1]} pixels (height × width), got {right} "
                f"pixels on the right and {bottom} below"
            )
        sizes.append((height, width))
    return tuple(sizes)


def padded_frames(to_video: Image2Video, images: Tensor, content: Sequence[Size]) -> Tensor:
    """The frames `(B·T, C, H, W)` of images `(B, C, H, W)` whose contents have the sizes `content`.

    Each content is warped about its own centre; around it the frames are padded as the image is.
    """
    canvas = (images.shape[2], images.shape[3])
    if all(size == canvas for size in content):
        return clip_to_frames(to_video(images))
    clip = images.unsqueeze(1).repeat(1, to_video.T, 1, 1, 1)
    for run in Batch(content, canvas).runs(canvas):
        h, w = run.part
        clip[run.rows, :, :, :h, :w] = to_video(images[run.rows, :, :h, :w])
    return clip_to_frames(clip)


def mean_of_frames(
    to_video: Video,
    frame: Callable[[int], Tensor],
    content: Sequence[Size],
    canvas: Size,
    begin: Cells | None = None,
) -> Tensor:
    """The unwarped mean over T of maps given one frame at a time: Σ unwarp / Σ mask, `(B, K, h, w)`.

    Args:
        to_video: what made the frames.
        frame: t -> the maps `(B, K, h, w)` of frame t, of any size; it stands for the whole padded batch. Each frame is
            asked for once.
        content: the size of each image without padding.
        canvas: the size of the padded batch.
        begin: the sizes of its maps at the places that the frames have passed, as in `back_of`.

    Holds the sum, one frame's maps and (of large ones a part of) their unwarped copy; nothing of them is kept for the
    backward pass. Sums are taken in float32 (float64 for float64). Where no frame shows a pixel, it takes the frame
    with the smallest |s|, unwarped with border padding; in the padding, which nothing moves, the plain mean.

    """
    batch = Batch(content, canvas, begin)
    nearest = back_of(to_video, begin).nearest_frame()
    add = _added if torch.is_grad_enabled() else _add
    total = None
    for t in range(to_video.T):
        if t != nearest:
            total = add(to_video, total, _wide(frame(t)), t, batch)
    # The nearest frame comes last: its maps are at hand for pixels that no frame shows.
    maps = _wide(frame(nearest))
    total = add(to_video, total, maps, nearest, batch)
    divisor, seen = _divisor(to_video, total, batch)
    mean = total / divisor if torch.is_grad_enabled() else total.div_(divisor)
    if seen is None:
        return mean
    if torch.is_grad_enabled():
        return torch.where(seen, mean, _unwarped(to_video, maps, nearest, batch, "border"))
    for run in batch.runs(_size(maps)):
        (h, w), rows = run.part, run.rows
        for target, source, visible in _chunks(mean[rows, :, :h, :w], maps[rows, :, :h, :w], seen[rows, :, :h, :w]):
            moved = run.back(to_video).unwarp_frame(source, nearest, run.size, padding="border")
            target.copy_(torch.where(visible, target, moved))
    return mean


@dataclass(frozen=True)
class Run:
    """Images in a row whose contents have the same size.

    Attributes:
        rows: which images.
        size: (height, width) of their contents.
        part: (h, w) of what stands for a content in their maps.
        cells: the same in the maps at the places that their frames have passed, as in `back_of`.
    """

    rows: slice
    size: Size
    part: Size
    cells: Cells | None = None

    def back(self, to_video: Video) -> WayBack:
        """The way back of these images' frames."""
        return back_of(to_video, self.cells)


@dataclass(frozen=True)
class Batch:
    """The images of a padded batch.

    Attributes:
        content: (height, width) of every image without padding.
        canvas: that of the padded batch.
        begin: the sizes of its maps at the places that the frames have passed, as in `back_of`.
    """

    content: Sequence[Size]
    canvas: Size
    begin: Cells | None = None

    def runs(self, maps: Size) -> Iterator[Run]:
        """Images of the same content together, for maps (h, w) of the batch."""
        start, content = 0, self.content
        for end in range(1, len(content) + 1):
            if end == len(content) or content[end] != content[start]:
                size = content[start]
                yield Run(slice(start, end), size, self._part(size, maps), self._cells(size))
                start = end

    def _cells(self, size: Size) -> Cells | None:
        """What stands for a content in the maps at the places."""
        if self.begin is None:
            return None
        return tuple(None if maps is None else self._part(size, maps) for maps in self.begin)

    def _part(self, size: Size, maps: Size) -> Size:
        """What stands for a content in maps: exact at the batch's own size, to the next whole pixel else."""
        return -(-size[0] * maps[0] // self.canvas[0]), -(-size[1] * maps[1] // self.canvas[1])


def _add(to_video: Video, total: Tensor | None, maps: Tensor, t: int, batch: Batch) -> Tensor:
    """Add the maps of frame t, each content in its reference image and padding where it is; in place, part by part."""
    total = torch.zeros_like(maps) if total is None else total
    for run in batch.runs(_size(maps)):
        (h, w), rows = run.part, run.rows
        for target, source in _chunks(total[rows, :, :h, :w], maps[rows, :, :h, :w]):
            target += run.back(to_video).unwarp_frame(source, t, run.size)
        total[rows, :, h:] += maps[rows, :, h:]
        total[rows, :, :h, w:] += maps[rows, :, :h, w:]
    return total


def _added(to_video: Video, total: Tensor | None, maps: Tensor, t: int, batch: Batch) -> Tensor:
    """The same for a backward pass: nothing is written into."""
    moved = _unwarped(to_video, maps, t, batch)
    return moved if total is None else total + moved


def _unwarped(to_video: Video, maps: Tensor, t: int, batch: Batch, padding: str = "zeros") -> Tensor:
    """The maps of frame t, each content in its reference image and padding where it is."""
    rows = []
    for run in batch.runs(_size(maps)):
        h, w = run.part
        images = maps[run.rows]
        with _unless_maps_are(images):
            moved = run.back(to_video).unwarp_frame(images[:, :, :h, :w], t, run.size, padding=padding)
        if (h, w) != _size(maps):
            # Put together, not written into: the backward pass of a write copies the whole batch.
            moved = torch.cat([torch.cat([moved, images[:, :, :h, w:]], dim=3), images[:, :, h:]], dim=2)
        rows.append(moved)
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _unless_maps_are(maps: Tensor) -> AbstractContextManager[Any]:
    """Keep for a backward pass what is not these maps, nor a multiple of them.

    Resampling is linear in the maps: with given coordinates, its backward pass needs their shape alone.
    """

    def pack(tensor: Tensor) -> Tensor | tuple[Tensor, torch.Size]:
        # What is made of them on the way, such as what a later place has left of them, has a gradient, a grid has none.
        of_maps = tensor.requires_grad or tensor.data_ptr() == maps.data_ptr()
        is_maps = of_maps and tensor.shape[:2] == maps.shape[:2]
        return (tensor.new_zeros(()), tensor.shape) if is_maps else tensor

    def unpack(kept: Tensor | tuple[Tensor, torch.Size]) -> Tensor:
        return kept if isinstance(kept, Tensor) else kept[0].expand(kept[1])

    return nullcontext() if torch.compiler.is_compiling() else saved_tensors_hooks(pack, unpack)


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors `(B, K, h, w)` some channels at a time; one channel goes with all."""
    rows, channels, height, width = tensors[0].shape
    step = max(1, _CHUNK // (rows * height * width))
    for start in range(0, channels, step):
        yield tuple(t if t.shape[1] == 1 else t[:, start : start + step] for t in tensors)


def _divisor(to_video: Video, total: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """How often every pixel is seen, 1 where it is not, and where it is; None for everywhere."""
    runs = list(batch.runs(_size(total)))
    covers = [
        cover_of(to_video, run.part, run.size, cells=run.cells, device=total.device, dtype=total.dtype) for run in runs
    ]
    if len(runs) == 1 and runs[0].part == _size(total):
        return covers[0].divisor, covers[0].seen
    divisor = total.new_full((len(total), 1, *_size(total)), to_video.T)
    seen = None if all(cover.seen is None for cover in covers) else torch.ones_like(divisor, dtype=torch.bool)
    for run, cover in zip(runs, covers, strict=True):
        h, w = run.part
        divisor[run.rows, :, :h, :w] = cover.divisor
        if seen is not None and cover.seen is not None:
            seen[run.rows, :, :h, :w] = cover.seen
    return divisor, seen


def _size(maps: Tensor) -> Size:
    return maps.shape[2], maps.shape[3]


def _wide(maps: Tensor) -> Tensor:
    return maps if maps.dtype == torch.float64 else maps.float()
