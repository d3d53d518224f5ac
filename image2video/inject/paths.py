"""Whether every path passes the places of a clip in a backbone as it runs: a plan is traced in eval mode alone."""

from __future__ import annotations

import itertools
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from image2video.errors import Image2VideoError, InputError
from image2video.inject.clip_reach import leak_of
from image2video.inject.door import Door, Enter, entering
from image2video.inject.plan import Plan
from image2video.inject.recent import Recent, told, told_all
from image2video.trace.capture import is_captured
from image2video.trace.graph import Graph
from image2video.trace.trace import trace_forward

MAX_SIZES = 16
"""Sizes of images that are looked at for each way to run; a network that takes more is taken to mind none of them."""

_NUMBERS = itertools.count()
_KNOWN: weakref.WeakValueDictionary[str, Paths] = weakref.WeakValueDictionary()


class Way(NamedTuple):
    """How a backbone runs, as far as its path may depend on it.

    Args:
        network: the way from it to the backbone, empty where it is the backbone.
        method: what is called.
        arguments: what comes beside the images.
        training: the modes of all modules.
        dtype: of the images.
        autocast: the dtype of autocast; None where it is off.
    """

    network: str
    method: str
    arguments: str
    training: tuple[bool, ...]
    dtype: torch.dtype
    autocast: torch.dtype | None


class Paths:
    """Refuses a backbone in which something leads past a place of a clip, in the way in which it runs.

    Frames of different warps would be added, and nobody would see: they are as many. Each way to run, by modes,
    keywords, precision and size of the images, is traced once, where it is not the one that was planned. A compiler
    asks for the modes alone, at the planned size; an exporter does not ask.

    Attributes:
        found: for each way the sizes at which nothing leads past a place. What is refused is looked at again: an
            attribute of the network may have changed.
        name: under which a compiler finds this object.
    """

    def __init__(self) -> None:
        self.found: Recent[Way, set[tuple[int, ...]]] = Recent()
        self.name = ""
        self._said_sizes = False
        self._unknown: list[tuple[Way, tuple[int, ...], str]] = []
        self._injection: weakref.ref[nn.Module] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # The injection that is copied along makes itself known.
        return {"found": self.found}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self.found.update({way: set(sizes) for way, sizes in state["found"].items()})

    def belong_to(self, injection: nn.Module) -> None:
        """Let this object know whose places it looks at."""
        self._injection = weakref.ref(injection)
        self.name = str(next(_NUMBERS))
        _KNOWN[self.name] = self

    def clear(self) -> None:
        """Forget what was traced, after a change of the backbone."""
        self.found.clear()

    def check(
        self,
        network: nn.Module,
        images: Tensor,
        *,
        method: str = "__call__",
        options: Mapping[str, Any] | None = None,
        further: Sequence[Any] = (),
        prefix: str = "",
        enter: Enter | None = None,
        arguments: str = "",
    ) -> None:
        """Raise `InputError` where something leads past a place.

        Args:
            network: the injected backbone, or a network around it, in the modes that it is in.
            images: `(B, C, H, W)`, of which the size, type and device count.
            method: what is called.
            options: its keywords.
            further: its positional arguments behind the images.
            prefix: the way from the network to the backbone, such as `"backbone."`.
            enter: calls the method, where its images are not its first argument.
            arguments: what `enter` adds to them, in words; the keywords and further arguments count without it.
        """
        # What stands for images in a graph, or in torch.func's transforms, says nothing of them.
        if not (is_captured() or isinstance(images, FakeTensor) or _is_transformed()):
            if enter is None:
                options = dict(options or {})
                enter = entering(options, method, further)
                arguments = ", ".join([*map(told, further), *([told_all(options.items())] if options else [])])
            self._check(network, images, method, enter, arguments, prefix)

    def _check(
        self, network: nn.Module, images: Tensor, method: str, enter: Enter, arguments: str = "", prefix: str = ""
    ) -> None:
        """Do what `check` does; arguments and errors are its own."""
        fusion: Any = None if self._injection is None else self._injection()
        if fusion is None or not fusion._plan.clip_sites:
            return
        plan: Plan = fusion._plan
        modes = tuple([module.training for module in network.modules()])
        way = Way(prefix, method, arguments, modes, images.dtype, _autocast(images.device.type))
        size = tuple(images.shape[2:])
        if _is_planned(way, size, plan):
            return
        self._unknown.clear()
        sizes = self.found.setdefault(way, set())
        if size in sizes:
            return
        if len(sizes) >= MAX_SIZES:
            self._say_sizes(way, images, plan)
            return
        try:
            wrong = _look(Door(network, fusion, enter), images, way)
        except Image2VideoError as error:
            message = (
                f"whether something leads past the places {', '.join(plan.places)} {_words(way, images, plan)} is "
                f"not known, since tracing {type(network).__name__} failed: {error}"
            )
            self._unknown.append((way, size, message))
            if prefix or method != "__call__":  # these do not leave by the backbone's own hook
                self.warn()
            return
        if wrong is not None:
            raise InputError(wrong)
        sizes.add(size)

    def _say_sizes(self, way: Way, images: Tensor, plan: Plan) -> None:
        """Warn once that further sizes of images are not looked at."""
        if self._said_sizes:
            return
        self._said_sizes = True
        warnings.warn(
            f"images of {MAX_SIZES} sizes have come so far; whether something leads past the places "
            f"{', '.join(plan.places)} {_words(way, images, plan)}, and of further sizes, is not looked at any more",
            stacklevel=2,
        )

    def warn(self) -> None:
        """Warn of what could not be traced, once, after a forward that went well: others say themselves what failed."""
        unknown, self._unknown = self._unknown, []
        for way, size, message in unknown:
            self.found.setdefault(way, set()).add(size)
            warnings.warn(message, stacklevel=2)

    def check_modes(self) -> None:
        """Do what `check` does for a call with images of the planned size."""
        fusion: Any = None if self._injection is None else self._injection()
        if fusion is not None:
            backbone = fusion._backbone
            weight = next((p for p in backbone.parameters() if p.is_floating_point()), torch.empty(0))
            shape = (1, *fusion._plan.input_size)
            images = torch.empty(shape, dtype=weight.dtype, device=weight.device)
            self._check(backbone, images, "__call__", entering({}))
            self.warn()


