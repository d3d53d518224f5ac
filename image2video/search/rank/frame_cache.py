"""What a classifier says of many frames, each of them predicted once and kept."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from image2video.clip.memory import machine_memory, size_text
from image2video.errors import InputError
from image2video.protocols import Progress
from image2video.search.rank.averaging import AveragedFrames
from image2video.search.rank.clip_candidate import ClipCandidate
from image2video.search.score.task import IGNORED, check_labels

_KNOWN_MEMORY = 16 * 2**30
"""Bytes that a machine is taken to have where that cannot be found out."""


@dataclass(frozen=True)
class FrameCache:
    """The predictions of frames on the same images, on the CPU.

    Attributes:
        log_probs: `(F, n, K)`, float32: log-softmax of the logits. The mean of logits over frames differs from the mean
            of these by one number per image, which no prediction, loss or temperature sees.
        labels: `(n,)`, int64.
    """

    log_probs: Tensor
    labels: Tensor

    @property
    def num_images(self) -> int:
        """How many images there are."""
        return len(self.labels)

    @classmethod
    def read(
        cls,
        averaged: AveragedFrames,
        clips: Sequence[ClipCandidate],
        batches: Iterable[tuple[Tensor, Tensor]],
        images: int,
        *,
        stage: str,
        progress: Progress | None = None,
    ) -> FrameCache:
        """Predict clips of one frame each on all images; those without a label are left out.

        Args:
            averaged: the model, in eval mode.
            clips: the frames.
            batches: `(images, labels)` on the model's device.
            images: how many there are in all.
            stage: what the progress calls it.
            progress: called after every batch.

        Raises `InputError` where no image has a label, for labels that are no classes, for logits that are not finite,
        and, after the first frames, where all of them would take more than half of the machine's memory; and what
        `AveragedFrames` raises.
        """
        kept: Tensor | None = None
        labels = torch.empty(images, dtype=torch.long)
        begun, before, seen, row = time.perf_counter(), averaged.frames, 0, 0
        for x, y in batches:
            seen += len(y)
            x, y = _labelled(x, y)
            if len(y) == 0:
                continue
            for logits, holders in averaged.single_frames(x, clips):
                if kept is None:
                    shape = (len(clips), images, logits.shape[-1])
                    _check_size(shape)
                    kept = torch.empty(shape, dtype=torch.float32)
                check_labels(y, kept.shape[-1])
                part = logits.float().log_softmax(-1).cpu()
                for frame, numbers in enumerate(holders):
                    _check_finite(part[:, frame], clips[numbers[0]])
                    for number in numbers:
                        kept[number, row : row + len(y)] = part[:, frame]
            labels[row : row + len(y)] = y.cpu()
            row += len(y)
            if progress is not None:
                speed = (averaged.frames - before) / (time.perf_counter() - begun)
                progress(stage, seen, images, frames_per_second=speed)
        if kept is None:
            raise InputError(f"none of the {images} held-out images has a label; give images with their classes")
        return cls(kept[:, :row], labels[:row])

    def pick(self, frames: Sequence[int]) -> FrameCache:
        """The cache of some of the frames."""
        return FrameCache(self.log_probs[list(frames)], self.labels)


def _labelled(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Images with one class each, without those that cross-entropy would leave out."""
    if labels.ndim != 1 or labels.is_floating_point():
        raise InputError(
            f"greedy_frames needs one class index per image, got labels of shape {tuple(labels.shape)} and type "
            f"{labels.dtype}; give the class of each image"
        )
    known = labels != IGNORED
    return (images, labels) if bool(known.all()) else (images[known], labels[known])


def _check_size(shape: tuple[int, int, int]) -> None:
    """Refuse predictions that would not leave half of the machine's memory to everything else."""
    frames, images, classes = shape
    needed = 4 * frames * images * classes
    limit = (machine_memory() or _KNOWN_MEMORY) // 2
    if needed > limit:
        raise InputError(
            f"the predictions of {frames} frames for {images} images of {classes} classes would take "
            f"{size_text(needed)}, and half of this machine's memory is {size_text(limit)}; lower count (or give fewer "
            f"candidates) or max_images: {max(1, limit // (4 * frames * classes))} images fit"
        )


def _check_finite(log_probs: Tensor, clip: ClipCandidate) -> None:
    wrong = int((~torch.isfinite(log_probs)).any(-1).sum())
    if wrong:
        raise InputError(
            f"the logits of {wrong} of {len(log_probs)} images are NaN or infinite for the frame {clip.genotype}; "
            "check the weights and the images (to rule classes out, use a large negative logit)"
        )
