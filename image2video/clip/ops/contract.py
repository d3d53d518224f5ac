"""The contract of an op, checked before it is registered."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from image2video.clip.ops.op import GRADIENTS, MatrixFunction, Op, PixelFunction
from image2video.errors import InputError, InputTypeError

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TOLERANCE = 1e-6  # float32 pixels


def check_op(op: Op) -> None:
    """Raise `InputError` where an op is malformed or breaks its contract, `InputTypeError` for anything but an `Op`.

    Numbers must fit each other. A matrix function must give the shape, the last row and the identities that `Op`
    asks for; a pixel function the shape, dtype, range and identities, and it must leave its argument alone.
    """
    if not isinstance(op, Op):
        raise InputTypeError(f"register_op takes an Op, got {type(op).__name__}")
    if not isinstance(op.name, str) or not _NAME.fullmatch(op.name):
        raise InputError(f"op name {op.name!r} must be lower-case letters, digits and underscores, a letter first")
    if not all(math.isfinite(value) for value in (op.default, op.low, op.high, op.neutral)):
        raise InputError(f"default, low, high and neutral of op {op.name!r} must be finite numbers")
    _check_mirrors(op)
    _check_shifts(op)
    for label, value in (("default", op.default), ("neutral", op.neutral)):
        if not (op.contains(value) or (op.mirrors and label == "neutral")):
            raise InputError(f"{label} of op {op.name!r} must lie in its range {op.range_text}, got {value:g}")
    if op.gradient not in GRADIENTS:
        raise InputError(f"gradient {op.gradient!r} of op {op.name!r} must be one of {', '.join(GRADIENTS)}")
    if (op.matrix is None) == (op.pixels is None):
        has = "neither" if op.matrix is None else "both"
        raise InputError(
            f"op {op.name!r} needs a matrix (geometric) or pixels (photometric), one of the two; got {has}"
        )
    if op.matrix is not None:
        if op.gradient != "exact":
            raise InputError(f"op {op.name!r} is geometric; its gradient is exact, and {op.gradient!r} has no effect")
        _check_matrix(op, op.matrix)
    elif op.pixels is not None:
        # A registration under no_grad is checked like any other.
        with torch.inference_mode(False), torch.enable_grad():
            _check_pixels(op, op.pixels)


def _check_mirrors(op: Op) -> None:
    """Raise `InputError` for an op that mirrors images and says of itself what does not fit."""
    if not op.mirrors:
        return
    if op.matrix is None or any(axis not in (-1, -2) for axis in op.mirrors) or len(set(op.mirrors)) < len(op.mirrors):
        raise InputError(f"mirrors of op {op.name!r} must be axes of a geometric op, -1 and -2, got {op.mirrors}")
    if (op.default, op.low, op.high, op.neutral) != (1, 1, 1, 0):
        raise InputError(f"op {op.name!r} mirrors images: its default, low and high must be 1 and its neutral 0")


def _check_shifts(op: Op) -> None:
    """Raise `InputError` for an op that shifts images and says of itself what does not fit."""
    if op.shifts is None:
        return
    if op.matrix is None or op.mirrors or op.shifts not in (-1, -2):
        raise InputError(f"shifts of op {op.name!r} must be the axis of a geometric op, -1 or -2, got {op.shifts!r}")
    if op.neutral != 0:
        raise InputError(f"op {op.name!r} shifts images: its neutral must be 0, got {op.neutral:g}")


def _check_matrix(op: Op, matrix: MatrixFunction) -> None:
    """Raise `InputError` where the matrices of an op break their contract."""
    # The device is named, so that `with torch.device("meta")` around a registration changes nothing here.
    steps = torch.tensor([0.0, 1.0], dtype=torch.float64, device="cpu")
    eye = torch.eye(3, dtype=torch.float64, device="cpu")
    magnitudes = (("default", op.default),) if op.mirrors else (("default", op.default), ("neutral", op.neutral))
    for label, value in magnitudes:
        matrices = matrix(torch.tensor(value, dtype=torch.float64, device="cpu"), steps, 5, 7)
        if not isinstance(matrices, Tensor) or matrices.shape != (2, 3, 3) or matrices.dtype != torch.float64:
            got = (tuple(matrices.shape), matrices.dtype) if isinstance(matrices, Tensor) else type(matrices).__name__
            raise InputError(
                f"op {op.name!r}: matrix(magnitude, steps, height, width) must give (S, 3, 3) in the magnitude's "
                f"dtype; with 2 steps in float64 it gave {got}"
            )
        if not torch.equal(matrices[:, 2], eye[2].expand(2, 3)):
            raise InputError(f"op {op.name!r}: the last row of its matrices must be (0, 0, 1)")
        if not torch.allclose(matrices[0], eye, atol=1e-9):
            raise InputError(f"op {op.name!r}: at step 0 its matrix must be the identity")
        if label == "neutral" and not torch.allclose(matrices[1], eye, atol=1e-9):
            raise InputError(f"op {op.name!r}: at its neutral magnitude {value:g} its matrix must be the identity")
        if op.mirrors:
            signs = [-1.0 if axis in op.mirrors else 1.0 for axis in (-1, -2)]
            mirror = torch.diag(torch.tensor([*signs, 1.0], dtype=torch.float64, device="cpu"))
            if not torch.equal(matrices[1], mirror):
                raise InputError(f"op {op.name!r}: at step 1 its matrix must mirror the axes {op.mirrors} and no more")
        if op.shifts is not None:
            shift = eye.clone()
            shift[0 if op.shifts == -1 else 1, 2] = value * (7 if op.shifts == -1 else 5)
            if not torch.allclose(matrices[1], shift, atol=1e-9):
                raise InputError(
                    f"op {op.name!r}: at step 1 its matrix must shift the axis {op.shifts} by {value:g} of its size "
                    "and do no more"
                )


def _check_pixels(op: Op, pixels: PixelFunction) -> None:
    """Raise `InputError` where the pixel function of an op breaks its contract."""
    cases = (
        ("at step 1", op.default, 1.0),
        ("at step -2", op.default, -2.0),
        ("at step 0", op.default, 0.0),
        (f"at its neutral magnitude {op.neutral:g}", op.neutral, 1.0),
    )
    for dtype in (torch.float32, torch.float64):
        for label, magnitude, step in cases:
            images = _example(dtype)
            given = images.clone()
            out = pixels(given, magnitude, step)
            if not torch.equal(given, images):
                raise InputError(f"op {op.name!r}: {label} pixels() changed its argument; it must give new images")
            is_neutral = step == 0 or magnitude == op.neutral
            _check_output(op, label, images, out, is_neutral)
    if op.gradient == "exact" and not pixels(_example(torch.float32).requires_grad_(), op.default, 1.0).requires_grad:
        raise InputError(
            f"op {op.name!r}: no gradient passes through pixels(); use differentiable operations, or register it with "
            "gradient='straight_through'"
        )


def _check_output(op: Op, label: str, images: Tensor, out: object, is_neutral: bool) -> None:
    """Raise `InputError` where a pixel function made something wrong of the images; `label` says when."""
    if not isinstance(out, Tensor) or out.shape != images.shape or out.dtype != images.dtype:
        got = (tuple(out.shape), out.dtype) if isinstance(out, Tensor) else type(out).__name__
        raise InputError(
            f"op {op.name!r}: pixels(images, magnitude, step) must keep shape and dtype; {label}, images "
            f"{tuple(images.shape)} {images.dtype} gave {got}"
        )
    if not (out.min() >= -_TOLERANCE and out.max() <= 1 + _TOLERANCE):
        raise InputError(f"op {op.name!r}: {label} pixels() must stay in 0 … 1, got {out.min():g} … {out.max():g}")
    if is_neutral and not torch.allclose(out, images, rtol=0, atol=_TOLERANCE):
        raise InputError(f"op {op.name!r}: {label} pixels() must give back the images")


def _example(dtype: torch.dtype) -> Tensor:
    """Return two images `(2, 3, 5, 7)` whose values fill 0 … 1, ends included."""
    # Multiples of a number that shares no factor with the count visit every value once, in a mixed order.
    values = torch.linspace(0, 1, 2 * 3 * 5 * 7, dtype=dtype, device="cpu")
    return values[torch.arange(values.numel(), device="cpu") * 37 % values.numel()].view(2, 3, 5, 7)
