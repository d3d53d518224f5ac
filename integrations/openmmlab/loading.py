"""What a checkpoint of a video segmentor says of its clip, and checkpoints of plain segmentors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from image2video.functional import InputError

FUSION = "video_fusion."
RECORD = "image2video"


class FreshFusionWarning(UserWarning):
    """A checkpoint without fusion parameters was loaded: the fusions keep the values that they had."""


def write_record(module: Any, state_dict: Any, prefix: str, local_metadata: dict[str, Any]) -> None:
    """Put the clip and the fusion into the state dict's metadata (a state_dict hook): no key that plain ones lack."""
    local_metadata[RECORD] = module.video_record()


def adapt_checkpoint(
    module: Any,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: Mapping[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Before a load: compare the clips, and forgive a plain segmentor's checkpoint its missing fusions.

    Raises `InputError` where the checkpoint was trained with another clip or fusion than the config has (a warning
    under `model.video.allow_mismatch`).
    """
    _compare(module, local_metadata.get(RECORD))
    own = {name: value for name, value in _tensors(module).items() if name.startswith(FUSION)}
    given = any(key.startswith(prefix) for key in state_dict)
    holds = any(key.startswith(prefix + FUSION) for key in state_dict)
    if own and given and not holds:
        state_dict.update({prefix + name: value for name, value in own.items()})
        warnings.warn(
            f"the checkpoint is of a plain segmentor: it holds none of the {len(own)} tensors of the fusions, which "
            "keep the values that they have",
            FreshFusionWarning,
            stacklevel=2,
        )


def _compare(module: Any, record: Any) -> None:
    if not isinstance(record, Mapping):
        return
    mine = module.video_record()
    differing = {key: (record[key], mine[key]) for key in mine if key in record and record[key] != mine[key]}
    if not differing:
        return
    listed = "; ".join(
        f"model.video.{key}={now!r}, the checkpoint has {was!r}" for key, (was, now) in differing.items()
    )
    if module.video_options.allow_mismatch:
        warnings.warn(f"the checkpoint was trained with another video: {listed}", stacklevel=2)
        return
    raise InputError(
        f"the checkpoint was trained with another video: {listed}. Set the config to what it was trained with, or "
        "model.video.allow_mismatch=True to load it all the same"
    )


def _tensors(module: nn.Module) -> dict[str, Any]:
    """The tensors of the state dict by name: parameters themselves, so that assign=True keeps them parameters."""
    return dict(module.state_dict(keep_vars=True))
