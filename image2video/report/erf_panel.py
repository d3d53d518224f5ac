"""Measured effective receptive fields as figures, tables, sentences and records need them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image2video.errors import InputError
from image2video.receptive_field import EffectiveField, Measures

HALF, NEARLY_ALL = 0.5, 0.99
"""The shares of the gradient whose areas are shown."""
_ROUND = 0.02  # axes that differ by less have no direction worth a number
_DIGITS = 4


@dataclass(frozen=True)
class ErfPanel:
    """One map with its measures.

    Attributes:
        name: of the network.
        map: `(H, W)`, mean |gradient| per pixel; only its shares are drawn.
        measures: what was read off it.
        errors: their standard errors over the images, None for a single one.
    """

    name: str
    map: NDArray[np.float64]
    measures: Measures
    errors: Measures | None = None

    @classmethod
    def of(cls, name: str, field: EffectiveField) -> ErfPanel:
        """The panel of a measured field.

        Args:
            name: of the network.
            field: what was measured.

        Returns:
            The panel.
        """
        return cls(name, np.asarray(field.map, dtype=np.float64), field.measures, field.errors)

    @property
    def density(self) -> NDArray[np.float64]:
        """The map as multiples of the same gradient spread evenly over the image."""
        total = self.map.sum()
        if self.map.ndim != 2 or not np.isfinite(total) or total <= 0:
            raise InputError(
                f"the map of {self.name!r} has shape {self.map.shape} and sums to {total}; it must be (H, W) with "
                "finite values of at least 0 that are not all 0"
            )
        return self.map * (self.map.size / total)

    @property
    def turned(self) -> bool:
        """Whether one axis is longer than the other by more than two standard errors, and by 2 % at least."""
        error = 0.0 if self.errors is None else self.errors.anisotropy
        return self.measures.anisotropy - 1 > max(2 * error, _ROUND)

    @property
    def axes(self) -> str:
        """`1.32 : 1 at 45°`; the angle only where the field has a direction."""
        text = f"{self.measures.anisotropy:.2f} : 1"
        # An axis has no direction: its angle is shown in 0 … 179.
        return f"{text} at {round(self.measures.angle) % 180}°" if self.turned else text

    def growth(self, other: ErfPanel) -> tuple[float, float]:
        """How many times the area of another panel holds half of the gradient.

        Args:
            other: the panel to compare with.

        Returns:
            The ratio and its standard error, as if the errors of the two were independent; NaN where one of them is
            not known.
        """
        a, b = self.measures.area[HALF], other.measures.area[HALF]
        if self.errors is None or other.errors is None:
            return a / b, math.nan
        return a / b, a / b * math.hypot(self.errors.area[HALF] / a, other.errors.area[HALF] / b)

    def record(self) -> dict[str, Any]:
        """The panel as plain JSON values.

        Returns:
            A record with the map as shares of its sum, with four digits.
        """
        total = self.map.sum()
        values = [[float(f"{v:.{_DIGITS}g}") for v in row] for row in (self.map / total).tolist()]
        errors = None if self.errors is None else _rounded(self.errors.record())
        return {"name": self.name, "map": values, "measures": _rounded(self.measures.record()), "errors": errors}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ErfPanel:
        """The inverse of `record`.

        Args:
            record: of a panel.

        Returns:
            The panel.

        Raises:
            InputError: a record that lacks something or holds another type.
        """
        try:
            values = np.array(record["map"], dtype=np.float64)
            errors = None if record["errors"] is None else Measures.from_record(record["errors"])
            return cls(str(record["name"]), values, Measures.from_record(record["measures"]), errors)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the record of a receptive field is damaged: {error!r}; measure it again") from error


@dataclass(frozen=True)
class ErfGrid:
    """Panels in named rows, and the figure's caption.

    Attributes:
        rows: the panels of each unit; the first of a row is the bare network's.
        caption: of the figure.
    """

    rows: dict[str, list[ErfPanel]]
    caption: str

    @classmethod
    def of(cls, fields: Mapping[str, Mapping[str, EffectiveField]], caption: str) -> ErfGrid:
        """The grid of a survey.

        Args:
            fields: `{unit: {network: field}}`.
            caption: of the figure.

        Returns:
            The grid.
        """
        rows = {}
        for row, line in fields.items():
            rows[row] = [ErfPanel.of(name, field) for name, field in line.items()]
        return cls(rows, caption)

    def record(self) -> dict[str, Any]:
        """The grid as plain JSON values.

        Returns:
            A record of the caption and the rows.
        """
        return {
            "caption": self.caption,
            "rows": {name: [panel.record() for panel in row] for name, row in self.rows.items()},
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ErfGrid:
        """The inverse of `record`.

        Args:
            record: of a grid.

        Returns:
            The grid.

        Raises:
            InputError: a damaged record.
        """
        rows = record.get("rows")
        if not isinstance(rows, Mapping) or not all(isinstance(row, list) and row for row in rows.values()):
            raise InputError("the record of receptive fields has no rows; it must hold a caption and rows of panels")
        panels = {str(name): [ErfPanel.from_record(panel) for panel in row] for name, row in rows.items()}
        return cls(panels, str(record.get("caption", "")))

    def lines(self) -> Iterator[tuple[str, ...]]:
        """The measured numbers as texts.

        Yields:
            A table's rows, in the order of `COLUMNS`.
        """
        for name, row in self.rows.items():
            for panel in row:
                yield name, *_line(panel, row[0])

    def sentences(self) -> list[str]:
        """What every row says, in words that the errors support.

        Returns:
            A sentence for each row of several panels.
        """
        return [f"{name[0].upper()}{name[1:]}: {_compared(row)}." for name, row in self.rows.items() if len(row) > 1]


COLUMNS = ("unit", "network", "half in, px", "× bare", "99 % in, px", "σ, px", "axes")


def _line(panel: ErfPanel, bare: ErfPanel) -> tuple[str, ...]:
    """A panel's numbers, in the order of `COLUMNS` from the network on."""
    m, e = panel.measures, panel.errors
    half_error, spread_error = (math.nan, math.nan) if e is None else (e.area[HALF], e.spread)
    same = panel is bare or np.array_equal(panel.map, bare.map)
    return (
        panel.name,
        _pixels_with_error(m.area[HALF], half_error),
        "1" if same else with_error(*panel.growth(bare), 2),
        pixels(m.area[NEARLY_ALL]),
        with_error(m.spread, spread_error, 1 if m.spread >= 10 else 2),
        panel.axes,
    )


