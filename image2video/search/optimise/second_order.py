"""The second-order gradient of DARTS: through one step of the weights, by finite differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from image2video.runs.random_state import random_state, set_random_state

Gradients = Callable[[Sequence[Tensor]], tuple[Tensor, list[Tensor]]]
"""A loss at the network's present weights, and its gradients with respect to the tensors that are asked for."""

_NORM_EPSILON = 1e-6  # what torch's clip_grad_norm_ adds to the norm


def unrolled_gradients(
    outer: Sequence[Tensor],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    training: Gradients,
    validation: Gradients,
    *,
    clip: float = 0.0,
) -> tuple[Tensor, list[Tensor]]:
    """The validation loss after one weight step, and its gradient in the outer parameters (Liu et al., ICLR 2019).

    With w' = w − ξ·(μ·b + clip(∇_w L_train(w, τ)) + λ·w), the step that SGD with rate ξ, momentum μ (its buffer b held
    fixed) and weight decay λ would take, the gradient of L_val(w', τ) in τ is ∇_τ L_val(w', τ) − ∇²_{τ,w} L_train · u
    with u = ξ·J·∇_{w'} L_val(w', τ), where J is the derivative of the clipping (1 where it does not act). The product
    is the central difference of ∇_τ L_train at w ± ε·u with ‖ε·u‖ = 0.01 (DARTS), or 1e-5 in float64.

    Weights, buffers and gradients of the network are afterwards what they were, bit for bit: they are put back from
    copies. All passes over the training batch draw the same random numbers; the global generators are left as the
    validation pass leaves them. DARTS itself does not clip in the unrolled step, though it does in the real one.

    Args:
        outer: τ, and what else the outer problem learns.
        network: its weights and buffers are changed and put back.
        optimizer: plain SGD (no Nesterov, no dampening) over all that is trained.
        training: the loss of the training batch; averaged over processes where there are several.
        validation: the loss of the validation batch, likewise.
        clip: largest norm of the weights' gradient in the step; 0 is no limit.
    """
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    with _borrowed(network, weights) as (start, reset):
        # The step that the weights would take, and the gradients behind it.
        _, slopes = training(weights)
        shrink, across = _clipping(slopes, clip)
        rates = [group["lr"] for group in optimizer.param_groups for _ in group["params"]]
        moved = _sgd_step(optimizer, [shrink * slope for slope in slopes])
        reset(moved)
        loss, gradients = validation([*outer, *weights])
        after_validation = random_state()
        # How the validation loss pulls at the weights, through the derivative of the clipped step.
        pull = gradients[len(outer) :]
        along = _dot(slopes, pull)
        direction = [rate * (shrink * v - across * along * g) for rate, v, g in zip(rates, pull, slopes, strict=True)]
        # The mixed second derivative in that direction, by a central difference around the weights as they were.
        length = _norm(direction).clamp_min(torch.finfo(direction[0].dtype).tiny)
        size = (1e-5 if length.dtype == torch.float64 else 1e-2) / length
        sides = []
        for sign in (1, -1):
            reset([w + sign * size * u for w, u in zip(start, direction, strict=True)])
            sides.append(training(outer)[1])
    set_random_state(after_validation)
    direct = gradients[: len(outer)]
    return loss, [d - (up - down) / (2 * size) for d, up, down in zip(direct, *sides, strict=True)]


@contextmanager
def _borrowed(
    network: nn.Module, weights: Sequence[Tensor]
) -> Iterator[tuple[list[Tensor], Callable[[Sequence[Tensor]], None]]]:
    """Lend the weights: yields copies of them, and a function that sets others.

    That function also puts buffers and random numbers back; at the end everything is as it was.
    """
    start = [w.detach().clone() for w in weights]
    buffers = [(buffer, buffer.detach().clone()) for buffer in network.buffers()]
    randomness = random_state()

    @torch.no_grad()
    def reset(values: Sequence[Tensor]) -> None:
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)
        for buffer, value in buffers:
            buffer.copy_(value)
        set_random_state(randomness)

    try:
        yield start, reset
    finally:
        reset(start)


def _clipping(slopes: Sequence[Tensor], limit: float) -> tuple[Tensor, Tensor]:
    """The factor s of a clipped gradient, and a with J·v = s·v − a·g·(g·v): the derivative of g -> s(g)·g."""
    norm = _norm(slopes)
    if limit <= 0:
        return torch.ones_like(norm), torch.zeros_like(norm)
    factor = limit / (norm + _NORM_EPSILON)
    acts = factor < 1
    tiny = torch.finfo(norm.dtype).tiny
    across = factor / ((norm + _NORM_EPSILON) * norm.clamp_min(tiny))
    return torch.where(acts, factor, 1.0), torch.where(acts, across, 0.0)


@torch.no_grad()
def _sgd_step(optimizer: torch.optim.Optimizer, slopes: Sequence[Tensor]) -> list[Tensor]:
    """The weights as a step of `optimizer` along `slopes` would make them; the weights themselves stay."""
    moved, rest = [], iter(slopes)
    for group in optimizer.param_groups:
        assert not group["nesterov"]
        assert group["dampening"] == 0
        for weight in group["params"]:
            step = next(rest) + group["weight_decay"] * weight
            buffer = optimizer.state.get(weight, {}).get("momentum_buffer")
            if buffer is not None:
                step = step + group["momentum"] * buffer
            moved.append(weight - group["lr"] * step)
    return moved


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in tensors]))


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()
