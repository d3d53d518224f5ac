"""What every fusion module is: frames in, frames of the same shape out, mixed along T within each clip."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NoReturn, Self

import torch
from torch import Tensor, nn

from image2video.errors import InputError, InputTypeError
from image2video.trace.capture import refuse_script, refuse_symbols
from image2video.trace.layout import NCHW, Layout

Placement = Literal["before", "after", "beside"]


class Fusion(nn.Module, ABC):
    """A module that mixes the frames of a clip; it knows T and its channels and nothing about backbones.

    To write your own, subclass it, name its `placement`, and write `fuse`; `register_fusion` gives it a name that
    `VideoWrap` takes, and `image2video.fusion.testing.check_fusion` holds it to this contract:

    - `fuse` gets frames `(B·T·parts, C, H, W)` in any memory format, batch-major, then frame, then part, with T of 2
      or more, and returns the same shape, dtype and memory format. Nothing passes from one clip to another, nor from
      one part to another (normalisation statistics in training apart).
    - `__init__` takes `channels` and `residual`, and further options by keyword, each with a default that JSON knows.
    - With `residual=True` a fresh module returns its input exactly (a `"beside"` module adds exact zeros), and every
      parameter has moved after two optimisation steps. A class that cannot says `residual_is_identity = False`.
    - It keeps no state between calls beyond parameters and buffers; T may change from call to call.

    A method of a subclass takes and returns what the method that it overrides does.

    Args:
        channels: size of the channel dimension of the tensors that come in.
        residual: whether a fresh module is to leave its input as it is.

    Class attributes:
        placement: `"before"` acts on the input of the module at its site, `"after"` on its output, `"beside"`
            computes from a convolution's input what is added to its output.
        min_channels: the fewest channels that the module can split.
        residual_is_identity: whether `residual=True` makes a fresh module the identity.
        uses_positions: whether the result depends on where tokens stand in the image, so that their grid must be known.

    Raises:
        InputError: channels fewer than `min_channels`.

    Example:
        >>> class ClipMean(Fusion):
        ...     placement = "after"
        ...
        ...     def __init__(self, channels, *, residual=False):
        ...         super().__init__(channels, residual=residual)
        ...         self.weight = nn.Parameter(torch.zeros(channels, 1, 1) if residual else torch.ones(channels, 1, 1))
        ...
        ...     def fuse(self, frames, T, parts):
        ...         clip = frames.unflatten(0, (-1, T, parts))
        ...         mean = clip.mean(1, keepdim=True).expand_as(clip).flatten(0, 1).flatten(0, 1)
        ...         return frames + self.weight.to(frames.dtype) * (mean - frames)
        >>> ClipMean(4, residual=True)(torch.ones(6, 4, 5, 7), T=3).shape
        torch.Size([6, 4, 5, 7])
    """

    placement: ClassVar[Placement]
    min_channels: ClassVar[int] = 1
    residual_is_identity: ClassVar[bool] = True
    uses_positions: ClassVar[bool] = True

    def __init__(self, channels: int, *, residual: bool = False) -> None:
        super().__init__()
        reason = self.refusal(channels)
        if reason is not None:
            raise InputError(reason)
        self.channels = channels
        self.residual = residual

    @classmethod
    def refusal(cls, channels: int, **options: Any) -> str | None:
        """Say why the module cannot act on so many channels.

        Args:
            channels: C of the tensors that would come in.
            options: the keyword arguments of the class, where the answer depends on them.

        Returns:
            The reason; None where the module can act.
        """
        if channels < cls.min_channels:
            return (
                f"{channels} channels are too few to split for {cls.__name__}, which needs {cls.min_channels} or more; "
                "leave the site out (sites=…) or choose another fusion"
            )
        return None

    @classmethod
    def for_site(cls, channels: int, *, residual: bool, host: nn.Module | None = None, **options: Any) -> Self:
        """Build the module for a site.

        Args:
            channels: C of the tensor at the site.
            residual: whether a fresh module is to leave its input as it is.
            host: the module that the site hooks; `"beside"` fusions need it.
            options: further keyword arguments of the class.

        Returns:
            The module.
        """
        return cls(channels, residual=residual, **options)

    @abstractmethod
    def fuse(self, frames: Tensor, T: int, parts: int) -> Tensor:
        """Mix the frames of each clip.

        Args:
            frames: `(B·T·parts, C, H, W)`, in any memory format.
            T: frames per clip, 2 or more.
            parts: rows per frame.

        Returns:
            A tensor of the same shape, dtype and memory format.
        """

    def forward(self, frames: Tensor, T: int, *, layout: Layout = NCHW, parts: int = 1) -> Tensor:
        """Mix the frames of each clip; prefix tokens (class, registers) pass unchanged.

        Args:
            frames: `(B·T·parts, …)` in `layout`: batch-major, then frame, then part.
            T: frames per clip, 1 or more. At 1 there is nothing to mix, and the input itself is returned.
            layout: where the channels and positions are. Tokens become a map on the layout's grid; without a grid, a
                square where their number is one, else one row.
            parts: rows per frame (windows, patches).

        Returns:
            A tensor of the same shape, dtype and memory format.

        Raises:
            InputError: rows that are no multiple of T·parts, T or parts below 1, another number of channels.
            InputTypeError: frames that are not of a floating-point type.
        """
        self.check_frames(frames, T, layout, parts)
        if T == 1:
            return self.single(frames)
        return self.fuse_layout(frames, T, layout, parts)

    def check_frames(self, frames: Tensor, T: int, layout: Layout, parts: int) -> None:
        """Raise unless `frames` can be B clips of T frames of `parts` rows with this module's channels.

        Args:
            frames: what `forward` got.
            T: frames per clip.
            layout: the layout that the frames must fit.
            parts: rows per frame.

        Raises:
            InputError: rows that are no multiple of T·parts, T or parts below 1, another number of channels.
            InputTypeError: frames that are not of a floating-point type.
        """
        refuse_symbols(frames, f"the fusion {type(self).__name__}")
        # An exported graph with a dynamic T has a symbol in its place.
        if not isinstance(T, int | torch.SymInt) or T < 1:
            raise InputError(f"T must be a whole number of frames, 1 or more, got {T!r}")
        if parts < 1:
            raise InputError(f"parts must be 1 or more rows per frame, got {parts}")
        if not frames.is_floating_point():
            raise InputTypeError(f"{type(self).__name__} needs frames of a floating-point type, got {frames.dtype}")
        layout.check(frames, self.channels)
        if frames.shape[0] % (T * parts):
            rows = f"T = {T}" if parts == 1 else f"T·parts = {T}·{parts} = {T * parts}"
            raise InputError(
                f"got {frames.shape[0]} rows, which is no multiple of {rows}; frames must be (B·T, …), batch-major: "
                "row b·T + t is frame t of image b"
            )

    def fuse_layout(self, frames: Tensor, T: int, layout: Layout, parts: int) -> Tensor:
        """Bring frames in any layout to `(N, C, H, W)`, fuse them, and bring them back.

        Args:
            frames: `(B·T·parts, …)` in `layout`.
            T: frames per clip, 2 or more.
            layout: where the channels, the positions and the prefix tokens are.
            parts: rows per frame.

        Returns:
            A tensor of the same shape, dtype and memory format.
        """
        if layout == NCHW:
            return self.fuse(frames, T, parts)
        prefix, body = layout.split_prefix(frames)
        fused = layout.from_maps(self.fuse(layout.to_maps(body), T, parts), body)
        return layout.join_prefix(prefix, fused)

    def single(self, frames: Tensor) -> Tensor:
        """Answer a call at T = 1, where there is nothing to mix.

        Args:
            frames: what came in.

        Returns:
            The frames themselves.
        """
        return frames

    def combine(self, output: Tensor, frames: Tensor, T: int, bias: Tensor | None = None, *, parts: int = 1) -> Tensor:
        """Add a `"beside"` module's contribution to its host's output.

        Args:
            output: what the host made of `frames`, its bias included.
            frames: what came into the host.
            T: frames per clip; at 1, `output` itself is returned.
            bias: the host's bias.
            parts: rows per frame.

        Returns:
            A tensor like `output`.
        """
        return output if T == 1 else output + self(frames, T, parts=parts)

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that take no weight decay.

        Returns:
            The names of biases, norms and residual scales.
        """
        return {name for name, parameter in self.named_parameters() if parameter.ndim <= 1}

    def extra_repr(self) -> str:
        """Show the options in `repr`.

        Returns:
            What stands between the parentheses.
        """
        return f"{self.channels}, residual={self.residual}"

    def __prepare_scriptable__(self) -> NoReturn:
        refuse_script(f"the fusion {type(self).__name__}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(_tolerant(fn), recurse)
        return self


def _tolerant(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Make `fn` pass over 5-D kernels (a gate's) where it is `.to(memory_format=torch.channels_last)`.

    torch knows that format for 4-D tensors alone and would refuse the whole model.
    """

    def apply(tensor: Tensor) -> Tensor:
        try:
            return fn(tensor)
        except RuntimeError:
            if tensor.ndim != 5:
                raise
            # As a 4-D tensor it takes the other changes of the same call (device, dtype).
            return fn(tensor.flatten(3)).reshape(tensor.shape).contiguous()

    return apply
