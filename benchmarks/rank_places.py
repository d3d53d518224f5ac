"""Place and chain ranked together for a trained network: where a clip within a budget should begin.

    python benchmarks/rank_places.py --images SAMPLE/images --labels SAMPLE/labels.json --weights lite0.safetensors

`rank_genotypes(clip_at="all", max_cost=2)` with a few chains of either kind, from the image to the last map. Two thirds
of the images choose, a third judges the winner.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import torch
from fresh_wrap import sample_arguments, trained
from harness import write_result
from torch.utils.data import DataLoader, TensorDataset

from image2video.search import RankedGenotype, Ranking, rank_genotypes

CHAINS = (
    "translate_x(1 cell) > translate_y(1 cell)",
    "translate_x(0.03)",
    "translate_x(0.1)",
    "scale(1.1)",
    "scale(1.2)",
    "rotate(5)",
    "flip_x",
)
MAX_COST = 2.0
SHOWN = 20


def main() -> None:
    options = sample_arguments(__doc__, "rank_places").parse_args()
    model, images, labels = trained(options)
    started = time.perf_counter()
    ranking = rank_genotypes(
        model.to(memory_format=torch.channels_last),
        DataLoader(TensorDataset(images, labels), batch_size=50),
        candidates=CHAINS,
        T=(2, 3),
        schedule=("from_zero", "centred"),
        clip_at="all",
        max_cost=MAX_COST,
        batch_size=64,
        progress=lambda stage, done, total, **_: print(stage, done, total, flush=True),
    )
    rows = [row(entry, rank) for rank, entry in enumerate(ranking.entries[:SHOWN])]
    payload = {
        "settings": {
            **{"model": options.model, "weights": options.weights.name, "size": options.size, "images": len(labels)},
            **{"chains": list(CHAINS), "max_cost": MAX_COST, "candidates": len(ranking.entries)},
            "seconds": round(time.perf_counter() - started),
        },
        "best": str(ranking.best),
        "sentence": ranking.sentence(),
        "left_out": [asdict(clip) for clip in ranking.left_out],
        "estimate": None if ranking.estimate is None else ranking.estimate.to_dict(),
        "finalists": by_place(ranking),
        "results": rows,
    }
    columns = ("rank", "place", "genotype", "T", "cost", "gain", "gain_error", "loss_gain", "loss_gain_error", "images")
    write_result(options.out, "rank_places", payload, columns=columns)
    print(ranking.sentence())


def row(entry: RankedGenotype, rank: int) -> dict[str, object]:
    """An entry in points and nats."""
    points = {name: 100 * getattr(entry, name) for name in ("accuracy", "gain", "gain_error")}
    return {"rank": rank + 1, **entry.to_dict(), **points, "place": entry.place or "image"}


def by_place(ranking: Ranking) -> list[dict[str, object]]:
    """The first entry of every place among those that were scored on all images, in the order of the ranking."""
    found: dict[str, dict[str, object]] = {}
    for rank, entry in enumerate(ranking.entries[: ranking.finalists]):
        if entry.genotype.chain:
            found.setdefault(entry.place or "image", row(entry, rank))
    return list(found.values())


if __name__ == "__main__":
    main()
