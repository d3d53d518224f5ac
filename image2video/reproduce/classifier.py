"""What timm's classifiers have in common beside their layers, and the records by which timm knows them."""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs
from torch import Tensor, nn

from image2video.errors import InputError


class Classifier(nn.Module):
    """A network that ends with the mean over all places, dropout and a linear layer, with timm's methods.

    A subclass makes its layers, then calls `_finish`, and says in `forward_features` how images become maps.

    Args:
        num_classes: outputs; 0 gives the pooled features.
        in_chans: channels of the images.

    """

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans

    def _finish(self, channels: int, drop_rate: float = 0.0) -> None:
        """Add what comes behind maps of so many channels, and draw the weights of all convolutions."""
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(drop_rate)
        self.num_features = channels
        self.fc = self._linear()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _linear(self) -> nn.Module:
        return nn.Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Images `(B, C, H, W)` to maps `(B, num_features, h, w)`."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps to logits `(B, num_classes)`, or to the pooled features."""
        x = self.drop(self.pool(x).flatten(1))
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images `(B, C, H, W)` to logits `(B, num_classes)`."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh linear layer in; raises `InputError` where `global_pool` is neither `avg` nor None."""
        if global_pool not in (None, "avg"):
            raise InputError(f"{type(self).__name__} pools by averages ('avg'), got {global_pool!r}")
        self.num_classes = num_classes
        self.fc = self._linear().to(next(self.parameters()))


def untrained(name: str, **record: Any) -> Any:
    """The record by which timm knows a network that has no trained weights."""
    shared = {"url": "", "interpolation": "bilinear", "classifier": "fc", "license": "apache-2.0"}
    return generate_default_cfgs({name: {**shared, **record}})
