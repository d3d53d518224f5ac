"""Where the clips of a ranking may begin: at the image, or at places inside of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from image2video.clip.deep_clip import DeepClip
from image2video.clip.genotype import Genotype
from image2video.clip.map_frames import check_inside
from image2video.errors import InputError, InputTypeError
from image2video.fusion.registry import resolve_fusion
from image2video.inject import clip_sites, plan
from image2video.inject.clip_site import ClipSite
from image2video.inject.plan import Plan
from image2video.search.score.task import ClassificationTask, Task
from image2video.trace.places import IMAGE

ALL = "all"
"""The name of the image and of all places inside of a network together."""

BAR = "|"
"""Stands between the names of places at which one clip moves, as in the text of a `DeepClip`."""

ClipAt = str | Sequence[str | Sequence[str]] | None
"""Where clips may begin: a place, several, `"all"`, or None for the image; a list among them, or a text with bars
between its names, are places at which one clip moves."""

Names = tuple[str | tuple[str, ...], ...]
"""Names of places as `check_places` gives them; a tuple among them are those of one clip."""

Place = ClipSite | None
"""Where a clip begins: inside of the network, or at the image (None)."""


@dataclass(frozen=True)
class Together:
    """Several places of a network, at all of which a clip may move.

    Attributes:
        plan: of the places, without fusions.
    """

    plan: Plan

    @property
    def name(self) -> str:
        """The names of the places, with bars between them."""
        return f" {BAR} ".join(self.plan.places)

    def cost(self, T: int) -> float:
        """Return what T frames cost that all differ from the first place on, as a multiple of the image's."""
        return self.plan.cost(T)


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


def place_name(place: Place | Together) -> str:
    """Return the name of a place, `"image"` for the image."""
    return IMAGE if place is None else place.name


def cost_of(place: Place | Together, T: int) -> float:
    """Return what T frames from a place on cost, as a multiple of the image's multiply-accumulates."""
    return T if place is None else place.cost(T)


def check_places(clip_at: ClipAt) -> Names:
    """Return the names that `clip_at` has.

    Raises:
        InputTypeError: something else than names.
        InputError: none, one twice, or `"all"` beside others.
    """
    if clip_at is None:
        return (IMAGE,)
    given = (clip_at,) if isinstance(clip_at, str) else clip_at
    if not isinstance(given, list | tuple) or not all(_is_place(item) for item in given):
        raise InputTypeError(
            f"clip_at must be the path of a module, {IMAGE!r}, {ALL!r}, a list of such names or of lists of them, or "
            f"None, got {clip_at!r:.80}; clip_sites(model) lists the paths"
        )
    names = tuple(_one_clip(item) for item in given)
    groups = [name for name in names if not isinstance(name, str)]
    if not names or len(set(names)) < len(names) or (ALL in names and len(set(names) - set(groups)) > 1):
        raise InputError(
            f"clip_at must be one name or several different ones, {ALL!r} alone, got {clip_at!r:.80}; "
            "clip_sites(model) lists them"
        )
    for group in groups:
        if len(set(group)) < len(group) or ALL in group or "" in group:
            raise InputError(
                f"the places of one clip are different names without {ALL!r}, in the order of the network, got "
                f"{list(group)!r:.80} in clip_at; clip_sites(model) lists them"
            )
    return names


def alone(names: Names) -> tuple[str, ...]:
    """Return the names of places at which a clip moves and nowhere else."""
    return tuple(name for name in names if isinstance(name, str))


def together(names: Names) -> tuple[tuple[str, ...], ...]:
    """Return the places of clips that move at several."""
    return tuple(name for name in names if not isinstance(name, str))


def _is_place(item: object) -> bool:
    """Whether something is a name, or a list of names."""
    return isinstance(item, str) or (isinstance(item, list | tuple) and all(isinstance(name, str) for name in item))


def _one_clip(item: str | Sequence[str]) -> str | tuple[str, ...]:
    """Return the name or names of the places of one clip."""
    listed = item.split(BAR) if isinstance(item, str) else item
    places = tuple(place.strip() for place in listed)
    return places[0] if len(places) == 1 else places


def plan_places(model: nn.Module, task: Task, names: Sequence[str], example: Tensor) -> Plan:
    """Return the plan of places of a network's part that a task says; raises what `plan` and `Task.plan_at` do.

    Args:
        model: the bare network; it stays as it is.
        task: what is predicted.
        names: of the places of one clip.
        example: an image `(1, C, H, W)` as the network gets it.
    """
    if type(task).plan_at is Task.plan_at:
        return plan(model, fusion="none", clip_at=tuple(names), example_input=example)
    channels, height, width = example.shape[1:]
    return task.plan_at(model, resolve_fusion("none"), (channels, height, width), names)[1]


def find_places(model: nn.Module, names: Sequence[str], example: Tensor, task: Task | None = None) -> tuple[Place, ...]:
    """Return the places of checked names, in the order of the network, the image first.

    Of places with maps of the same shape and no multiply-accumulates between them `"all"` has the last one alone: what
    lies between them is a norm or an activation. A place that is named twice counts once.

    Args:
        model: the bare network; it stays as it is.
        names: what `check_places` gave.
        example: an image `(1, C, H, W)` as the network gets it.
        task: says in which part of the network the places are; classification by default, in all of it.

    Raises:
        InputError: a name at which no clip can begin.
        StateError: a model that is wrapped or compiled.
    """
    if tuple(names) == (IMAGE,):
        return (None,)
    if tuple(names) == (ALL,):
        sites = clip_sites(model if task is None else task.part(model), example_input=example)
        different = {(site.macs_before, site.shape, site.map_size): site for site in sites}
        return (None, *different.values())
    found: dict[tuple[str, int] | None, Place] = {}
    for name in names:
        site = plan_places(model, task or ClassificationTask(), (name,), example).clip_site
        found.setdefault(None if site is None else (site.module, site.index), site)
    return tuple(sorted(found.values(), key=lambda place: -1 if place is None else place.macs_before))


def deep_groups(
    model: nn.Module, clips: Sequence[DeepClip], example: Tensor, task: Task
) -> tuple[tuple[Together, tuple[DeepClip, ...]], ...]:
    """Return clips at several places by their places, which are planned.

    Args:
        model: the bare network; it stays as it is.
        clips: of chains.
        example: an image `(1, C, H, W)` as the network gets it.
        task: says in which part of the network the places are.

    Raises:
        InputError: places that the network does not have in this order, colours inside of it, or magnitudes in cells
            that a map is too small for.
        StateError: a model that is wrapped or compiled.
    """
    groups: dict[tuple[str, ...], list[DeepClip]] = {}
    for clip in clips:
        groups.setdefault(clip.places, []).append(clip)
    found = []
    for places, members in groups.items():
        group = Together(plan_places(model, task, places, example))
        for clip in members:
            inner = clip.clips[int(clip.begins_at_image) :]
            for site, chain in zip(group.plan.clip_sites, inner, strict=True):
                check_inside(chain, f"at {site.name!r}")
                chain.check_cells(site.map_size)
        found.append((group, tuple(members)))
    return tuple(found)


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
