"""The clip as the authors' research code lays it out. It shows what that does to a result; it is no feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from image2video import Genotype
from image2video.clip.frame_sources import FrameSource, register_frame_source
from image2video.clip.image_to_video import Image2Video
from image2video.protocols import Unwarper


def scrambled(clip: Tensor) -> Tensor:
    """A clip `(B, T, C, H, W)` as if it had been laid out `(B, C, T, H, W)` and flattened to B·T frames of C planes.

    "Frame" t then holds planes t·C … t·C + C − 1 of the colour-major order: for T = C = 3 the three times of colour t.
    Images of one channel stay as they are.
    """
    return clip.transpose(1, 2).reshape(clip.shape)


@register_frame_source
class ScrambledClips(FrameSource):
    """The clip of a genotype with colours and times mixed up, see `scrambled`; nothing is drawn."""

    kind: ClassVar[str] = "scrambled"

    def __init__(
        self, genotype: str, *, T: int, schedule: str = "from_zero", mean: Any = None, std: Any = None
    ) -> None:
        self._settings = {"genotype": str(genotype), "schedule": schedule, "mean": mean, "std": std}
        super().__init__(T, 0)
        self._video = Image2Video(genotype, T=T, schedule=schedule, padding="zeros", mean=mean, std=std)

    @property
    def genotype(self) -> Genotype | None:
        """None: what the network sees is no chain's clip."""
        return None

    def clip(self, images: Tensor, T: int, generator: torch.Generator) -> tuple[Tensor, Unwarper]:
        """The scrambled clip; its maps cannot be brought back."""
        return scrambled(self._video(images, T)), self

    def to_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**self._settings, "T": self.T}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The source that `to_dict` described."""
        return cls(**record)
