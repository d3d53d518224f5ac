"""For Hugging Face's `Trainer`: its checkpoints become folders that `VideoWrap.from_pretrained` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from image2video.functional import InputTypeError, VideoWrap


class SaveConfig(TrainerCallback):
    """Writes the config of a wrapped model beside the weights of every checkpoint, which `Trainer` writes alone.

    `Trainer` knows how to save networks of transformers; of others it writes `model.safetensors`. With the config,
    `VideoWrap.from_pretrained("runs/checkpoint-500")` needs no more than the folder.

    >>> callbacks = [SaveConfig()]  # of Trainer(model=model, args=…, callbacks=callbacks)
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **words: Any
    ) -> None:
        """Refuse a model that is not wrapped, before anything is trained.

        Args:
            args: of the training.
            state: of the training.
            control: of the training.
            **words: what else a callback gets; `model` is the model.

        Raises:
            InputTypeError: a model that is no `VideoWrap`.
        """
        model = words.get("model")
        if not isinstance(_bare(model), VideoWrap):
            raise InputTypeError(
                f"SaveConfig needs a VideoWrap as the Trainer's model, got a {type(model).__name__}; leave it out"
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **words: Any) -> None:
        """Write `config.json` into the checkpoint that was just written.

        Args:
            args: of the training, with the folder of its checkpoints.
            state: of the training, with its step.
            control: of the training.
            **words: what else a callback gets; `model` is the model.
        """
        if state.is_world_process_zero:
            model = _bare(words["model"])
            model.save_config(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


def _bare(model: Any) -> Any:
    """Return the model within what torch.compile and DistributedDataParallel put around it."""
    while isinstance(model, nn.Module) and not isinstance(model, VideoWrap):
        inner = model._modules.get("module") or model._modules.get("_orig_mod")
        if inner is None:
            return model
        model = inner
    return model
