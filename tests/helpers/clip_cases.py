"""Images and maps that the tests of clips share; never square, so that height and width cannot be mistaken."""

from __future__ import annotations

import torch
from torch import Tensor

H, W = 24, 36
CHAIN = "translate_x(0.06) > rotate(10) > scale(1.1)"


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def smooth(B: int, C: int, height: int = H, width: int = W) -> Tensor:
    """Waves that resampling changes little; every channel of every image is another one."""
    ys = torch.linspace(0, 1, height)[:, None]
    xs = torch.linspace(0, 1, width)
    waves = [torch.sin(2 * xs + 3 * ys + n) + ys * xs * n / 6 for n in range(B * C)]
    return torch.stack(waves).view(B, C, height, width)
