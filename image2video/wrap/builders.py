"""Recipes for bare backbones that can be written into a config file, and the lookup of who can follow them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from torch import nn

from image2video.errors import InputError, InputTypeError, MissingError

ENTRY_POINT_GROUP = "image2video.builders"
"""Packages announce a builder as an entry point of this group: `timm = package.module:build`."""

_REGISTERED: dict[str, Callable[..., nn.Module]] = {}
"""What programs of their own registered, for their process."""


def installed_builders() -> dict[str, EntryPoint]:
    """Find the builders that installed packages announce.

    Returns:
        Name -> entry point.
    """
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def builder_names() -> list[str]:
    """List the builders that are known: those of installed packages, and those that this process registered.

    Returns:
        Their names, in alphabetical order.
    """
    return sorted({*installed_builders(), *_REGISTERED})


def is_installed(builder: Builder) -> bool:
    """Return whether an installed package announces the builder, so that every process can follow the recipe."""
    return builder.name.partition(":")[0] in installed_builders()


def is_registered(name: str) -> bool:
    """Return whether this process itself registered the builder of `<builder>:<model>`."""
    return name.partition(":")[0] in _REGISTERED


def register_builder(name: str, build: Callable[..., nn.Module]) -> None:
    """Make a builder known to this process, for networks that no installed package announces.

    A file can only name a builder: what it names is built where the program that reads it has registered it.

    Args:
        name: what stands before the colon, as `mine` in `mine:net`.
        build: called as `build("net", **kwargs)`; returns the bare backbone.

    Raises:
        InputError: a name with a colon, an empty one, or one that is taken.
    """
    if not name or ":" in name:
        raise InputError(f"a builder's name must be a text without a colon, got {name!r}")
    if name in builder_names():
        raise InputError(f"there is a builder {name!r} already; take another name than {', '.join(builder_names())}")
    _REGISTERED[name] = build


@dataclass(frozen=True)
class Builder:
    """How to build a bare backbone again.

    `timm:resnet50` with `{"num_classes": 10}` calls the builder that the entry point `timm` of the group
    `image2video.builders` names, as `build("resnet50", num_classes=10)`.

    Attributes:
        name: `<builder>:<model>`.
        kwargs: arguments of the builder, as JSON values.

    Raises:
        InputError: a name without a builder and a model.
        InputTypeError: arguments that JSON cannot hold.
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        builder, colon, model = self.name.partition(":")
        if not (builder and colon and model):
            raise InputError(f"a builder's name must be `<builder>:<model>`, as in `timm:resnet50`; got {self.name!r}")
        try:
            text = json.dumps(dict(self.kwargs), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputTypeError(
                f"the arguments of builder {self.name!r} must be JSON values ({error}); got {dict(self.kwargs)!r}"
            ) from error
        object.__setattr__(self, "kwargs", json.loads(text))

    def with_kwargs(self, **changes: Any) -> Builder:
        """Return the same builder with some arguments replaced.

        Args:
            **changes: new values; None removes an argument.

        Returns:
            The new builder.
        """
        kwargs = {**self.kwargs, **changes}
        return Builder(self.name, {key: value for key, value in kwargs.items() if value is not None})

    def build(self) -> nn.Module:
        """Build the backbone.

        Returns:
            The bare backbone, freshly initialised.

        Raises:
            MissingError: no installed package announces the builder, and this process has not registered it.
        """
        builder, _, model = self.name.partition(":")
        if builder in _REGISTERED:
            return _REGISTERED[builder](model, **self.kwargs)
        found = installed_builders()
        if builder not in found:
            raise MissingError(
                f"no installed package builds {self.name!r}: the entry points of the group {ENTRY_POINT_GROUP!r} are "
                f"{sorted(found) or 'none'}; install the package that has {builder!r}, register_builder({builder!r}, "
                f"…) first, pass backbone=, or on the command line give --model {self.name}"
            )
        return loaded(found[builder])(model, **self.kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Record the builder for a file.

        Returns:
            JSON values, `{"name": …, "kwargs": …}`.
        """
        return {"name": self.name, "kwargs": dict(self.kwargs)}

    @classmethod
    def from_dict(cls, record: Any) -> Builder:
        """Read the builder that `to_dict` recorded.

        Args:
            record: what `to_dict` returned.

        Returns:
            The builder.

        Raises:
            InputError: any other record.
        """
        if not isinstance(record, Mapping) or set(record) != {"name", "kwargs"}:
            raise InputError(f"a builder's record is an object with `name` and `kwargs`; got {record!r}")
        name, kwargs = record["name"], record["kwargs"]
        if not isinstance(name, str) or not isinstance(kwargs, Mapping):
            raise InputError(f"a builder's `name` is a string and its `kwargs` an object; got {record!r}")
        return cls(name, dict(kwargs))


Check = Callable[[str, Mapping[str, Any], str], None]


def own_check(name: str) -> Check | None:
    """Return the check that a builder brings for arguments that came from a file; None where it brings none.

    A builder's function may have an attribute `check_local(name, kwargs, source)`, which knows which of its arguments
    name places, and raises `InputError` for them.
    """
    builder = name.partition(":")[0]
    found = installed_builders()
    if builder not in found:
        return None
    return getattr(loaded(found[builder]), "check_local", None)


def loaded(entry: EntryPoint) -> Callable[..., nn.Module]:
    """Import what an entry point names.

    Raises:
        MissingError: a package that the builder needs is not installed.
    """
    try:
        build: Callable[..., nn.Module] = entry.load()
    except ImportError as error:
        raise MissingError(
            f"the builder {entry.name!r} needs a package that is not installed ({error}); install it, or pass backbone="
        ) from error
    return build
