"""A made-up comparison result of the documented shape, for the tests of the report."""

from __future__ import annotations

import base64
import itertools
import math
import re
from typing import Any

from matplotlib.figure import Figure

OPS = ("translate_x(0.06)", "translate_y(0.06)", "scale(1.1)", "rotate(10)", "identity")
EDGES = [[i, j] for j in range(1, 5) for i in range(j)]


def run(
    seed: int, accuracy: float, frames: int = 3000, start_frames: int = 0, genotype: str = "none"
) -> dict[str, Any]:
    curve = [
        {"epoch": e, "frames": frames * e // 3, "train_loss": 2.0 / e, "holdout": accuracy * (1 - 0.3 / e)}
        for e in (1, 2, 3)
    ]
    return {
        "seed": seed,
        "genotype": genotype,
        "accuracy": accuracy,
        "loss": 0.2,
        "epochs": 3,
        "frames": frames,
        "start_frames": start_frames,
        "seconds": 1.5,
        "macs": 783_000.0 * (1 if genotype == "none" else 3),
        "ms": 0.05,
        "parameters": 78_042,
        "curve": curve,
    }


def arm(
    name: str,
    accuracies: list[float],
    title: str = "",
    group: str = "from scratch",
    start: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    return {
        "name": name,
        "title": title or name,
        "group": group,
        "genotype": options.get("genotype", "none"),
        "fusion": None,
        "start": start,
        "runs": [run(seed, accuracy, **options) for seed, accuracy in enumerate(accuracies)],
    }


def search_record() -> dict[str, Any]:
    weights = []
    for epoch in range(5):
        logits = [[0.05 * epoch * math.sin(3 * e + 2 * o) * (1 + e % 3) for o in range(5)] for e in range(len(EDGES))]
        weights.append([[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in logits])
    drops = [[round(2 * math.sin(5 * e + o), 2) for o in range(5)] for e in range(len(EDGES))]
    return {
        "space": "affine5",
        "genotype": "translate_x(0.06) > rotate(10)",
        "inputs": 1,
        "nodes": 4,
        "edges": EDGES,
        "ops": list(OPS),
        "epochs": [0, 1, 2, 3, 4],
        "weights": weights,
        "drops": drops,
        "chosen": [max(range(5), key=row.__getitem__) for row in drops],
        "path": [0, 2, 9],
        "frames": 30_000,
        "seconds": 21.0,
    }


def result_record(
    arms: list[dict[str, Any]] | None = None, contrasts: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """A record with every part; `arms` and `contrasts` replace the made-up ones."""
    return {
        "kind": "comparison",
        "schema_version": 1,
        "title": "digits, cifar_resnet8, 3 frames",
        "data": {
            "name": "digits",
            "classes": 10,
            "train": 1000,
            "holdout": 111,
            "test": 360,
            "input_size": [1, 16, 16],
        },
        "model": "cifar_resnet8",
        "settings": {"frames": 3, "epochs": 3, "seeds": [0, 1, 2]},
        "arms": arms
        or [
            arm("bare", [92.1, 93.0, 91.4], title="bare"),
            arm("bare_long", [96.2, 96.7, 96.0], title="bare, 3 × the epochs", frames=9000),
            arm(
                "searched",
                [94.4, 95.1, 94.0],
                title="searched + GSF",
                frames=9000,
                genotype="translate_x(0.06) > rotate(10)",
            ),
            arm(
                "tuned",
                [97.0, 97.4, 96.2],
                title="bare, wrapped and fine-tuned",
                group="fine-tuning",
                genotype="translate_x(0.03)",
                start="bare_long",
                start_frames=9000,
            ),
        ],
        "contrasts": contrasts
        or [
            {"name": "epochs", "lead": "at equal epochs", "a": "searched", "b": "bare", "headline": True},
            {"name": "compute", "lead": "at equal compute", "a": "searched", "b": "bare_long", "headline": True},
            {"name": "tune", "lead": "without training", "a": "tuned", "b": "bare_long", "headline": False},
        ],
        "search": search_record(),
        "environment": {"torch": "2.11", "threads": 2},
        "frames": 123_456,
        "seconds": 170.0,
    }


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """The texts of a figure's panels that cover each other, their titles and labels included."""
    figure.draw_without_rendering()
    shown = [text for text in (figure._supxlabel, figure._suptitle) if text is not None]  # type: ignore[attr-defined]
    for axis in figure.axes:
        if axis.get_visible():
            shown += [*axis.texts, axis.title, axis.xaxis.label, axis.yaxis.label]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown if text.get_text()]
    return [(a, b) for (a, x), (b, y) in itertools.combinations(boxes, 2) if x.overlaps(y)]


def check_stands_alone(html: str) -> None:
    """A page holds all of its pictures and names no address outside it."""
    assert "<script" not in html
    assert not re.search(r"https?://|url\(|@import|<link", html.replace("http://www.w3.org", ""))
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert sources
    for source in sources:
        assert source.startswith(("data:image/svg+xml;base64,", "data:image/png;base64,"))
        content = base64.b64decode(source.partition(",")[2])
        assert content.startswith((b"<?xml", b"\x89PNG"))
        assert content.startswith(b"\x89PNG") or not re.search(rb'(?:href|src)="(?!#|data:)', content)
