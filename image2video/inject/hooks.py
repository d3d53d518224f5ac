"""The hooks that carry fusion into a backbone: picklable objects that share one context.

A hook is an object, because a closure could not be pickled and its deep copy would call the fusions of the original.
Nothing here knows a family of backbones.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from image2video.errors import InputError, UnsupportedError
from image2video.fusion.base import Fusion
from image2video.inject.context import FORWARD, FrameContext
from image2video.inject.paths import Paths, check_at_compilation
from image2video.inject.plan import Site
from image2video.trace.capture import is_captured, is_exported
from image2video.trace.layout import Layout
from image2video.trace.recompute import FrameState
from image2video.trace.token_grid import grid_for


class Follower(Protocol):
    """What lets fusions follow the mode of a backbone that changes it by itself."""

    def follow(self) -> None:
        """Put the fusions into the mode that the backbone is in."""
        ...


class SiteHook(ABC):
    """Applies one fusion at one site; the subclasses say where.

    Args:
        site: the site as planned.
        fusion: the module that mixes frames.
        context: what all hooks of an injection share.
    """

    def __init__(self, site: Site, fusion: Fusion, context: FrameContext) -> None:
        self.site = site
        self.fusion = fusion
        self.context = context

    def register(self, module: nn.Module) -> Any:
        """Hook the output of `module`; return the handle."""
        return module.register_forward_hook(self)

    @abstractmethod
    def __call__(self, module: nn.Module, args: tuple[Any, ...], *output: Any) -> Any:
        """Return what takes the place of the module's inputs or output; None leaves them."""

    def active(self) -> FrameState | None:
        """Return the state of the forward that this call belongs to; None where nothing is to be fused."""
        state = self.context.at_site(self.site.name)
        if state.modes is not None:
            state.modes.follow()
        return state if state.fuses else None

    def parts(self, tensor: Tensor, state: FrameState) -> int:
        """Return the rows per frame of the tensor at this site, after checking its channels and rows."""
        site = self.site
        if tensor.ndim < 2 or tensor.shape[site.layout.channel_dim] != site.channels:
            raise InputError(
                f"site {site.name!r}: expected {site.layout.describe()} with {site.channels} channels, got a tensor of "
                f"shape {tuple(tensor.shape)}; plan again for this backbone and this input"
            )
        rows, frames = tensor.shape[0], state.rows
        if frames is None:
            if rows % (state.T * site.parts) == 0:
                return site.parts
        elif rows == frames * site.parts:
            return site.parts
        elif frames and rows and rows % frames == 0:
            # Another input size than the planned one has another number of windows.
            return rows // frames
        running = f"T = {state.T}" if frames is None else f"B·T = {frames} frames (T = {state.T})"
        raise InputError(
            f"site {site.name!r}: got {rows} rows (shape {tuple(tensor.shape)}) for {running} with {site.parts} rows "
            "per frame as planned; the rows must be a multiple of the frames: leave the site out (sites=…) if the "
            "backbone drops or merges rows there"
        )

    def fused(self, tensor: Tensor, state: FrameState) -> Tensor:
        """Mix the frames of the tensor at this site."""
        parts = self.parts(tensor, state)
        result: Tensor = self.fusion(tensor, state.T, layout=self.layout(tensor, state, parts), parts=parts)
        return result

    def layout(self, tensor: Tensor, state: FrameState, parts: int) -> Layout:
        """Return the layout of the tensor at this site, with the grid of its tokens for images of this size."""
        site, layout = self.site, self.site.layout
        if not site.grids or not self.fusion.uses_positions:
            return layout
        tokens = tensor.shape[layout.token_dim] - layout.prefix_tokens
        grid = grid_for(site.grids, state.size, tokens, parts)
        if grid is None:
            raise InputError(_no_grid(site, tokens, state.size))
        return layout if grid == layout.grid else dataclasses.replace(layout, grid=grid)

    def input(self, args: tuple[Any, ...]) -> Tensor:
        """Return the positional input that the plan names."""
        if len(args) <= self.site.index or not isinstance(args[self.site.index], Tensor):
            raise InputError(
                f"site {self.site.name!r}: input {self.site.index} of the module must be a tensor, got {len(args)} "
                "positional inputs without one there; plan again for this backbone and this input"
            )
        tensor: Tensor = args[self.site.index]
        return tensor


class BeforeHook(SiteHook):
    """Fuses the input of the module at its site."""

    def register(self, module: nn.Module) -> Any:
        """Hook the inputs of `module`; return the handle."""
        return module.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return the module's inputs with the planned one fused; None leaves them."""
        state = self.active()
        if state is None:
            return None
        i = self.site.index
        return (*args[:i], self.fused(self.input(args), state), *args[i + 1 :])


