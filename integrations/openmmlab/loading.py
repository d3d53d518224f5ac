"""What a checkpoint of a video segmentor says of its clip, and checkpoints of plain segmentors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from image2video.functional import Image2Video, Injection, InputError
from image2video.integrations.openmmlab.options import KEY

FUSION = "video_fusion."
RECORD = "image2video"


class FreshFusionWarning(UserWarning):
    """A checkpoint without fusion parameters was loaded: the fusions keep the values that they had."""


def record_of(to_video: Image2Video, injection: Injection, residual: bool) -> dict[str, Any]:
    """The clip and the fusion as plain values, as they stand in checkpoints."""
    return {
        "genotype": str(to_video.genotype),
        "T": to_video.T,
        "schedule": to_video.schedule,
        "padding": to_video.padding,
        "interpolation": to_video.interpolation,
        "fusion": injection.plan.fusion.to_dict(),
        "sites": list(injection.plan.names),
        "residual": residual,
    }


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
    compare_record(module, local_metadata.get(RECORD))
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


def compare_record(module: Any, record: Any, key: str = KEY) -> None:
    """Raise `InputError` where a checkpoint's record is not that of `module`, whose options the config has at `key`.

    A warning where `module.video_options.allow_mismatch` says so; nothing for a checkpoint without a record.
    """
    if not isinstance(record, Mapping):
        return
    mine = module.video_record()
    differing = {name: (record[name], mine[name]) for name in mine if name in record and record[name] != mine[name]}
    if not differing:
        return
    listed = "; ".join(
        f"{key}.{name}={now!r:.120}, the checkpoint has {was!r:.120}" for name, (was, now) in differing.items()
    )
    if module.video_options.allow_mismatch:
        warnings.warn(f"the checkpoint was trained with another video: {listed}", stacklevel=2)
        return
    raise InputError(
        f"the checkpoint was trained with another video: {listed}. Set the config to what it was trained with, or "
        f"{key}.allow_mismatch=True to load it all the same"
    )
