"""The cell's mixing matrix: the weight of every candidate on every edge, mixed or drawn, decided or masked."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection

import torch
from torch import Tensor

from image2video.errors import InputError
from image2video.search.cell.topology import Decisions
from image2video.search.space.deep_space import AnySpace


def mixing_matrix(
    tau: Tensor,
    space: AnySpace,
    decisions: Decisions | None = None,
    *,
    masked_op: tuple[int, int] | None = None,
    masked_edge: int | None = None,
    removed: Collection[int] = (),
    renormalise: bool = False,
) -> Tensor:
    """The matrix `(edges, candidates)` with which the cell adds up: rows of softmax(τ) (Eq. 1), shared out per node.

    `tau` is `(edges, candidates)`; the result is differentiable in it. A decided edge has weight 1 on its op. A node
    that keeps one edge ignores the others. With `reduce="mean"` the rows are divided by the number of edges that the
    node keeps. `removed` edges are gone: their node shares out among the rest.

    `masked_op=(edge, candidate)` or `masked_edge=edge` takes one part away and leaves all other weights as they are
    (Wang et al., ICLR 2021, DARTS-PT); `renormalise=True` scales the rest up to the former sum.
    """
    decisions = decisions or Decisions()
    weights = torch.softmax(tau, dim=-1)
    if decisions.ops:
        weights = _overwritten(weights, decisions.ops)
    if masked_op is not None:
        weights = _without(weights, *masked_op, renormalise)
    if not decisions.sources and masked_edge is None and not removed:
        return weights * _plain_scales(space, weights.device, weights.dtype)
    return weights * _scales_like(weights, space, decisions, masked_edge, renormalise, removed)


def single_path_mixing(
    tau: Tensor,
    space: AnySpace,
    temperature: float,
    generator: torch.Generator,
    decisions: Decisions | None = None,
) -> tuple[Tensor, tuple[int, ...]]:
    """One candidate per edge, drawn from softmax(τ): a mixing matrix of one-hot rows, and the candidates drawn.

    The draw is Gumbel-max: the candidate with the largest log softmax(τ) + g stays, g from `generator`. Its value is
    exactly 1 (shared out per node as in `mixing_matrix`), its gradient that of its weight in
    softmax((log softmax(τ) + g) / `temperature`), which reaches every entry of τ's row; the other candidates have
    weight 0 and no gradient, so none of them has to be computed (the idea of Dong & Yang, CVPR 2019). A decided edge
    holds its op, without a gradient; an edge that its node ignores is −1 among the candidates drawn. The generator
    gives the same numbers whatever is decided. On an accelerator the draw waits for τ.

    Returns:
        The matrix `(edges, candidates)`, and per edge the candidate: `mixing` and `active` of `Cell.forward`.

    Raises:
        InputError: a temperature that is no finite number above 0.

    Example:
        >>> from image2video.search import Cell, get_space
        >>> cell = Cell(get_space("affine5"), T=3)
        >>> mixing, active = single_path_mixing(cell.tau, cell.space, 1.0, torch.Generator().manual_seed(0))
        >>> cell(torch.rand(2, 3, 16, 24), mixing, active=active).shape
        torch.Size([2, 3, 3, 16, 24])
    """
    if not (isinstance(temperature, int | float) and 0 < temperature < math.inf):
        raise InputError(f"the temperature must be a finite number above 0, got {temperature!r}")
    decisions = decisions or Decisions()
    gumbel = _gumbel(tau.shape, generator)
    # Drawn in float64 on the CPU, so that every device draws alike.
    score = torch.log_softmax(tau.detach().cpu().double(), dim=-1) + gumbel
    drawn = score.argmax(dim=-1).tolist()
    for edge, op in decisions.ops.items():
        drawn[edge] = op
    noise = gumbel.to(tau.dtype).to(tau.device)  # in this order: there are devices without float64
    soft = torch.softmax((torch.log_softmax(tau, dim=-1) + noise) / temperature, dim=-1)
    if decisions.ops:
        soft = _overwritten(soft, decisions.ops)
    hot = torch.nn.functional.one_hot(torch.tensor(drawn, device="cpu"), tau.shape[1]).to(soft)
    # 1 + (p − p) is 1 to the last bit, (1 + p) − p is not.
    mixing = hot * (1 + (soft - soft.detach()))
    if decisions.sources:
        kept = _edge_scales(space, decisions, None, False).tolist()
        drawn = [op if scale else -1 for op, scale in zip(drawn, kept, strict=True)]
        return mixing * _scales_like(mixing, space, decisions), tuple(drawn)
    return mixing * _plain_scales(space, mixing.device, mixing.dtype), tuple(drawn)


def _gumbel(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Numbers of the Gumbel distribution, float64 on the CPU."""
    uniform = torch.rand(shape, dtype=torch.float64, device=generator.device, generator=generator).cpu()
    return -torch.log(-torch.log(uniform.clamp_min(torch.finfo(torch.float64).tiny)))


@functools.lru_cache(maxsize=32)
def _plain_scales(space: AnySpace, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The scales of the undecided cell, `(edges, 1)`, kept on the device: a copy from the host would stall it."""
    with torch.inference_mode(False):  # a later call may need gradients
        return _scales_like(torch.empty((), device=device, dtype=dtype), space, Decisions())


def _scales_like(
    like: Tensor,
    space: AnySpace,
    decisions: Decisions,
    masked_edge: int | None = None,
    renormalise: bool = False,
    removed: Collection[int] = (),
) -> Tensor:
    """The scales `(edges, 1)` in the dtype and on the device of `like`."""
    # The dtype first: there are devices without float64.
    scales = _edge_scales(space, decisions, masked_edge, renormalise, removed)
    return scales.to(like.dtype).to(like.device).unsqueeze(-1)


def _without(weights: Tensor, edge: int, candidate: int, renormalise: bool) -> Tensor:
    """The weights without one candidate of one edge; the edge's others scaled up to 1 where `renormalise` asks."""
    keep = torch.ones_like(weights)
    keep[edge, candidate] = 0
    weights = weights * keep
    if not renormalise:
        return weights
    rest = weights[edge].sum()
    scale = torch.ones_like(weights[:, :1])
    # A decided edge whose op is masked has no rest: it stays at 0.
    scale[edge] = torch.where(rest > 0, 1 / rest.clamp_min(1e-12), rest).detach()
    return weights * scale


def _overwritten(weights: Tensor, ops: dict[int, int]) -> Tensor:
    """The weights with 1 on the op of every decided edge, and 0 on its others."""
    fixed = torch.zeros_like(weights)
    free = torch.ones_like(weights[:, :1])
    for edge, candidate in ops.items():
        fixed[edge, candidate] = 1
        free[edge] = 0
    return weights * free + fixed


def _edge_scales(
    space: AnySpace,
    decisions: Decisions,
    masked_edge: int | None,
    renormalise: bool,
    removed: Collection[int] = (),
) -> Tensor:
    """What every edge's weights are multiplied by, `(edges,)`: 0 where its node ignores it or it is masked."""
    scales = torch.zeros(len(space.edges), dtype=torch.float64, device="cpu")
    for node in range(space.inputs, space.num_nodes):
        kept = [decisions.sources[node]] if node in decisions.sources else list(space.incoming(node))
        kept = [edge for edge in kept if edge not in removed]
        share = 1 / len(kept) if space.reduce == "mean" else 1.0
        if masked_edge in kept:
            if renormalise and len(kept) > 1:
                share *= len(kept) / (len(kept) - 1)
            kept.remove(masked_edge)
        for edge in kept:
            scales[edge] = share
    return scales
