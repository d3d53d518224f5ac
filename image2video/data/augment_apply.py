"""How a policy is applied: every image on its own, with draws of its own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from image2video.data.random_frame import RandomFrame

# What torch offers without naming a generator, as transforms use it.
_DRAWS = frozenset(
    {
        torch.rand,
        torch.randint,
        torch.randn,
        torch.randperm,
        torch.normal,
        torch.bernoulli,
        torch.multinomial,
        Tensor.bernoulli_,
        Tensor.exponential_,
        Tensor.multinomial,
        Tensor.normal_,
        Tensor.random_,
        Tensor.uniform_,
    }
)


def apply_each(apply: Callable[[Tensor], Tensor], images: Tensor, seeds: Tensor) -> Tensor:
    """Every image of `(N, C, H, W)` augmented on its own, image i with the draws of the seed `seeds[i]`.

    The draws are those after `torch.manual_seed(seeds[i])`. torch's global generator is not touched, which all threads
    share.
    """
    if isinstance(apply, RandomFrame):
        return apply.each(images, seeds)
    augmented = []
    generator = torch.Generator()
    with _DrawsFrom(generator):
        for image, seed in zip(images, seeds.tolist(), strict=True):
            generator.manual_seed(seed)
            augmented.append(apply(image))
        return torch.stack(augmented)


class _DrawsFrom(TorchFunctionMode):
    """Lets functions that draw from torch's global generator draw from another, in this thread alone."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS and kwargs.get("generator") is None:
            kwargs = {**kwargs, "generator": self.generator}
        return func(*args, **kwargs)
