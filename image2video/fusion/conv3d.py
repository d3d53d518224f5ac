"""A temporal extent of 3 for a 2-D convolution: the two outer taps, beside the convolution that keeps the centre."""

from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from image2video.errors import InputError, UnsupportedError
from image2video.fusion.base import Fusion, Placement
from image2video.fusion.shift import shift_frames
from image2video.trace.layout import as_channels_last, is_channels_last

# Their names for `conv2d`, and for `functional.pad`.
_PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
Pair = int | tuple[int, int]
Inflate = Literal["zero", "mean"]


class Conv3d(Fusion):
    """Compute what the outer taps of a 3×kh×kw convolution add to a kh×kw convolution's output, per frame.

    Called on the convolution's input `(B·T, C_in, H, W)` it returns `(B·T, C_out, H', W')`: the previous frame through
    one tap plus the next frame through the other, with zeros outside the clip. `combine` adds that to the host's
    output. The temporal stride stays 1, and the host's weights are never rewritten. Source: the "3D" row of Casarin
    et al., CVPR 2024; keeping the temporal resolution is a departure of ours from r3d_18.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: as in `torch.nn.Conv2d`.
        stride: as there.
        padding: as there; `"same"` pads as TensorFlow does (which is torch's "same" at stride 1), from the size of
            the input.
        dilation: as there.
        groups: as there.
        padding_mode: how the spatial borders are padded, as in `torch.nn.Conv2d`.
        inflate: `"zero"`: both taps start at zero, and the network starts as it was. `"mean"`: use `Conv3d.like`;
            the taps start at a third of the host's weight, and `combine` scales the host's output by a third.
        residual: a fresh module adds nothing; so `inflate="mean"` is refused with it.

    Raises:
        InputError: an option out of range.

    Example:
        >>> conv = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        >>> module, frames = Conv3d.like(conv), torch.ones(6, 4, 9, 11)
        >>> torch.equal(module.combine(conv(frames), frames, T=3), conv(frames))
        True
    """

    placement: ClassVar[Placement] = "beside"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        inflate: Inflate = "zero",
        *,
        padding_mode: str = "zeros",
        residual: bool = False,
    ) -> None:
        _check(in_channels, out_channels, groups, padding, padding_mode, inflate, residual)
        super().__init__(in_channels, residual=residual)
        self.out_channels = out_channels
        self.kernel_size, self.stride, self.dilation = _pair(kernel_size), _pair(stride), _pair(dilation)
        self.padding = padding if isinstance(padding, str) else _pair(padding)
        self.padding_mode = padding_mode
        self.groups = groups
        self.inflate = inflate
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.previous = nn.Parameter(torch.zeros(shape))
        self.next = nn.Parameter(torch.zeros(shape))

    @classmethod
    def like(cls, conv: nn.Module, *, inflate: Inflate = "zero", residual: bool = False) -> Self:
        """Build the outer taps for a convolution, on its device and in its type.

        Args:
            conv: the convolution, which stays as it is.
            inflate: how the taps start.
            residual: whether a fresh module is to add nothing.

        Returns:
            The module.

        Raises:
            UnsupportedError: a module that does not compute what `torch.nn.Conv2d` or a class named `Conv2dSame`
                (which pads from the size of its input) does.
        """
        padding = _host_padding(conv)
        assert isinstance(conv, nn.Conv2d)
        made = cls(
            conv.in_channels,
            conv.out_channels,
            _pair(conv.kernel_size),
            _pair(conv.stride),
            padding,
            _pair(conv.dilation),
            conv.groups,
            inflate,
            padding_mode=conv.padding_mode,
            residual=residual,
        ).to(conv.weight)
        if inflate == "mean":
            with torch.no_grad():
                made.previous.copy_(conv.weight / 3)
                made.next.copy_(conv.weight / 3)
        return made

    @classmethod
    def for_site(cls, channels: int, *, residual: bool, host: nn.Module | None = None, **options: Any) -> Self:
        """Build the outer taps for the convolution at a site."""
        if host is None:
            raise InputError("Conv3d needs the convolution at its site: build(site, residual, host=convolution)")
        made = cls.like(host, residual=residual, **options)
        if made.channels != channels:
            raise InputError(f"the site must have the channels of its convolution, {made.channels}, got {channels}")
        return made

    def fuse(self, frames: Tensor, T: int, parts: int) -> Tensor:
        """Return the outer taps' contribution to the output of the frames' convolution."""
        padded, padding = self._pad(frames)
        geometry = (self.stride, padding, self.dilation, self.groups)
        from_previous = functional.conv2d(padded, self.previous, None, *geometry)
        from_next = functional.conv2d(padded, self.next, None, *geometry)
        return shift_frames(from_previous, T, -1, parts=parts) + shift_frames(from_next, T, 1, parts=parts)

    def single(self, frames: Tensor) -> Tensor:
        """Return zeros: at T = 1 no frame has a neighbour."""
        # The convolution runs for the shape of its output alone.
        return torch.zeros_like(self.fuse(frames, 1, 1))

    def combine(self, output: Tensor, frames: Tensor, T: int, bias: Tensor | None = None, *, parts: int = 1) -> Tensor:
        """Return the output of the 3×kh×kw convolution from the host's `output` on `frames`."""
        if T == 1:
            return output
        if self.inflate == "mean":
            output = output / 3
            if bias is not None:  # The bias is in the output, and is not one of the taps: it stays whole.
                output = output + (bias * (2 / 3)).to(output.dtype)[:, None, None]
        return output + self(frames, T, parts=parts).to(output.dtype)

    def _pad(self, frames: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Pad what `conv2d` cannot pad by itself; return the frames and the padding left to it."""
        if self.padding == "same":
            top, bottom = self._same(frames.shape[2], 0)
            left, right = self._same(frames.shape[3], 1)
        else:
            assert not isinstance(self.padding, str)
            if self.padding_mode == "zeros":
                return frames, self.padding
            top = bottom = self.padding[0]
            left = right = self.padding[1]
        padded = functional.pad(frames, (left, right, top, bottom), mode=_PADDING_MODES[self.padding_mode])
        if is_channels_last(frames):  # circular padding forgets the memory format
            padded = as_channels_last(padded)
        return padded, (0, 0)

    def _same(self, size: int, axis: int) -> tuple[int, int]:
        """Return what `"same"` puts before and after an axis: as much as ⌈size / stride⌉ outputs need."""
        stride = self.stride[axis]
        extent = (self.kernel_size[axis] - 1) * self.dilation[axis] + 1
        outputs = -(-size // stride)
        total = max((outputs - 1) * stride + extent - size, 0)
        return total // 2, total - total // 2

    def extra_repr(self) -> str:
        """Show the geometry in `repr`."""
        return (
            f"{self.channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, inflate={self.inflate!r}"
        )


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """Give a size for both axes."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _host_padding(conv: nn.Module) -> Pair | str:
    """Return the host's padding, or raise where its forward is not that of a plain 2-D convolution."""
    kind = type(conv)
    if isinstance(conv, nn.Conv2d) and kind.__name__ == "Conv2dSame":
        return "same"
    # A subclass that overrides these computes something else (a standardised weight, say).
    own = [name for name in ("forward", "_conv_forward") if getattr(kind, name, None) is not getattr(nn.Conv2d, name)]
    if not isinstance(conv, nn.Conv2d) or own:
        raise UnsupportedError(
            f"{kind.__module__}.{kind.__name__} cannot be given a temporal extent: fusion='conv3d' knows how "
            "torch.nn.Conv2d and Conv2dSame compute, and this class computes otherwise; leave it out (sites=…)"
        )
    if conv.padding == "valid":
        return 0
    return conv.padding if isinstance(conv.padding, str) else _pair(conv.padding)


def check_inflate(inflate: str) -> None:
    """Raise `InputError` unless `inflate` names a way to start the outer taps."""
    if inflate not in get_args(Inflate):
        raise InputError(f"inflate must be 'zero' or 'mean', got {inflate!r}")


def _check(
    in_channels: int,
    out_channels: int,
    groups: int,
    padding: Pair | str,
    padding_mode: str,
    inflate: str,
    residual: bool,
) -> None:
    """Raise `InputError` for an option out of range."""
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise InputError(f"groups must divide {in_channels} and {out_channels} channels, got {groups}")
    if isinstance(padding, str) and padding != "same":
        raise InputError(f"padding must be numbers or 'same', got {padding!r}")
    if padding_mode not in _PADDING_MODES:
        raise InputError(f"padding_mode must be one of {', '.join(_PADDING_MODES)}, got {padding_mode!r}")
    check_inflate(inflate)
    if inflate == "mean" and residual:
        raise InputError(
            "inflate='mean' changes what the network computes, so it cannot start as the bare one: "
            "pass residual=False with it, or inflate='zero'"
        )
