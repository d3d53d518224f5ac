"""How a policy is applied: every image on its own, with draws of its own seed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from image2video.data.random_frame import RandomFrame


def apply_each(apply: Callable[[Tensor], Tensor], images: Tensor, seeds: Tensor) -> Tensor:
    """Every image of `(N, C, H, W)` augmented on its own, image i with the draws of the seed `seeds[i]`.

    The global CPU generator is put back as it was.
    """
    if isinstance(apply, RandomFrame):
        return apply.each(images, seeds)
    augmented = []
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images, seeds.tolist(), strict=True):
            torch.default_generator.manual_seed(seed)
            augmented.append(apply(image))
    return torch.stack(augmented)
