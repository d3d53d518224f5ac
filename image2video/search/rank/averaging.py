"""The averaged frame predictions of a fixed model under many genotypes at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from image2video.clip.chain import chain_clip
from image2video.clip.colours import Colours
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import clip_to_frames, frames_to_clip
from image2video.clip.matrices import check_frames, schedule_steps
from image2video.clip.sampling import warp
from image2video.errors import InputError, InputTypeError, StateError
from image2video.search.score.network import device_of
from image2video.search.score.task import ClassificationTask
from image2video.wrap.video_wrap import VideoWrap

_EYE = torch.eye(3, dtype=torch.float64)


@dataclass(frozen=True)
class _Plan:
    """All different frames of some genotypes, the image itself first.

    matrices `(U, 3, 3)`: frames that are one resampling. coloured: those of chains with photometric ops, as the chain
    and its powers. shares `(V, all frames)`: how much of each frame a genotype's mean holds.
    """

    matrices: Tensor
    coloured: tuple[tuple[Genotype, tuple[float, ...]], ...]
    shares: Tensor


class AveragedFrames:
    """Predicts clips of several genotypes with one classifier; a frame that several share is predicted once.

    `frames` counts the frames that went through the model.

    Args:
        model: images `(N, C, H, W)` -> logits `(N, K)`.
        T: frames per clip.
        schedule: the power of each frame.
        batch_size: frames per forward pass.
        padding: see `image2video.clip.sampling.warp`.
        interpolation: see `image2video.clip.sampling.warp`.
        autocast: reduced precision of the forward passes; None is full precision.
        colours: how the images are normalised, which photometric ops need.

    """

    def __init__(
        self,
        model: nn.Module,
        T: int,
        schedule: str,
        batch_size: int,
        padding: str,
        interpolation: str,
        autocast: torch.dtype | None = None,
        colours: Colours | None = None,
    ) -> None:
        check_bare(model)
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.model = model
        self.T = check_frames(T)
        self.steps = schedule_steps(schedule, T)
        self.batch_size = batch_size
        self.padding, self.interpolation = padding, interpolation
        self.autocast = autocast
        self.colours = colours
        self.device = device_of(model)
        self.frames = 0
        self._last: tuple[tuple[tuple[Genotype, ...], int, int], _Plan] | None = None

    def predictions(self, images: Tensor, genotypes: Sequence[Genotype]) -> list[Tensor]:
        """The mean logits over the frames, `(B, K)` per genotype.

        Raises `InputTypeError` for images that are not float, `InputError` for logits that are not `(N, K)`.
        """
        check_float(images)
        key = (tuple(genotypes), images.shape[-2], images.shape[-1])
        if self._last is None or self._last[0] != key:
            self._last = (key, self._plan(*key))
        plan = self._last[1]
        logits = torch.cat([self._predict(frames) for frames in self._frames(images, plan)], dim=1)
        weights = plan.shares.to(logits.dtype).to(logits.device)  # in this order: MPS has no float64
        return list(torch.einsum("vu,buk->vbk", weights, logits).unbind(0))

    def _plan(self, genotypes: tuple[Genotype, ...], height: int, width: int) -> _Plan:
        matrices, coloured = {matrix_key(_EYE): _EYE}, dict[Genotype, tuple[float, ...]]()
        rows: list[list[object]] = []
        for genotype in genotypes:
            found = genotype.step_matrices(self.steps, height, width)
            if genotype.is_geometric:
                rows.append([matrix_key(matrix) for matrix in found])
                matrices |= {matrix_key(matrix): matrix for matrix in found if matrix_key(matrix) not in matrices}
            else:
                coloured[genotype] = tuple(dict.fromkeys(step for step in self.steps if step != 0))
                rows.append([(genotype, step) if step != 0 else matrix_key(_EYE) for step in self.steps])
        keys: list[object] = [*matrices, *((chain, step) for chain, steps in coloured.items() for step in steps)]
        place = {key: index for index, key in enumerate(keys)}
        shares = torch.zeros(len(rows), len(keys), dtype=torch.float64)
        for v, row in enumerate(rows):
            for frame in row:
                shares[v, place[frame]] += 1 / self.T
        if not shares[:, 0].any() and len(keys) > 1:  # the image itself is nobody's frame
            del matrices[matrix_key(_EYE)]
            shares = shares[:, 1:]
        stacked = torch.stack([*matrices.values()]) if matrices else _EYE.new_zeros(0, 3, 3)
        return _Plan(stacked, tuple(coloured.items()), shares)

    def _frames(self, images: Tensor, plan: _Plan) -> Iterator[Tensor]:
        """The clips `(B, few, C, H, W)` of the plan's frames, in their order."""
        few = max(1, self.batch_size // images.shape[0])
        how = {"padding": self.padding, "interpolation": self.interpolation}
        for part in plan.matrices.split(few):
            yield warp(images, part, copied=[torch.equal(matrix, _EYE) for matrix in part], **how)
        for genotype, steps in plan.coloured:
            for start in range(0, len(steps), few):
                yield chain_clip(images, genotype, steps[start : start + few], colours=self.colours, **how)

    def _predict(self, clip: Tensor) -> Tensor:
        """Logits `(B, few, K)` of a clip."""
        frames = clip_to_frames(clip)
        precision = nullcontext() if self.autocast is None else torch.autocast(frames.device.type, self.autocast)
        with precision:
            out = self.model(frames)
        ClassificationTask().check(out, frames.shape[0])
        self.frames += frames.shape[0]
        return frames_to_clip(out.float() if out.dtype != torch.float64 else out, clip.shape[1])


def check_bare(model: nn.Module) -> None:
    """Raises `StateError` for a `VideoWrap`: it would warp and average the frames once more."""
    if isinstance(model, VideoWrap):
        raise StateError("the model is a VideoWrap, which makes clips itself; pass the bare model (model.unwrap())")


def check_float(images: Tensor) -> None:
    """Raises `InputTypeError` for anything but float images `(B, C, H, W)`."""
    if not images.is_floating_point() or images.ndim != 4:
        raise InputTypeError(
            f"images must be float (B, C, H, W), got {images.dtype} of shape {tuple(images.shape)}; convert and "
            "normalise them as the model takes them"
        )


def matrix_key(matrix: Tensor) -> tuple[float, ...]:
    """Equal for frame matrices `(3, 3)` whose entries agree to six decimals: no pixel moves visibly between them."""
    # 3 × 0.01 of the width is 0.03 of it, though not in the last bit.
    return tuple(round(value, 6) + 0.0 for value in matrix[:2].flatten().tolist())