def check_at_compilation(name: str, training: bool) -> bool:
    """Raise `InputError` while a graph is made of a backbone in which something leads past a place.

    Args:
        name: of the `Paths`.
        training: the mode, for which the graph is made; it is read from the backbone.

    Returns:
        True: a graph holds a value.
    """
    paths = _KNOWN.get(name)
    if paths is not None:
        paths.check_modes()
    return True


# What `torch.compiler.assume_constant_result` sets; to call that imports the whole compiler with this module.
check_at_compilation._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _look(door: Door, images: Tensor, way: Way) -> str | None:
    """Trace a way to run, and say what leads past a place."""
    plan: Plan = door.fusion._plan
    with _disable_current_modes():  # a counter of operations is not to count these
        graph = Graph(trace_forward(door, images[:1].detach(), as_is=True))
    leak = leak_of(graph, plan.clip_sites, f"backbone.{way.network}")
    if leak is None:
        return None
    first = plan.clip_site is not None and leak.site is plan.clip_site
    name = f"clip_at={leak.site.name!r}" if first else f"the place {leak.site.name!r} of the clip"
    advice = "let the clip begin before that" if first else "move that place before it, or leave it out"
    return f"{name} must be on every path to the outputs, and {_words(way, images, plan)} {leak.words}; {advice}"


def _is_planned(way: Way, size: tuple[int, ...], plan: Plan) -> bool:
    """Whether a backbone runs as it did when the plan was traced."""
    plain = way.method == "__call__" and not way.arguments and way.dtype == torch.float32 and way.autocast is None
    return plain and size == plan.input_size[1:] and not any(way.training)


def _words(way: Way, images: Tensor, plan: Plan) -> str:
    """Say how a backbone runs, where it is not as planned."""
    words = [f"in {'training' if any(way.training) else 'eval'} mode"]
    if way.method != "__call__":
        words.append(f"by {way.method}")
    if way.arguments:
        words.append(f"with {way.arguments:.80}")
    if images.dtype != torch.float32:
        words.append(f"for {images.dtype}")
    if way.autocast is not None:
        words.append(f"under autocast to {way.autocast}")
    if tuple(images.shape[2:]) != plan.input_size[1:]:
        words.append(f"for images of {'×'.join(map(str, images.shape[2:]))}")
    return " ".join(words)


def _autocast(device: str) -> torch.dtype | None:
    """Return the dtype to which operations on a kind of device are cast; None where they are not."""
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None


def _is_transformed() -> bool:
    """Whether torch.func's transforms run, whose tensors stand for others."""
    return torch._C._functorch.maybe_current_level() is not None
