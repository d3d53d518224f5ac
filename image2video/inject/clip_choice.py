"""Places by their names: the sites where maps are moved, or the reason why they cannot be moved there."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from torch import nn

from image2video.errors import InputError
from image2video.inject.clip_places import Place, Places
from image2video.inject.clip_rows import Rows
from image2video.inject.clip_site import ClipSite
from image2video.trace.graph import Graph, Residual, has
from image2video.trace.places import IMAGE
from image2video.trace.recorder import Call


def find_clip_sites(
    backbone: nn.Module, graph: Graph, names: Sequence[str], rows: Callable[[], Rows]
) -> list[ClipSite]:
    """Return the sites at the inputs of modules, each of which is behind the one before it.

    Args:
        backbone: the traced network; it stays as it is.
        graph: of its traced forward.
        names: paths of the modules; `"image"` may come first.
        rows: traces how the network has its rows, where that matters.

    Raises:
        InputError: maps cannot be moved at one of them; the message says why, and where they can.
    """
    begun = bool(names) and names[0] == IMAGE
    if not names[begun:]:
        return []
    places = Places(graph)
    found: dict[Place, ClipSite] = {}
    for name in names[begun:]:
        place, site = _find(places, backbone, name)
        if place in found:
            raise InputError(
                f"clip_at names one place twice, {found[place].name!r} and {name!r}: both modules have the same input; "
                "leave one of them out"
            )
        _check_order(places, [*found], place, name)
        if not begun:  # The rows change where the clip begins, and nowhere else.
            _check_rows(backbone, rows(), place, name)
        begun, found[place] = True, site
    return list(found.values())


def _find(places: Places, backbone: nn.Module, name: str) -> tuple[Place, ClipSite]:
    """Return the place whose module is hooked, and the site; raise `InputError` where there is none."""
    graph = places.graph
    call = _only_call(places, backbone, name)
    given = [value for value in call.inputs if value >= 0 and graph.values[value].depends]
    if not given:
        raise InputError(
            f"clip_at={name!r} needs a module that takes a map of the images as a positional input; "
            f"{type(call.module).__name__} there takes none; {_places_near(places, name)}"
        )
    inputs = [places.place(call, value) for value in given]
    # Of several inputs, the cut: it alone can be replaced for all that comes later.
    place = next((place for place in inputs if places.is_replaceable(place)), inputs[0])
    _check_cut(places, place)
    alike = places.alike(place)
    site = places.site(alike)
    if isinstance(site, str):
        raise InputError(
            f"clip_at={name!r} needs a map or tokens with a known grid: {site}; {_places_near(places, name)}"
        )
    return places.hooked(alike), site


def _check_order(places: Places, before: Sequence[Place], place: Place, name: str) -> None:
    """Raise `InputError` unless a place is behind the last one before it."""
    if not before or has(before[-1].behind, place.value):
        return
    last = places.graph.calls[before[-1].call].name
    if has(place.behind, before[-1].value):
        raise InputError(
            f"clip_at names {name!r} after {last!r}, and the network passes {name!r} first; list the places in the "
            "order in which it passes them"
        )
    raise InputError(
        f"clip_at names {name!r} after {last!r}, and nothing that comes from {last!r} reaches it; choose places on one "
        "path to the outputs"
    )


def _check_rows(backbone: nn.Module, rows: Rows, place: Place, name: str) -> None:
    """Raise `InputError` where a network uses behind a place a number of rows that it read before."""
    foreign = rows.foreign([place])
    if foreign is None:
        return
    raise InputError(
        f"clip_at={name!r} needs a network that uses nothing behind the site but what comes in there; "
        f"{type(backbone).__name__} uses the number of images that it read before it, or a tensor from there "
        f"({foreign.where}); let the clip begin with the image, clip_at={IMAGE!r}, or at another site; in your own "
        "code read the number where it is used (x.shape[0])"
    )


def _only_call(places: Places, backbone: nn.Module, name: str) -> Call:
    """Return the single run of a module in the traced forward.

    Raises:
        InputError: no such module, or one that does not run, runs several times, or is the network itself.
    """
    calls = [call for call in places.graph.calls if call.name == name]
    if not name or (calls and calls[0].parent < 0):
        raise InputError(f"clip_at={name!r} is the network itself; a clip before it begins with the image: {IMAGE!r}")
    if not calls:
        there = any(path == name for path, _ in backbone.named_modules(remove_duplicate=False))
        what = "does not run under this name in a forward" if there else f"is not there in {type(backbone).__name__}"
        raise InputError(f"clip_at={name!r} must name a module that runs once; it {what}; {_places_near(places, name)}")
    runs = places.runs[calls[0].module]
    if runs > 1:
        raise InputError(
            f"clip_at={name!r} must name a module that runs once; it runs {runs} times in a forward, and frames would "
            f"be made of frames; {_places_near(places, name)}"
        )
    return calls[0]


def _check_cut(places: Places, place: Place) -> None:
    """Raise unless a hook on a call's module replaces its input for all that the outputs behind it are made from.

    Raises:
        InputError: the message names what leads past the place.
    """
    graph, cuts, call, value = places.graph, places.cuts(place), places.graph.calls[place.call], place.value
    name = call.name
    if value == 0:
        raise InputError(f"clip_at={name!r} is where the images come in; a clip there begins with the image: {IMAGE!r}")
    if not cuts.is_live(value):
        raise InputError(
            f"clip_at={name!r} must be a place that an output is made from; nothing is returned that is made there; "
            f"{_places_near(places, name)}"
        )
    if places.is_replaceable(place):
        return
    edge = cuts.bypass(value)
    outside = sorted(places.users_outside(place))
    residual = _residual_around(graph, call, value, outside)
    if residual is not None:
        block = graph.calls[residual.owner].name if residual.owner >= 0 else ""
        raise InputError(
            f"clip_at={name!r} must be on every path to the outputs; it is inside of a residual branch of "
            f"{block or 'the network itself'!r}, whose shortcut leads past it; {_places_near(places, block or name)}"
        )
    if edge is not None:
        raise InputError(
            f"clip_at={name!r} must be on every path to the outputs; what {cuts.producer_name(edge)!r} makes leads "
            f"past it to {cuts.user_name(edge)!r}; {_places_near(places, name)}"
        )
    if outside:
        inner = graph.values[outside[-1]].call
        user = graph.calls[inner].name if inner >= 0 else ""
        raise InputError(
            f"clip_at={name!r} must be the only module that takes its input; {user or '(root)'!r} takes it too: "
            f"{_places_near(places, name)}"
        )
    raise InputError(
        f"clip_at={name!r} needs a module that takes its map once, as a positional input of its own; this one takes it "
        f"several times, or in a list; {_places_near(places, name)}"
    )


def _residual_around(graph: Graph, call: Call, value: int, outside: list[int]) -> Residual | None:
    """Return the innermost residual with the place on its branch; the fork is on it for a module of the branch."""
    for residual in graph.residuals():
        if has(residual.region, value):
            return residual
        # The shortcut takes the fork as well, behind the module or beside it.
        in_branch = any(has(residual.region, made) for made in range(call.start, call.stop))
        if residual.fork == value and outside and in_branch and not graph.contains(call.index, residual.add):
            return residual
    return None


def _places_near(places: Places, name: str) -> str:
    """Name the places that are closest, or say that there are none."""
    known = [alike for alike in places.found() if not isinstance(places.spot(alike), str)]
    names = [places.graph.calls[place.call].name for alike in known for place in alike]
    if not names:
        return f"no clip can begin inside of this network; begin with the image, clip_at={IMAGE!r}"
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.0)
    return f"choose one of {', '.join(near)} (clip_sites(backbone) lists all {len(names)})"
