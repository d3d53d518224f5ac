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

from image2video.data.augment_options import option_value
from image2video.data.random_frame import RandomFrame
from image2video.errors import InputError, InputTypeError

Apply = Callable[[Tensor], Tensor]

MAX_TEXT = 1000
_MAGNITUDES = 31  # torchvision's levels of RandAugment and TrivialAugment: 0 … 30


@dataclass(frozen=True)
class Augmentation(ABC):
    """A policy that changes every training image at random; its text says all of it.

    `parse(str(policy)) == policy`. A text is `FAMILY` or `FAMILY:OPTIONS`, with options as `name=value` between
    commas; the first may be the value alone of the family's first option: `autoaugment:cifar10`,
    `randaugment:ops=2,magnitude=9`, `trivialaugment`, `uniformaugment:ops=2`, `clips:affine5`.
    """

    family: ClassVar[str]
    on_pixels: ClassVar[bool] = True
    """Whether it works on uint8 pixels, or on the normalised image."""
    channels: ClassVar[tuple[int, ...]] = (1, 3)
    """How many channels an image may have; empty for any number."""

    def build(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Apply:
        """Make the function that augments one image.

        Args:
            mean: how images are normalised, one value per channel.
            std: goes with `mean`.

        Returns:
            Image `(C, H, W)` to image: uint8 where the policy works on pixels, else normalised floats. It draws from
            torch's global CPU generator, as torchvision's transforms do; `apply_each` seeds that.

        """
        return self._build(mean, std)

    @abstractmethod
    def _build(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Apply:
        """Make the function that `build` returns."""

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Read a policy from its text.

        Args:
            text: `FAMILY` or `FAMILY:OPTIONS`, see the class.

        Returns:
            The policy.

        Raises:
            InputError: the family, an option or a value is unknown.
            InputTypeError: `text` is no text.

        >>> str(Augmentation.parse("randaugment:magnitude=5"))
        'randaugment:ops=2,magnitude=5'
        """
        if not isinstance(text, str):
            raise InputTypeError(f"an augmentation is named by a text, got {text!r:.80} of type {type(text).__name__}")
        if len(text) > MAX_TEXT:
            raise InputError(f"an augmentation's text has at most {MAX_TEXT} characters, got {len(text)}")
        family, colon, rest = text.partition(":")
        if family not in FAMILIES:
            near = difflib.get_close_matches(family, FAMILIES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"unknown augmentation {text!r:.80}; {hint}known: {', '.join(FAMILIES)}")
        return FAMILIES[family]._from_options(rest.split(",") if colon else [], text)

    @classmethod
    def coerce(cls, value: Augmentation | str | None) -> Augmentation | None:
        """Accept a policy in any form that a user may give.

        Args:
            value: a policy, its text, or None; the text `none` is None too.

        Returns:
            The policy; None for none.

        """
        if value is None or value == "none":
            return None
        return value if isinstance(value, Augmentation) else cls.parse(value)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """List the policies of the family that a search tries.

        Returns:
            The policies, the one with the default options alone where the family has nothing to choose.

        """
        return cls._grid()

    @classmethod
    @abstractmethod
    def _grid(cls) -> tuple[Self, ...]:
        """List what `grid` returns."""

    def check_channels(self, channels: int) -> None:
        """Refuse images that the policy cannot augment.

        Args:
            channels: how many an image has.

        Raises:
            InputError: the policy does not work on so many.

        """
        if self.channels and channels not in self.channels:
            raise InputError(f"{self.family} works on images of 1 or 3 channels; these have {channels}")

    def __str__(self) -> str:
        words = []
        for place, field in enumerate(dataclasses.fields(self)):
            value = getattr(self, field.name)
            text = str(value).lower() if isinstance(value, bool) else str(value)
            stands_alone = place == 0 and isinstance(value, str)
            words.append(text if stands_alone else f"{field.name}={text}")
        return f"{self.family}:{','.join(words)}"

    @classmethod
    def _from_options(cls, parts: Sequence[str], text: str) -> Self:
        """The policy with the options that stand in `text`, cut into `parts` at its commas."""
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
                raise InputError(f"{text!r:.80} gives {name} twice; give it once")
            given[name] = option_value(value, types[name], f"{text!r:.80}: {name}")
        missing = [field.name for field in fields if field.default is dataclasses.MISSING and field.name not in given]
        if missing:
            raise InputError(f"{text!r:.80} must say {missing[0]}, as in {cls.grid()[0]}")
        return cls(**given)

    def _whole(self, name: str, low: int, high: int) -> None:
        """Refuse an option that is no whole number in `low` … `high`."""
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputTypeError(f"{self.family}: {name} must be a whole number, got {value!r:.40}")
        if not low <= value <= high:
            raise InputError(f"{self.family}: {name} must be {low} … {high}, got {value}")


@dataclass(frozen=True)
class AutoAugment(Augmentation):
    """AutoAugment (Cubuk et al., CVPR 2019).

    Attributes:
        policy: which published policy: `imagenet`, `cifar10` or `svhn`.

    """

    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    family: ClassVar[str] = "autoaugment"

    def __post_init__(self) -> None:
        option_value(self.policy, typing.get_type_hints(type(self))["policy"], f"{self.family}: policy")

    def _build(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Apply:
        """torchvision's `v2.AutoAugment`."""
        from torchvision.transforms import v2  # late, here and below: it takes as long to import as torch

        return v2.AutoAugment(v2.AutoAugmentPolicy(self.policy))

    @classmethod
    def _grid(cls) -> tuple[Self, ...]:
        """The three published policies."""
        return tuple(cls(policy) for policy in typing.get_args(typing.get_type_hints(cls)["policy"]))


@dataclass(frozen=True)
class RandAugment(Augmentation):
    """RandAugment (Cubuk et al., CVPR workshops 2020): random ops, all at one magnitude.

    Attributes:
        ops: how many, 1 … 10.
        magnitude: 0 … 30.

    """

    ops: int = 2
    magnitude: int = 9
    family: ClassVar[str] = "randaugment"

    def __post_init__(self) -> None:
        self._whole("ops", 1, 10)
        self._whole("magnitude", 0, _MAGNITUDES - 1)

    def _build(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Apply:
        """torchvision's `v2.RandAugment`, with its 31 levels."""
        from torchvision.transforms import v2

        return v2.RandAugment(self.ops, self.magnitude, _MAGNITUDES)

    @classmethod
    def _grid(cls) -> tuple[Self, ...]:
        """1, 2 or 3 ops at the magnitudes 3, 6, 9, 12 and 15: the range of the paper's own grids."""
        return tuple(cls(ops, magnitude) for ops in (1, 2, 3) for magnitude in (3, 6, 9, 12, 15))


@dataclass(frozen=True)
class TrivialAugment(Augmentation):
    """TrivialAugment (Müller and Hutter, ICCV 2021): one random op at a random magnitude.

    Attributes:
        wide: the wide ranges, which its authors found best; otherwise those of RandAugment ("TA (RA)").

    """

    wide: bool = True
    family: ClassVar[str] = "trivialaugment"

    def __post_init__(self) -> None:
        if not isinstance(self.wide, bool):
            raise InputTypeError(f"{self.family}: wide must be true or false, got {self.wide!r:.40}")

    def _build(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Apply:
        """torchvision's `v2.TrivialAugmentWide`, or one op of `v2.RandAugment` at a magnitude drawn from its levels."""
        from torchvision.transforms import v2

        return v2.TrivialAugmentWide(_MAGNITUDES) if self.wide else _NarrowTrivial()

    @classmethod
    def _grid(cls) -> tuple[Self, ...]:
        """Both ranges."""
        return cls(True), cls(False)


@dataclass(frozen=True)
class UniformAugment(Augmentation):
    """UniformAugment (LingChen et al., arXiv 2003.14348): random ops, all their numbers uniform.

    Attributes:
        ops: how many, 1 … 10.

    """

    ops: int = 2
    family: ClassVar[str] = "uniformaugment"

    def __post_init__(self) -> None:
        self._whole("ops", 1, 10)

    def _build(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Apply:
        """Ours (torchvision has none), from the paper; see `image2video.data.uniform_augment`."""
        from image2video.data.uniform_augment import UniformOps  # torchvision comes with it

        return UniformOps(self.ops)

    @classmethod
    def _grid(cls) -> tuple[Self, ...]:
        """1, 2 or 3 ops."""
        return cls(1), cls(2), cls(3)


@dataclass(frozen=True)
class Clips(Augmentation):
    """One random frame of a random chain in place of the image: what a clip shows, without the clip.

    The chain is that of a randomly discretised cell of the space. Chain and frame are drawn anew for every image;
    frame 0 is the image itself. This is the "Augment" row of Casarin et al., CVPR 2024, Table 5.

    Attributes:
        space: the name of a registered search space, or a .yaml or .json file that holds one.
        frames: of the clip, at least 2.

    """

    space: str
    frames: int = 5
    family: ClassVar[str] = "clips"
    on_pixels: ClassVar[bool] = False
    channels: ClassVar[tuple[int, ...]] = ()  # any can be warped; photometric ops say themselves what they need

    def __post_init__(self) -> None:
        if not isinstance(self.space, str) or not self.space or re.search(r"[,=]", self.space):
            # A text could not hold such a name.
            raise InputError(f"clips:SPACE needs the name of a search space without commas and '=', got {self.space!r}")
        self._whole("frames", 2, 1000)

    def _build(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Apply:
        """Frames as `Image2Video` makes them: bilinear, the mean colour outside."""
        from image2video.search.space.space import get_space  # the one name of search that data needs

        return RandomFrame(get_space(self.space), self.frames, mean, std)

    @classmethod
    def _grid(cls) -> tuple[Self, ...]:
        """The spaces of the library at 3, 5 and 8 frames."""
        spaces = ("affine5", "autoaugment13", "gentle", "pose")
        return tuple(cls(space, frames) for space in spaces for frames in (3, 5, 8))


FAMILIES: dict[str, type[Augmentation]] = {
    cls.family: cls for cls in (AutoAugment, RandAugment, TrivialAugment, UniformAugment, Clips)
}
"""The families by the name that texts call them."""


class _NarrowTrivial:
    """One random op of RandAugment at a random magnitude."""

    def __call__(self, image: Tensor) -> Tensor:
        from torchvision.transforms import v2

        return v2.RandAugment(1, int(torch.randint(_MAGNITUDES, ())), _MAGNITUDES)(image)
