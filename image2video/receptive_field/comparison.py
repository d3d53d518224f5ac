"""Effective receptive fields of several models on the same images."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from image2video.errors import InputError
from image2video.protocols import Progress, named
from image2video.receptive_field.effective import EffectiveField, effective
from image2video.receptive_field.models import uncompiled
from image2video.receptive_field.units import Unit
from image2video.runs.folders import atomic_write_text
from image2video.wrap.video_wrap import VideoWrap

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Comparison:
    """The fields of several models.

    Attributes:
        fields: by the models' names, in the order that they came in.
    """

    fields: dict[str, EffectiveField]

    def records(self) -> list[dict[str, Any]]:
        """The fields without their maps.

        Returns:
            One flat record of JSON values per model, its `name` first; `pandas.DataFrame(records)` is the table.
        """
        return [{"name": name, **field.record()} for name, field in self.fields.items()]

    def to_json(self) -> str:
        """The records as JSON, without the maps.

        Returns:
            The text of a JSON object with `schema_version`, `kind` and `records`.
        """
        value = {"schema_version": SCHEMA_VERSION, "kind": "receptive_fields", "records": self.records()}
        return json.dumps(value, indent=1, allow_nan=False) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json` to a file, whole or not at all.

        Args:
            path: of the file.
        """
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

    Args:
        models: the models by name.
        images: as `effective` takes them.
        unit: one for all models, or one by each name. A unit of a frame means, for a model without frames, the same
            unit of its only map.
        size: as `effective` takes it.
        weights: what the results say of the weights, one text for all models or one by each name.
        batch_size: as `effective` takes it.
        seed: as `effective` takes it.
        progress: called after every batch, with the model's name in the stage.

    Returns:
        A field for each model.

    Raises:
        InputError: no models, names that `unit` or `weights` does not have; and what `effective` raises, with a note
            that names the model.
    """
    if not isinstance(models, Mapping) or not models:
        raise InputError(f"models must be a mapping of names to models with at least one of them, got {models!r:.80}")
    units = _by_name(models, Unit() if unit is None else unit, "unit")
    stated = _by_name(models, weights, "weights")
    fields = {}
    for name, model in models.items():
        has_frames = isinstance(uncompiled(model), VideoWrap)
        try:
            fields[name] = effective(
                model,
                images,
                units[name] if has_frames else units[name].of_image(),
                size=size,
                weights=stated[name],
                batch_size=batch_size,
                seed=seed,
                progress=named(progress, name, stage_first=True),
            )
        except Exception as error:
            error.add_note(f"(while comparing: model {name!r})")
            raise
    return Comparison(fields)


def _by_name(models: Mapping[str, nn.Module], value: Any, what: str) -> dict[str, Any]:
    """One value for every model, from a mapping or from one value for all."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(models, value)
    missing = [name for name in models if name not in value]
    if missing:
        raise InputError(f"{what} has nothing for {', '.join(missing)}; it has {', '.join(map(str, value))}")
    return {name: value[name] for name in models}
