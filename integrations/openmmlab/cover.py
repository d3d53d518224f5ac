"""How much of every pixel the frames of a clip show together; kept for sizes that come again."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from image2video.clip.deep_video import DeepVideo
from image2video.clip.way_back import WayBack
from image2video.functional import Image2Video, divisor_of

Size = tuple[int, int]
Cells = tuple[Size | None, ...]
"""For each place that frames have passed, (h, w) of the map whose cells magnitudes there count; else None."""
Video = Image2Video | DeepVideo
"""What makes the frames of a segmentor."""
_KEPT = 8


@dataclass(frozen=True)
class Cover:
    """What a sum of unwarped frames is divided by.

    Attributes:
        divisor: `(1, 1, h, w)`, the sum of the valid masks; 1 where that is under 1e-3.
        seen: `(1, 1, h, w)`, where it is not; None for everywhere.

    """

    divisor: Tensor
    seen: Tensor | None


# Beside the module: no key of its state dict, nothing that a copy or a pickle of it carries.
_COVERS: WeakKeyDictionary[Video, dict[tuple[object, ...], Cover]] = WeakKeyDictionary()
_KEEPING = Lock()


def back_of(to_video: Video, cells: Cells | None) -> WayBack:
    """The way back of frames that have passed as many places as `cells` has entries.

    Clips at several places need them; of others, None stands for the image.
    """
    if isinstance(to_video, DeepVideo):
        assert cells is not None, "clips at several places say how many of them were passed"
        return to_video.at_maps(cells, len(cells))
    size = None if cells is None else cells[0]
    return to_video if size is None else to_video.at_map(size)


def cover_of(
    to_video: Video,
    map_size: Size,
    image_size: Size,
    *,
    device: torch.device,
    dtype: torch.dtype,
    cells: Cells | None = None,
) -> Cover:
    """The cover of maps of `map_size` (h, w) of images of `image_size` (H, W); `cells` as in `back_of`."""
    back = back_of(to_video, cells)
    if torch.compiler.is_compiling():
        return _cover(back, map_size, image_size, device, dtype, to_video.T)
    # Read once: another thread may change it.
    T = to_video.T
    key = (to_video.genotype, to_video.schedule, T, to_video.interpolation, map_size, image_size, cells, device, dtype)
    with _KEEPING:
        found = _COVERS.setdefault(to_video, {}).get(key)
    if found is None:
        found = _cover(back, map_size, image_size, device, dtype, T)
        if type(found.divisor) is not Tensor:  # a fake tensor stands for nothing later
            return found
        with _KEEPING:
            kept = _COVERS[to_video]
            if len(kept) >= _KEPT:
                del kept[next(iter(kept))]
            kept[key] = found
    return found


def _cover(back: WayBack, map_size: Size, image_size: Size, device: torch.device, dtype: torch.dtype, T: int) -> Cover:
    # Also within inference_mode, whose tensors no later backward pass could use.
    with torch.inference_mode(False), torch.no_grad():
        ones = torch.ones((1, 1, *map_size), device=device, dtype=dtype)
        total = torch.zeros_like(ones)
        for t in range(T):
            total += back.unwarp_frame(ones, t, image_size, T)
        if back.keeps_image(T):
            return Cover(total, None)
        divisor, seen = divisor_of(total)
        return Cover(divisor, None if bool(seen.all()) else seen)
