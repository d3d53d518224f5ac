"""For Lightning: the clip among the hyperparameters of loggers and in checkpoints, and no resuming with another."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from image2video.functional import InputError, InputTypeError, StateError, VideoWrap
from image2video.wrap.clip_record import CLIP, decode, describe, differing, is_clip

try:
    _library: Any = importlib.import_module("lightning.pytorch")
except ImportError:  # the same library under its earlier name
    _library = importlib.import_module("pytorch_lightning")

KEY = "image2video"
"""Under it the clips stand in a checkpoint, and before their options in the hyperparameters."""

SHOWN = ("genotype", "T", "schedule", "padding", "interpolation", "fusion", "clip_at", "aggregate")
"""The options that are hyperparameters; all of them stand in checkpoints."""


class ClipCallback(_library.Callback):
    """Keeps the clip of every `VideoWrap` in a LightningModule with what Lightning writes.

    The weights of a checkpoint hold the clip already, as a tensor. This adds it in plain values: under the key
    `image2video` of the checkpoint, and as hyperparameters of all loggers. A training that is resumed with another clip
    is refused; without the callback, loading the weights warns.

    Args:
        other_clip: `"refuse"`, or `"warn"` where another clip is wanted: loading warns then, as it does without this.

    Raises:
        InputError: another `other_clip`.

    >>> callback = ClipCallback()  # of Trainer(callbacks=[callback])
    """

    def __init__(self, other_clip: str = "refuse") -> None:
        if other_clip not in ("refuse", "warn"):
            raise InputError(f'other_clip must be "refuse" or "warn", got {other_clip!r}')
        self.other_clip = other_clip

    def setup(self, trainer: Any, pl_module: nn.Module, stage: str) -> None:
        """Refuse a module without a wrapped model, before anything runs.

        Args:
            trainer: of the run.
            pl_module: the LightningModule.
            stage: of the run.

        Raises:
            InputTypeError: no `VideoWrap` in the module.
        """
        if not wrappers(pl_module) and not _is_configured_later(pl_module):
            raise InputTypeError(
                f"ClipCallback needs a VideoWrap in the LightningModule, got a {type(pl_module).__name__} without one; "
                "leave it out"
            )

    def on_fit_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Give all loggers the clip as hyperparameters.

        Args:
            trainer: of the run.
            pl_module: the LightningModule.
        """
        found = clips(pl_module)
        given: dict[str, Any] = {}
        for path, record in found.items():
            name = KEY if len(found) == 1 else f"{KEY}/{path}"
            given |= {f"{name}/{option}": _plain(record[option]) for option in SHOWN if record[option] is not None}
        for logger in trainer.loggers:
            logger.log_hyperparams(given)

    def on_save_checkpoint(self, trainer: Any, pl_module: nn.Module, checkpoint: dict[str, Any]) -> None:
        """Write the clips into the checkpoint, by the path of their wrapper.

        Args:
            trainer: of the run.
            pl_module: the LightningModule.
            checkpoint: what is written.
        """
        checkpoint[KEY] = clips(pl_module)

    def on_load_checkpoint(self, trainer: Any, pl_module: nn.Module, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with another clip than that of the checkpoint's weights.

        Args:
            trainer: of the run.
            pl_module: the LightningModule.
            checkpoint: what was read.

        Raises:
            StateError: another clip; the message names both sides.
        """
        if self.other_clip == "warn":
            return
        state: Mapping[str, Any] = checkpoint.get("state_dict", {})
        for path, own in clips(pl_module).items():
            value = state.get(f"{path}.{CLIP}" if path else CLIP)
            if not is_clip(value):
                continue  # loading it has warned
            saved = decode(value)
            names = differing(saved, own)
            if names:
                raise StateError(
                    f"the training was begun with another clip: {describe(names, saved, own)}; wrap with the "
                    "checkpoint's options, call load_clip(checkpoint) in on_load_checkpoint of the LightningModule, or "
                    'pass ClipCallback(other_clip="warn") to go on with the new one'
                )


def wrappers(module: nn.Module) -> dict[str, VideoWrap]:
    """Find the wrapped models in a module.

    Args:
        module: such as a LightningModule.

    Returns:
        Path -> wrapper.
    """
    return {name: part for name, part in module.named_modules() if isinstance(part, VideoWrap)}


def clips(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Read the clips of the wrapped models in a module.

    Args:
        module: such as a LightningModule.

    Returns:
        Path -> the arguments of `VideoWrap` by name, as plain values.
    """
    return {path: decode(wrapper.get_extra_state()) for path, wrapper in wrappers(module).items()}


def _is_configured_later(module: nn.Module) -> bool:
    """Whether a LightningModule makes its parts in `configure_model`, which runs after `setup`."""
    own = getattr(type(module), "configure_model", None)
    return not list(module.parameters()) and own is not None


def _plain(value: Any) -> Any:
    """Return a value that every logger takes: a number, or a text."""
    if isinstance(value, int | float | str):
        return value
    return value.get("name", str(value)) if isinstance(value, dict) else str(value)
