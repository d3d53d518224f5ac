"""An injected backbone entered on single frames, to be traced as it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn


class Door(nn.Module):
    """An injected backbone that is entered by one of its methods, on single frames, which its hooks leave as they are.

    Args:
        backbone: the backbone, or a network around it.
        fusion: the `Injection` that hooked the backbone.
        method: the name of the method.
        options: its further arguments.
        further: its further positional arguments, behind the images.
    """

    def __init__(
        self,
        backbone: nn.Module,
        fusion: Any,
        method: str = "__call__",
        options: Mapping[str, Any] | None = None,
        further: Sequence[Any] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fusion = fusion
        self.method = method
        self.options = dict(options or {})
        self.further = tuple(further)
        self.training = backbone.training

    def forward(self, images: Tensor) -> Any:
        """Return what the method returns for images that are one frame each."""
        with self.fusion.frames(1):
            return getattr(self.backbone, self.method)(images, *self.further, **self.options)
