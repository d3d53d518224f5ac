"""Where the clips of a ranking may begin: at the image, or at places inside of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from image2video.clip.genotype import Genotype
from image2video.clip.map_frames import check_inside
from image2video.errors import InputError, InputTypeError
from image2video.inject import clip_sites, plan
from image2video.inject.clip_site import ClipSite
from image2video.trace.places import IMAGE

ALL = "all"
"""The name of the image and of all places inside of a network together."""

ClipAt = str | Sequence[str] | None
"""Where clips may begin: a place, several, `"all"`, or None for the image."""

Place = ClipSite | None
"""Where a clip begins: inside of the network, or at the image (None)."""


@dataclass(frozen=True)
class LeftOut:
    """Clips that cost more than a ranking allows.

    Attributes:
        place: where they begin; `"image"` for the image.
        T: their frames.
        cost: of one such clip, as a multiple of the image's multiply-accumulates.
    """

    place: str
    T: int
    cost: float

    def __str__(self) -> str:
        return f"{self.place} with T = {self.T} ({self.cost:.4g})"


def place_name(place: Place) -> str:
    """Return the name of a place, `"image"` for the image."""
    return IMAGE if place is None else place.name


def cost_of(place: Place, T: int) -> float:
    """Return what T frames from a place on cost, as a multiple of the image's multiply-accumulates."""
    return T if place is None else place.cost(T)


def check_places(clip_at: ClipAt) -> tuple[str, ...]:
    """Return the names that `clip_at` has.

    Raises:
        InputTypeError: something else than names.
        InputError: none, one twice, or `"all"` beside others.
    """
    if clip_at is None:
        return (IMAGE,)
    names = (clip_at,) if isinstance(clip_at, str) else clip_at
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise InputTypeError(
            f"clip_at must be the path of a module, {IMAGE!r}, {ALL!r}, a list of such names, or None, got "
            f"{clip_at!r:.80}; clip_sites(model) lists the paths"
        )
    if not names or len(set(names)) < len(names) or (ALL in names and len(names) > 1):
        raise InputError(
            f"clip_at must be one name or several different ones, {ALL!r} alone, got {clip_at!r:.80}; "
            "clip_sites(model) lists them"
        )
    return tuple(names)


def find_places(model: nn.Module, names: Sequence[str], example: Tensor) -> tuple[Place, ...]:
    """Return the places of checked names, in the order of the network, the image first.

    Of places with maps of the same shape and no multiply-accumulates between them `"all"` has the last one alone: what
    lies between them is a norm or an activation. A place that is named twice counts once.

    Args:
        model: the bare network; it stays as it is.
        names: what `check_places` gave.
        example: an image `(1, C, H, W)` as the network gets it.

    Raises:
        InputError: a name at which no clip can begin.
        StateError: a model that is wrapped or compiled.
    """
    if tuple(names) == (IMAGE,):
        return (None,)
    if tuple(names) == (ALL,):
        sites = clip_sites(model, example_input=example)
        different = {(site.macs_before, site.shape, site.map_size): site for site in sites}
        return (None, *different.values())
    found: dict[tuple[str, int] | None, Place] = {}
    for name in names:
        site = plan(model, fusion="none", clip_at=name, example_input=example).clip_site
        found.setdefault(None if site is None else (site.module, site.index), site)
    return tuple(sorted(found.values(), key=lambda place: -1 if place is None else place.macs_before))


def check_chains(chains: Sequence[Genotype], places: Sequence[Place]) -> None:
    """Refuse chains that no place takes, and magnitudes in cells that a map is too small for.

    Raises:
        InputError: a chain that changes colours where no clip begins at the image; more cells than a map allows.
    """
    for place in places:
        for chain in chains:
            if place is not None and chain.has_cells:
                chain.check_cells(place.map_size)
            if None not in places:
                check_inside(chain, f"at {place_name(place)!r}")
