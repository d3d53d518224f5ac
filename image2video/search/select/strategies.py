"""All selections by name."""

from __future__ import annotations

from dataclasses import fields

from image2video.errors import InputError
from image2video.search.select.controls import Argmax, Random
from image2video.search.select.one_shot import OneShot
from image2video.search.select.perturbation import Frozen, Perturbation
from image2video.search.select.selection import Selection
from image2video.search.state.config import SearchConfig

SELECTIONS: dict[str, type[Selection]] = {s.name: s for s in (Perturbation, Frozen, Argmax, Random, OneShot)}

_OF_TAU = ("second_order", "learn_magnitudes")
_OF_MASKING = ("renormalise", "orders", "stop_early")
_WITHOUT_EFFECT = {
    "frozen": _OF_TAU,
    "argmax": _OF_MASKING,
    "random": (*_OF_TAU, "relaxation", *_OF_MASKING, "criterion"),
    "one_shot": (*_OF_TAU, "relaxation", *_OF_MASKING),
    "fixed_weights": (*_OF_TAU, "relaxation", *_OF_MASKING, "criterion"),
}


def get_selection(name: str) -> Selection:
    """The strategy of that name; raises `InputError` with the list of all."""
    if name not in SELECTIONS:
        raise InputError(f"unknown selection {name!r}; choose one of {', '.join((*SELECTIONS, 'fixed_weights'))}")
    return SELECTIONS[name]()


def without_effect(config: SearchConfig) -> str | None:
    """What a warning says of settings that differ from their default and that the selection never reads; else None."""
    defaults = {field.name: field.default for field in fields(SearchConfig)}
    names = [n for n in _WITHOUT_EFFECT.get(config.selection, ()) if getattr(config, n) != defaults[n]]
    if not names:
        return None
    listed = ", ".join(f"{name}={getattr(config, name)!r}" for name in names)
    return f"selection={config.selection!r} does not use {listed}: the search is the same without"
