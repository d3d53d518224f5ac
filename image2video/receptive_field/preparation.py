"""Random weights with which every branch counts: what an effective field of an untrained model needs."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from image2video.clip.checks import check_images
from image2video.errors import InputError
from image2video.receptive_field.models import Model, as_images_of, check_batch_size, uncompiled

_FAINT = 1e-3  # layer scales of residual branches begin at 1e-6 … 1e-4


def prepare_random(model: Model, images: Tensor, *, batch_size: int = 8, seed: int = 0) -> Model:
    """A copy of an untrained model in eval mode in which every branch counts, with calibrated batch norms.

    Gains and layer scales that begin at zero (or below 1e-3) become 1, kernels that begin at zero are drawn by their
    fan-in: a block whose last gain is zero is the identity, and neither it nor a fusion in it could be seen. Then the
    running statistics of all batch norms become the mean over the batches of `images` `(N, C, H, W)`, so that
    activations have the size that training would give them. Biases stay. (Ours.) The model itself is not touched.

    Args:
        model: with random weights.
        images: `(N, C, H, W)`, at least 2, on which the batch norms are calibrated.
        batch_size: images at a time, at least 2.
        seed: of the kernels that are drawn.

    Returns:
        The copy.

    Raises:
        InputError: fewer than two images, or a batch size below 2.
        InputTypeError: images that are no floating-point tensor.
    """
    check_images(images)
    if len(images) < 2:
        raise InputError(f"to calibrate batch norms, prepare_random needs at least 2 images, got {len(images)}")
    check_batch_size(batch_size, 2)
    twin = copy.deepcopy(uncompiled(model)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            _enliven(name, parameter, generator)
        _calibrate(twin, images, batch_size)
    return twin


def _enliven(name: str, parameter: Tensor, generator: torch.Generator) -> None:
    """Give a parameter that begins at zero a value with which its branch counts."""
    is_bias = name.rsplit(".", 1)[-1].endswith("bias")
    if is_bias or not parameter.is_floating_point() or parameter.numel() == 0:
        return
    largest = float(parameter.abs().max())
    # A gain or layer scale has one value per channel, in whatever shape: (C,), (C, 1, 1), …
    per_channel = max(parameter.shape, default=1) == parameter.numel()
    if per_channel and largest < _FAINT:
        parameter.fill_(1.0)
    elif largest == 0:
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(noise.to(parameter) * math.sqrt(2 / max(1, parameter[0].numel())))


def _calibrate(model: nn.Module, images: Tensor, batch_size: int) -> None:
    """Make the statistics of all batch norms those of the images."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    batches = list(images.split(batch_size))
    if len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]  # one image alone may give a norm a single value
    for batch in batches:
        model(as_images_of(model, batch))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
