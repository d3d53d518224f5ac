"""The hook at a place where maps are moved: where a clip begins, one row per image comes, one per frame goes on."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
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


@runtime_checkable
class PlaceMaker(Protocol):
    """What makes the frames of one call at several places; `DeepVideo.frames_of_call` returns it."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows per image before the first place inside of the backbone, and behind each place; the last is T."""
        ...

    def parents_at(self, place: int) -> tuple[int, ...]:
        """Return of each row behind a place which of the rows before it it is made of, both of one image."""
        ...

    def place_frames(self, place: int, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return the rows `(B·m, C, h, w)` behind a place, of those before it, `(B·n, C, h, w)`, batch-major."""
        ...


class OnePlace(NamedTuple):
    """A `FrameMaker` as the maker of the only place.

    Args:
        maker: what makes the frames.
        T: how many.
    """

    maker: FrameMaker
    T: int

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows per image before the place and behind it."""
        return (1, self.T)

    def parents_at(self, place: int) -> tuple[int, ...]:
        """Return that every frame is made of the only row."""
        return (0,) * self.T

    def place_frames(self, place: int, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return the frames of maps at the only place."""
        return self.maker.map_frames(maps, image_size, self.T)


class ClipHook:
    """Replaces the input of the module at a clip site by its frames.

    The maker comes with the state of the forward, so that a block that is recomputed in backward gets the frames that
    its forward had.

    Args:
        site: the site as planned.
        context: what all hooks of an injection share.
        place: the number of the site among those of the plan.
    """

    def __init__(self, site: ClipSite, context: FrameContext, place: int = 0) -> None:
        self.site = site
        self.context = context
        self.place = place

    @property
    def fired(self) -> str:
        """Under this name the context notes that the hook has run."""
        return f"{self.site.name} (where maps are moved)"

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
        """Return the rows behind the site of the tensor of those before it, in its own layout.

        Prefix tokens have no place in the image: those of the row that a frame is made of stay with it.
        """
        site = self.site
        if state.maker is None or state.size is None:
            lacking = "what makes the frames" if state.maker is None else "the size of the images"
            raise StateError(
                f"maps are moved at {site.name!r}, and {lacking} is not known here; open the scope with it: "
                "injection.frames(T, maker=Image2Video(…), size=(height, width))"
            )
        if tensor.ndim < 3 or tensor.shape[site.layout.channel_dim] != site.channels:
            raise InputError(
                f"clip site {site.name!r}: expected {site.layout.describe()} with {site.channels} channels, got a "
                f"tensor of shape {tuple(tensor.shape)}; wrap the backbone as it is now, for this input"
            )
        count = state.maker.counts[self.place]
        if state.rows is not None and tensor.shape[0] * state.T != state.rows * count:
            per_image = "one per image" if count == 1 else f"{count} per image"
            raise InputError(
                f"clip site {site.name!r}: expected {state.rows // state.T * count} rows, {per_image}, got a tensor of "
                f"shape {tuple(tensor.shape)}; the backbone must keep its rows up to there"
            )
        layout = self._layout(tensor, state.size)
        prefix, body = layout.split_prefix(tensor)
        maps = state.maker.place_frames(self.place, layout.to_maps(body), state.size)
        frames = layout.from_maps(maps, body[:1].expand(maps.shape[0], *body.shape[1:]))
        return layout.join_prefix(None if prefix is None else _of_rows(prefix, state.maker, self.place), frames)

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


def _of_rows(tensor: Tensor, maker: PlaceMaker, place: int) -> Tensor:
    """Return for each row behind a place that row of the tensor before it which it is made of."""
    count, parents = maker.counts[place], maker.parents_at(place)
    if count == 1:
        return tensor.repeat_interleave(len(parents), dim=0)
    if parents == tuple(range(count)):
        return tensor
    rows = tensor.unflatten(0, (-1, count))
    return torch.stack([rows[:, parent] for parent in parents], dim=1).flatten(0, 1)
