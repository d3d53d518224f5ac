"""Weights and checkpoints on disk: safetensors for weights, tensors and plain values for the rest, no pickled code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from torch import Tensor, nn

from image2video.errors import InputError, MissingError
from image2video.runs.folders import atomic_write_bytes, torch_load
from image2video.runs.settings import differences
from image2video.runs.texts import user_path
from image2video.runs.weights import check_values, read_safetensors
from image2video.training.head import without_head
from image2video.wrap.clip_record import CLIP

CHECKPOINT_FORMAT = 1
_WRAPPINGS = ("state_dict", "state_dict_ema", "model", "model_state_dict", "net")
_PREFIXES = ("module.", "_orig_mod.")


def cpu_state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the module's state dict on the CPU, contiguous; later training does not change it."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}


def save_weights(path: Path, state: dict[str, Tensor]) -> None:
    """Write a state dict as safetensors, whole or not at all; equal weights give equal bytes.

    Args:
        path: the file.
        state: names and tensors.

    """
    # A second metadata entry would break that: safetensors writes them in a random order.
    atomic_write_bytes(path, safetensors.torch.save(state, {"format": "pt"}))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict in a file.

    Checkpoints that wrap it (`state_dict`, `model`, …) are opened; `module.` and `_orig_mod.` are stripped from names.

    Args:
        path: a .safetensors file, or a torch checkpoint that holds tensors and plain values only.

    Returns:
        Names and tensors.

    Raises:
        MissingError: there is no such file.
        InputError: it holds no state dict.

    """
    path = user_path(path)
    if not os.path.isfile(path):
        raise MissingError(f"expected a file: no weights at {path}")
    found: Any = read_safetensors(path) if path.suffix == ".safetensors" else torch_load(path)
    for key in _WRAPPINGS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    if not isinstance(found, dict) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError(f"{path} holds no state dict (names and tensors); it holds {_describe(found)}")
    return {_stripped(str(name)): value for name, value in found.items()}


def load_weights(model: nn.Module, path: str | Path, *, head: Literal["keep", "drop"] = "keep") -> None:
    """Load weights into a model; every name and shape must fit.

    A bare model's weights also load into the model wrapped by `VideoWrap`, whose fusion then starts fresh.

    Args:
        model: changed in place.
        path: a file as `read_weights` reads it.
        head: `keep` takes the classifier too, which must fit; `drop` leaves the model's own as it is, as for other
            classes.

    Raises:
        MissingError: there is no such file.
        InputError: the weights are another model's, or are whole numbers or NaN where the model has weights; or the
            model does not say which module is its classifier.

    """
    if head not in ("keep", "drop"):
        raise InputError(f"head must be keep or drop, got {head!r}")
    state = read_weights(path)
    if head == "drop":
        state = without_head(model, state, str(path))
    load_state(model, state, path)


def load_state(model: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """Load what `read_weights` read from `path` into a model; raises as `load_weights` does."""
    wanted = model.state_dict()
    wrapped_file = any(name.startswith("backbone.") for name in state)
    wrapped_model = any(name.startswith("backbone.") for name in wanted)
    if wrapped_file and not wrapped_model:
        raise InputError(
            f"{path} holds the weights of a wrapped model (backbone.*), the model here is bare: "
            "wrap it with the same genotype and fusion, or pass the weights of the bare model"
        )
    prefix = "backbone." if wrapped_model and not wrapped_file else ""
    for name, value in state.items():
        # The text of the clip may have any length; loading compares what it says.
        if name != CLIP and prefix + name in wanted and wanted[prefix + name].shape != value.shape:
            raise InputError(
                f"{path}: {name} is {tuple(value.shape)}, the model needs {tuple(wanted[prefix + name].shape)}; "
                "is it another architecture, or are the numbers of classes or channels different (head='drop' leaves "
                "the classifier out)?"
            )
    check_values({prefix + name: value for name, value in state.items()}, wanted, str(path))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise InputError(f"{path} does not fit {type(model).__name__}: {' '.join(lines)[:400]}") from error


def check_same(saved: dict[str, Any], now: dict[str, Any], what: str) -> None:
    """Refuse, as `InputError`, to resume with other settings than those saved; the message lists the differences."""
    listed = differences(saved, now)
    if listed:
        raise InputError(f"cannot resume with another {what} ({listed}); use the same, or begin anew with overwrite")


def _stripped(name: str) -> str:
    """A name without what wrappers put before it."""
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


def _describe(value: Any) -> str:
    """What a file holds in place of a state dict."""
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(str, list(value)[:5])) or 'none'}"
    return f"a {type(value).__name__}"
