"""The places of a network that a search goes over, and what clips there cost: checked before anything is done."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from image2video.errors import InputError
from image2video.fusion.registry import resolve_fusion
from image2video.inject.plan import Plan
from image2video.search.rank.places import ALL, alone, check_places, together
from image2video.search.score.task import Task
from image2video.settings.search import SearchConfig
from image2video.trace.places import IMAGE


def searched_places(
    backbone: nn.Module, config: SearchConfig, task: Task, input_size: tuple[int, int, int]
) -> Plan | None:
    """Return the plan of the places at which a search puts a cell; None where that is the image alone.

    Args:
        backbone: the bare network; it stays as it is.
        config: names the places, the frames, and what clips may cost.
        task: says which part of the network has the places.
        input_size: (C, H, W) of the images.

    Raises:
        InputError: `"all"`, a place where no clip can begin, one that is out of order, or a clip that costs more than
            the settings allow.
        UnsupportedError: a task that knows no places.
    """
    given = check_places(config.clip_at)
    groups = together(given)
    if groups and len(given) > 1:
        raise InputError(
            f"clip_at={' , '.join(config.clip_at or ())!r:.80} lists alternatives, which rankings choose from "
            f"(selection='fixed_weights'); selection={config.selection!r} searches over all places at once: name them "
            "alone, as in clip_at=['image', 'layer2', 'layer3']"
        )
    names = groups[0] if groups else alone(given)
    if names == (ALL,):
        raise InputError(
            f"clip_at={ALL!r} is for rankings (selection='fixed_weights'); a search puts a cell at every place: name "
            "them, as in clip_at=['image', 'layer2', 'layer3']"
        )
    if names == (IMAGE,):
        if config.max_cost is not None and config.max_cost < config.T:
            raise InputError(
                f"max_cost={config.max_cost:g} is less than what a clip of T = {config.T} costs at the image, "
                f"{config.T} times the image; lower T, or begin inside of the network: clip_at=…"
            )
        return None
    found = task.plan_at(backbone, resolve_fusion("none"), input_size, names)[1]
    if config.max_cost is not None and found.cost(config.T) > config.max_cost:
        raise InputError(_too_expensive(found, config))
    return found


def costs_from(plan: Plan, T: int) -> list[float]:
    """Return what a clip of T frames costs that begins at each of the places, as a multiple of the image's."""
    inner = [site.cost(T) for site in plan.clip_sites]
    return inner if plan.clip_site is not None else [float(T), *inner]


def _too_expensive(plan: Plan, config: SearchConfig) -> str:
    """Say what clips cost that begin at each place, and which of them are within the budget."""
    costs = list(zip(plan.places, costs_from(plan, config.T), strict=True))
    listed = ", ".join(f"{place} ({cost:.4g})" for place, cost in costs)
    within = [place for place, cost in costs if config.max_cost is not None and cost <= config.max_cost]
    return (
        f"max_cost={config.max_cost:g} is less than what clips cost that begin at {plan.places[0]!r} with "
        f"T = {config.T}; as multiples of the image they cost, by where they begin: {listed}; "
        f"{_advice(within)}"
    )


def _advice(within: Sequence[str]) -> str:
    """Say what to do."""
    return f"name {', '.join(map(repr, within))} alone, or lower T" if within else "lower T, or name later places"
