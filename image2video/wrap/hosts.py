"""What an integration knows of the networks of its library: asked for by entry points, never imported from here."""

from __future__ import annotations

import functools
from importlib.metadata import entry_points
from typing import Any, Protocol

from torch import nn

from image2video.wrap.builders import Builder

ENTRY_POINT_GROUP = "image2video.hosts"
"""Packages announce what they know of a library as an entry point with the library's name: `transformers = …`."""


class Host(Protocol):
    """What is known of the networks of one library."""

    def check(self, backbone: nn.Module, aggregate: Any) -> None:
        """Refuse a network whose outputs cannot be aggregated so."""

    def builder(self, backbone: nn.Module) -> Builder | None:
        """Return how a network is built again, as it is now; None where that is not known."""
        ...


def host_of(backbone: nn.Module) -> Host | None:
    """Return what is known of the library that a network, or one of its base classes, comes from; None for others."""
    for kind in type(backbone).__mro__:
        host = _host(kind.__module__.partition(".")[0])
        if host is not None:
            return host
    return None


@functools.cache
def _host(library: str) -> Host | None:
    """Load what the installed packages say of a library."""
    found = [entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name == library]
    host: Host | None = found[0].load() if found else None
    return host
