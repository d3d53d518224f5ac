"""Which predictor a ranking uses: by the task, and by where the clips begin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from image2video.errors import InputError
from image2video.search.rank.averaging import AveragedFrames
from image2video.search.rank.clip_candidate import ClipCandidate
from image2video.search.rank.halving import Predictor
from image2video.search.rank.map_frames import DeepClips, MapClips, MapFrames
from image2video.search.rank.places import Place, Together
from image2video.search.rank.shared_weights import SharedWeights
from image2video.search.score.network import FrameNetwork, device_of
from image2video.search.score.task import ClassificationTask, Task


class AtPlaces:
    """Predicts clips that begin at several places, each place by a predictor of its own.

    Args:
        by_place: the predictor of every place; None is the image.
        together: whether all clips of a place are predicted together, so that they share frames; else clip by clip, so
            that no more than one clip's maps are held.
    """

    def __init__(self, by_place: dict[Place | Together, Predictor], *, together: bool = True) -> None:
        self.by_place, self.together = by_place, together

    @property
    def frames(self) -> int:
        """How many frames have gone through the network, or what of it lies behind their place."""
        return sum(predictor.frames for predictor in self.by_place.values())

    def predictions(self, images: Tensor, clips: Sequence[ClipCandidate]) -> Iterable[Any]:
        """What the predictors of the clips' places predict, `(B, …)` per clip, in their order."""
        if not self.together:
            return (one for clip in clips for one in self.by_place[clip.place].predictions(images, [clip]))
        found: dict[int, Any] = {}
        for place, predictor in self.by_place.items():
            numbers = [number for number, clip in enumerate(clips) if clip.place == place]
            if numbers:
                predicted = predictor.predictions(images, [clips[number] for number in numbers])
                found.update(zip(numbers, predicted, strict=True))
        return [found[number] for number in range(len(clips))]


def make_predictor(
    model: nn.Module, clips: Sequence[ClipCandidate], task: Task, batch_size: int, autocast: torch.dtype | None
) -> Predictor:
    """Make what predicts the clips; it shares frames between them where the task allows it.

    Raises:
        InputError: another average than `mean` for a task that is no classification.
    """
    other = next((clip.aggregate for clip in clips if clip.aggregate != "mean"), None)
    classifies = type(task) is ClassificationTask
    if other is not None and not classifies:
        raise InputError(f"aggregate={other!r} averages the logits of images; for {task.name} it must be 'mean'")

    def precision() -> AbstractContextManager[object]:
        return nullcontext() if autocast is None else torch.autocast(device_of(model).type, autocast)

    by_place: dict[Place | Together, Predictor] = {}
    for place in dict.fromkeys(clip.place for clip in clips):
        if isinstance(place, Together):
            by_place[place] = DeepClips(model, place.plan, task, precision)
        elif place is not None and classifies:
            by_place[place] = MapFrames(model, place, batch_size, precision)
        elif place is not None:
            by_place[place] = MapClips(model, place, task, precision)
        elif classifies:
            by_place[place] = AveragedFrames(model, batch_size, autocast)
        else:
            # Chains share frames here too, but the maps of shared frames would all have to be kept.
            by_place[place] = SharedWeights(FrameNetwork(model, None), task, precision)
    return by_place[None] if len(by_place) == 1 else AtPlaces(by_place, together=classifies)


def images_per_batch(clips: Sequence[ClipCandidate], task: Task, frames: int) -> int:
    """How many images are read at once if `frames` frames go through the model at once."""
    # A clip of its own has T frames an image; shared frames come a few at a time, however many there are.
    most = max(clip.options.T for clip in clips)
    return max(1, frames // (4 if type(task) is ClassificationTask else most))
