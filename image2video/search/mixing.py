"""The cell's mixing matrix: the weight of every candidate on every edge, with what is decided or masked."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from image2video.search.space import SearchSpace
from image2video.search.topology import Decisions


def mixing_matrix(
    tau: Tensor,
    space: SearchSpace,
    decisions: Decisions | None = None,
    *,
    masked_op: tuple[int, int] | None = None,
    masked_edge: int | None = None,
    renormalise: bool = False,
) -> Tensor:
    """The matrix `(edges, candidates)` with which the cell adds up: rows of softmax(τ) (Eq. 1), shared out per node.

    `tau` is `(edges, candidates)`; the result is differentiable in it. A decided edge has weight 1 on its op. A node
    that keeps one edge ignores the others. With `reduce="mean"` the rows are divided by the number of edges that the
    node keeps.

    `masked_op=(edge, candidate)` or `masked_edge=edge` takes one part away and leaves all other weights as they are
    (Wang et al., ICLR 2021, DARTS-PT); `renormalise=True` scales the rest up to the former sum.
    """
    decisions = decisions or Decisions()
    weights = torch.softmax(tau, dim=-1)
    if decisions.ops:
        weights = _overwritten(weights, decisions.ops)
    if masked_op is not None:
        edge, candidate = masked_op
        keep = torch.ones_like(weights)
        keep[edge, candidate] = 0
        weights = weights * keep
        if renormalise:
            rest = weights[edge].sum()
            scale = torch.ones_like(weights[:, :1])
            scale[edge] = torch.where(rest > 0, 1 / rest.clamp_min(1e-12), rest).detach()
            weights = weights * scale
    if not decisions.sources and masked_edge is None:
        return weights * _plain_scales(space, weights.device, weights.dtype)
    return weights * _edge_scales(space, decisions, masked_edge, renormalise).to(weights).unsqueeze(-1)


@functools.lru_cache(maxsize=32)
def _plain_scales(space: SearchSpace, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The scales of the undecided cell, `(edges, 1)`, kept on the device: a copy from the host would stall it."""
    with torch.inference_mode(False):  # a later call may need gradients
        return _edge_scales(space, Decisions(), None, False).to(device=device, dtype=dtype).unsqueeze(-1)


def _overwritten(weights: Tensor, ops: dict[int, int]) -> Tensor:
    fixed = torch.zeros_like(weights)
    free = torch.ones_like(weights[:, :1])
    for edge, candidate in ops.items():
        fixed[edge, candidate] = 1
        free[edge] = 0
    return weights * free + fixed


def _edge_scales(space: SearchSpace, decisions: Decisions, masked_edge: int | None, renormalise: bool) -> Tensor:
    scales = torch.zeros(len(space.edges), device="cpu")
    for node in range(space.inputs, space.num_nodes):
        kept = [decisions.sources[node]] if node in decisions.sources else list(space.incoming(node))
        share = 1 / len(kept) if space.reduce == "mean" else 1.0
        if masked_edge in kept:
            if renormalise and len(kept) > 1:
                share *= len(kept) / (len(kept) - 1)
            kept.remove(masked_edge)
        for edge in kept:
            scales[edge] = share
    return scales
