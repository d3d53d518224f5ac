"""The default clip: chosen from what `fresh_wrap.py` and `fresh_wrap_small.py` measured, by the halves that choose.

    python benchmarks/fresh_wrap_choice.py

Of all clips that cost no accuracy and no cross-entropy on the choosing half of any data set, the default is the one
with the lowest mean cross-entropy over them. The other halves have no say; they judge it.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

from fresh_wrap import FORMER_DEFAULT, identity_of
from harness import write_result

RESULTS = Path(__file__).parent / "results"
DATA_SETS = {"ImageNet": "fresh_wrap", "digits": "fresh_wrap_digits", "CIFAR-10": "fresh_wrap_cifar10"}


def main() -> None:
    measured = {
        name: {identity_of(row): row for row in json.loads((RESULTS / f"{file}.json").read_text())["results"]}
        for name, file in DATA_SETS.items()
    }
    common = [clip for clip in measured["CIFAR-10"] if all(clip in rows for rows in measured.values())]
    clips = [summary(clip, {name: rows[clip] for name, rows in measured.items()}) for clip in common]
    clips.sort(key=lambda row: (not row["costs_nothing"], row["choose_cross_entropy"]))
    former = next(row for row in clips if row["genotype"] == FORMER_DEFAULT)
    payload = {"front": [*clips[:3], former], "results": clips}
    write_result(RESULTS / "fresh_wrap_choice.json", "fresh_wrap_choice", payload)


def summary(clip: tuple[Any, ...], rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What chose a clip, and what the other halves say of it."""
    found: dict[str, Any] = dict(zip(("genotype", "T", "schedule", "padding"), clip, strict=True))
    found["costs_nothing"] = all(
        row["choose_accuracy_difference"] >= 0 and row["choose_cross_entropy_difference"] <= 0 for row in rows.values()
    )
    found["choose_cross_entropy"] = mean(row["choose_cross_entropy_difference"] for row in rows.values())
    for name, row in rows.items():
        for score in ("accuracy", "cross_entropy"):
            for kind in ("difference", "error"):
                found[f"{name}_{score}_{kind}"] = row[f"confirm_{score}_{kind}"]
    return found


if __name__ == "__main__":
    main()
