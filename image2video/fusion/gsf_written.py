"""Steps 2 to 5 of GSF with a written gradient: what an eager call runs.

With a the fusion weights, s the residual scale (1 where there is none) and S the shift along T,

    out = (1 - s·a) · x - s·(1 - a) · y + s·a · S(y),    y = g · x.

Plain operations allocate about thirty tensors of x's size in a step, and on a CPU the page faults of fresh memory cost
more than the arithmetic. This needs three beside the output and its gradient, and keeps x and g alone for the gradient.
It works in place on tensors that it has made itself, and on no other.
"""

from typing import Any

import torch
from torch import Tensor

from image2video.fusion.gsf_plain import fusion_weights, plain_fuse
from image2video.fusion.shift import Padding
from image2video.trace.layout import is_channels_last


def written_fuse(
    share: Tensor,
    rest: Tensor,
    gate: Tensor,
    scale: Tensor | None,
    kernel: Tensor,
    bias: Tensor,
    T: int,
    parts: int,
    padding: Padding,
) -> Tensor:
    """Do what `plain_fuse` does, with the same arguments; second derivatives are those of `plain_fuse` itself."""
    if torch.is_grad_enabled():
        return _GateShiftFuse.apply(share, rest, gate, scale, kernel, bias, T, parts, padding)
    return _write(share, rest, gate, scale, kernel, bias, T, parts, padding, keep=False)[0]


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
        T: int,
        parts: int,
        padding: Padding,
    ) -> Tensor:
        out, ctx.means = _write(share, rest, gate, scale, kernel, bias, T, parts, padding, keep=True)
        ctx.save_for_backward(share, gate, scale, kernel, bias)
        ctx.sizes = (T, parts, padding)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: the gradient is to be differentiated again
            return _plain_gradient(ctx, grad_out)
        share, gate, scale, *_ = ctx.saved_tensors
        *leaves, weights = ctx.means
        T, parts, padding = ctx.sizes
        p, (H, W) = share.shape[1], share.shape[2:]
        x = _clips(share, T, parts)
        g = gate.unflatten(0, (-1, T * parts))[:, :, :, None, None]
        grad = _clips(grad_out[:, :p], T, parts, interleaved=scale is None)
        of_x, of_y, of_moved = _coefficients(weights.detach(), scale, T, parts)

        spare, grad_share = torch.empty_like(share), torch.empty_like(share)
        product, y = _clips(spare, T, parts), _clips(grad_share, T, parts)
        torch.mul(x, g, out=y)
        torch.mul(y, grad, out=product)
        along_y = product.sum((-2, -1))
        _shift_into(product, y, grad, parts, padding)
        along_weights = product.sum((-2, -1)) + along_y
        along_weights -= torch.mul(x, grad, out=product).sum((-2, -1))
        along_y, along_weights = along_y.view(-1, p), along_weights.view(-1, p)
        grad_scale = None if scale is None else (weights.detach() * along_weights - along_y).sum(0)
        grad_weights = along_weights if scale is None else along_weights * scale
        grad_y_mean, grad_x_mean, grad_kernel, grad_bias = torch.autograd.grad(
            weights, leaves, grad_weights, retain_graph=True
        )

        grad_y = torch.mul(grad, of_y, out=y)
        _shift_back(grad_y, grad, of_moved, parts, padding)
        grad_y += _per_plane(grad_y_mean / (H * W), T, parts)
        grad_gate = torch.mul(grad_y, x, out=product).sum((3, 4))
        grad_y.mul_(g).addcmul_(grad, of_x)
        grad_y += _per_plane(grad_x_mean / (H * W), T, parts)
        return (
            grad_share,
            grad_out[:, p:],
            grad_gate.flatten(0, 1),
            grad_scale,
            grad_kernel,
            grad_bias,
            None,
            None,
            None,
        )


