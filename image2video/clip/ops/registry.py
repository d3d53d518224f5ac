"""The registry of ops: what genotypes and search spaces know by name."""

from __future__ import annotations

import difflib

from image2video.clip.ops.contract import check_op
from image2video.clip.ops.geometric import GEOMETRIC_OPS
from image2video.clip.ops.op import Op
from image2video.clip.ops.photometric import PHOTOMETRIC_OPS
from image2video.errors import InputError, InputTypeError

# Our own ops are not run here, since that would import torchvision; the tests check them.
_REGISTRY: dict[str, Op] = {op.name: op for op in (*GEOMETRIC_OPS, *PHOTOMETRIC_OPS)}


def register_op(op: Op) -> Op:
    """Add an op to those that genotypes and search spaces know.

    Args:
        op: with a matrix (geometric), or a pixel function and its gradient rule (photometric); see `Op`.

    Returns:
        The op.

    Raises:
        InputError: a name that is taken or malformed, numbers that contradict each other, or a function that breaks
            its contract: shape and last row of matrices; shape, dtype and range of pixels; the identity at step 0 and
            at the neutral magnitude.
        InputTypeError: anything but an `Op`.

    >>> import torch
    >>> from image2video.clip.ops.registry import Op, register_op
    >>> def gamma(images, magnitude, step):
    ...     return images.clamp_min(1e-3) ** (magnitude**step) if step * (magnitude - 1) else images
    >>> register_op(Op("gamma", "(exponent)", 1.2, 0.25, 4, 1, pixels=gamma)).geometric
    False
    """
    check_op(op)
    if op.name in _REGISTRY:
        raise InputError(f"an op named {op.name!r} is registered already; choose another name")
    _REGISTRY[op.name] = op
    return op


def get_op(name: str) -> Op:
    """Return the op of that name; `InputError` gives the closest name and the list of all."""
    if not isinstance(name, str):
        raise InputTypeError(f"an op is named by a string, got {name!r:.80} of type {type(name).__name__}")
    if name not in _REGISTRY:
        close = difflib.get_close_matches(name[:100], _REGISTRY, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        shown = name if len(name) <= 40 else name[:40] + "…"
        raise InputError(f"unknown op {shown!r}{hint}; known ops: {', '.join(op_names())}")
    return _REGISTRY[name]


def op_names() -> tuple[str, ...]:
    """List all registered ops: ours, geometric before photometric, then others in order of registration."""
    return tuple(_REGISTRY)
