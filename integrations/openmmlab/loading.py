"""What a checkpoint of a video segmentor says of its clip, and checkpoints of plain segmentors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from image2video.functional import Image2Video, Injection, InputError
from image2video.integrations.openmmlab.options import KEY
from image2video.wrap.checkpoint import FreshFusionWarning

FUSION = "video_fusion."
RECORD = "image2video"


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
    """Write the clip and the fusion into the metadata of a state dict, which adds no key (a state_dict hook)."""
    local_metadata[RECORD] = module.video_record()


def adapt_checkpoint(
    module: Any, state_dict: dict[str, Any], prefix: str, local_metadata: Mapping[str, Any], *rest: Any
) -> None:
    """Compare the clips, and let fusions keep their values where a checkpoint has none (a load_state_dict pre-hook).

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
    """Raise `InputError` where a checkpoint was trained with another clip or fusion than `module` has.

    `key` is where the config has the options of the module. It warns where `allow_mismatch` is set, and does nothing
    for a checkpoint without a record.
    """
    if not isinstance(record, Mapping):
        return
    differing = []
    for name, now in module.video_record().items():
        was = record.get(name, now)  # older checkpoints may lack an option
        if was != now:
            differing.append(f"{key}.{name}={now!r:.120}, the checkpoint has {was!r:.120}")
    if not differing:
        return
    listed = "; ".join(differing)
    if module.video_options.allow_mismatch:
        warnings.warn(f"the checkpoint was trained with another video: {listed}", stacklevel=2)
        return
    raise InputError(
        f"the checkpoint was trained with another video: {listed}; set the config to what it was trained with, or "
        f"{key}.allow_mismatch=True to load it all the same"
    )
