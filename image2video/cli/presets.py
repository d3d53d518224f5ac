"""`image2video presets`; reading them needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table

from image2video.cli.listing_table import listing_table
from image2video.clip.named import PRESET_PREFIX, preset_names, preset_text
from image2video.runs.texts import parse_json


def run(options: Namespace) -> None:
    """Prints the table of all presets, or the JSON of one."""
    if options.name is not None:
        print(preset_text(options.name.removeprefix(PRESET_PREFIX)), end="")
        return
    console = Console()
    console.print(presets_table({name: parse_json(preset_text(name), f"preset {name!r}") for name in preset_names()}))
    console.print(
        "A preset is what one search found at the scale stated, not a recommendation. Use it as --genotype "
        f"{PRESET_PREFIX}NAME, or Genotype.preset(NAME).",
        highlight=False,
    )


def presets_table(presets: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per preset's record: its chain, what it was found on, with what score, and at which scale."""
    table = listing_table("preset", "chain", "found on", "held-out score", "scale", right=("held-out score",))
    for name, record in presets.items():
        found = record.get("provenance") or {}
        place = f"{found.get('dataset', '–')}, {found.get('backbone', '–')}"
        if found.get("fusion"):
            place += f", {found['fusion']}"
        table.add_row(name, chain_text(record["chain"]), place, score_text(found), scale_text(found))
    return table


def chain_text(chain: list[Mapping[str, Any]]) -> str:
    """A file's chain as the text of its genotype; the ops themselves, which would check it, come with torch."""
    return " > ".join(f"{item['op']}({item['magnitude']!r})".replace(".0)", ")") for item in chain)


def score_text(found: Mapping[str, Any]) -> str:
    """The score of a provenance record with its standard error, in percent: `44.8 ± 1.6 %`."""
    score, error = found.get("score"), found.get("score_error")
    if score is None:
        return "–"
    metric = "" if found.get("metric", "accuracy") == "accuracy" else f" {found['metric']}"
    return f"{100 * score:.1f}{'' if error is None else f' ± {100 * error:.1f}'} %{metric}"


def scale_text(found: Mapping[str, Any]) -> str:
    """How much a search has seen, and how it chose."""
    named = (
        ("train_images", "{} images"),
        ("epochs", "{} epochs"),
        ("images", "scored on {} held-out images"),
        ("T", "T = {}"),
        ("selection", "{}"),
        ("space", "space {}"),
    )
    return ", ".join(text.format(found[key]) for key, text in named if found.get(key) is not None) or "–"
