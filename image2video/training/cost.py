"""What one image costs: multiply-accumulates, time, parameters, peak memory."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from image2video.errors import InputError
from image2video.training.live_memory import peak_bytes
from image2video.training.modes import eval_mode


@dataclass(frozen=True)
class Cost:
    """The cost of a prediction per *image*: a clip of T frames counts T frames.

    Attributes:
        macs_per_image: multiply-accumulates of convolutions, matrix products and attention (half of what
            torch.utils.flop_counter counts); additions, norms and the resampling of the clip are not counted.
        ms_per_image: median milliseconds of the batched forward pass, over the images of a batch.
        params: number of parameters.
        peak_mib_per_image: the most memory that the pass holds above weights and images, over the images of a batch,
            in MiB: what the allocator says on CUDA, what tensors hold elsewhere (see `peak_bytes`).

    """

    macs_per_image: float
    ms_per_image: float
    params: int
    peak_mib_per_image: float

    def to_dict(self) -> dict[str, Any]:
        """Give all fields by name.

        Returns:
            The fields, ready for JSON.

        """
        return asdict(self)


@torch.no_grad()
def measure_cost(
    model: nn.Module, input_size: tuple[int, int, int], batch: int = 1, *, repeats: int = 10, warmup: int = 2
) -> Cost:
    """Measure a model in eval mode on random images, where its parameters are; its mode is restored afterwards.

    Args:
        model: images `(B, C, H, W)` to outputs.
        input_size: (C, H, W) of the images.
        batch: how many images go through it at once.
        repeats: how many passes are timed; the median counts.
        warmup: how many passes come before those.

    Returns:
        The cost of one image.

    Raises:
        InputError: batch or repeats is below 1.

    """
    if batch < 1 or repeats < 1:
        raise InputError(f"batch and repeats must be at least 1, got {batch} and {repeats}")
    first = next(model.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    dtype = torch.float32 if first is None else first.dtype
    images = torch.randn(batch, *input_size, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    with eval_mode(model):
        with FlopCounterMode(display=False) as counter:
            model(images)
        macs = counter.get_total_flops() / 2 / batch
        for _ in range(warmup):
            model(images)
        peak = peak_bytes(lambda: model(images), device) / 2**20 / batch
        times = []
        for _ in range(repeats):
            _synchronize(device)
            start = time.perf_counter()
            model(images)
            _synchronize(device)
            times.append(time.perf_counter() - start)
    params = sum(parameter.numel() for parameter in model.parameters())
    return Cost(macs, statistics.median(times) * 1e3 / batch, params, peak)


def _synchronize(device: torch.device) -> None:
    """Wait for an accelerator, whose work goes on after a call has returned."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
