"""Steps 2 and 3 of GSM with a written gradient: what an eager call with gradient runs.

With S the shift along T and g the gate,

    out = x + (S(y) - y),    y = g · x,

so with G the gradient of the output and D = Sᵀ(G) - G, the gradient of x is G + g · D, and that of a gate's plane is
the sum of x · D over its half of the channels. As in GSF, fresh memory costs a CPU more than arithmetic: two tensors of
x's size are made beside the output, two beside the gradient, and x and g alone are kept.
"""

from typing import Any

import torch
from torch import Tensor

from image2video.fusion.gate import interleave
from image2video.fusion.gsf_written import clips_of, empty_like_frames, gate_of_clips, rows_of_shift
from image2video.fusion.shift import Shift, shift_halves


def plain_gate_shift(frames: Tensor, gate: Tensor, shift: Shift, interleaved: bool) -> Tensor:
    """Gate and shift frames in plain operations: what compilers, exports and tracers see.

    Args:
        frames: `(N, C, H, W)` with N = B·T·parts.
        gate: `(N, 2, H, W)`, one plane g per half of the channels.
        shift: how frames move along T.
        interleaved: whether channels interleave within each half.

    Returns:
        `(N, C, H, W)`.
    """
    gated = (frames.unflatten(1, (2, -1)) * gate.unsqueeze(2)).flatten(1, 2)
    fused = shift_halves(gated, shift) + (frames - gated)
    return interleave(fused) if interleaved else fused


def written_gate_shift(frames: Tensor, gate: Tensor, shift: Shift, interleaved: bool) -> Tensor:
    """Do what `plain_gate_shift` does; second derivatives are those of the plain operations."""
    if torch.is_grad_enabled():
        return _GateShift.apply(frames, gate, shift, interleaved)
    return _write(frames, gate, shift, interleaved)


class _GateShift(torch.autograd.Function):
    """`plain_gate_shift` with its gradient."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, gate: Tensor, shift: Shift, interleaved: bool) -> Tensor:
        ctx.save_for_backward(frames, gate)
        ctx.how = shift, interleaved
        return _write(frames, gate, shift, interleaved)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        frames, gate = ctx.saved_tensors  # Read once: gradient checkpointing gives them out a single time.
        if torch.is_grad_enabled():  # Under create_graph=True the gradient is to be differentiated again.
            return *_plain_gradient(frames, gate, grad_out, *ctx.how), None, None
        return *_written_gradient(frames, gate, grad_out, *ctx.how), None, None


def _write(frames: Tensor, gate: Tensor, shift: Shift, interleaved: bool) -> Tensor:
    """Write the output into one new tensor."""
    x = clips_of(frames, shift)
    y = x * gate_of_clips(gate, shift)
    out = empty_like_frames(frames, frames.shape[1])
    fused = clips_of(out, shift, interleaved=interleaved)
    torch.sub(x, y, out=fused)
    for half in (0, 1):
        for target, source in rows_of_shift(half, shift):
            fused[:, target, half] += y[:, source, half]
    return out


def _written_gradient(
    frames: Tensor, gate: Tensor, grad_out: Tensor, shift: Shift, interleaved: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of frames and gate."""
    x, g = clips_of(frames, shift), gate_of_clips(gate, shift)
    grad = clips_of(grad_out, shift, interleaved=interleaved)
    grad_frames = empty_like_frames(frames, frames.shape[1])
    moved = clips_of(grad_frames, shift)
    torch.neg(grad, out=moved)
    for half in (0, 1):
        for target, source in rows_of_shift(half, shift):
            moved[:, source, half] += grad[:, target, half]
    grad_gate = (x * moved).sum((3, 4)).flatten(0, 1)
    moved.mul_(g).add_(grad)
    return grad_frames, grad_gate


def _plain_gradient(
    frames: Tensor, gate: Tensor, grad_out: Tensor, shift: Shift, interleaved: bool
) -> tuple[Tensor | None, ...]:
    """Return the same gradients by automatic differentiation of the plain operations, with a graph of their own."""
    # Views: the gate depends on the frames, and its part of the gradient must not come twice.
    given = (frames.view_as(frames), gate.view_as(gate))
    out = plain_gate_shift(given[0], given[1], shift, interleaved)
    wanted = [place for place, tensor in enumerate(given) if tensor.requires_grad]
    gradients: list[Tensor | None] = [None, None]
    found = torch.autograd.grad(out, [given[place] for place in wanted], grad_out, create_graph=True)
    for place, gradient in zip(wanted, found, strict=True):
        gradients[place] = gradient
    return tuple(gradients)
