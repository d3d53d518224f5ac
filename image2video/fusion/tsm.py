"""The temporal shift module (Lin et al., ICCV 2019, arXiv 1811.08383)."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from image2video.errors import InputError
from image2video.fusion.base import Fusion, Placement
from image2video.fusion.shift import Padding, Shift, check_padding, shares_moved, shift_frames
from image2video.trace.capture import is_plain
from image2video.trace.layout import NCHW, Layout, is_channels_last


class TSM(Fusion):
    """Give the first channels of each frame the next frame's values, the next as many the previous frame's.

    Frames are `(B·T, C, H, W)`, tokens `(B·T, N, C)` (prefix tokens are shifted like the others) or any layout with
    one channel dimension. It has no parameters. With zero padding it is not the identity on equal frames: the first
    and the last frame lose one share each. Source: Lin et al., ICCV 2019; `padding` other than zeros is theirs
    (`circular`) and ours (`replicate`).

    Args:
        channels: C.
        fold_div: each share is C // fold_div channels.
        padding: what the frame without a neighbour takes: `"zeros"`, `"replicate"` or `"circular"`.
        residual: without effect; a shift has no form that starts as the identity.

    Raises:
        InputError: fold_div below 2, an unknown padding, or fewer than fold_div channels (nothing would move).

    Example:
        >>> TSM(8)(torch.ones(6, 8, 4, 5), T=3)[:, 0, 0, 0]
        tensor([1., 1., 0., 1., 1., 0.])
    """

    placement: ClassVar[Placement] = "before"
    residual_is_identity: ClassVar[bool] = False
    uses_positions: ClassVar[bool] = False

    def __init__(self, channels: int, *, fold_div: int = 8, padding: Padding = "zeros", residual: bool = False) -> None:
        check_fold_div(fold_div)
        check_padding(padding)
        super().__init__(channels, residual=residual)
        reason = self.refusal(channels, fold_div=fold_div)
        if reason is not None:
            raise InputError(reason)
        self.fold_div = fold_div
        self.padding: Padding = padding

    @classmethod
    def refusal(cls, channels: int, **options: Any) -> str | None:
        """Say why nothing would move: fewer channels than `fold_div`."""
        fold_div = options.get("fold_div", cls.min_channels)
        if channels < fold_div:
            return (
                f"{channels} channels are too few to split: TSM moves {channels} // {fold_div} = 0 of them; "
                "leave the site out (sites=…) or lower fold_div"
            )
        return None

    def fuse_layout(self, frames: Tensor, T: int, layout: Layout, parts: int) -> Tensor:
        """Shift in the layout that came: no position matters, so nothing is permuted."""
        if is_plain(frames) and not (torch.is_grad_enabled() and frames.requires_grad):
            fold, shift = self.channels // self.fold_div, Shift(T, parts, self.padding)
            return shares_moved(frames, shift, fold, layout.channel_dim % frames.ndim)
        if layout.channel_dim == 1 and is_channels_last(frames):
            # As (N, H, W, C) it is contiguous, and the concatenation keeps it so.
            return self._shift(frames.permute(0, 2, 3, 1), T, parts, dim=3).permute(0, 3, 1, 2)
        return self._shift(frames, T, parts, dim=layout.channel_dim % frames.ndim)

    def fuse(self, frames: Tensor, T: int, parts: int) -> Tensor:
        """Shift frames `(B·T·parts, C, H, W)`."""
        return self.fuse_layout(frames, T, NCHW, parts)

    def _shift(self, frames: Tensor, T: int, parts: int, dim: int) -> Tensor:
        fold = self.channels // self.fold_div
        from_next, from_previous, still = frames.split([fold, fold, self.channels - 2 * fold], dim=dim)
        shifted = [
            shift_frames(from_next, T, 1, parts=parts, padding=self.padding),
            shift_frames(from_previous, T, -1, parts=parts, padding=self.padding),
        ]
        return torch.cat([*shifted, still], dim=dim)

    def extra_repr(self) -> str:
        """Show the options in `repr`."""
        return f"{self.channels}, fold_div={self.fold_div}, padding={self.padding!r}"


def check_fold_div(fold_div: int) -> None:
    """Raise `InputError` unless two shares of C // fold_div channels can be taken."""
    if isinstance(fold_div, bool) or not isinstance(fold_div, int) or fold_div < 2:
        raise InputError(f"fold_div must be a whole number, 2 or more, got {fold_div!r}")
