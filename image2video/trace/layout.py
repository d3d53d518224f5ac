"""Where the channels, the positions and the prefix tokens of a tensor are, and the way to `(N, C, H, W)` and back."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from image2video.errors import InputError

Spatial = Literal["map", "tokens", "none"]


@dataclass(frozen=True)
class Layout:
    """Names the dimensions of a feature tensor whose dimension 0 holds the frames.

    Args:
        channel_dim: 1 for `(N, C, …)`, -1 for `(N, …, C)`.
        spatial: `"map"` for two spatial dimensions (`(N, C, H, W)` or `(N, H, W, C)`), `"tokens"` for a sequence
            (`(N, L, C)` or `(N, C, L)`), `"none"` where the other dimensions, if any, have no spatial meaning.
        prefix_tokens: how many tokens at the head of a sequence (class, registers) have no place in the image.
        grid: `(height, width)` of the other tokens, in row-major order.

    Raises:
        InputError: a field outside of what is written above.

    Example:
        >>> NLC.token_grid(196)
        (14, 14)
    """

    channel_dim: int
    spatial: Spatial
    prefix_tokens: int = 0
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.channel_dim not in (1, -1):
            raise InputError(f"channel_dim must be 1 (N, C, …) or -1 (N, …, C), got {self.channel_dim!r}")
        if self.spatial not in ("map", "tokens", "none"):
            raise InputError(f"spatial must be 'map', 'tokens' or 'none', got {self.spatial!r}")
        if self.prefix_tokens < 0:
            raise InputError(f"prefix_tokens must be 0 or more, got {self.prefix_tokens}")
        if self.spatial != "tokens" and (self.prefix_tokens or self.grid is not None):
            raise InputError(f"prefix_tokens and grid belong to spatial='tokens'; this layout is {self.spatial!r}")
        if self.grid is not None and (len(self.grid) != 2 or min(self.grid) < 1):
            raise InputError(f"grid must be (height, width), each 1 or more, got {self.grid!r}")

    def token_grid(self, tokens: int) -> tuple[int, int]:
        """Return how many rows and columns a sequence of patch tokens has.

        Args:
            tokens: the length of the sequence, prefix tokens not counted.

        Returns:
            `(height, width)`: the layout's own `grid`. A layout without one takes a square, where the count is one,
            else one row.

        Raises:
            InputError: a grid of another number of places.
        """
        if self.grid is not None:
            if self.grid[0] * self.grid[1] != tokens:
                raise InputError(
                    f"got {tokens} tokens for a grid of {self.grid[0]}×{self.grid[1]}; name the grid that they have, "
                    "Layout(…, grid=(height, width))"
                )
            return self.grid
        side = math.isqrt(tokens)
        return (side, side) if side * side == tokens else (1, tokens)

    def check(self, tensor: Tensor, channels: int) -> None:
        """Refuse a tensor that cannot have this layout.

        Args:
            tensor: of any shape.
            channels: how many channels it must have.

        Raises:
            InputError: another number of dimensions or channels, or no token beside the prefix tokens.
        """
        shape = tuple(tensor.shape)
        if self.spatial == "none":
            expected, fits = "2 or more", tensor.ndim >= 2
        else:
            dimensions = 4 if self.spatial == "map" else 3
            expected, fits = str(dimensions), tensor.ndim == dimensions
        if not fits:
            raise InputError(
                f"{self.describe()} needs {expected} dimensions, got a tensor of shape {shape}; name its layout "
                "(layout=NCHW, NHWC, NLC or a Layout of your own)"
            )
        if shape[self.channel_dim] != channels:
            raise InputError(
                f"expected {channels} channels, got {shape[self.channel_dim]} (shape {shape}, {self.describe()}); "
                "build the module with the channels of its site, or name the right layout"
            )
        if self.spatial == "tokens" and shape[self.token_dim] <= self.prefix_tokens:
            raise InputError(
                f"got {shape[self.token_dim]} tokens (shape {shape}), of which {self.prefix_tokens} are prefix "
                "tokens: none is left; lower prefix_tokens"
            )

    def split_prefix(self, tensor: Tensor) -> tuple[Tensor | None, Tensor]:
        """Split off the prefix tokens.

        Args:
            tensor: `(N, L, C)` or `(N, C, L)` as the layout says.

        Returns:
            The prefix tokens and the patch tokens; `(None, tensor)` where the layout has no prefix.
        """
        if not self.prefix_tokens:
            return None, tensor
        tokens = tensor.shape[self.token_dim]
        prefix, body = tensor.split([self.prefix_tokens, tokens - self.prefix_tokens], dim=self.token_dim)
        return prefix, body

    def join_prefix(self, prefix: Tensor | None, body: Tensor) -> Tensor:
        """Put back what `split_prefix` took off.

        Args:
            prefix: the prefix tokens, or None.
            body: the patch tokens.

        Returns:
            The whole sequence.
        """
        return body if prefix is None else torch.cat([prefix, body], dim=self.token_dim)

    def to_maps(self, body: Tensor) -> Tensor:
        """View a tensor as maps.

        Args:
            body: a tensor of this layout, without prefix tokens.

        Returns:
            `(N, C, H, W)`, a view wherever the strides allow one; a channels-last tensor becomes a view in the
            `channels_last` memory format.
        """
        if self.spatial == "map":
            return body if self.channel_dim == 1 else body.permute(0, 3, 1, 2)
        # Counted from the front: ONNX knows no negative dimension in a permutation.
        channels_first = body if self.channel_dim == 1 else body.movedim(body.ndim - 1, 1)
        sequence = channels_first.flatten(2) if channels_first.ndim > 2 else channels_first.unsqueeze(2)
        length = sequence.shape[2]
        return sequence.unflatten(2, self.token_grid(length) if self.spatial == "tokens" else (1, length))

    def from_maps(self, maps: Tensor, like: Tensor) -> Tensor:
        """Bring maps back into this layout.

        Args:
            maps: `(N, C, H, W)`.
            like: a tensor of this layout, without prefix tokens, whose shape the result gets.

        Returns:
            The values of `maps` in the layout and the shape of `like`.
        """
        if self.spatial == "map":
            return maps if self.channel_dim == 1 else maps.permute(0, 2, 3, 1)
        if self.channel_dim == 1:
            return maps.reshape(like.shape)
        return maps.permute(0, 2, 3, 1).reshape(like.shape)

    def describe(self) -> str:
        """Say the layout in letters.

        Returns:
            A text such as `(N, L, C) tokens`.
        """
        letters = {"map": "H, W", "tokens": "L", "none": "…"}[self.spatial]
        order = f"(N, C, {letters})" if self.channel_dim == 1 else f"(N, {letters}, C)"
        return f"{order} tokens" if self.spatial == "tokens" else order

    @property
    def token_dim(self) -> int:
        """The dimension of a sequence that counts its tokens."""
        return 2 if self.channel_dim == 1 else 1


NCHW = Layout(channel_dim=1, spatial="map")
NHWC = Layout(channel_dim=-1, spatial="map")
NLC = Layout(channel_dim=-1, spatial="tokens")


def is_channels_last(tensor: Tensor) -> bool:
    """Say whether a 4-D tensor, or a slice of it, lies in the `channels_last` memory format (channels innermost)."""
    return tensor.ndim == 4 and tensor.stride(1) == 1 and tensor.stride(3) != 1


def as_channels_last(tensor: Tensor) -> Tensor:
    """Return a 4-D tensor contiguous in the `channels_last` memory format."""
    # As (N, H, W, C) it is plainly contiguous: torch.func.vmap knows no other memory format.
    return tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def contiguous_like(tensor: Tensor) -> Tensor:
    """Return a 4-D tensor, or a slice of one, contiguous in the memory format that it already has."""
    return as_channels_last(tensor) if is_channels_last(tensor) else tensor.contiguous()
