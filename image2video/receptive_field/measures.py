"""What is read off a map of mean absolute gradients: how much area holds its mass, how far and which way it reaches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from image2video.errors import InputError

SHARES: tuple[float, ...] = (0.2, 0.3, 0.5, 0.99)
"""The shares of the mass whose areas are measured."""
_ROUNDING = 1e-12  # of the variance: covariances below it are what is left of 0 by rounding


@dataclass(frozen=True)
class Measures:
    """Numbers that sum up an effective receptive field; as `errors` of a field, the standard errors of these numbers.

    Attributes:
        area: for each share of the mass, the smallest area that holds it, in pixels (the last pixel in part).
        spread: the root mean square distance from the centre along one axis, in pixels: √((λ₁ + λ₂) / 2) for the
            eigenvalues of the covariance.
        anisotropy: the ratio √(λ₁ / λ₂) of the long to the short axis, at least 1.
        angle: of the long axis in degrees, counter-clockwise on the screen from the horizontal, above −90 and at most
            90. It says nothing where the anisotropy is about 1, and is 0 where the axes are equal.
        centre: (y, x), the mean position in pixels; the centre of pixel i is i + 0.5.
    """

    area: dict[float, float]
    spread: float
    anisotropy: float
    angle: float
    centre: tuple[float, float]

    @classmethod
    def from_record(cls, record: Mapping[str, float]) -> Measures:
        """The inverse of `record`.

        Args:
            record: the numbers by name, with the areas of `SHARES`.

        Returns:
            The measures.

        Raises:
            KeyError: a number that is not there.
        """
        area = {share: float(record[f"area_{100 * share:g}"]) for share in SHARES}
        spread, anisotropy, angle = (float(record[name]) for name in ("spread", "anisotropy", "angle"))
        return cls(area, spread, anisotropy, angle, (float(record["centre_y"]), float(record["centre_x"])))

    def record(self, prefix: str = "") -> dict[str, float]:
        """The numbers by name.

        Args:
            prefix: what stands before every name.

        Returns:
            `area_20`, …, `spread`, `anisotropy`, `angle`, `centre_y`, `centre_x`.
        """
        numbers = {f"area_{100 * share:g}": value for share, value in self.area.items()}
        numbers |= {"spread": self.spread, "anisotropy": self.anisotropy, "angle": self.angle}
        numbers |= {"centre_y": self.centre[0], "centre_x": self.centre[1]}
        return {prefix + name: value for name, value in numbers.items()}


def measures(field: Tensor, shares: Sequence[float] = SHARES) -> Measures:
    """The measures of a map, each pixel taken as a unit square.

    Args:
        field: `(H, W)` floating point, values of at least 0.
        shares: the shares of the mass whose areas are measured, above 0 and at most 1.

    Returns:
        The measures, computed in float64.

    Raises:
        InputError: another shape, negative or NaN values, a map of zeros, or shares out of range.
    """
    if field.ndim != 2 or not field.is_floating_point():
        raise InputError(f"a map must be a floating-point tensor (H, W), got {tuple(field.shape)} {field.dtype}")
    if any(not 0 < share <= 1 for share in shares):
        raise InputError(f"shares must be above 0 and at most 1, got {tuple(shares)}")
    mass = field.detach().to("cpu", torch.float64)
    if not torch.isfinite(mass).all() or (mass < 0).any():
        raise InputError("a map must hold finite values of at least 0; got negative, infinite or NaN ones")
    total = float(mass.sum())
    if total == 0:
        raise InputError("the map is zero everywhere; a receptive field needs a value above 0")
    mass = mass / mass.max()  # else tiny values would underflow in the second moments
    mass = mass / mass.sum()
    centre, (yy, xx, xy) = _moments(mass)
    mean, half = (yy + xx) / 2, math.hypot((xx - yy) / 2, xy)
    anisotropy = math.sqrt((mean + half) / (mean - half))
    return Measures(_areas(mass, shares), math.sqrt(mean), anisotropy, long_axis(yy, xx, xy), centre)


def long_axis(yy: float, xx: float, xy: float) -> float:
    """The angle of the long axis of a covariance, above −90 and at most 90 degrees (see `Measures`).

    An axis has no direction: −90 and 90 are one angle. The sign of a covariance that is 0 up to rounding would decide
    between the two, and differs from processor to processor, so that it is taken as 0 and gives 90.
    """
    least = _ROUNDING * (xx + yy)
    if math.hypot((xx - yy) / 2, xy) <= least:
        return 0.0  # a round field: rounding alone would choose the axis
    if abs(xy) <= least:
        return 0.0 if xx > yy else 90.0
    return math.degrees(0.5 * math.atan2(-2 * xy, xx - yy))  # y points down, angles turn as seen on the screen


def _moments(mass: Tensor) -> tuple[tuple[float, float], tuple[float, float, float]]:
    """The mean position (y, x) and the covariances (yy, xx, xy)."""
    rows, columns = mass.sum(1), mass.sum(0)
    y = torch.arange(len(rows), dtype=mass.dtype) + 0.5
    x = torch.arange(len(columns), dtype=mass.dtype) + 0.5
    cy, cx = float(rows @ y), float(columns @ x)
    # Pixels are squares: a single one has this variance too, and a map of one pixel an anisotropy of 1.
    within = 1 / 12
    yy, xx = float(rows @ (y - cy) ** 2) + within, float(columns @ (x - cx) ** 2) + within
    return (cy, cx), (yy, xx, float((y - cy) @ mass @ (x - cx)))


def _areas(mass: Tensor, shares: Sequence[float]) -> dict[float, float]:
    """For each share of the mass, the smallest area that holds it."""
    values = mass.flatten().sort(descending=True).values
    reached = values.cumsum(0)
    out = {}
    for share in shares:
        wanted = share * float(reached[-1])
        # Rounding may lead the search past the last pixel, or into the zeros after it.
        index = min(int(torch.searchsorted(reached, wanted)), int((values > 0).sum()) - 1)
        before = float(reached[index - 1]) if index else 0.0
        out[float(share)] = index + min(1.0, (wanted - before) / float(values[index]))
    return out


def jackknife(groups: Tensor, sizes: Tensor) -> Measures | None:
    """Standard errors of the measures of a mean map, from sums over groups of images.

    `groups` `(G, H, W)` float64 holds the sum of the maps of each group, `sizes` `(G,)` how many images that are. None
    where fewer than two groups have any mass. Each group is left out once: error² = (G − 1)/G · Σ (m₋ᵢ − mean)².
    """
    if len(groups) < 2:
        return None
    total, images = groups.sum(0), float(sizes.sum())
    without: list[dict[str, float]] = []
    for group, size in zip(groups, sizes, strict=True):
        rest = (total - group).clamp(min=0) / (images - float(size))
        if float(rest.sum()) == 0:
            return None  # all of the gradient comes from one group
        without.append(measures(rest).record())
    errors = {}
    for name in without[0]:
        values = torch.tensor([record[name] for record in without], dtype=torch.float64)
        apart = values - values[0]
        if name == "angle":  # an axis has no direction: 89° and −89° are 2° apart
            apart = (apart + 90).remainder(180) - 90
        squares = (apart - apart.mean()).square().sum()
        errors[name] = math.sqrt((len(groups) - 1) / len(groups) * float(squares))
    return Measures.from_record(errors)
