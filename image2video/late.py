"""Packages whose public names are imported when they are first asked for: what needs no torch imports none."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any


def late(package: str, homes: Mapping[str, tuple[str, ...]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the `__getattr__` and `__dir__` of a package (PEP 562).

    A name must not be that of a module of the package: once imported, the module would stand in its place.

    Args:
        package: its dotted name.
        homes: module of the package, or of another one by its whole name -> the public names that it has.

    Returns:
        The two functions, for the package's own namespace.
    """
    home_of = {name: home for home, names in homes.items() for name in names}
    namespace = vars(importlib.import_module(package))

    def get(name: str) -> Any:
        """Import a public name where it stands."""
        if name not in home_of:
            # A module of the package, as where the package imports its own.
            if not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}") is not None:
                return importlib.import_module(f"{package}.{name}")
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = home_of[name]
        value = getattr(importlib.import_module(home if home.startswith("image2video.") else f"{package}.{home}"), name)
        namespace[name] = value
        return value

    def names() -> list[str]:
        return sorted({*namespace, *home_of})

    return get, names
