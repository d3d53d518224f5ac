"""Frozen choices of a fusion: what a plan keeps, a checkpoint's JSON says, and a site is built from."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from torch import nn

from image2video.errors import StateError
from image2video.fusion.base import Fusion, Placement
from image2video.fusion.conv3d import Conv3d, Inflate, check_inflate
from image2video.fusion.gsf import GSF, check_ratio
from image2video.fusion.gsm import GSM
from image2video.fusion.shift import Padding, check_padding
from image2video.fusion.tsm import TSM, check_fold_div


class HasChannels(Protocol):
    """What a fusion needs to know of a site."""

    @property
    def channels(self) -> int:
        """Size of the channel dimension at the site."""


@dataclass(frozen=True)
class FusionConfig:
    """The base of all fusion choices: a name, the options as fields, and how a site's module is built from them.

    A config checks its own fields, so one that exists is valid.

    Class attributes:
        name: the word that `VideoWrap(…, fusion=name)` takes.
        fusion: the class that `build` makes; None where nothing acts.
        every_conv: whether the sites are every convolution with a kernel above 1, not the residual branches.
    """

    name: ClassVar[str]
    fusion: ClassVar[type[Fusion] | None] = None
    every_conv: ClassVar[bool] = False

    @property
    def fusion_class(self) -> type[Fusion]:
        """The class of the modules that `build` makes."""
        if self.fusion is None:
            raise StateError(f"fusion {self.name!r} has no module; it acts nowhere, so there is nothing to build")
        return self.fusion

    @property
    def active(self) -> bool:
        """Whether frames mix at all; False only for `"none"`."""
        return self.fusion is not None

    @property
    def placement(self) -> Placement:
        """Whether the modules act before, after or beside the module at a site."""
        return self.fusion_class.placement

    def options(self) -> dict[str, Any]:
        """List the options of the class beyond `channels` and `residual`.

        Returns:
            Keyword arguments, by name.
        """
        return asdict(self)

    def refusal(self, channels: int) -> str | None:
        """Say why a site with so many channels cannot be split.

        Args:
            channels: size of the channel dimension at the site.

        Returns:
            The reason; None where the site can be split.
        """
        return self.fusion_class.refusal(channels, **self.options())

    def build(self, site: HasChannels, residual: bool, host: nn.Module | None = None) -> Fusion:
        """Build the module for a site.

        Args:
            site: the site, whose `channels` count.
            residual: whether the module is to start as the identity.
            host: the module at the site; `"beside"` fusions need it.

        Returns:
            The module.

        Raises:
            InputError: channels that cannot be split, or an option that does not fit.
            UnsupportedError: a host convolution that cannot be given a temporal extent.
        """
        return self.fusion_class.for_site(site.channels, residual=residual, host=host, **self.options())

    def to_dict(self) -> dict[str, Any]:
        """Write the choice as JSON values; `config_from_dict` reads them back.

        Returns:
            The name and the options.
        """
        return {"name": self.name, **self.options()}


@dataclass(frozen=True)
class TSMConfig(FusionConfig):
    """Temporal shift (Lin et al., ICCV 2019): 2 // fold_div of the channels move; `padding` as in `TSM`.

    Args:
        fold_div: each of the two shares is C // fold_div channels.
        padding: what the frame without a neighbour takes.
    """

    name: ClassVar[str] = "tsm"
    fusion: ClassVar[type[Fusion] | None] = TSM
    fold_div: int = 8
    padding: Padding = "zeros"

    def __post_init__(self) -> None:
        check_fold_div(self.fold_div)
        check_padding(self.padding)


@dataclass(frozen=True)
class GSMConfig(FusionConfig):
    """Gate-shift module (Sudhakaran et al., CVPR 2020) on all channels; `padding` as in `GSM`.

    Args:
        padding: what the frame without a neighbour takes.
    """

    name: ClassVar[str] = "gsm"
    fusion: ClassVar[type[Fusion] | None] = GSM
    padding: Padding = "zeros"

    def __post_init__(self) -> None:
        check_padding(self.padding)


@dataclass(frozen=True)
class GSFConfig(FusionConfig):
    """Gate-shift-fuse (Sudhakaran et al., TPAMI 2023) on `ratio` of the channels; `padding` as in `GSF`.

    Args:
        ratio: the share of the channels, above 0 and at most 1.
        padding: what the frame without a neighbour takes.
    """

    name: ClassVar[str] = "gsf"
    fusion: ClassVar[type[Fusion] | None] = GSF
    ratio: float = 0.25
    padding: Padding = "zeros"

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        check_padding(self.padding)


@dataclass(frozen=True)
class Conv3dConfig(FusionConfig):
    """A temporal extent of 3 for every convolution with a kernel above 1; `inflate` as in `Conv3d`.

    Args:
        inflate: how the outer taps start.
    """

    name: ClassVar[str] = "conv3d"
    fusion: ClassVar[type[Fusion] | None] = Conv3d
    every_conv: ClassVar[bool] = True
    inflate: Inflate = "zero"

    def __post_init__(self) -> None:
        check_inflate(self.inflate)


@dataclass(frozen=True)
class NoFusionConfig(FusionConfig):
    """Frames never mix: what remains is averaging over the frames of the clip."""

    name: ClassVar[str] = "none"

    def refusal(self, channels: int) -> str | None:
        """Nothing is split, so nothing is refused."""
        return None
