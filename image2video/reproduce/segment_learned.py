"""Learned averaging for segmentors: copies moved within learned ranges, their logits brought back and averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from image2video.clip.cover import covered_mean
from image2video.clip.image_to_video import frames_to_clip
from image2video.clip.matrices import inverse_affine, normalise
from image2video.clip.sampling import resample
from image2video.errors import InputError, UnsupportedError
from image2video.integrations.openmmlab import HeadOutputs, VideoEncoderDecoder
from image2video.integrations.openmmlab.heads import head_rule
from image2video.reproduce.learned import WIDEN, drawn_powers, fixed_powers, initial_width, learned_ranges, moves

Size = tuple[int, int]


@MODELS.register_module()
class LearnedEncoderDecoder(VideoEncoderDecoder):
    """mmsegmentation's `EncoderDecoder` that predicts by the mean over T copies, moved within ranges that are learned.

    `LearnedAveraging` for maps of pixels: each copy's logits are brought back by the inverse of its move, and averaged
    over the copies that show a pixel, before the loss and in prediction; where none does, the copy with the smallest
    draw counts, continued with its edge. Training draws moves for every image from torch's global generator of the CPU;
    evaluation takes the same T for all. Frames do not mix. The state dict holds the plain segmentor, `width` (5,) and
    the record of the averaging.

    Args:
        T: copies per image.
        widen: how much the loss falls per unit of every width.
        unwarp: bring logits back at the size of the labels (`label`), or at the size that the head gives (`head`).

    All others are those of `EncoderDecoder`. Raises `InputError` for a `video`, whose place the learned ranges take;
    `UnsupportedError` for a cascade, and for a head whose loss over frames is not that of its maps.

    """

    def __init__(self, *args: Any, T: int, widen: float = WIDEN, unwarp: str = "label", **kwargs: Any) -> None:
        if "num_stages" in kwargs:
            raise UnsupportedError("ranges are not learned with cascades (model.num_stages); leave the arm out")
        if kwargs.get("video") is not None:
            raise InputError("model.video and learned ranges exclude each other: leave model.video out")
        video = {"genotype": "identity", "T": T, "fusion": "none", "unwarp": unwarp}
        super().__init__(*args, **{**kwargs, "video": video})
        for head in self._heads():
            if head_rule(head) is not None:
                raise UnsupportedError(
                    f"the head {type(head).__name__} has a rule of its own for the frames of a clip, which learned "
                    "moves are not; choose a head with the loss of BaseDecodeHead"
                )
        self.width, self.widen = initial_width(), widen

    def video_record(self) -> dict[str, Any]:
        """What tells this averaging from clips, as it stands in checkpoints."""
        return {**super().video_record(), "genotype": "learned"}

    def make_frames(self, inputs: Tensor, content: Sequence[Size], size: Size | None) -> tuple[Tensor, HeadOutputs]:
        """The copies `(B·T, C, H, W)` of images, and how outputs for them become those of the images, at `size`."""
        T, count = self.to_video.T, len(inputs)
        powers = frames_to_clip(drawn_powers(count * T), T) if self.training else fixed_powers(T).expand(count, -1, -1)
        order = powers.square().sum(-1).argsort(dim=1)
        powers = powers.gather(1, order.unsqueeze(-1).expand_as(powers))  # the smallest draw first
        ranges = learned_ranges(self.width, self.widen)
        back = [normalise(moves(ranges, powers[rows].flatten(0, 1), *part), *part) for rows, part in _alike(content)]
        video = MovedCopies(
            self.to_video, content, (inputs.shape[2], inputs.shape[3]), size, frames_to_clip(torch.cat(back), T)
        )
        return video.frames(inputs), video


@dataclasses.dataclass(frozen=True)
class MovedCopies(HeadOutputs):
    """Copies of a batch with moves of their own, and the way back.

    Attributes:
        back: `(B, T, 3, 3)`, in the [−1, 1] coordinates of each image's content: where a pixel of the image stands in
            the copy. The first copy is the one that is least moved.

    """

    back: Tensor

    def frames(self, images: Tensor) -> Tensor:
        """The copies `(B·T, C, H, W)`: each content moved about its own centre, the padding around it as it is."""
        T = self.back.shape[1]
        moved = []
        for rows, part in _alike(self.content):
            copies = images[rows].repeat_interleave(T, dim=0)
            inside = copies[:, :, : part[0], : part[1]]
            moved.append(_framed(resample(inside, inverse_affine(self.back[rows].flatten(0, 1))), copies))
        return torch.cat(moved)

    def mean(self, frame: Callable[[int], Tensor]) -> Tensor:
        """Σ unwarp / Σ mask over the copies, `(B, K, h, w)`, in float32 at least; differentiable in the moves too."""
        maps = _wide(frame(0))
        nearest = self._brought_back(maps, 0, "border")
        total, cover = self._brought_back(maps, 0), self._shown(maps, 0)
        for t in range(1, self.back.shape[1]):
            maps = _wide(frame(t))
            total, cover = total + self._brought_back(maps, t), cover + self._shown(maps, t)
        return covered_mean(total, cover, lambda: nearest)

    def _shown(self, maps: Tensor, t: int) -> Tensor:
        return self._brought_back(torch.ones_like(maps[:, :1]), t)

    def _brought_back(self, maps: Tensor, t: int, padding: str = "zeros") -> Tensor:
        """Maps `(B, K, h, w)` of copy t in the images; padding stays where it is."""
        found = []
        for rows, (height, width) in _alike(self.content):
            h, w = (-(-n * m // c) for n, m, c in zip((height, width), maps.shape[2:], self.canvas, strict=True))
            moved = resample(maps[rows, :, :h, :w], self.back[rows, t], padding=padding)
            found.append(_framed(moved, maps[rows]))
        return torch.cat(found)


def _alike(content: Sequence[Size]) -> Iterator[tuple[slice, Size]]:
    """The whole batch where all contents have one size, else image by image."""
    if len(set(content)) == 1:
        yield slice(0, len(content)), content[0]
        return
    for row, size in enumerate(content):
        yield slice(row, row + 1), size


def _framed(inside: Tensor, around: Tensor) -> Tensor:
    """`inside` in the upper left corner of `around`."""
    h, w = inside.shape[2:]
    if (h, w) == around.shape[2:]:
        return inside
    return torch.cat([torch.cat([inside, around[:, :, :h, w:]], dim=3), around[:, :, h:]], dim=2)


def _wide(maps: Tensor) -> Tensor:
    return maps if maps.dtype == torch.float64 else maps.float()
