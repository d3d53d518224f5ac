"""Names of fusions: the built-in ones, and those that users register."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from image2video.errors import InputError, InputTypeError
from image2video.fusion.base import Fusion
from image2video.fusion.config import (
    Conv3dConfig,
    FusionConfig,
    GSFConfig,
    GSMConfig,
    NoFusionConfig,
    RegisteredConfig,
    TSMConfig,
    check_options,
)

FusionClass = TypeVar("FusionClass", bound=type[Fusion])

_BUILT_IN: dict[str, type[FusionConfig]] = {
    config.name: config for config in (GSFConfig, TSMConfig, GSMConfig, Conv3dConfig, NoFusionConfig)
}
_REGISTERED: dict[str, type[Fusion]] = {}


def fusion_names() -> tuple[str, ...]:
    """Return every name that `fusion=` takes: the built-in ones, then the registered ones in their order."""
    return (*_BUILT_IN, *_REGISTERED)


def register_fusion(name: str) -> Callable[[FusionClass], FusionClass]:
    """Give a `Fusion` subclass a name, so that `VideoWrap(…, fusion=name)` takes it; use it as a decorator.

    The keyword arguments of its `__init__` beyond `channels` and `residual` become options of
    `resolve_fusion(name, option=…)`; each needs a default.

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
        raise InputError(f"a fusion's name is {name!r}; it must be an identifier such as 'my_fusion'.")
    if name in fusion_names():
        raise InputError(
            f"fusion {name!r} is registered already; choose another name than {', '.join(fusion_names())}."
        )

    def register(cls: FusionClass) -> FusionClass:
        if not (isinstance(cls, type) and issubclass(cls, Fusion)):
            raise InputTypeError(
                f"{cls!r} came for fusion {name!r}; a subclass of image2video.fusion.Fusion was needed."
            )
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing:
            raise InputTypeError(f"{cls.__name__} does not write {', '.join(missing)}; fusion {name!r} needs it.")
        if getattr(cls, "placement", None) not in ("before", "after", "beside"):
            raise InputTypeError(f"{cls.__name__}.placement must be 'before', 'after' or 'beside'.")
        _defaults(cls)
        _REGISTERED[name] = cls
        return cls

    return register


def registered_class(name: str) -> type[Fusion]:
    """Return the class that was registered under `name`; `InputError` where none was."""
    if name not in _REGISTERED:
        raise InputError(
            f"fusion {name!r} is not registered; known are {', '.join(fusion_names())}. "
            "Import the module that registers it first."
        )
    return _REGISTERED[name]


def resolve_fusion(fusion: str | FusionConfig | Mapping[str, Any], **options: Any) -> FusionConfig:
    """Turn a name, a choice or its dictionary form into a `FusionConfig`.

    Args:
        fusion: a name from `fusion_names()`, a `FusionConfig`, or what `to_dict` returned.
        options: options of a fusion given by name.

    Raises:
        InputError: an unknown name or option, or a value out of range.
        InputTypeError: another type.

    Example:
        >>> resolve_fusion("gsf", ratio=0.5)
        GSFConfig(ratio=0.5, padding='zeros')
    """
    if isinstance(fusion, FusionConfig) and not options:
        return fusion
    if isinstance(fusion, Mapping) and not options:
        return config_from_dict(fusion)
    if isinstance(fusion, str):
        return config_from_dict({"name": fusion, **options})
    raise InputTypeError(
        f"fusion is {fusion!r}{' with options' if options else ''}; give a name ({', '.join(fusion_names())}), "
        "with options if you like, or a configuration such as GSFConfig(ratio=0.5) alone."
    )


def config_from_dict(values: Mapping[str, Any]) -> FusionConfig:
    """Read what `FusionConfig.to_dict` returned; unknown names and keys are refused."""
    options = {key: value for key, value in values.items() if key != "name"}
    name = values.get("name")
    if not isinstance(name, str):
        raise InputError(f"a fusion's name is {name!r}; it must be one of {', '.join(fusion_names())}.")
    if name in _BUILT_IN:
        kind = _BUILT_IN[name]
        check_options(name, options, {field.name: None for field in fields(kind)})
        return kind(**options)
    if name not in _REGISTERED:
        raise InputError(
            f"fusion {name!r} is unknown; choose one of {', '.join(fusion_names())}, or register yours with "
            "register_fusion."
        )
    defaults = _defaults(_REGISTERED[name])
    check_options(name, options, defaults)
    return RegisteredConfig(name, tuple({**defaults, **options}.items()))


def _defaults(cls: type[Fusion]) -> dict[str, Any]:
    """Return the options of a class with their defaults; `InputError` where one has none."""
    parameters = dict(inspect.signature(cls).parameters)
    for needed in ("channels", "residual"):
        if parameters.pop(needed, None) is None:
            raise InputError(
                f"{cls.__name__}.__init__ must take {needed!r}; it takes {', '.join(parameters) or 'nothing'}."
            )
    for parameter in parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or parameter.default is parameter.empty:
            raise InputError(
                f"{cls.__name__}.__init__ takes {str(parameter)!r}; every option needs a name and a default, so that "
                "a saved configuration can give it back."
            )
    return {name: parameter.default for name, parameter in parameters.items()}
