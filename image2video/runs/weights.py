"""Weights in files and state dicts: read with errors that name the file, and refused where they cannot be a model's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from image2video.errors import InputError, InputTypeError, MissingError
from image2video.runs.texts import user_path


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors in a safetensors file.

    Raises:
        MissingError: there is no such file.
        InputError: the file is cut short, damaged, or none of that format.

    """
    from safetensors.torch import load_file

    source = user_path(path)
    if not os.path.isfile(source):
        raise MissingError(f"expected a file: no weights at {source}")
    try:
        return dict(load_file(source))
    except Exception as error:  # what its header makes of the library, such as an unknown dtype, has any type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{source} is not a readable safetensors file: {reason:.300}; restore a copy") from error


def check_entries(saved: Any, entries: Mapping[str, type], source: str) -> None:
    """Refuse what is no checkpoint with these entries of these types; `source` names it in the `InputError`."""
    if not isinstance(saved, Mapping):
        raise InputError(f"{source} must hold a checkpoint, got a {type(saved).__name__}; use another file")
    for name, kind in entries.items():
        if name not in saved:
            raise InputError(f"{source} has no {name!r}; it is no checkpoint that can be gone on from, use another")
        if not isinstance(saved[name], kind):
            raise InputError(
                f"{source}: {name} must be a {kind.__name__}, got a {type(saved[name]).__name__}; use another file"
            )


def load_state(model: nn.Module, state: Any, source: str) -> None:
    """Load a state dict whose names, shapes and kinds of numbers must all fit; `source` names it in messages.

    Raises:
        InputError: names or shapes of another model, whole numbers or NaN where the model has weights.
        InputTypeError: no state dict.

    """
    _check_tensors(state, source)
    check_values(state, model.state_dict(), source)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]] or [str(error)]
        raise InputError(f"{source} does not fit {type(model).__name__}: {' '.join(lines)[:400]}") from error


def check_fits(state: Any, wanted: Mapping[str, Any], source: str) -> None:
    """Refuse a state dict that is not loaded now, but kept for later: names and shapes must be the model's own.

    Raises:
        InputError: names or shapes of another model, whole numbers or NaN where the model has weights.
        InputTypeError: no state dict.

    """
    _check_tensors(state, source)
    for name in {**wanted, **state}:
        shapes = [tuple(found[name].shape) if name in found else None for found in (state, wanted)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{source}: {name!r:.80} must have the shape {shapes[1]}, got {shapes[0]}; use another file"
            )
    check_values(state, wanted, source)


def _check_tensors(state: Any, source: str) -> None:
    if not isinstance(state, Mapping):
        raise InputTypeError(f"{source} must hold a state dict (names and tensors), got a {type(state).__name__}")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise InputTypeError(
                f"{source} must hold a state dict (names and tensors), got a {type(value).__name__} for {name!r:.80}"
            )


def check_values(given: Mapping[str, Any], wanted: Mapping[str, Any], source: str) -> None:
    """Refuse tensors that loading would turn into other numbers without a word.

    torch copies whole numbers and bools into weights, and NaN as well. Floating-point numbers of another precision are
    what a half-precision checkpoint holds; they are fine.

    Args:
        given: the tensors of a file, by name.
        wanted: the model's own; names that are not in both are left to `load_state_dict`.
        source: names the file in messages.

    Raises:
        InputError: another kind of numbers than the model's, or NaN.

    """
    unusable: list[str] = []
    for name, value in given.items():
        own = wanted.get(name)
        if not isinstance(value, Tensor) or not isinstance(own, Tensor):
            continue
        if _kind(value.dtype) != _kind(own.dtype):
            raise InputError(
                f"{source}: {name} holds {value.dtype}, the model needs {own.dtype}; dequantise the weights, or load "
                "those of this model"
            )
        if _has_nan(value):
            unusable.append(name)
    if unusable:
        raise InputError(
            f"{source} holds NaN in {len(unusable)} of {len(given)} tensors ({', '.join(unusable[:3])}); the training "
            "that wrote it has failed, or the file is damaged: use other weights"
        )


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    if dtype == torch.bool:
        return "bool"
    return "floating" if dtype.is_floating_point else "whole"


def _has_nan(value: Tensor) -> bool:
    """Whether a tensor holds NaN; one without data holds none."""
    if value.is_meta or not (value.is_floating_point() or value.is_complex()):
        return False
    # torch compares no numbers of eight bits.
    return bool(torch.isnan(value.float() if value.element_size() == 1 else value).any())
