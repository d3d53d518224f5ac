"""What theory says beside the fields that `image2video rf` measures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from image2video.cli.rf_job import BARE, Networks
from image2video.clip.deep_clip import DeepClip
from image2video.errors import InputError, UnsupportedError
from image2video.receptive_field import EffectiveField, Unit, clip_field, reshaped, theoretical
from image2video.receptive_field.expected import Shares, expected, shares_of
from image2video.receptive_field.survey import Survey
from image2video.report import ErfPanel, fields_figure, variance_square
from image2video.report.erf_panel import pixels


def layer_sentence(networks: Networks, units: Mapping[str, Unit]) -> str:
    """The theoretical field of the measured layer, by the sizes of the network's layers (Eq. 8)."""
    layer = next(iter(units.values())).layer
    place = "its output" if layer is None else layer
    try:
        field = theoretical(networks.bare, layer=layer, input_size=networks.size)
    except UnsupportedError as error:
        return f"The theoretical field of {place} is not known: {error}."
    return f"By the sizes of the layers, a unit of {place} of the bare network sees {field}."


def clip_sentence(networks: Networks, units: Mapping[str, Unit], field: EffectiveField) -> str:
    """How the union of the frames' fields grows, for the square of the bare network's variance.

    Where the clip begins inside of the network, by the sizes of the layers before and behind the place.
    """
    if networks.moves_inside:
        return _inside_sentence(networks, next(iter(units.values())))
    assert not isinstance(networks.genotype, DeepClip), "it moves maps"
    polygon = variance_square(field)
    shape = reshaped(polygon, networks.genotype, networks.clip.T, networks.clip.schedule, image_size=networks.size[1:])
    return (
        f"A square of the variance of the bare network's measured field ({math.sqrt(polygon.area):.1f} pixels a side), "
        f"seen in {networks.clip.T} frames and mapped back to the image, covers {pixels(shape.area)} pixels: "
        f"{shape.area / polygon.area:.2f} times its area. A fusion can reach that union; how much of it counts, the "
        "shares of the frames say."
    )


def _inside_sentence(networks: Networks, unit: Unit) -> str:
    """What the frames show a unit of a layer behind the place where the clip begins."""
    try:
        found = clip_field(networks.wrapped, networks.size, unit)
    except UnsupportedError as error:
        return f"What it sees through the frames is not known by theory: {error}."
    seen = "all of them" if found.behind.whole else "{:g}×{:g} of them".format(*found.behind.size)
    (h, w), still = found.map_size, max(1, found.areas[networks.still_frame])
    areas = ", ".join(pixels(area) for area in found.areas)
    if found.between:
        where = f"The frames are moved at {', '.join(found.passed)}, last in a map of {h}×{w} cells."
    elif found.place is None:  # a unit before all places inside
        where = f"The frames are moved at the image, of {h}×{w} pixels."
    else:
        where = f"The clip begins at {found.place}, in a map of {h}×{w} cells of which each sees {found.before}."
    return (
        f"{where} The unit sees {seen}. Its frames show it {areas} pixels of the image, together "
        f"{pixels(found.area)}: {found.area / still:.2f} times those of the frame that moves least. A fusion can reach "
        "that union."
    )


def clip_figure(networks: Networks, field: EffectiveField) -> Any:
    """The square of the bare network's variance in every frame, and mapped back."""
    assert not isinstance(networks.genotype, DeepClip), "it moves maps"
    return fields_figure(
        variance_square(field),
        {"the clip": networks.genotype},
        image_size=networks.size[1:],
        T=networks.clip.T,
        schedule=networks.clip.schedule,
        width=9.0,
    )


def expected_rows(networks: Networks, units: Mapping[str, Unit], fields: Survey) -> list[tuple[str, ...]]:
    """Measured beside expected: the bare field mapped back from every frame, by the frames' measured shares."""
    rows = []
    for row in units:
        bare = fields[row][BARE]
        for name, field in fields[row].items():
            shares = shares_of(field, [line[name] for line in fields.values()])
            if shares is None or field is bare:
                continue
            rows.append((row, name, *_compared(networks, bare, field, shares)))
    return rows


def _compared(networks: Networks, bare: EffectiveField, field: EffectiveField, shares: Shares) -> tuple[str, ...]:
    """Deviation and axes, each measured and expected, and the frames' shares."""
    text = " ".join(f"{100 * share:.0f}" for share in field.frame_shares or ()) + " %"
    digits = 1 if field.measures.spread >= 10 else 2
    spread, axes = f"{field.measures.spread:.{digits}f}", ErfPanel.of("", field).axes
    assert not isinstance(networks.genotype, DeepClip), "it moves maps"
    try:
        found, m = expected(bare, networks.genotype, networks.clip.schedule, shares)
    except InputError:  # a frame sees nothing of the image in this place, so nothing is expected
        return spread, "–", axes, "–", text
    return spread, f"{m.spread:.{digits}f}", axes, ErfPanel("", found.numpy(), m).axes, text
