"""The averaged frame predictions of a fixed model under many clips at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from image2video.clip.chain import chain_clip
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import clip_to_frames, frames_to_clip
from image2video.clip.options import ClipOptions
from image2video.clip.sampling import stack_frames, warp
from image2video.clip.slices import mirror
from image2video.errors import InputError, InputTypeError, StateError
from image2video.search.rank.clip_candidate import ClipCandidate
from image2video.search.score.task import ClassificationTask
from image2video.wrap.video_wrap import VideoWrap

FrameKey = tuple[object, ...]
"""Equal for frames that look alike: mirrored axes, a rounded matrix and how it is sampled, or a chain and its power."""

_Sampling = tuple[str, str]
"""Padding and interpolation."""


@dataclass(frozen=True)
class _Plan:
    """All different frames of some clips, in the order in which they are predicted.

    Attributes:
        exact: the axes of frames that are the image or a mirror image of it, which need no sampling.
        sampled: the matrices `(U, 3, 3)` of frames that are one resampling, by how they are sampled.
        coloured: frames of chains with photometric ops: the chain, its powers and the options of the clip.
        shares: `(clips, frames)`, how much of each frame a clip's mean holds.
    """

    exact: tuple[tuple[int, ...], ...]
    sampled: tuple[tuple[_Sampling, Tensor], ...]
    coloured: tuple[tuple[Genotype, tuple[float, ...], ClipOptions], ...]
    shares: Tensor


class AveragedFrames:
    """Predicts many clips with one classifier; a frame that several share is predicted once.

    Args:
        model: images `(N, C, H, W)` -> logits `(N, K)`.
        batch_size: frames per forward pass.
        autocast: reduced precision of the forward passes; None is full precision.

    Attributes:
        frames: how many frames have gone through the model.
    """

    def __init__(self, model: nn.Module, batch_size: int, autocast: torch.dtype | None = None) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.model = model
        self.batch_size = batch_size
        self.autocast = autocast
        self.frames = 0
        self._channels_last: bool | None = None
        self._last: tuple[tuple[tuple[ClipCandidate, ...], int, int], _Plan] | None = None

    def predictions(self, images: Tensor, clips: Sequence[ClipCandidate]) -> list[Tensor]:
        """The averages over the frames, `(B, K)` per clip: of the logits, or the log of the mean probability.

        Raises `InputTypeError` for images that are not float, `InputError` for logits that are not `(N, K)`.
        """
        plan = self._planned(images, clips)
        logits = torch.cat([self._predict(frames) for frames in self._frames(images, plan)], dim=1)
        return averages(logits, plan.shares, [clip.aggregate for clip in clips])

    def single_frames(self, images: Tensor, clips: Sequence[ClipCandidate]) -> Iterator[tuple[Tensor, list[list[int]]]]:
        """The logits of clips of one frame each, a few at a time, so that nothing but these has to be kept.

        Yields logits `(B, few, K)` with, for each of the few frames, the numbers of the clips that hold it. Raises what
        `predictions` raises.
        """
        plan = self._planned(images, clips)
        holders: list[list[int]] = [[] for _ in range(plan.shares.shape[1])]
        for clip, frame in enumerate(plan.shares.argmax(1).tolist()):
            holders[frame].append(clip)
        done = 0
        for frames in self._frames(images, plan):
            yield self._predict(frames), holders[done : done + frames.shape[1]]
            done += frames.shape[1]

    def _planned(self, images: Tensor, clips: Sequence[ClipCandidate]) -> _Plan:
        """The plan for some images, which are checked."""
        check_float(images)
        # Batches of one round have the same clips and size, so the last plan mostly serves again.
        key = (tuple(clips), images.shape[-2], images.shape[-1])
        if self._last is None or self._last[0] != key:
            self._last = (key, _plan(key[0], key[1:]))
        return self._last[1]

    def _frames(self, images: Tensor, plan: _Plan) -> Iterator[Tensor]:
        """The frames of the plan as clips `(B, few, C, H, W)`, in their order."""
        images = self._laid_out(images)
        few = max(1, self.batch_size // images.shape[0])
        for start in range(0, len(plan.exact), few):
            yield stack_frames([mirror(images, axes) for axes in plan.exact[start : start + few]], like=images)
        for (padding, interpolation), matrices in plan.sampled:
            for part in matrices.split(few):
                yield warp(images, part, padding=padding, interpolation=interpolation)
        for genotype, powers, options in plan.coloured:
            for start in range(0, len(powers), few):
                yield chain_clip(images, genotype, powers[start : start + few], options)

    def _laid_out(self, images: Tensor) -> Tensor:
        """Images in the memory format in which the model takes less time: channels innermost for depthwise kernels.

        On a CPU that is 0.75 to 0.8 of the time. The kind of the network decides, not a clock, so that two rankings are
        alike to the last bit; a network that cannot read such images (a `view` somewhere) gets them as they are.
        """
        if images.device.type != "cpu" or self._channels_last is False:
            return images
        laid_out = images.contiguous(memory_format=torch.channels_last)
        if self._channels_last is None:
            self._channels_last = _has_depthwise(self.model) and self._reads(laid_out[:1])
        return laid_out if self._channels_last else images

    def _reads(self, images: Tensor) -> bool:
        """Whether the model takes images in this memory format."""
        try:
            self.model(images)
        except RuntimeError:  # what it says of others comes from the forward pass itself
            return False
        return True

    def _predict(self, clip: Tensor) -> Tensor:
        """Logits `(B, few, K)` of a clip."""
        frames = clip_to_frames(clip)
        precision = nullcontext() if self.autocast is None else torch.autocast(frames.device.type, self.autocast)
        with precision:
            out = self.model(frames)
        ClassificationTask().check(out, frames.shape[0])
        self.frames += frames.shape[0]
        return frames_to_clip(out.float() if out.dtype != torch.float64 else out, clip.shape[1])


def _has_depthwise(model: nn.Module) -> bool:
    """Whether some convolution has a kernel per channel."""
    return any(isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels for m in model.modules())


def averages(logits: Tensor, shares: Tensor, aggregates: Sequence[str]) -> list[Tensor]:
    """The averages `(B, K)` of clips over their shares `(clips, U)` of the frames' logits `(B, U, K)`."""
    weights = shares.to(logits.dtype).to(logits.device)  # in this order: MPS has no float64
    means = torch.einsum("vu,buk->vbk", weights, logits)
    return [
        means[v] if aggregate == "mean" else _log_mean_probability(logits, weights[v])
        for v, aggregate in enumerate(aggregates)
    ]


