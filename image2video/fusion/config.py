"""Frozen choices of a fusion: what a plan keeps, a checkpoint's JSON says, and a site is built from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import nn

from image2video.errors import InputError, StateError
from image2video.fusion.base import Fusion, Placement
from image2video.fusion.conv3d import Conv3d
from image2video.fusion.gsf import GSF
from image2video.fusion.gsm import GSM
from image2video.fusion.shift import Padding, check_padding
from image2video.fusion.tsm import TSM


class HasChannels(Protocol):
    """What a fusion needs to know of a site."""

    @property
    def channels(self) -> int:
        """Size of the channel dimension at the site."""


@dataclass(frozen=True)
class FusionConfig:
    """The base of all fusion choices: a name, the options as fields, and how a site's module is built from them.

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
            raise StateError(f"fusion={self.name!r} has no module: it has no sites to build one for.")
        return self.fusion

    @property
    def active(self) -> bool:
        """Whether frames mix at all; False only for `"none"`."""
        return self.fusion is not None

    @property
    def placement(self) -> Placement:
        """Whether the modules act before, after or beside the module at a site."""
        return self.fusion_class.placement

    @property
    def min_channels(self) -> int:
        """The fewest channels that can be split; `refusal` says more."""
        return self.fusion_class.min_channels

    def options(self) -> dict[str, Any]:
        """Keyword arguments of the class beyond `channels` and `residual`."""
        return asdict(self)

    def refusal(self, channels: int) -> str | None:
        """Say why a site with so many channels cannot be split; None where it can."""
        return self.fusion_class.refusal(channels, **self.options())

    def build(self, site: HasChannels, residual: bool, host: nn.Module | None = None) -> Fusion:
        """Build the module for a site; `host` is the module at the site (needed by `"beside"` fusions).

        Raises:
            InputError: channels that cannot be split, or an option that does not fit.
            UnsupportedError: a host convolution that cannot be given a temporal extent.
        """
        return self.fusion_class.for_site(site.channels, residual=residual, host=host, **self.options())

    def to_dict(self) -> dict[str, Any]:
        """Return name and options as JSON values; `config_from_dict` reads them back."""
        return {"name": self.name, **self.options()}


@dataclass(frozen=True)
class TSMConfig(FusionConfig):
    """Temporal shift (Lin et al., ICCV 2019): 2 // fold_div of the channels move; `padding` as in `TSM`."""

    name: ClassVar[str] = "tsm"
    fusion: ClassVar[type[Fusion] | None] = TSM
    fold_div: int = 8
    padding: Padding = "zeros"

    def __post_init__(self) -> None:
        _whole("fold_div", self.fold_div, least=2)
        check_padding(self.padding)

    @property
    def min_channels(self) -> int:
        """A share of at least one channel."""
        return self.fold_div


@dataclass(frozen=True)
class GSMConfig(FusionConfig):
    """Gate-shift module (Sudhakaran et al., CVPR 2020) on all channels; `padding` as in `GSM`."""

    name: ClassVar[str] = "gsm"
    fusion: ClassVar[type[Fusion] | None] = GSM
    padding: Padding = "zeros"

    def __post_init__(self) -> None:
        check_padding(self.padding)


@dataclass(frozen=True)
class GSFConfig(FusionConfig):
    """Gate-shift-fuse (Sudhakaran et al., TPAMI 2023) on `ratio` of the channels; `padding` as in `GSF`."""

    name: ClassVar[str] = "gsf"
    fusion: ClassVar[type[Fusion] | None] = GSF
    ratio: float = 0.25
    padding: Padding = "zeros"

    def __post_init__(self) -> None:
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int | float) or not 0 < self.ratio <= 1:
            raise InputError(f"ratio is {self.ratio!r}; it must be a share of the channels above 0 and at most 1.")
        check_padding(self.padding)


@dataclass(frozen=True)
class Conv3dConfig(FusionConfig):
    """A temporal extent of 3 for every convolution with a kernel above 1; `inflate` as in `Conv3d`."""

    name: ClassVar[str] = "conv3d"
    fusion: ClassVar[type[Fusion] | None] = Conv3d
    every_conv: ClassVar[bool] = True
    inflate: Literal["zero", "mean"] = "zero"

    def __post_init__(self) -> None:
        if self.inflate not in ("zero", "mean"):
            raise InputError(f"inflate is {self.inflate!r}; it must be 'zero' or 'mean'.")


@dataclass(frozen=True)
class NoFusionConfig(FusionConfig):
    """Frames never mix: what remains is averaging over the frames of the clip."""

    name: ClassVar[str] = "none"

    @property
    def min_channels(self) -> int:
        """Nothing is split."""
        return 1

    def refusal(self, channels: int) -> str | None:
        """Nothing is split, so nothing is refused."""
        return None


@dataclass(frozen=True)
class RegisteredConfig(FusionConfig):
    """The choice of a fusion that `register_fusion` named; its options are the class's keyword arguments."""

    name: str  # type: ignore[misc]
    values: tuple[tuple[str, Any], ...] = ()

    @property
    def fusion_class(self) -> type[Fusion]:
        """The registered class, found by name: so the choice can be pickled and read from JSON."""
        from image2video.fusion.registry import registered_class

        return registered_class(self.name)

    @property
    def active(self) -> bool:
        """A registered fusion always mixes frames."""
        return True

    def options(self) -> dict[str, Any]:
        """Keyword arguments of the class beyond `channels` and `residual`."""
        return dict(self.values)


def _whole(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}; it must be a whole number, {least} or more.")


def check_options(name: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise `InputError` for an option that the fusion does not have."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        has = f"its options are {', '.join(known)}" if known else "it has no options"
        raise InputError(f"fusion {name!r} has no option {', '.join(map(repr, unknown))}; {has}.")
