"""Effective receptive fields of several models on the same images."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from image2video.errors import InputError
from image2video.protocols import Progress
from image2video.receptive_field.effective import EffectiveField, effective
from image2video.receptive_field.units import Unit
from image2video.runs.folders import atomic_write_text
from image2video.wrap.video_wrap import VideoWrap

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Comparison:
    """The fields of several models by name, in the order that they came in."""

    fields: dict[str, EffectiveField]

    def records(self) -> list[dict[str, Any]]:
        """One flat record of JSON values per model, its `name` first; `pandas.DataFrame(records)` is the table."""
        return [{"name": name, **field.record()} for name, field in self.fields.items()]

    def to_json(self) -> str:
        """The records as JSON, without the maps."""
        value = {"schema_version": SCHEMA_VERSION, "kind": "receptive_fields", "records": self.records()}
        return json.dumps(value, indent=1, allow_nan=False) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json` to a file, whole or not at all."""
        atomic_write_text(path, self.to_json())


def compare(
    models: Mapping[str, nn.Module],
    images: Tensor,
    unit: Unit | Mapping[str, Unit] | None = None,
    *,
    size: Sequence[int] | None = None,
    weights: str | Mapping[str, str] = "as given",
    batch_size: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """The effective fields of several models on the same images: `{"bare": model, "GSF": VideoWrap(…)}`.

    `unit` and `weights` are one for all, or one per name. A unit of a frame means, for a model without frames, the
    same unit of its only map. Everything else is as in `effective`. Raises `InputError` for no models and for names
    that `unit` or `weights` does not have, and what `effective` raises, with the model's name.
    """
    if not isinstance(models, Mapping) or not models:
        raise InputError(f"models is a mapping of names to models with at least one of them, got {models!r:.80}")
    units = _each(models, Unit() if unit is None else unit, "unit")
    stated = _each(models, weights, "weights")
    fields = {}
    for name, model in models.items():
        the_unit: Unit = units[name]
        if not isinstance(getattr(model, "_orig_mod", model), VideoWrap):
            the_unit = the_unit.of_image()
        options: dict[str, Any] = {"size": size, "weights": stated[name], "batch_size": batch_size, "seed": seed}
        try:
            fields[name] = effective(model, images, the_unit, progress=_named(progress, name), **options)
        except Exception as error:
            error.add_note(f"(while comparing: model {name!r})")
            raise
    return Comparison(fields)


def _each(models: Mapping[str, nn.Module], value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return dict.fromkeys(models, value)
    missing = [name for name in models if name not in value]
    if missing:
        raise InputError(f"{what} has nothing for {', '.join(missing)}; it has {', '.join(map(str, value))}")
    return {name: value[name] for name in models}


def _named(progress: Progress | None, name: str) -> Progress | None:
    if progress is None:
        return None

    def named(stage: str, done: int, total: int, **figures: float) -> None:
        progress(f"{stage}: {name}", done, total, **figures)

    return named
