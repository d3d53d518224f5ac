"""The predictions of one network under many genotypes: each chain's clip goes through the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from image2video.clip.colours import Colours
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.clip.matrices import check_frames
from image2video.search.rank.averaging import check_float
from image2video.search.score.network import FrameNetwork, device_of, predictions
from image2video.search.score.task import Task


class SharedWeights:
    """Predicts images under several genotypes with one network whose frames mix; nothing is shared but the weights.

    `frames` counts the frames that went through the network.

    Args:
        network: clip `(B, T, C, H, W)` to frame outputs `(B·T, …)`, in the mode in which it is to predict.
        T: frames per clip.
        schedule: the power of each frame.
        padding: see `image2video.clip.sampling.warp`.
        interpolation: see `image2video.clip.sampling.warp`.
        task: what is predicted, and how frames are averaged.
        colours: how the images are normalised, which photometric ops need.
        autocast: makes the context of the forward passes (`accelerator.autocast`); full precision by default.

    """

    def __init__(
        self,
        network: FrameNetwork,
        T: int,
        schedule: str,
        padding: str,
        interpolation: str,
        task: Task,
        colours: Colours | None = None,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.network = network
        self.T = check_frames(T)
        self.schedule = schedule
        self.padding, self.interpolation = padding, interpolation
        self.task = task
        self.colours = colours
        self.autocast = autocast
        self.device = device_of(network)
        self.frames = 0
        self._videos: dict[Genotype, Image2Video] = {}

    def predictions(self, images: Tensor, genotypes: Sequence[Genotype]) -> list[Any]:
        """What the task predicts from the frames of each genotype's clip, `(B, …)` per genotype.

        Raises `InputTypeError` for images that are not float `(B, C, H, W)`, and what the task's `check` raises.
        """
        check_float(images)
        return [self._predict(images, genotype) for genotype in genotypes]

    def _predict(self, images: Tensor, genotype: Genotype) -> Any:
        video = self._video(genotype)
        size = (images.shape[-2], images.shape[-1])
        self.frames += images.shape[0] * self.T
        with self.autocast():
            return predictions(self.network, video(images), self.task, lambda maps: video.unwarped_mean(maps, size))

    def _video(self, genotype: Genotype) -> Image2Video:
        if genotype not in self._videos:
            mean, std = (None, None) if self.colours is None else (self.colours.mean, self.colours.std)
            self._videos[genotype] = Image2Video(
                genotype,
                T=self.T,
                schedule=self.schedule,
                padding=self.padding,
                interpolation=self.interpolation,
                mean=mean,
                std=std,
            )
        return self._videos[genotype]
