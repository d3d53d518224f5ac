"""What happens at the end of a whole forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from image2video.errors import StateError
from image2video.fusion.base import Fusion
from image2video.inject.context import FrameContext
from image2video.inject.paths import Paths
from image2video.inject.plan import some
from image2video.inject.tie import tie


class ExitHook:
    """After a whole forward: checks that every site fired, and ties the outputs (see `Injection.tie`).

    It holds no injection: the hooks of a backbone must not keep the fusions' owner alive.

    Args:
        context: what all hooks of an injection share.
        names: of all sites.
        fusions: the module of each site.
        paths: warns of what it could not look at.
    """

    def __init__(self, context: FrameContext, names: Sequence[str], fusions: Sequence[Fusion], paths: Paths) -> None:
        self.context = context
        self.names = tuple(names)
        self.fusions = list(fusions)
        self.paths = paths

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Return the backbone's output."""
        self.check_fired()
        if not torch.compiler.is_compiling():
            self.paths.warn()
        return self.tie(output)

    def check_fired(self) -> None:
        """See `Injection.check_fired`."""
        if torch.compiler.is_compiling():
            return
        fired = self.context.fired
        silent = [name for name in self.names if name not in fired]
        if silent:
            raise StateError(
                f"{len(silent)} of {len(self.names)} sites did not fire in a whole forward: {some(silent)}; their "
                "modules were not called: the backbone uses their weights directly, skips them, or was rebuilt "
                "(reparameterize_model: reparameterise first, then wrap); leave them out with sites=… otherwise"
            )

    def tie(self, outputs: Any) -> Any:
        """See `Injection.tie`."""
        if not self.context.current("tie").fuses:
            outputs = tie(outputs, [p for fusion in self.fusions for p in fusion.parameters()])
        if not torch.compiler.is_compiling():
            self.context.remember(tensors_in(outputs))
        return outputs


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Go through the tensors in nested tuples, lists, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
    elif is_dataclass(value):
        yield from tensors_in(tuple(vars(value).values()))
