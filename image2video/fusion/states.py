"""Refusing a checkpoint of a module's other form (published or residual)."""

from collections.abc import Mapping
from typing import Any

from image2video.fusion.base import Fusion


def refuse_other_form(
    module: Fusion, state_dict: Mapping[str, Any], prefix: str, marker: str, errors: list[str]
) -> None:
    """Add an error message where a state dict was made by the other form; `load_state_dict` then raises it.

    The keys of the two forms differ by `marker` alone. Under `strict=False` the wrong one would load in silence, and
    the module would compute something else (the residual form scales, and does not interleave). A state dict without
    any key of the module is left to the usual check for missing keys.
    """
    keys = [key for key in state_dict if key.startswith(prefix)]
    if not keys or (prefix + marker in keys) == module.residual:
        return
    kind, key = type(module).__name__, prefix + marker
    if module.residual:
        got, expected, flag = f"a published {kind} without {key!r}", "the residual form", "residual=False"
    else:
        got, expected, flag = f"a residual {kind} with {key!r}", "the published form", "residual=True"
    errors.append(
        f"expected a state dict of {expected}, got that of {got}; the outputs of the two forms differ: build it with "
        f"{flag} to load this state dict"
    )
