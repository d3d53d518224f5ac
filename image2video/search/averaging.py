"""The averaged frame predictions of a fixed model under many genotypes at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from image2video.clip import clip_to_frames, frames_to_clip
from image2video.errors import InputError, InputTypeError, StateError
from image2video.genotype import Genotype
from image2video.geometry import check_frames, schedule_steps
from image2video.sampling import warp
from image2video.search.network import check_logits
from image2video.wrap import VideoWrap


class AveragedFrames:
    """Predicts clips of several genotypes with one model; a frame that several share is predicted once.

    `frames` counts the frames that went through the model.

    Args:
        model: images `(N, C, H, W)` -> logits `(N, K)`.
        T: frames per clip.
        schedule: the power of each frame.
        batch_size: frames per forward pass.
        padding: see `image2video.sampling.warp`.
        interpolation: see `image2video.sampling.warp`.
        autocast: reduced precision of the forward passes; None is full precision.

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
        tensors = [*model.parameters(), *model.buffers()]
        self.device = tensors[0].device if tensors else torch.device("cpu")
        self.frames = 0
        self._last: tuple[tuple[Genotype, ...], int, int, Tensor, Tensor] | None = None

    def logits(self, images: Tensor, genotypes: Sequence[Genotype]) -> list[Tensor]:
        """The mean logits over the frames, `(B, K)` per genotype.

        Raises `InputTypeError` for images that are not float, `InputError` for logits that are not `(N, K)`.
        """
        if not images.is_floating_point() or images.ndim != 4:
            raise InputTypeError(
                f"images must be float (B, C, H, W), got {images.dtype} of shape {tuple(images.shape)}; convert and "
                "normalise them as the model takes them"
            )
        key = (tuple(genotypes), images.shape[-2], images.shape[-1])
        if self._last is None or self._last[:3] != key:
            self._last = (*key, *self._distinct(*key))
        matrices, shares = self._last[3:]
        predictions = torch.cat(list(self._predict(images, matrices)), dim=1)
        weights = shares.to(predictions.dtype).to(predictions.device)  # in this order: MPS has no float64
        mixed = torch.einsum("vu,buk->vbk", weights, predictions)
        return list(mixed.unbind(0))

    def _distinct(self, genotypes: Sequence[Genotype], height: int, width: int) -> tuple[Tensor, Tensor]:
        """All different frame matrices `(U, 3, 3)`, the identity first, and each genotype's share of each, `(V, U)`."""
        eye = torch.eye(3, dtype=torch.float64)
        places = {matrix_key(eye): 0}
        matrices = [eye]
        rows = []
        for genotype in genotypes:
            row = []
            for matrix in genotype.step_matrices(self.steps, height, width):
                place = places.setdefault(matrix_key(matrix), len(matrices))
                if place == len(matrices):
                    matrices.append(matrix)
                row.append(place)
            rows.append(row)
        shares = torch.zeros(len(rows), len(matrices), dtype=torch.float64)
        for v, row in enumerate(rows):
            for place in row:
                shares[v, place] += 1 / self.T
        used = shares.any(dim=0)
        used[0] = True
        return torch.stack(matrices)[used], shares[:, used]

    def _predict(self, images: Tensor, matrices: Tensor) -> Iterator[Tensor]:
        """Logits `(B, U', K)` of the images under a few matrices after the other."""
        few = max(1, self.batch_size // images.shape[0])
        for start in range(0, len(matrices), few):
            part = matrices[start : start + few]
            copied = [start == 0 and index == 0 for index in range(len(part))]
            clip = warp(images, part, padding=self.padding, interpolation=self.interpolation, copied=copied)
            frames = clip_to_frames(clip)
            precision = nullcontext() if self.autocast is None else torch.autocast(images.device.type, self.autocast)
            with precision:
                out = self.model(frames)
            check_logits(out, frames.shape[0])
            self.frames += frames.shape[0]
            yield frames_to_clip(out.float() if out.dtype != torch.float64 else out, len(part))


def check_bare(model: nn.Module) -> None:
    """Raises `StateError` for a `VideoWrap`: it would warp and average the frames once more."""
    if isinstance(model, VideoWrap):
        raise StateError("the model is a VideoWrap, which makes clips itself; pass the bare model (model.unwrap())")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; every module's own mode comes back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def matrix_key(matrix: Tensor) -> tuple[float, ...]:
    """Equal for frame matrices `(3, 3)` whose entries agree to six decimals: no pixel moves visibly between them."""
    # 3 × 0.01 of the width is 0.03 of it, though not in the last bit.
    return tuple(round(value, 6) + 0.0 for value in matrix[:2].flatten().tolist())
