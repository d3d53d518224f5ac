"""Gain against cost of a clip at several places: what its later places give alone, and what that costs."""

from __future__ import annotations

from typing import Any

from image2video.inject.plan import Plan
from image2video.search.places import costs_from
from image2video.search.score.scores import Scores


def front_records(scores: Scores, plan: Plan, T: int) -> list[dict[str, Any]]:
    """Return what clips give that begin at each of the places, with what they cost; cheaper ones come later.

    The last entry has frames that are copies of the image, and is the reference of all gains. All are scored with the
    weights that the search has trained behind all places, so that a place that is left out is missed.

    Args:
        scores: of the clip at all places, of those without the first one, the first two, …, and of copies.
        plan: of the places.
        T: frames of the clip.

    Returns:
        For each its first place, the cost as a multiple of the image's multiply-accumulates, these themselves, accuracy
        and loss, and their differences from copies, with standard errors; plain values.
    """
    copies = scores.variants - 1
    first = plan.clip_sites[0]  # none but the image is no search over places
    image_macs = first.macs_before + first.macs_after
    places: list[str | None] = [*plan.places, None]
    costs: list[float | None] = [*costs_from(plan, T), None]
    records = []
    for variant, (place, cost) in enumerate(zip(places, costs, strict=True)):
        gain, gain_error = scores.accuracy_gap(variant, copies)
        loss_gain, loss_gain_error = scores.loss_gap(variant, copies)
        records.append(
            {
                "place": place,
                "cost": cost,
                "macs": None if cost is None else round(cost * image_macs),
                "accuracy": scores.accuracy(variant),
                "accuracy_error": scores.accuracy_error(variant),
                "loss": scores.mean_loss(variant),
                "loss_error": scores.loss_error(variant),
                "gain": gain,
                "gain_error": gain_error,
                "loss_gain": loss_gain,
                "loss_gain_error": loss_gain_error,
            }
        )
    return records