def _log_mean_probability(logits: Tensor, weights: Tensor) -> Tensor:
    """The log of the mean probability `(B, K)` over the frames of `(B, U, K)` that a clip holds."""
    held = weights.nonzero()[:, 0]
    return torch.logsumexp(logits[:, held].log_softmax(-1) + weights[held].log()[:, None], dim=1)


def _plan(clips: Sequence[ClipCandidate], size: tuple[int, int]) -> _Plan:
    """Find the different frames of some clips, for images of `size` (H, W)."""
    exact: dict[FrameKey, tuple[int, ...]] = {}
    sampled: dict[_Sampling, dict[FrameKey, Tensor]] = {}
    coloured: dict[tuple[Genotype, ClipOptions], dict[FrameKey, float]] = {}
    held: list[list[FrameKey]] = []  # the frames of every clip, by their keys
    for clip in clips:
        chain, options = clip.chain, clip.options
        how = (options.padding, options.interpolation)
        keys: list[FrameKey] = []
        # The identity is one frame, whatever T is: its mean is that frame's.
        steps = options.steps if chain.chain else (0.0,)
        matrices = chain.step_matrices(steps, *size)
        for step, matrix in zip(steps, matrices, strict=True):
            axes = _EXACT.get(matrix_key(matrix))
            if step == 0 or (axes is not None and chain.is_geometric):
                keys.append(("exact", () if step == 0 else axes))
                exact.setdefault(keys[-1], () if step == 0 or axes is None else axes)
            elif chain.is_geometric:
                keys.append((*matrix_key(matrix), *how))
                sampled.setdefault(how, {}).setdefault(keys[-1], matrix)
            else:
                # These frames are no resampling of the image.
                keys.append((chain, step, *how))
                coloured.setdefault((chain, options.replace(T=1)), {}).setdefault(keys[-1], step)
        held.append(keys)
    order: list[FrameKey] = [*exact]
    for matrices_of in sampled.values():
        order += matrices_of
    for powers_of in coloured.values():
        order += powers_of
    column = {key: number for number, key in enumerate(order)}
    shares = torch.zeros(len(clips), len(order), dtype=torch.float64)
    for row, keys in enumerate(held):
        for key in keys:
            shares[row, column[key]] += 1 / len(keys)
    return _Plan(
        tuple(exact.values()),
        tuple((how, torch.stack([*group.values()])) for how, group in sampled.items()),
        tuple((chain, tuple(group.values()), options) for (chain, options), group in coloured.items()),
        shares,
    )


MANY_FRAMES, _ON_A_CPU = 256, 32
"""Frames of a forward pass. On one core of a CPU an EfficientNet-lite0 takes half as long again for 256 as for 32: what
a layer writes no longer fits the cache."""


def frames_at_once(device: torch.device) -> int:
    """How many frames a forward pass takes where nobody says."""
    return _ON_A_CPU if device.type == "cpu" else MANY_FRAMES


def check_bare(model: nn.Module) -> None:
    """Refuse a `VideoWrap`: it would warp and average the frames once more."""
    if isinstance(model, VideoWrap):
        raise StateError("the model is a VideoWrap, which makes clips itself; pass the bare model (model.unwrap())")


def check_float(images: Tensor) -> None:
    """Refuse anything but float images `(B, C, H, W)`."""
    if not images.is_floating_point() or images.ndim != 4:
        raise InputTypeError(
            f"images must be float (B, C, H, W), got {images.dtype} of shape {tuple(images.shape)}; convert and "
            "normalise them as the model takes them"
        )


def matrix_key(matrix: Tensor) -> tuple[float, ...]:
    """Equal for frame matrices `(3, 3)` whose entries agree to six decimals: no pixel moves visibly between them."""
    # Rounded, since 3 × 0.01 of the width is 0.03 of it, though not in the last bit; + 0.0 turns −0.0 into 0.0.
    return tuple(round(value, 6) + 0.0 for value in matrix[:2].flatten().tolist())


_EXACT: dict[tuple[float, ...], tuple[int, ...]] = {
    matrix_key(torch.diag(torch.tensor([x, y, 1.0], dtype=torch.float64))): axes
    for x, y, axes in ((1, 1, ()), (-1, 1, (-1,)), (1, -1, (-2,)), (-1, -1, (-2, -1)))
}
"""The axes that a matrix mirrors, where it does nothing else; by its key."""