def _compared(row: list[ErfPanel]) -> str:
    """What the panels of a row say against the first of them."""
    bare, *others = row
    parts = []
    for panel in others:
        if np.array_equal(panel.map, bare.map):
            parts.append(f"“{panel.name}” has the very same field")
            continue
        ratio, error = panel.growth(bare)
        text = f"“{panel.name}” holds half of its gradient in {with_error(ratio, error, 2)} times the area"
        if not math.isnan(error) and abs(ratio - 1) <= 2 * error:
            text += " (growth not decided)"
        if panel.turned:
            text += f", axes {panel.axes}"
        parts.append(text)
    return f"against “{bare.name}”, {'; '.join(parts)}"


def pixels(value: float) -> str:
    """A number of pixels, its thousands set apart.

    >>> pixels(12345.4)
    '12 345'
    """
    return f"{value:,.0f}".replace(",", " ")


def counted(value: float) -> str:
    """A number of pixels, with a decimal below 100.

    >>> counted(3.46), counted(1254.9)
    ('3.5', '1 255')
    """
    return f"{value:.1f}" if value < 100 else pixels(value)


def deviations(spread: float, anisotropy: float) -> tuple[float, float]:
    """The standard deviations along the long and the short axis, in pixels.

    >>> deviations(5.0, 1.0)
    (5.0, 5.0)
    """
    short = spread * math.sqrt(2 / (1 + anisotropy**2))
    return anisotropy * short, short


def _pixels_with_error(value: float, error: float) -> str:
    """A number of pixels with its standard error, which is NaN where it is not known."""
    if value < 100:
        return with_error(value, error, 1)
    return pixels(value) if math.isnan(error) else f"{pixels(value)} ± {pixels(error)}"


def with_error(value: float, error: float, digits: int) -> str:
    """A value with its standard error, which is NaN where it is not known."""
    text = f"{value:.{digits}f}"
    return text if math.isnan(error) else f"{text} ± {error:.{digits}f}"


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    """The values with six digits."""
    return {name: float(f"{value:.6g}") for name, value in values.items()}
