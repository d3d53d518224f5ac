"""Options of augmentation policies, read from their texts."""

from __future__ import annotations

import re
import typing
from typing import Any, Literal

from image2video.errors import InputError


def option_value(text: str, kind: Any, what: str) -> Any:
    """A text as the value of an option: a whole number, true or false, one of the choices, or itself."""
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if text not in choices:
            raise InputError(f"{what} must be one of {', '.join(choices)}, got {text!r:.40}")
        return text
    if kind is int:
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise InputError(f"{what} must be a whole number, got {text!r:.40}")
        return int(text)
    if kind is bool:
        if text not in ("true", "false"):
            raise InputError(f"{what} must be true or false, got {text!r:.40}")
        return text == "true"
    return text
