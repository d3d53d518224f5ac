"""Names of fusions: the built-in ones, and those that users register; a config from any form of a choice."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_args

from image2video.errors import InputError, InputTypeError
from image2video.fusion.base import Fusion, Placement
from image2video.fusion.built_in import BUILT_IN
from image2video.fusion.config import (
    Conv3dConfig,
    FusionConfig,
    GSFConfig,
    GSMConfig,
    NoFusionConfig,
    TSMConfig,
)

FusionClass = TypeVar("FusionClass", bound=type[Fusion])

_BUILT_IN: dict[str, type[FusionConfig]] = dict(
    zip(BUILT_IN, (GSFConfig, TSMConfig, GSMConfig, Conv3dConfig, NoFusionConfig), strict=True)
)
_REGISTERED: dict[str, type[Fusion]] = {}


@dataclass(frozen=True)
class RegisteredConfig(FusionConfig):
    """The choice of a fusion that `register_fusion` named; its options are the class's keyword arguments.

    Args:
        name: the registered name.
        values: the options as pairs of name and value.
    """

    name: str  # type: ignore[misc]
    values: tuple[tuple[str, Any], ...] = ()

    @property
    def fusion_class(self) -> type[Fusion]:
        """The registered class, found by name: so the choice can be pickled and read from JSON."""
        return _registered_class(self.name)

    @property
    def active(self) -> bool:
        """A registered fusion always mixes frames."""
        return True

    def options(self) -> dict[str, Any]:
        """Keyword arguments of the class beyond `channels` and `residual`."""
        return dict(self.values)


def fusion_names() -> tuple[str, ...]:
    """Return every name that `fusion=` takes: the built-in ones, then the registered ones in their order.

    Returns:
        The names.
    """
    return (*_BUILT_IN, *_REGISTERED)


def register_fusion(name: str) -> Callable[[FusionClass], FusionClass]:
    """Give a `Fusion` subclass a name, so that `VideoWrap(…, fusion=name)` takes it; use it as a decorator.

    The keyword arguments of its `__init__` beyond `channels` and `residual` become options of
    `resolve_fusion(name, option=…)`; each needs a default.

    Args:
        name: an identifier that no other fusion has.

    Returns:
        The decorator, which returns the class as it came.

    Raises:
        InputError: a name that is taken or is no identifier, or an argument without a default.
        InputTypeError: a class that is no concrete `Fusion` with a placement.

    Example:
        >>> from image2video.fusion import TSM
        >>> @register_fusion("double_shift")
        ... class Doubled(TSM):
        ...     def fuse_layout(self, frames, T, layout, parts):
        ...         return super().fuse_layout(super().fuse_layout(frames, T, layout, parts), T, layout, parts)
        >>> resolve_fusion("double_shift", fold_div=4).to_dict()
        {'name': 'double_shift', 'fold_div': 4, 'padding': 'zeros'}
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"a fusion's name must be an identifier such as 'my_fusion', got {name!r}")
    if name in fusion_names():
        raise InputError(f"fusion {name!r} is registered already; choose another name than {_names()}")

    def register(cls: FusionClass) -> FusionClass:
        _check_class(cls, name)
        _REGISTERED[name] = cls
        return cls

    return register


def resolve_fusion(fusion: str | FusionConfig | Mapping[str, Any], **options: Any) -> FusionConfig:
    """Turn a name, a choice or its dictionary form into a `FusionConfig`.

    Args:
        fusion: a name from `fusion_names()`, a `FusionConfig`, or what `to_dict` returned.
        options: options of a fusion given by name.

    Returns:
        The config; one that came is returned itself.

    Raises:
        InputError: an unknown name or option, or a value out of range.
        InputTypeError: another type.

    Example:
        >>> resolve_fusion("gsf", ratio=0.5)
        GSFConfig(ratio=0.5, padding='zeros')
    """
    if isinstance(fusion, str):
        return _config(fusion, options)
    if isinstance(fusion, FusionConfig) and not options:
        return fusion
    if isinstance(fusion, Mapping) and not options:
        return config_from_dict(fusion)
    raise InputTypeError(
        f"fusion must be a name ({_names()}), with options if you like, or a configuration such as "
        f"GSFConfig(ratio=0.5) alone, got {fusion!r}{' with options' if options else ''}"
    )


def config_from_dict(values: Mapping[str, Any]) -> FusionConfig:
    """Read what `FusionConfig.to_dict` returned; unknown names and keys are refused.

    Args:
        values: `name` and the options.

    Returns:
        The config.

    Raises:
        InputError: an unknown name or option, or a value out of range.
    """
    options = dict(values)
    return _config(options.pop("name", None), options)


def _config(name: Any, options: dict[str, Any]) -> FusionConfig:
    """Make the config of a name and its options."""
    if not isinstance(name, str):
        raise InputError(f"a fusion's name must be one of {_names()}, got {name!r}")
    if name in _BUILT_IN:
        config = _BUILT_IN[name]
        _check_options(name, options, [field.name for field in fields(config)])
        return config(**options)
    defaults = _defaults(_registered_class(name))
    _check_options(name, options, defaults)
    return RegisteredConfig(name, tuple({**defaults, **options}.items()))


def _names() -> str:
    """List all names for a message."""
    return ", ".join(fusion_names())


def _registered_class(name: str) -> type[Fusion]:
    """Look up a class by its registered name."""
    if name not in _REGISTERED:
        raise InputError(
            f"fusion {name!r} is unknown; choose one of {_names()}, or import the module that registers yours "
            "(register_fusion) first"
        )
    return _REGISTERED[name]


def _check_options(name: str, options: Collection[str], known: Collection[str]) -> None:
    """Raise `InputError` for an option that the fusion does not have."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        has = f"its options are {', '.join(known)}" if known else "it has no options"
        raise InputError(f"fusion {name!r} has no option {', '.join(map(repr, unknown))}; {has}")


def _check_class(cls: Any, name: str) -> None:
    """Raise unless a class can be registered: it is a concrete `Fusion`, and every option has a default."""
    if not (isinstance(cls, type) and issubclass(cls, Fusion)):
        raise InputTypeError(f"fusion {name!r} must be a subclass of image2video.fusion.Fusion, got {cls!r}")
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise InputTypeError(f"fusion {name!r} needs {', '.join(missing)}; {cls.__name__} does not write it")
    placement = getattr(cls, "placement", None)
    if placement not in get_args(Placement):
        raise InputTypeError(f"{cls.__name__}.placement must be 'before', 'after' or 'beside', got {placement!r}")
    _defaults(cls)


def _defaults(cls: type[Fusion]) -> dict[str, Any]:
    """Return the options of a class with their defaults; raise `InputError` where one has none."""
    parameters = dict(inspect.signature(cls).parameters)
    for needed in ("channels", "residual"):
        if parameters.pop(needed, None) is None:
            raise InputError(
                f"{cls.__name__}.__init__ must take {needed!r}; it takes {', '.join(parameters) or 'nothing'}"
            )
    for parameter in parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or parameter.default is parameter.empty:
            raise InputError(
                f"{cls.__name__}.__init__ takes {str(parameter)!r}; every option needs a name and a default, so that "
                "a saved configuration can give it back"
            )
    return {name: parameter.default for name, parameter in parameters.items()}
