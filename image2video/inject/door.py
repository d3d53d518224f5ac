"""An injected backbone entered on single frames, to be traced as it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

Enter = Callable[[nn.Module, Tensor], Any]
"""Calls a backbone, which a trace copies, or one of its methods, with images and with all its further arguments."""


def entering(options: Mapping[str, Any], method: str = "__call__", further: Sequence[Any] = ()) -> Enter:
    """Return what calls a method of a backbone with images, with arguments behind them, and with these options."""
    return lambda backbone, images: getattr(backbone, method)(images, *further, **options)


class Door(nn.Module):
    """An injected backbone that is called, or entered by a method, on single frames, which its hooks leave as they are.

    Args:
        backbone: the backbone, or a network around it.
        fusion: the `Injection` that hooked the backbone.
        enter: calls the backbone or its method.
    """

    def __init__(self, backbone: nn.Module, fusion: Any, enter: Enter) -> None:
        super().__init__()
        self.backbone = backbone
        self.fusion = fusion
        self.enter = enter
        self.training = backbone.training

    def forward(self, images: Tensor) -> Any:
        """Return what the backbone or its method returns for images that are one frame each."""
        with self.fusion._frames(1):
            return self.enter(self.backbone, images)
