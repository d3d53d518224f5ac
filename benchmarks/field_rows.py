"""The rows of benchmarks/results/receptive_field.json: measured fields beside those that theory expects."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from field_networks import BARE, Clip

from image2video.receptive_field import EffectiveField
from image2video.receptive_field.expected import Shares, expected, shares_of
from image2video.receptive_field.survey import Survey
from image2video.report import ErfPanel

AVERAGED_KEYS = (
    "times_bare",
    "bare_spread",
    "spread",
    "axes",
    "expected_times_bare",
    "expected_spread",
    "expected_axes",
)


def rows(fields: Survey, clip: Clip, /, **more: Any) -> list[dict[str, Any]]:
    """One row per unit and wrapped network: measured, beside what theory expects of the frames' measured shares.

    The bare network's spread stands in every row. Where a network has its very field (a frame at step 0 without
    fusion), there is no row.
    """
    found = []
    for name, line in fields.items():
        bare = line[BARE]
        for network, field in line.items():
            if field is bare:
                continue
            ratio, error = ErfPanel.of(network, field).growth(ErfPanel.of(BARE, bare))
            shares = shares_of(field, [other[network] for other in fields.values()])
            found.append(
                {
                    **more,
                    "unit": name,
                    "network": network,
                    "half_px": round(field.measures.area[0.5], 1),
                    "times_bare": round(ratio, 3),
                    "times_bare_error": _round(error),
                    "bare_spread": round(bare.measures.spread, 3),
                    "bare_axes": round(bare.measures.anisotropy, 3),
                    **_numbers(field),
                    **_expected(bare, shares, clip),
                    "weights": field.weights,
                    "images": field.images,
                    "described": field.described,
                }
            )
    return found


def _numbers(field: EffectiveField) -> dict[str, Any]:
    """The measures of a field, with their errors where it has them."""
    m, e = field.measures, field.errors
    shares = field.frame_shares
    turned = ErfPanel.of("", field).turned  # a round field has no angle
    return {
        "spread": round(m.spread, 3),
        "spread_error": None if e is None else _round(e.spread),
        "axes": round(m.anisotropy, 3),
        "axes_error": None if e is None else _round(e.anisotropy),
        "angle": round(m.angle % 180, 1) if turned else None,
        "area_99_px": round(m.area[0.99], 1),
        "frame_shares": None if shares is None else [round(share, 4) for share in shares],
    }


def _expected(bare: EffectiveField, shares: Shares | None, clip: Clip) -> dict[str, Any]:
    """What theory expects of the bare field under the clip; None where the shares of the frames are not known."""
    if shares is None:
        return dict.fromkeys(("expected_times_bare", "expected_spread", "expected_axes", "expected_angle"))
    found, m = expected(bare, clip.genotype, clip.schedule, shares)
    turned = ErfPanel("", found.numpy(), m).turned
    return {
        "expected_times_bare": round(m.area[0.5] / bare.measures.area[0.5], 3),
        "expected_spread": round(m.spread, 3),
        "expected_axes": round(m.anisotropy, 3),
        "expected_angle": round(m.angle % 180, 1) if turned else None,
    }


def over_draws(drawn: Iterable[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Means and standard errors of the numbers of rows over draws of the weights, by unit and network."""
    runs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for draw in drawn:
        for row in draw:
            runs.setdefault((row["unit"], row["network"]), []).append(row)
    found = []
    for (unit, network), lines in runs.items():
        row: dict[str, Any] = {"unit": unit, "network": network, "draws": len(lines)}
        for key in AVERAGED_KEYS:
            values = [line[key] for line in lines if line[key] is not None]
            row[key] = round(statistics.mean(values), 3) if values else None
            row[f"{key}_error"] = None
            if len(values) > 1:
                row[f"{key}_error"] = round(statistics.stdev(values) / math.sqrt(len(values)), 4)
        found.append(row)
    return found


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