class AfterHook(SiteHook):
    """Fuses the output of the module at its site."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Return the module's output, fused; None leaves it."""
        state = self.active()
        if state is None:
            return None
        if isinstance(output, Tensor):
            return self.fused(output, state)
        i = self.site.index
        if type(output) not in (tuple, list) or len(output) <= i or not isinstance(output[i], Tensor):
            raise InputError(
                f"site {self.site.name!r}: the module must return a tensor{f' as item {i}' if i else ''}, got "
                f"{type(output).__name__}; plan again for this backbone"
            )
        return type(output)((*output[:i], self.fused(output[i], state), *output[i + 1 :]))


class BesideHook(SiteHook):
    """Adds to a convolution's output what the fusion computes from the convolution's input."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Return the convolution's output with the fusion's share; None leaves it."""
        state = self.active()
        if state is None:
            return None
        frames = self.input(args)
        bias = getattr(module, "bias", None)
        return self.fusion.combine(output, frames, state.T, bias, parts=self.parts(frames, state))


class EnterHook:
    """Notes how many frames enter the backbone, and refuses a call that cannot be one of frames.

    Args:
        context: what all hooks of an injection share.
        paths: knows which paths lead past the places of the clip.
    """

    def __init__(self, context: FrameContext, paths: Paths) -> None:
        self.context = context
        self.paths = paths

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Look at the leading dimension of the backbone's first tensor, and open a forward."""
        refuse_replica(module)
        state = self.context.current("forward")
        if state.modes is not None:
            state.modes.follow()
        tensor = first_tensor((args, kwargs))
        entering = None if tensor is None or tensor.ndim == 0 else tensor.shape[0]
        # One row per image where the clip begins inside of the backbone.
        count = state.T if state.maker is None else state.maker.counts[0]
        rows = entering if entering is None or count == state.T else entering // count * state.T
        size = (tensor.shape[2], tensor.shape[3]) if tensor is not None and tensor.ndim == 4 else state.size
        # Before the check: `LeaveHook` closes what stands open, after errors too.
        self.context.begin(FORWARD, state._replace(rows=rows, size=size))
        if entering is not None and entering % count:
            raise InputError(
                f"the rows of the backbone must be a multiple of {f'T = {count}' if count == state.T else count}, got "
                f"{entering}; frames are (B·T, C, H, W), batch-major: row b·T + t is frame t of image b"
            )
        if state.maker is None or is_exported():
            return
        if is_captured():
            check_at_compilation(self.paths.name, module.training)
        elif args and isinstance(args[0], Tensor) and args[0].ndim == 4:
            # Images come first: a backbone that gets them otherwise was planned by nobody.
            self.paths.check(module, args[0], options=kwargs, further=args[1:])


class LeaveHook:
    """Closes what `EnterHook` opened; it has to run after a forward that fails as well."""

    def __init__(self, context: FrameContext) -> None:
        self.context = context

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Leave the output as it is."""
        self.context.end(FORWARD)


def refuse_replica(module: nn.Module) -> None:
    """Raise `UnsupportedError` for a module that `nn.DataParallel` has copied for one of its threads."""
    if getattr(module, "_is_replica", False):
        raise UnsupportedError(
            "nn.DataParallel copies the backbone to every device, and its copies would use the fusions of the first "
            "one; use DistributedDataParallel (one process per device)"
        )


def _no_grid(site: Site, tokens: int, size: tuple[int, int] | None) -> str:
    """Say why the grid of the tokens at a site is not known."""
    planned = site.grids[0]
    known = f"the plan has {planned.grid[0]}×{planned.grid[1]} for images of {planned.image[0]}×{planned.image[1]}"
    if size is None:
        return (
            f"site {site.name!r}: the grid of {tokens} tokens follows from the size of the images, which is not known "
            f"here ({known}); open the scope with it: injection.frames(T, size=(height, width))"
        )
    return (
        f"site {site.name!r}: {tokens} tokens of images of {size[0]}×{size[1]} have no known grid ({known}); wrap or "
        f"plan the backbone at this size, as it is now: input_size=(C, {size[0]}, {size[1]}), or use fusion='tsm', "
        "which needs no grid"
    )


def first_tensor(value: Any) -> Tensor | None:
    """Return the first tensor in nested tuples, lists and mappings; None where there is none."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for item in value:
            tensor = first_tensor(item)
            if tensor is not None:
                return tensor
    return None
