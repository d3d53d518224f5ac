"""Refusing a checkpoint of a module's other form (published or residual)."""

from collections.abc import Mapping
from typing import Any

from image2video.fusion.base import Fusion


def refuse_other_form(
    module: Fusion, state_dict: Mapping[str, Any], prefix: str, marker: str, errors: list[str]
) -> None:
    """Add an error message where a state dict was made by the other form; `load_state_dict` then raises it.

    The names differ by `marker` alone, so under `strict=False` a checkpoint would otherwise load in silence and
    compute something else (the residual form scales, and does not interleave). A state dict without any key of the
    module is left to the usual check for missing keys.
    """
    keys = [key for key in state_dict if key.startswith(prefix)]
    if not keys or (prefix + marker in keys) == module.residual:
        return
    kind = type(module).__name__
    came, is_form, flag = (
        (f"a published {kind} without {prefix + marker!r}", "the residual form", "residual=False")
        if module.residual
        else (f"a residual {kind} with {prefix + marker!r}", "the published form", "residual=True")
    )
    errors.append(
        f"the state dict is of {came}, but the module is {is_form}, whose outputs differ; build it with {flag} to "
        "load this state dict"
    )
