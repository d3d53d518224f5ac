"""Checkpoints of the bare backbone load into the wrapped one; those of wrapped ones bring their clip."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from image2video.wrap.clip_record import CLIP, decode

BACKBONE = "backbone."
FUSION = "fusion."
DRAWN = "to_video._extra_state"
_SHELLS = ("module.", "_orig_mod.")
_DISTRIBUTED = "torch.distributed.checkpoint.state_dict"


class Wrapper(Protocol):
    """A module with `backbone` and `fusion` that has a clip of its own."""

    def state_dict(self, *, keep_vars: bool) -> dict[str, Any]:
        """Return the state dict."""
        ...

    def meet_clip(self, saved: Mapping[str, Any]) -> None:
        """Compare the clip of a checkpoint, or take it over."""

    def meet_no_clip(self) -> None:
        """Meet a whole checkpoint of a wrapped model that holds no clip."""


class FreshFusionWarning(UserWarning):
    """A checkpoint without fusion parameters was loaded: the fusions keep the values that they had."""


def adapt_state_dict(
    module: Wrapper,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: Any,
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Change the keys of a checkpoint, in place, to those of a `VideoWrap` (a load_state_dict pre-hook).

    - `module.` and `_orig_mod.` (left by DDP and torch.compile) are stripped.
    - The keys of a bare checkpoint get `backbone.` before them.
    - The clip is taken out; the module compares it with its own or takes it over (`meet_clip`).
    - The count of draws of a `FrameSource` is left out where the clips of this wrapper are not drawn.
    - Where *all* fusion keys are missing, the fusions keep their values, and one `FreshFusionWarning` gives the count;
      where only some are missing, nothing is forgiven.

    It acts below `prefix` alone, so it works too where the wrapper is a child of another module.
    """
    own = _named_state(module)
    bare = {name.removeprefix(BACKBONE) for name in own if name.startswith(BACKBONE)}
    keys = [key for key in state_dict if key.startswith(prefix)]
    given = {_strip_shells(key[len(prefix) :], own.keys() | bare): state_dict.pop(key) for key in keys}
    filled = _filled_up(given, own)
    # A backbone may itself hold a child called `backbone`: what fits more keys decides.
    is_bare = sum(name in bare for name in given) > sum(name in own for name in given)
    is_whole = is_bare or all(name in given for name in own if name.startswith(BACKBONE))
    if not is_bare and CLIP in given:
        module.meet_clip(decode(given.pop(CLIP)))
        own = _named_state(module)  # the fusions may be others now
    elif not is_bare and is_whole:
        module.meet_no_clip()
    if DRAWN not in own:
        given.pop(DRAWN, None)
    start = prefix + BACKBONE if is_bare else prefix
    state_dict.update({start + name: value for name, value in given.items()})
    fusion = {name: value for name, value in own.items() if name.startswith(FUSION)}
    holds_fusion = not is_bare and any(name.startswith(FUSION) for name in given)
    if fusion and given and not holds_fusion and (is_whole or not filled):
        state_dict.update({prefix + name: value for name, value in fusion.items()})
        warnings.warn(
            f"the checkpoint holds none of the {len(fusion)} fusion parameters and buffers of the wrapped model; they "
            "keep the values that they have",
            FreshFusionWarning,
            stacklevel=2,
        )
    for name, value in filled.items():
        state_dict.setdefault(prefix + name, value)


def _filled_up(given: dict[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take out, and return, what torch put in for keys that a checkpoint lacks: the model's own values.

    `set_model_state_dict` does so (and accelerate, which loads with it), also for the part of a sharded checkpoint that
    holds the clip; for the clip, it puts in an object of its own.
    """
    if type(given.get(CLIP)).__module__ != _DISTRIBUTED:
        return {}
    del given[CLIP]
    names = [name for name in given if name in own and given[name] is own[name]]
    return {name: given.pop(name) for name in names}


def _named_state(module: Wrapper) -> dict[str, Tensor]:
    """Return the tensors of the state dict; parameters themselves, so that assign=True keeps them parameters."""
    state = module.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _strip_shells(name: str, known: set[str]) -> str:
    """Strip what DDP and torch.compile put before a name, until it is known."""
    while name not in known and name.startswith(_SHELLS):
        name = name.split(".", 1)[1]
    return name
