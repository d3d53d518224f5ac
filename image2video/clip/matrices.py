"""3×3 matrices: pure functions, no state, no sampling.

Convention: matrices act on centred pixel coordinates (x right, y down, origin at the image's centre) and map a point of
the reference image to where its content stands in the frame. All products are written out in elementwise operations:
a matrix product would run in reduced precision under autocast or TF32, and move the content by tenths of a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from image2video.clip.ops.registry import Op, get_op
from image2video.errors import InputError


def chain_matrices(ops: Sequence[str | Op], magnitudes: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    """Compute the frame matrices M(t) = A_n^{s(t)} ··· A_1^{s(t)} of a chain, whose first op acts first.

    `magnitudes` `(n,)` and `steps` `(S,)`, floating point, of one device; the result is `(S, 3, 3)` in the dtype of the
    magnitudes, in pixels of an image of `height` × `width`, and differentiable in the magnitudes. (It is not
    (A_n ··· A_1)^s; a path through the search cell computes the former.) Raises `InputError` where the numbers of ops
    and magnitudes differ, and for a photometric op.
    """
    if magnitudes.ndim != 1 or len(ops) != magnitudes.shape[0]:
        raise InputError(f"{len(ops)} ops need magnitudes of shape ({len(ops)},), got {tuple(magnitudes.shape)}")
    steps = steps.to(magnitudes.dtype)
    chain: Tensor | None = None
    for index, op in enumerate(ops):
        op = op if isinstance(op, Op) else get_op(op)
        if op.matrix is None:
            raise InputError(f"op {op.name!r} is photometric and has no matrix; pass the geometric part of the chain")
        step = op.matrix(magnitudes[index], steps, height, width)
        chain = step if chain is None else compose(step, chain)
    if chain is None:
        return torch.eye(3, dtype=steps.dtype, device=steps.device).repeat(steps.shape[0], 1, 1)
    return chain


def compose(after: Tensor, before: Tensor) -> Tensor:
    """Return the matrix product after · before of `(…, 3, 3)` tensors, in full precision under autocast and TF32."""
    return (after.unsqueeze(-1) * before.unsqueeze(-3)).sum(dim=-2)


def inverse_affine(matrices: Tensor) -> Tensor:
    """Return the inverse of affine matrices `(…, 3, 3)` with last row (0, 0, 1), in closed form; same shape.

    Differentiable. A singular matrix gives inf or NaN: genotypes refuse singular chains when they are made.
    """
    a, b, tx = matrices[..., 0, :].unbind(-1)
    c, d, ty = matrices[..., 1, :].unbind(-1)
    det = a * d - b * c
    ia, ib, ic, id_ = d / det, -b / det, -c / det, a / det
    zero, one = torch.zeros_like(det), torch.ones_like(det)
    entries = [ia, ib, -(ia * tx + ib * ty), ic, id_, -(ic * tx + id_ * ty), zero, zero, one]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def normalise(matrices: Tensor, height: int, width: int) -> Tensor:
    """Bring matrices `(…, 3, 3)` from centred pixels of an image to its [−1, 1] coordinates: N⁻¹ M N.

    N = diag(W/2, H/2, 1). In these coordinates a matrix holds for maps of every size of the same image: it equals the
    normalised form of the pixel matrix conjugated by diag(w/W, h/H, 1).
    """
    # Filled on the device: a copy from the host would stall it.
    n = torch.stack([matrices.new_full((), value) for value in (width / 2, height / 2, 1.0)])
    return matrices * n / n.unsqueeze(-1)


def conjugated(matrices: Tensor, y: float, x: float) -> Tensor:
    """Bring matrices `(…, 3, 3)` from centred pixels of an image to those of a map: D M D⁻¹ with D = diag(x, y, 1).

    `y` and `x` are the ratios of the map's height and width to the image's. Pixel (u, v) of the image is point
    (x·u, y·v) of the map.
    """
    # Filled, not made of numbers: those of an exported graph may be symbols.
    ratio = torch.stack([matrices.new_full((), value) for value in (x, y, 1.0)])
    return matrices * ratio.unsqueeze(-1) / ratio
