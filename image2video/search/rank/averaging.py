"""The averaged frame predictions of a fixed model under many genotypes at once."""

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
from image2video.clip.sampling import warp
from image2video.errors import InputError, InputTypeError, StateError
from image2video.search.score.task import ClassificationTask
from image2video.wrap.video_wrap import VideoWrap

_STILL = torch.eye(3, dtype=torch.float64)
"""The matrix of a frame that is the image itself."""

_MIRRORS = {(1.0, 1.0): (), (-1.0, 1.0): (-1,), (1.0, -1.0): (-2,), (-1.0, -1.0): (-2, -1)}
"""The axes that a diagonal matrix mirrors, by its first two entries."""

FrameKey = tuple[object, ...]
"""Equal for frames that look alike: a rounded matrix, or a chain and the power of the frame."""


@dataclass(frozen=True)
class _Plan:
    """All different frames of some genotypes, the image itself first.

    Attributes:
        matrices: `(U, 3, 3)`, of the frames that are one resampling.
        coloured: the frames of chains with photometric ops, as the chain and its powers.
        shares: `(genotypes, frames)`, how much of each frame a genotype's mean holds.
    """

    matrices: Tensor
    coloured: tuple[tuple[Genotype, tuple[float, ...]], ...]
    shares: Tensor


class AveragedFrames:
    """Predicts clips of several genotypes with one classifier; a frame that several share is predicted once.

    Args:
        model: images `(N, C, H, W)` -> logits `(N, K)`.
        options: of the clips.
        batch_size: frames per forward pass.
        autocast: reduced precision of the forward passes; None is full precision.

    Attributes:
        frames: how many frames have gone through the model.
    """

    def __init__(
        self, model: nn.Module, options: ClipOptions, batch_size: int, autocast: torch.dtype | None = None
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.model, self.options = model, options
        self.T = options.T
        self.batch_size = batch_size
        self.autocast = autocast
        self.frames = 0
        self._last: tuple[tuple[tuple[Genotype, ...], int, int], _Plan] | None = None

    def predictions(self, images: Tensor, genotypes: Sequence[Genotype]) -> list[Tensor]:
        """The mean logits over the frames, `(B, K)` per genotype.

        Raises `InputTypeError` for images that are not float, `InputError` for logits that are not `(N, K)`.
        """
        check_float(images)
        # Batches of one round have the same genotypes and size, so the last plan mostly serves again.
        key = (tuple(genotypes), images.shape[-2], images.shape[-1])
        if self._last is None or self._last[0] != key:
            self._last = (key, _plan(key[0], self.options.steps, key[1:]))
        plan = self._last[1]
        logits = torch.cat([self._predict(frames) for frames in self._frames(images, plan)], dim=1)
        weights = plan.shares.to(logits.dtype).to(logits.device)  # in this order: MPS has no float64
        return list(torch.einsum("vu,buk->vbk", weights, logits).unbind(0))

    def _frames(self, images: Tensor, plan: _Plan) -> Iterator[Tensor]:
        """The clips `(B, few, C, H, W)` of the plan's frames, in their order."""
        few = max(1, self.batch_size // images.shape[0])
        options = self.options
        how = {"padding": options.padding, "interpolation": options.interpolation}
        for part in plan.matrices.split(few):
            yield warp(images, part, mirrored=[_mirrored(matrix) for matrix in part], **how)
        for genotype, powers in plan.coloured:
            for start in range(0, len(powers), few):
                yield chain_clip(images, genotype, powers[start : start + few], options)

    def _predict(self, clip: Tensor) -> Tensor:
        """Logits `(B, few, K)` of a clip."""
        frames = clip_to_frames(clip)
        precision = nullcontext() if self.autocast is None else torch.autocast(frames.device.type, self.autocast)
        with precision:
            out = self.model(frames)
        ClassificationTask().check(out, frames.shape[0])
        self.frames += frames.shape[0]
        return frames_to_clip(out.float() if out.dtype != torch.float64 else out, clip.shape[1])


def _plan(genotypes: Sequence[Genotype], steps: Sequence[float], size: tuple[int, int]) -> _Plan:
    """Find the different frames of clips whose frames have the powers `steps`, for images of `size` (H, W)."""
    still = matrix_key(_STILL)
    matrices: dict[FrameKey, Tensor] = {still: _STILL}
    coloured: dict[Genotype, tuple[float, ...]] = {}
    clips: list[list[FrameKey]] = []  # the frames of every genotype, by their keys
    for genotype in genotypes:
        if genotype.is_geometric:
            found = genotype.step_matrices(steps, *size)
            clips.append([matrix_key(matrix) for matrix in found])
            for key, matrix in zip(clips[-1], found, strict=True):
                matrices.setdefault(key, matrix)
        else:
            # Its frames are no resampling of the image; at power 0 they are the image itself all the same.
            coloured[genotype] = tuple(dict.fromkeys(step for step in steps if step != 0))
            clips.append([(genotype, step) if step != 0 else still for step in steps])
    if len(matrices) + len(coloured) > 1 and not any(still in clip for clip in clips):
        del matrices[still]
    keys: list[FrameKey] = list(matrices)
    for chain, powers in coloured.items():
        keys += [(chain, power) for power in powers]
    column = {key: number for number, key in enumerate(keys)}
    shares = torch.zeros(len(clips), len(keys), dtype=torch.float64)
    for row, clip in enumerate(clips):
        for key in clip:
            shares[row, column[key]] += 1 / len(steps)
    stacked = torch.stack([*matrices.values()]) if matrices else _STILL.new_zeros(0, 3, 3)
    return _Plan(stacked, tuple(coloured.items()), shares)


def _mirrored(matrix: Tensor) -> tuple[int, ...] | None:
    """The axes that a frame's matrix mirrors, where it does nothing else; None where the frame has to be sampled."""
    signs = matrix.diagonal()[:2]
    return _MIRRORS.get(tuple(signs.tolist())) if torch.equal(matrix, torch.diag(matrix.diagonal())) else None


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
