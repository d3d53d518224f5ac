"""Steps 2 to 5 of GSF with a written gradient: what an eager call runs.

With a the fusion weights, s the residual scale (1 where there is none) and S the shift along T,

    out = (1 - s·a) · x - s·(1 - a) · y + s·a · S(y),    y = g · x.

Plain operations allocate about thirty tensors of x's size in a step, and on a CPU the page faults of fresh memory cost
more than the arithmetic. The functions below allocate three beside the output and its gradient, and keep only x and g
for the gradient. They write in place to tensors that they made, and to no other.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from image2video.fusion.gsf_plain import fusion_weights, plain_fuse
from image2video.fusion.shift import Shift
from image2video.trace.layout import is_channels_last
from image2video.trace.recompute import saves_by_hooks


def written_fuse(
    share: Tensor, rest: Tensor, gate: Tensor, scale: Tensor | None, kernel: Tensor, bias: Tensor, shift: Shift
) -> Tensor:
    """Do what `plain_fuse` does, with the same arguments; second derivatives are those of `plain_fuse` itself."""
    if torch.is_grad_enabled():
        return _GateShiftFuse.apply(share, rest, gate, scale, kernel, bias, shift)
    return _write(share, rest, gate, scale, kernel, bias, shift, keep=False)[0]


class _GateShiftFuse(torch.autograd.Function):
    """`plain_fuse` with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        share: Tensor,
        rest: Tensor,
        gate: Tensor,
        scale: Tensor | None,
        kernel: Tensor,
        bias: Tensor,
        shift: Shift,
    ) -> Tensor:
        out, ctx.weights_graph = _write(share, rest, gate, scale, kernel, bias, shift, keep=True)
        ctx.save_for_backward(share, gate, scale, kernel, bias)
        ctx.shift = shift
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # Read once: gradient checkpointing gives them out a single time.
        p = saved[0].shape[1]
        if torch.is_grad_enabled():  # Under create_graph=True the gradient is to be differentiated again.
            of_share, *others = _plain_gradient(saved, grad_out[:, :p], ctx.shift)
        else:
            of_share, *others = _written_gradient(saved, ctx.weights_graph, grad_out[:, :p], ctx.shift)
        return of_share, grad_out[:, p:], *others, None


def _written_gradient(
    saved: tuple[Tensor, ...], weights_graph: tuple[Tensor, ...], grad_fused: Tensor, shift: Shift
) -> tuple[Tensor | None, ...]:
    """Return the gradients of what was saved: share, gate, scale, kernel and bias.

    Two new tensors of x's size hold every map in turn, and the second one ends as the gradient of the share.
    """
    share, gate, scale, *_ = saved
    *leaves, weights = weights_graph
    p, area = share.shape[1], share.shape[2] * share.shape[3]
    x, g = clips_of(share, shift), gate_of_clips(gate, shift)
    grad = clips_of(grad_fused, shift, interleaved=scale is None)
    of_x, of_y, of_moved = _coefficients(weights.detach(), scale, shift)
    spare, grad_share = torch.empty_like(share), torch.empty_like(share)
    product, y = clips_of(spare, shift), clips_of(grad_share, shift)
    torch.mul(x, g, out=y)

    # Per plane, the gradient of the output times y, shifted y and x.
    along_y = torch.mul(y, grad, out=product).sum((-2, -1))
    _shift_into(product, y, grad, shift)
    along_moved = product.sum((-2, -1))
    along_x = torch.mul(x, grad, out=product).sum((-2, -1))

    # The output is x - s·y + s·a · (S(y) + y - x), by the formula above.
    along_weights = (along_moved + along_y - along_x).view(-1, p)
    if scale is None:
        grad_scale, grad_weights = None, along_weights
    else:
        grad_scale = (weights.detach() * along_weights - along_y.view(-1, p)).sum(0)
        grad_weights = along_weights * scale
    # The weights come from the spatial means of y and x by a graph of a handful of numbers per frame. It is kept, so
    # that a caller can go backward through one forward again.
    of_y_mean, of_x_mean, grad_kernel, grad_bias = torch.autograd.grad(weights, leaves, grad_weights, retain_graph=True)

    # y is not needed any more: its memory takes its gradient, and then that of x = share by way of y = g·x.
    grad_y = torch.mul(grad, of_y, out=y)
    _shift_back(grad_y, grad, of_moved, shift)
    grad_y += _per_plane(of_y_mean / area, shift)
    grad_gate = torch.mul(grad_y, x, out=product).sum((3, 4))
    grad_x = grad_y.mul_(g).addcmul_(grad, of_x)
    grad_x += _per_plane(of_x_mean / area, shift)
    return grad_share, grad_gate.flatten(0, 1), grad_scale, grad_kernel, grad_bias


def _plain_gradient(saved: tuple[Tensor, ...], grad_fused: Tensor, shift: Shift) -> tuple[Tensor | None, ...]:
    """Return the same gradients by automatic differentiation of `plain_fuse`, with a graph of their own."""
    # Views: the gate depends on the share, and its part of the gradient must not come twice.
    given = [None if tensor is None else tensor.view_as(tensor) for tensor in saved]
    share, gate, scale, kernel, bias = given
    assert share is not None
    out = plain_fuse(share, share[:, :0], gate, scale, kernel.to(share.dtype), bias.to(share.dtype), shift)
    wanted = [place for place, tensor in enumerate(given) if tensor is not None and tensor.requires_grad]
    gradients: list[Tensor | None] = [None] * len(given)
    found = torch.autograd.grad(out, [given[place] for place in wanted], grad_fused, create_graph=True)
    for place, gradient in zip(wanted, found, strict=True):
        gradients[place] = gradient
    return tuple(gradients)


