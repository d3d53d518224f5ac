"""Weights out of checkpoints of mmengine, which hold a log beside them; no code in the file is ever run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from image2video.functional import InputError
from image2video.integrations.openmmlab.loading import FUSION
from image2video.runs.folders import torch_load
from image2video.training import read_weights
from image2video.training.checkpoint import load_state
from image2video.wrap.clip_record import CLIP


def load_segmentor(segmentor: nn.Module, path: str, *, averaged: bool = False) -> None:
    """Load the weights of a plain segmentor: a checkpoint of mmengine, another torch checkpoint, or safetensors.

    With `averaged` also those of a video segmentor without a fusion, which are a plain one's beside the clip. Raises
    `MissingError` where there is no file, `InputError` where it holds no weights, those of a video segmentor, or those
    of another model.
    """
    with torch.serialization.safe_globals(_known()):
        state: dict[str, Tensor] = read_weights(path)
        fused = any(name.startswith(FUSION) for name in state)
        if fused or (CLIP in state and not averaged):
            raise InputError(
                f"{Path(path).name} holds a video segmentor's weights ({FUSION}…); give those of the plain segmentor"
            )
        state.pop(CLIP, None)
        wanted = segmentor.state_dict()
        for name, value in state.items():
            if name in wanted and wanted[name].shape != value.shape:
                raise InputError(
                    f"{path}: {name} is {tuple(value.shape)}, the model needs {tuple(wanted[name].shape)}; give the "
                    "config that these weights were trained with, with its num_classes"
                )
        load_state(segmentor, state, path)


def is_checkpoint(path: str) -> bool:
    """Whether mmengine's own loading takes a file: a torch checkpoint with `meta` and `state_dict`."""
    if Path(path).suffix == ".safetensors":
        return False
    with torch.serialization.safe_globals(_known()):
        found = torch_load(Path(path).expanduser())
    return isinstance(found, dict) and {"meta", "state_dict"} <= set(found)


class _Log:
    """Stands in for the curves of a training log (mmengine's HistoryBuffer), which are not wanted."""

    def __setstate__(self, state: Any) -> None:
        pass


def _statistic(owner: Any, name: str) -> str:
    """Stands in for `getattr`, by which a log names its own methods."""
    return name


def _known() -> list[Any]:
    """What mmengine's logs are made of: arrays and numbers of numpy, and their own class."""
    core = np._core if hasattr(np, "_core") else np.core
    dtypes = [kind for kind in vars(np.dtypes).values() if isinstance(kind, type)]
    return [
        *(np.ndarray, np.dtype, core.multiarray._reconstruct, core.multiarray.scalar, *dtypes),
        (_Log, "mmengine.logging.history_buffer.HistoryBuffer"),
        (_statistic, "builtins.getattr"),
    ]
