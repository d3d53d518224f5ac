"""Predictions of a trained network under clips, one after the other; the network stays as it is."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from image2video.assess.finalists import Finalist
from image2video.clip.colours import Values
from image2video.errors import InputError
from image2video.search.score.network import device_of, in_mode
from image2video.training import Cost, measure_cost
from image2video.wrap.video_wrap import VideoWrap

ROUNDS, TIMED = 3, 5
"""How often the networks are measured in turn, and passes of a round of which the median counts."""


@dataclass(frozen=True)
class Timed:
    """What an image costs.

    Attributes:
        single: alone; its time is the median of the rounds.
        batched: in a batch, likewise.
        single_ms: milliseconds of an image alone in each round.
    """

    single: Cost
    batched: Cost
    single_ms: tuple[float, ...]

    @classmethod
    def of(cls, rounds: Sequence[tuple[Cost, Cost]]) -> Timed:
        """The medians over the rounds."""
        single, batched = (
            replace(costs[0], ms_per_image=statistics.median(cost.ms_per_image for cost in costs))
            for costs in zip(*rounds, strict=True)
        )
        return cls(single, batched, tuple(cost.ms_per_image for cost, _ in rounds))


@dataclass(frozen=True)
class Images:
    """Labelled images in memory.

    Attributes:
        images: `(n, C, H, W)`, as the network takes them.
        labels: `(n,)` int64.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images in their order."""
        yield from zip(self.images.split(size), self.labels.split(size), strict=True)

    def part(self, start: int, stop: int) -> Images:
        """Some of the images."""
        return Images(self.images[start:stop], self.labels[start:stop])


@dataclass(frozen=True)
class Network:
    """A trained classifier, bare or wrapped for a moment; it stays as it is.

    Attributes:
        model: images `(N, C, H, W)` -> logits `(N, K)`.
        input_size: (C, H, W) of the images.
        frames_at_once: of a forward pass.
        autocast: reduced precision of the forward passes; None for none.
        mean: how the images are normalised, for clips that change colours; None for what the model says.
        std: goes with `mean`.
    """

    model: nn.Module
    input_size: tuple[int, int, int]
    frames_at_once: int
    autocast: torch.dtype | None
    mean: Values = None
    std: Values = None

    @torch.no_grad()
    def predicted(self, finalist: Finalist, images: Images) -> Tensor:
        """The logits `(n, K)` under a clip, float32 on the CPU, from the very wrapper that a user would have.

        Raises:
            InputError: outputs that are no finite logits with an output for every label.
        """
        device, found = device_of(self.model), []
        with self._wrapped(finalist) as network, in_mode(network, training=False):
            for batch, labels in images.batches(max(1, self.frames_at_once // finalist.T)):
                with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
                    outputs = network(batch.to(device))
                _check(outputs, labels)
                found.append(outputs.float().cpu())
        return torch.cat(found)

    def costs(self, finalists: Sequence[Finalist], batch: int) -> list[Timed]:
        """What an image costs under clips, alone and in a batch; in turn, since machines slow down and speed up."""
        rounds: list[list[tuple[Cost, Cost]]] = [[] for _ in finalists]
        for _ in range(ROUNDS):
            for measured, finalist in zip(rounds, finalists, strict=True):
                with self._wrapped(finalist) as network:
                    single = measure_cost(network, self.input_size, batch=1, repeats=TIMED)
                    measured.append((single, measure_cost(network, self.input_size, batch=batch, repeats=TIMED)))
        return [Timed.of(measured) for measured in rounds]

    @contextmanager
    def _wrapped(self, finalist: Finalist) -> Iterator[nn.Module]:
        """The network as a finalist sees it."""
        if finalist.is_bare:
            yield self.model
            return
        size = self.input_size if finalist.is_inside else None  # a place is found by a trace
        network = VideoWrap(
            self.model, "none", **finalist.wrap_options(), mean=self.mean, std=self.std, input_size=size
        )
        try:
            yield network
        finally:
            network.unwrap()


def _check(outputs: object, labels: Tensor) -> None:
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[1] < 2:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(f"assess needs a classifier that returns logits (B, K) of two or more classes, got {shape}")
    if not bool(outputs.isfinite().all()):
        raise InputError("the model's logits must be finite, got NaN or infinity; check its weights and its precision")
    if int(labels.max()) >= outputs.shape[1] or int(labels.min()) < 0:
        raise InputError(
            f"labels must be 0 … {outputs.shape[1] - 1}, one of the model's outputs, got {int(labels.min())} … "
            f"{int(labels.max())}; give the data's labels as numbers of the model's outputs"
        )
