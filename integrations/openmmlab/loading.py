"""What a checkpoint of a video segmentor says of its clip, and checkpoints of plain segmentors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from image2video.functional import InputError
from image2video.integrations.openmmlab.options import KEY
from image2video.wrap.checkpoint import FreshFusionWarning
from image2video.wrap.clip_record import CLIP, decode, describe, differing

FUSION = "video_fusion."
RECORD = "image2video"
"""The key of the clip in the metadata of older checkpoints; later ones hold it as a tensor, `CLIP`."""


def adapt_checkpoint(
    module: Any, state_dict: dict[str, Any], prefix: str, local_metadata: Mapping[str, Any], *rest: Any
) -> None:
    """Compare the clips, and let fusions keep their values where a checkpoint has none (a load_state_dict pre-hook).

    Raises `InputError` where the checkpoint was trained with another clip or fusion than the config has (a warning
    under `model.video.allow_mismatch`).
    """
    compare_record(module, saved_record(state_dict.pop(prefix + CLIP, None), local_metadata))
    # Parameters themselves, so that assign=True keeps them parameters.
    own = module.video_fusion.state_dict(prefix=FUSION, keep_vars=True)
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


def saved_record(state: Any, local_metadata: Mapping[str, Any]) -> Any:
    """Return the clip of a checkpoint: of the tensor in it, or from the metadata of an older one; None without one."""
    return local_metadata.get(RECORD) if state is None else decode(state)


def compare_record(module: Any, record: Any, key: str = KEY) -> None:
    """Raise `InputError` where a checkpoint was trained with another clip or fusion than `module` has.

    `key` is where the config has the options of the module. It warns where `allow_mismatch` is set, and does nothing
    for a checkpoint without a record.
    """
    if not isinstance(record, Mapping):
        return
    own = module.video_record()
    names = differing(record, own)
    if not names:
        return
    listed = describe(names, record, own, f"{key}.")
    if module.video_options.allow_mismatch:
        warnings.warn(f"the checkpoint was trained with another video: {listed}", stacklevel=2)
        return
    raise InputError(
        f"the checkpoint was trained with another video: {listed}; set the config to what it was trained with, or "
        f"{key}.allow_mismatch=True to load it all the same"
    )