def _plain_gradient(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient by automatic differentiation of `plain_fuse`, with a graph of its own."""
    # Views: the gate depends on the share, and its part of the gradient must not come twice.
    given: list[Any] = [None if tensor is None else tensor.view_as(tensor) for tensor in ctx.saved_tensors]
    share, gate, scale, kernel, bias = given
    p = share.shape[1]
    out = plain_fuse(share, share[:, :0], gate, scale, kernel.to(share.dtype), bias.to(share.dtype), *ctx.sizes)
    wanted = [tensor for tensor in given if tensor is not None and tensor.requires_grad]
    gradients = iter(torch.autograd.grad(out, wanted, grad_out[:, :p], create_graph=True))
    of_share, of_gate, of_scale, of_kernel, of_bias = (
        next(gradients) if tensor is not None and tensor.requires_grad else None for tensor in given
    )
    return of_share, grad_out[:, p:], of_gate, of_scale, of_kernel, of_bias, None, None, None


def _write(
    share: Tensor,
    rest: Tensor,
    gate: Tensor,
    scale: Tensor | None,
    kernel: Tensor,
    bias: Tensor,
    T: int,
    parts: int,
    padding: Padding,
    *,
    keep: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Write the output into one new tensor; return it, and means, kernel, bias and weights.

    With `keep` the last four carry the graph of the weights, which is a handful of numbers per frame.
    """
    x = _clips(share, T, parts)
    y = x * gate.unflatten(0, (-1, T * parts))[:, :, :, None, None]
    with torch.set_grad_enabled(keep):
        leaves = [tensor.detach().requires_grad_(keep) for tensor in (_means(y, share), _means(x, share), kernel, bias)]
        weights = fusion_weights(leaves[0], leaves[1], leaves[2], leaves[3], T, parts, padding).to(share.dtype)
    p = share.shape[1]
    out = _empty(share, p + rest.shape[1])
    out[:, p:].copy_(rest)
    fused = _clips(out[:, :p], T, parts, interleaved=scale is None)
    of_x, of_y, of_moved = _coefficients(weights.detach(), scale, T, parts)
    _shift_into(fused, y, of_moved, parts, padding)
    fused.addcmul_(x, of_x).addcmul_(y, of_y)
    return out, (*leaves, weights)


def _clips(frames: Tensor, T: int, parts: int, *, interleaved: bool = False) -> Tensor:
    """View `(N, p, H, W)` as `(B, T·parts, 2, 2, p/4, H, W)`, the channels as they were before interleaving."""
    clips = frames.unflatten(0, (-1, T * parts))
    if interleaved:
        return clips.unflatten(2, (2, -1, 2)).transpose(3, 4)
    return clips.unflatten(2, (2, 2, -1))


def _means(clips: Tensor, share: Tensor) -> Tensor:
    return clips.mean((-2, -1)).view(share.shape[:2])


def _per_plane(values: Tensor, T: int, parts: int) -> Tensor:
    return _clips(values[:, :, None, None], T, parts)


def _empty(like: Tensor, channels: int) -> Tensor:
    size = (like.shape[0], channels, *like.shape[2:])
    memory_format = torch.channels_last if is_channels_last(like) else torch.contiguous_format
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=memory_format)


def _coefficients(weights: Tensor, scale: Tensor | None, T: int, parts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what x, y and shifted y are multiplied by, each `(B, T·parts, 2, 2, p/4, 1, 1)`."""
    of_moved = weights if scale is None else weights * scale
    of_y = weights - 1 if scale is None else of_moved - scale
    return (
        _per_plane(1 - of_moved, T, parts),
        _per_plane(of_y, T, parts),
        _per_plane(of_moved, T, parts),
    )


def _pieces(half: int, parts: int, padding: Padding) -> list[tuple[slice, slice]]:
    """Return `(target, source)` rows within a clip of the shift of a half; zero padding leaves a target out."""
    first, last, head, tail = slice(parts), slice(-parts, None), slice(-parts), slice(parts, None)
    target, source, edge, other = (head, tail, last, first) if half == 0 else (tail, head, first, last)
    fill = {"zeros": [], "replicate": [(edge, edge)], "circular": [(edge, other)]}[padding]
    return [(target, source), *fill]


def _shift_into(out: Tensor, values: Tensor, factor: Tensor, parts: int, padding: Padding) -> None:
    """Write S(values) · factor into `out`."""
    for half in (0, 1):
        if padding == "zeros":
            out[:, slice(-parts, None) if half == 0 else slice(parts), half].zero_()
        for target, source in _pieces(half, parts, padding):
            torch.mul(values[:, source, half], factor[:, target, half], out=out[:, target, half])


def _shift_back(out: Tensor, grad: Tensor, factor: Tensor, parts: int, padding: Padding) -> None:
    """Add the gradient of the shift, the transpose of S on grad · factor, to `out`."""
    for half in (0, 1):
        for target, source in _pieces(half, parts, padding):
            out[:, source, half].addcmul_(grad[:, target, half], factor[:, target, half])