def _write(
    share: Tensor,
    rest: Tensor,
    gate: Tensor,
    scale: Tensor | None,
    kernel: Tensor,
    bias: Tensor,
    shift: Shift,
    *,
    keep: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Write the output into one new tensor; return it, and the mean of y, the mean of x, kernel, bias and weights.

    With `keep` these five carry the graph of the weights.
    """
    p = share.shape[1]
    x = clips_of(share, shift)
    y = x * gate_of_clips(gate, shift)
    with torch.set_grad_enabled(keep), _saved_as_they_are():
        # Leaves of a graph of their own, which ends at the means: what comes before is differentiated by hand.
        sources = (_means(y, share), _means(x, share), kernel, bias)
        y_mean, x_mean, kernel, bias = (tensor.detach().requires_grad_(keep) for tensor in sources)
        weights = fusion_weights(y_mean, x_mean, kernel, bias, shift).to(share.dtype)
    out = empty_like_frames(share, p + rest.shape[1])
    out[:, p:].copy_(rest)
    fused = clips_of(out[:, :p], shift, interleaved=scale is None)
    of_x, of_y, of_moved = _coefficients(weights.detach(), scale, shift)
    _shift_into(fused, y, of_moved, shift)
    fused.addcmul_(x, of_x).addcmul_(y, of_y)
    return out, (y_mean, x_mean, kernel, bias, weights)


def _saved_as_they_are() -> AbstractContextManager[Any]:
    """Keep what the graph of the weights saves out of the hands of a checkpoint: it is a handful of numbers per frame.

    Backward goes through that graph in a pass of its own, for which a checkpoint would run its whole block once more.
    """
    return nullcontext() if saves_by_hooks() is None else saved_tensors_hooks(_same, _same)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def clips_of(frames: Tensor, shift: Shift, *, interleaved: bool = False) -> Tensor:
    """View `(N, p, H, W)` as `(B, T·parts, 2, 2, p/4, H, W)`, the channels as they were before interleaving."""
    clips = frames.unflatten(0, (-1, shift.T * shift.parts))
    if interleaved:
        return clips.unflatten(2, (2, -1, 2)).transpose(3, 4)
    return clips.unflatten(2, (2, 2, -1))


def gate_of_clips(gate: Tensor, shift: Shift) -> Tensor:
    """View the gate `(N, 2, H, W)` so that it multiplies what `clips_of` returns."""
    return gate.unflatten(0, (-1, shift.T * shift.parts))[:, :, :, None, None]


def _means(clips: Tensor, share: Tensor) -> Tensor:
    """Average every plane of clips; return `(N, p)`."""
    return clips.mean((-2, -1)).view(share.shape[:2])


def _per_plane(values: Tensor, shift: Shift) -> Tensor:
    """View `(N, p)` so that it broadcasts over the planes that `clips_of` returns."""
    return clips_of(values[:, :, None, None], shift)


def empty_like_frames(like: Tensor, channels: int) -> Tensor:
    """Allocate `(N, channels, H, W)` in the memory format of another tensor."""
    size = (like.shape[0], channels, *like.shape[2:])
    memory_format = torch.channels_last if is_channels_last(like) else torch.contiguous_format
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=memory_format)


def _coefficients(weights: Tensor, scale: Tensor | None, shift: Shift) -> tuple[Tensor, Tensor, Tensor]:
    """Return what x, y and shifted y are multiplied by, each `(B, T·parts, 2, 2, p/4, 1, 1)`."""
    if scale is None:
        of_moved = weights
        of_y = weights - 1
    else:
        of_moved = weights * scale
        of_y = of_moved - scale
    return _per_plane(1 - of_moved, shift), _per_plane(of_y, shift), _per_plane(of_moved, shift)


def rows_of_shift(half: int, shift: Shift) -> list[tuple[slice, slice]]:
    """Return `(target, source)` rows within a clip for the shift of a half; zero padding leaves a target out."""
    parts = shift.parts
    first, all_but_first = slice(parts), slice(parts, None)
    last, all_but_last = slice(-parts, None), slice(-parts)
    if half == 0:  # Every frame takes the next one's values, and the last frame has no next.
        moved, edge, other_end = (all_but_last, all_but_first), last, first
    else:
        moved, edge, other_end = (all_but_first, all_but_last), first, last
    fill = {"zeros": [], "replicate": [(edge, edge)], "circular": [(edge, other_end)]}[shift.padding]
    return [moved, *fill]


def _shift_into(out: Tensor, values: Tensor, factor: Tensor, shift: Shift) -> None:
    """Write S(values) · factor into `out`."""
    for half in (0, 1):
        if shift.padding == "zeros":
            edge = slice(-shift.parts, None) if half == 0 else slice(shift.parts)
            out[:, edge, half].zero_()
        for target, source in rows_of_shift(half, shift):
            torch.mul(values[:, source, half], factor[:, target, half], out=out[:, target, half])


def _shift_back(out: Tensor, grad: Tensor, factor: Tensor, shift: Shift) -> None:
    """Add the gradient of the shift, the transpose of S on grad · factor, to `out`."""
    for half in (0, 1):
        for target, source in rows_of_shift(half, shift):
            out[:, source, half].addcmul_(grad[:, target, half], factor[:, target, half])
