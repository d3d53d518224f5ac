"""Augmentation policies named by one text: AutoAugment, RandAugment, TrivialAugment, UniformAugment, random frames."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from torchvision.transforms import v2

from image2video.data.augment_options import option_value
from image2video.data.random_frame import RandomFrame
from image2video.data.uniform_augment import UniformOps
from image2video.errors import InputError, InputTypeError

Apply = Callable[[Tensor], Tensor]

_MAGNITUDES = 31  # torchvision's levels of RandAugment and TrivialAugment: 0 … 30


@dataclass(frozen=True)
class Augmentation(ABC):
    """A policy that changes every training image at random, as data: its text says all of it.

    `parse(str(policy)) == policy`. A text is `FAMILY` or `FAMILY:OPTIONS`, with options as `name=value` between
    commas; the first may be the value alone of the family's first option: `autoaugment:cifar10`,
    `randaugment:ops=2,magnitude=9`, `trivialaugment`, `uniformaugment:ops=2`, `clips:affine5`.
    """

    family: ClassVar[str]
    on_pixels: ClassVar[bool] = True
    """Whether it works on uint8 pixels, or on the normalised image."""

    @abstractmethod
    def build(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Apply:
        """The function that augments one image `(C, H, W)`: uint8 → uint8 (`on_pixels`), or normalised float → same.

        It draws from torch's global CPU generator, as torchvision's transforms do; `apply_each` seeds it.
        mean, std: how images are normalised, one value per channel.
        """

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """The policy that a text names; raises `InputError` for an unknown family, option or value, `InputTypeError`
        for anything but a text.

        >>> str(Augmentation.parse("randaugment:magnitude=5"))
        'randaugment:ops=2,magnitude=5'
        """
        if not isinstance(text, str):
            raise InputTypeError(f"an augmentation is named by a text, got {text!r:.80} of type {type(text).__name__}")
        family, colon, rest = text.partition(":")
        if family not in FAMILIES:
            near = difflib.get_close_matches(family, FAMILIES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"unknown augmentation {text!r:.80}; {hint}known: {', '.join(FAMILIES)}")
        return FAMILIES[family]._from_options(rest.split(",") if colon else [], text)

    @classmethod
    def coerce(cls, value: Augmentation | str | None) -> Augmentation | None:
        """The policy that a user means: one, its text, or None; the text `none` is None too."""
        return (
            value if value is None or isinstance(value, Augmentation) else None if value == "none" else cls.parse(value)
        )

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """The policies of the family that a search tries."""
        return (cls(),)

    def check_channels(self, channels: int) -> None:
        """Raise `InputError` where images of so many channels cannot be augmented."""
        if channels not in (1, 3):
            raise InputError(f"{self.family} works on images of 1 or 3 channels; these have {channels}")

    def __str__(self) -> str:
        values = [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)]
        words = [(name, str(value).lower() if isinstance(value, bool) else str(value)) for name, value in values]
        bare = [words[0][1]] if isinstance(values[0][1], str) else ["=".join(words[0])]
        return f"{self.family}:{','.join(bare + ['='.join(word) for word in words[1:]])}"

    @classmethod
    def _from_options(cls, parts: Sequence[str], text: str) -> Self:
        fields = dataclasses.fields(cls)
        types = typing.get_type_hints(cls)
        given: dict[str, Any] = {}
        for place, part in enumerate(parts):
            name, equals, value = part.partition("=")
            if not equals and place == 0:
                name, value = fields[0].name, part
            if name not in {field.name for field in fields}:
                known = ", ".join(f"{field.name}=…" for field in fields)
                raise InputError(f"{text!r:.80}: {cls.family} has no option {part!r:.40}; its options are {known}")
            if name in given:
                raise InputError(f"{text!r:.80} gives {name} twice")
            given[name] = option_value(value, types[name], f"{text!r:.80}: {name}")
        missing = [field.name for field in fields if field.default is dataclasses.MISSING and field.name not in given]
        if missing:
            raise InputError(f"{text!r:.80} must say {missing[0]}, as in {cls.family}:{cls._example()}")
        return cls(**given)

    @classmethod
    def _example(cls) -> str:
        return str(cls.grid()[0]).partition(":")[2]

    def _whole(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputTypeError(f"{self.family}: {name} must be a whole number, got {value!r:.40}")
        if not low <= value <= high:
            raise InputError(f"{self.family}: {name} must be {low} … {high}, got {value}")


@dataclass(frozen=True)
class AutoAugment(Augmentation):
    """AutoAugment (Cubuk et al., CVPR 2019): one of the policies published for `imagenet`, `cifar10` or `svhn`."""

    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    family: ClassVar[str] = "autoaugment"

    def __post_init__(self) -> None:
        option_value(self.policy, typing.get_type_hints(type(self))["policy"], f"{self.family}: policy")

    def build(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Apply:
        """torchvision's `v2.AutoAugment`."""
        return v2.AutoAugment(v2.AutoAugmentPolicy(self.policy))

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """The three published policies."""
        return tuple(cls(policy) for policy in typing.get_args(typing.get_type_hints(cls)["policy"]))


