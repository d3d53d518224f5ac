"""The predictions of one network under many genotypes: each chain's clip goes through the same weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from image2video.clip.deep_video import DeepVideo
from image2video.clip.image_to_video import Image2Video
from image2video.clip.options import ClipOptions
from image2video.search.cell.clip_view import clip_view
from image2video.search.rank.averaging import check_float
from image2video.search.rank.clip_candidate import Chains, ClipCandidate
from image2video.search.score.network import FrameNetwork, predictions
from image2video.search.score.task import Task
from image2video.wrap.steps import video_of

_KEPT_VIDEOS = 64

Precision = Callable[[], AbstractContextManager[object]]
"""Makes the context of forward passes, such as `accelerator.autocast`."""

FULL: Precision = nullcontext
"""Full precision."""


class SharedWeights:
    """Predicts images under several genotypes with one network whose frames mix; nothing is shared but the weights.

    Args:
        network: clip `(B, T, C, H, W)` to frame outputs `(B·T, …)`, in the mode in which it is to predict.
        task: what is predicted, and how frames are averaged.
        autocast: makes the context of the forward passes (`accelerator.autocast`); full precision by default.

    Attributes:
        frames: how many frames have gone through the network.
    """

    def __init__(
        self,
        network: FrameNetwork,
        task: Task,
        autocast: Precision = FULL,
    ) -> None:
        self.network, self.task, self.autocast = network, task, autocast
        self.frames = 0
        self._video = functools.lru_cache(maxsize=_KEPT_VIDEOS)(_video_of)

    def predictions(self, images: Tensor, clips: Sequence[ClipCandidate]) -> Iterator[Any]:
        """What the task predicts from the frames of each clip, `(B, …)` per clip, each when it is asked for.

        Raises `InputTypeError` for images that are not float `(B, C, H, W)`, and what the task's `check` raises.
        """
        check_float(images)
        return (self._predict(images, clip) for clip in clips)

    def _predict(self, images: Tensor, clip: ClipCandidate) -> Any:
        video = self._video(clip)
        self.frames += images.shape[0] * video.T
        with self.autocast():
            view = clip_view(video, images, self.network.clip_sites, shared=clip.shared)
            return predictions(self.network, view.inputs, self.task, view.unwarp, view.maker)


def videos(options: ClipOptions) -> Callable[[Chains], Image2Video | DeepVideo]:
    """A function that gives the clips of a chain; it keeps what it made for the last few chains."""

    @functools.lru_cache(maxsize=_KEPT_VIDEOS)
    def video(chain: Chains) -> Image2Video | DeepVideo:
        return video_of(chain, options)

    return video


def _video_of(clip: ClipCandidate) -> Image2Video | DeepVideo:
    # One frame in place of T: the identity without fusion.
    return video_of(clip.genotype, clip.options.replace(T=clip.frames))
