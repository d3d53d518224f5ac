"""For Lightning: the clip among the hyperparameters of loggers and in checkpoints, and no resuming with another."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
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
    or fusion is refused; without the callback, and in `validate`, `test` and `predict`, loading the weights warns.

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
        self._hook: Any = None

    def setup(self, trainer: Any, pl_module: nn.Module, stage: str) -> None:
        """Refuse a module without a wrapped model, before anything runs; in `fit`, refuse other weights too.

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
        if stage == "fit" and self.other_clip == "refuse":
            # Lightning loads the weights before it calls on_load_checkpoint of callbacks: torch would refuse the
            # weights of another fusion first, by their keys.
            self._hook = pl_module.register_load_state_dict_pre_hook(_refuse_weights)

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Let the module load what it likes from here on: the checkpoint to go on from has been read.

        Args:
            trainer: of the run.
            pl_module: the LightningModule.
        """
        self._unhook()

    def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
        """Let the module load what it likes after a run that failed, too.

        Args:
            trainer: of the run.
            pl_module: the LightningModule.
            exception: what ended the run.
        """
        self._unhook()

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
        """Refuse to go on with another clip than that of the checkpoint's weights, however they were loaded.

        Args:
            trainer: of the run.
            pl_module: the LightningModule.
            checkpoint: what was read.

        Raises:
            StateError: another clip in `fit`; the message names both sides.
        """
        if trainer.state.fn == "fit" and self.other_clip == "refuse":
            _refuse(pl_module, checkpoint.get("state_dict", {}))

    def _unhook(self) -> None:
        """Take the hook off again that `setup` put onto the module."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


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


def _refuse_weights(module: nn.Module, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
    """Refuse weights before they are loaded into a module, but for what its wrappers take over in loading."""
    _refuse(module, state, taken=lambda wrapper: wrapper._follows)


def _refuse(
    module: nn.Module,
    state: Mapping[str, Any],
    taken: Callable[[VideoWrap], Collection[str]] = lambda wrapper: (),
) -> None:
    """Raise `StateError` for weights of another clip than the module's; the message names both sides."""
    for path, wrapper in wrappers(module).items():
        value = state.get(f"{path}.{CLIP}" if path else CLIP)
        if not is_clip(value):
            continue  # loading it warns
        saved, own = decode(value), decode(wrapper.get_extra_state())
        names = [name for name in differing(saved, own) if name not in taken(wrapper)]
        if names:
            raise StateError(
                f"the training was begun with another clip: {describe(names, saved, own)}; wrap with the "
                "checkpoint's options, call load_clip(checkpoint) in on_load_checkpoint of the LightningModule, or, "
                'where fusion and sites are the same, pass ClipCallback(other_clip="warn") to go on with the new one'
            )


def _is_configured_later(module: nn.Module) -> bool:
    """Whether a LightningModule makes its parts in `configure_model`, which runs after `setup`."""
    own = getattr(type(module), "configure_model", None)
    return not list(module.parameters()) and own is not None


def _plain(value: Any) -> Any:
    """Return a value that every logger takes: a number, or a text."""
    if isinstance(value, int | float | str):
        return value
    return value.get("name", str(value)) if isinstance(value, dict) else str(value)
