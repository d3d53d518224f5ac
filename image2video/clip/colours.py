"""How images are normalised: what photometric ops must know to see colours in 0 … 1."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from image2video.errors import Image2VideoError, InputError, InputTypeError

Values = float | Iterable[float] | None
"""A mean or a std as users give it: a number, or one per channel; None where it is not known."""


@dataclass(frozen=True)
class Colours:
    """The mean and standard deviation that images were normalised with: normalised = (colours − mean) / std.

    Attributes:
        mean: one value for all channels, or one per channel.
        std: likewise, each above 0.

    Raises:
        InputError: numbers that are not finite, a std that is not above 0, or counts that do not fit each other.
        InputTypeError: other types.

    >>> Colours((0.5,), (0.25,)).to_unit(torch.zeros(1, 3, 1, 1)).flatten().tolist()
    [0.5, 0.5, 0.5]
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        mean, std = _numbers(self.mean, "mean"), _numbers(self.std, "std")
        if len(mean) != len(std) and 1 not in (len(mean), len(std)):
            raise InputError(f"mean has {len(mean)} values and std {len(std)}; give one per channel, or one for all")
        if min(std) <= 0:
            raise InputError(f"every std must be above 0, got {std}")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)

    @classmethod
    def coerce(cls, mean: Values, std: Values) -> Colours | None:
        """Read a mean and std as users give them.

        Args:
            mean: a number, a sequence, a tensor, or None.
            std: likewise.

        Returns:
            The colours; None where both are None.

        Raises:
            InputError: only one of the two is given.
        """
        if mean is None and std is None:
            return None
        if mean is None or std is None:
            given = "mean" if std is None else "std"
            raise InputError(f"mean and std go together, got only {given}; images in 0 … 1 have mean=0, std=1")
        return cls(_listed(mean), _listed(std))

    @classmethod
    def of(cls, backbone: object) -> Colours | None:
        """Read how a backbone's images are normalised from its `pretrained_cfg` or `default_cfg` (timm's).

        Args:
            backbone: any object.

        Returns:
            The colours; None where the configs are missing, malformed, or for another number of channels than the
            backbone's `in_chans`.
        """
        channels = getattr(backbone, "in_chans", None)
        for name in ("pretrained_cfg", "default_cfg"):
            config = getattr(backbone, name, None)
            values = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
            try:
                colours = cls.coerce(values.get("mean"), values.get("std"))
            except Image2VideoError:
                continue
            if colours is not None and (channels is None or colours.fits(channels)):
                return colours
        return None

    def fits(self, channels: int) -> bool:
        """Say whether images can have these colours.

        Args:
            channels: of the images.

        Returns:
            True where there is one value for all channels, or one for each.
        """
        return {len(self.mean), len(self.std)} <= {1, int(channels)}  # a tracer gives sizes as tensors

    def to_unit(self, images: Tensor) -> Tensor:
        """Undo the normalisation; `InputError` refuses another number of channels.

        Args:
            images: normalised, `(…, C, H, W)`.

        Returns:
            The images in 0 … 1.
        """
        mean, std = self._tensors(images)
        return images * std + mean

    def to_normalised(self, images: Tensor) -> Tensor:
        """Normalise images; `InputError` refuses another number of channels.

        Args:
            images: in 0 … 1, `(…, C, H, W)`.

        Returns:
            The normalised images.
        """
        mean, std = self._tensors(images)
        return (images - mean) / std

    def _tensors(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and std as tensors that fit the images."""
        if images.ndim < 3 or not self.fits(images.shape[-3]):
            raise InputError(
                f"mean has {len(self.mean)} values and std {len(self.std)}, but the images are {tuple(images.shape)}, "
                "(…, C, H, W); give one value per channel, or one for all"
            )
        return _per_channel(self.mean, images), _per_channel(self.std, images)


def _per_channel(values: Sequence[float], images: Tensor) -> Tensor:
    """Return values as a tensor `(C, 1, 1)` of the images' dtype and device."""
    # Filled on the device: a copy from the host would stall it.
    return torch.stack([images.new_full((), value) for value in values]).view(-1, 1, 1)


def _listed(values: Any) -> Any:
    """Return numbers and tensors as sequences, and everything else as it is."""
    if isinstance(values, Tensor):
        values = values.flatten().tolist()
    return (values,) if isinstance(values, Real) else values


def _numbers(values: Any, name: str) -> tuple[float, ...]:
    """Return a sequence of finite numbers as a tuple; raise for anything else."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputTypeError(f"{name} must be a sequence of numbers, one per channel, got {values!r:.80}")
    values = tuple(values)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise InputTypeError(f"{name} must hold numbers, got {value!r:.80} ({type(value).__name__})")
    if not values or not all(math.isfinite(value) for value in values):
        raise InputError(f"{name} must hold finite numbers, one per channel, got {values}")
    return tuple(float(value) for value in values)
