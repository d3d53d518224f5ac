"""The hook at which a clip begins inside a network: one row per image comes, one per frame goes on."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from image2video.errors import InputError, StateError
from image2video.inject.clip_site import ClipSite
from image2video.inject.context import FrameContext
from image2video.trace.layout import Layout
from image2video.trace.recompute import FrameState
from image2video.trace.token_grid import grid_for


@runtime_checkable
class FrameMaker(Protocol):
    """What makes frames of feature maps; `Image2Video` does."""

    def map_frames(self, maps: Tensor, image_size: tuple[int, int], T: int | None = None) -> Tensor:
        """Return the frames `(B·T, C, h, w)` of maps `(B, C, h, w)`, batch-major."""
        ...


class ClipHook:
    """Replaces the input of the module at a clip site by its frames.

    The maker comes with the state of the forward, so that a block that is recomputed in backward gets the frames that
    its forward had.

    Args:
        site: the site as planned.
        context: what all hooks of an injection share.
    """

    def __init__(self, site: ClipSite, context: FrameContext) -> None:
        self.site = site
        self.context = context

    @property
    def fired(self) -> str:
        """Under this name the context notes that the hook has run."""
        return f"{self.site.name} (where the clip begins)"

    def register(self, module: nn.Module) -> Any:
        """Hook the inputs of `module`; return the handle."""
        return module.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return the module's inputs with frames in place of the planned one; None leaves them, as at T = 1."""
        state = self.context.at_site(self.fired)
        if state.T == 1:
            return None
        i = self.site.index
        if len(args) <= i or not isinstance(args[i], Tensor):
            raise InputError(
                f"clip site {self.site.name!r}: input {i} of the module must be a tensor, got {len(args)} positional "
                "inputs without one there; wrap the backbone as it is now"
            )
        return (*args[:i], self.frames(args[i], state), *args[i + 1 :])

    def frames(self, tensor: Tensor, state: FrameState) -> Tensor:
        """Return the frames `(B·T, …)` of a tensor `(B, …)`, in its own layout; prefix tokens are copied."""
        site, T = self.site, state.T
        if state.maker is None or state.size is None:
            lacking = "what makes the frames" if state.maker is None else "the size of the images"
            raise StateError(
                f"a clip begins at {site.name!r}, and {lacking} is not known here; open the scope with it: "
                "injection.frames(T, maker=Image2Video(…), size=(height, width))"
            )
        if tensor.ndim < 3 or tensor.shape[site.layout.channel_dim] != site.channels:
            raise InputError(
                f"clip site {site.name!r}: expected {site.layout.describe()} with {site.channels} channels, got a "
                f"tensor of shape {tuple(tensor.shape)}; wrap the backbone as it is now, for this input"
            )
        if state.rows is not None and tensor.shape[0] * T != state.rows:
            raise InputError(
                f"clip site {site.name!r}: expected {state.rows // T} rows, one per image, got a tensor of shape "
                f"{tuple(tensor.shape)}; the backbone must keep its rows up to there"
            )
        layout = self._layout(tensor, state.size)
        prefix, body = layout.split_prefix(tensor)
        maps = state.maker.map_frames(layout.to_maps(body), state.size, T)
        frames = layout.from_maps(maps, body[:1].expand(maps.shape[0], *body.shape[1:]))
        return layout.join_prefix(None if prefix is None else prefix.repeat_interleave(T, dim=0), frames)

    def _layout(self, tensor: Tensor, size: tuple[int, int]) -> Layout:
        """Return the layout of the tensor, with the grid that its tokens have for images of this size."""
        layout = self.site.layout
        if layout.spatial != "tokens":
            return layout
        tokens = tensor.shape[layout.token_dim] - layout.prefix_tokens
        grid = grid_for((self.site.grid,), size, tokens)
        if grid is None:
            raise InputError(
                f"clip site {self.site.name!r}: {tokens} tokens of images of {size[0]}×{size[1]} have no known grid; "
                f"wrap the backbone at this size: input_size=(C, {size[0]}, {size[1]})"
            )
        return dataclasses.replace(layout, grid=grid)