@dataclass(frozen=True)
class RandAugment(Augmentation):
    """RandAugment (Cubuk et al., CVPR workshops 2020): `ops` (1 … 10) random ops, all at `magnitude` (0 … 30)."""

    ops: int = 2
    magnitude: int = 9
    family: ClassVar[str] = "randaugment"

    def __post_init__(self) -> None:
        self._whole("ops", 1, 10)
        self._whole("magnitude", 0, _MAGNITUDES - 1)

    def build(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Apply:
        """torchvision's `v2.RandAugment`, with its 31 levels."""
        return v2.RandAugment(self.ops, self.magnitude, _MAGNITUDES)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """1, 2 or 3 ops at the magnitudes 3, 6, 9, 12 and 15: the range of the paper's own grids."""
        return tuple(cls(ops, magnitude) for ops in (1, 2, 3) for magnitude in (3, 6, 9, 12, 15))


@dataclass(frozen=True)
class TrivialAugment(Augmentation):
    """TrivialAugment (Müller and Hutter, ICCV 2021): one random op at a random magnitude.

    wide: the wide ranges, with which it was published as its best; otherwise those of RandAugment ("TA (RA)").
    """

    wide: bool = True
    family: ClassVar[str] = "trivialaugment"

    def __post_init__(self) -> None:
        if not isinstance(self.wide, bool):
            raise InputTypeError(f"{self.family}: wide must be true or false, got {self.wide!r:.40}")

    def build(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Apply:
        """torchvision's `v2.TrivialAugmentWide`, or one op of `v2.RandAugment` at a magnitude drawn from its levels."""
        return v2.TrivialAugmentWide(_MAGNITUDES) if self.wide else _NarrowTrivial()

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """Both ranges."""
        return cls(True), cls(False)


@dataclass(frozen=True)
class UniformAugment(Augmentation):
    """UniformAugment (LingChen et al., arXiv 2003.14348): `ops` (1 … 10) random ops, all their numbers uniform."""

    ops: int = 2
    family: ClassVar[str] = "uniformaugment"

    def __post_init__(self) -> None:
        self._whole("ops", 1, 10)

    def build(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Apply:
        """Ours (torchvision has none), from the paper; see `image2video.data.uniform_augment`."""
        return UniformOps(self.ops)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """1, 2 or 3 ops."""
        return cls(1), cls(2), cls(3)


@dataclass(frozen=True)
class Clips(Augmentation):
    """One random frame of a random chain of a search space in place of the image: what a clip shows, without the clip.

    The chain is that of a randomly discretised cell of `space`, the frame one of the `frames` of its clip (frame 0 is
    the image), both drawn anew for every image. This is the "Augment" row of Casarin et al., CVPR 2024, Table 5.
    space: the name of a registered search space, or a .yaml or .json file that holds one.
    """

    space: str
    frames: int = 5
    family: ClassVar[str] = "clips"
    on_pixels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.space, str) or not self.space or re.search(r"[,=]", self.space):
            raise InputError(f"clips:SPACE needs the name of a search space without commas and '=', got {self.space!r}")
        self._whole("frames", 2, 1000)

    def build(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Apply:
        """Frames as `Image2Video` makes them: bilinear, the mean colour outside."""
        from image2video.search.space.space import get_space  # the one name of search that data needs

        return RandomFrame(get_space(self.space), self.frames, mean, std)

    def check_channels(self, channels: int) -> None:
        """Any number of channels can be warped; photometric ops say themselves what they need."""

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """The spaces of the library at 3, 5 and 8 frames."""
        return tuple(cls(space, frames) for space in ("affine5", "autoaugment13", "gentle") for frames in (3, 5, 8))


FAMILIES: dict[str, type[Augmentation]] = {
    cls.family: cls for cls in (AutoAugment, RandAugment, TrivialAugment, UniformAugment, Clips)
}
"""The families by the name that texts call them."""


class _NarrowTrivial:
    def __call__(self, image: Tensor) -> Tensor:
        return v2.RandAugment(1, int(torch.randint(_MAGNITUDES, ())), _MAGNITUDES)(image)
