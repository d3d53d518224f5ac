"""What one warped copy inside a trained network gives, without any training: place, padding and transform in turn.

    python benchmarks/inside_clips.py --images SAMPLE/images --labels SAMPLE/labels.json --weights lite0.safetensors

At every place the clip is the image's own map and one warped copy of it, `identity | X`, and the outputs of both are
averaged. The places are the image, the inputs of the layers with stride, and those of three stages. `--labels` is a
JSON list of {"file", "class"}; every second image chooses, the others judge, as in `fresh_wrap.py`. The cost is that of
the multiply-accumulates, as a multiple of the bare network's.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any

import torch
from fresh_wrap import judged, sample_arguments, scores, trained
from harness import write_result
from torch import Tensor, nn

from image2video import VideoWrap

PLACES = (
    "image",
    *(f"blocks.{stage}.0.conv_dw" for stage in (1, 2, 3, 5)),
    *(f"blocks.{stage}" for stage in (3, 4, 6)),
)
PADDINGS = ("zeros", "border", "reflection")
COPIES = {
    "one cell": "translate_x(1 cell) > translate_y(1 cell)",
    "shift": "translate_x(0.1)",
    "zoom": "scale(1.2)",
    "mirror": "flip_x",
}
BATCH = 8


def main() -> None:
    options = sample_arguments(__doc__, "inside_clips").parse_args()
    model, images, labels = trained(options)
    bare, rows = measured(model.eval().to(memory_format=torch.channels_last), images, labels)
    settings = {"model": options.model, "weights": options.weights.name, "size": options.size, "images": len(labels)}
    payload = {"settings": settings, "bare": bare, "front": front(rows), "paddings": paddings(rows), "results": rows}
    columns = ("place", "copy", "padding", "cost", "confirm_accuracy_difference", "confirm_cross_entropy_difference")
    write_result(options.out, "inside_clips", payload, columns=columns)


def measured(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Score the bare network, and the average with each copy."""
    bare = torch.cat([model(batch) for batch in images.split(BATCH)])
    rows = []
    for place, copy, padding in cases():
        wrapped = wrap(model, place, copy, padding, tuple(images.shape[1:]))
        site = wrapped.plan.clip_site
        cost = 2.0 if site is None else site.cost(2)
        averaged = torch.cat([wrapped(batch) for batch in images.split(BATCH)])
        wrapped.unwrap()
        row = {"place": place, "copy": copy, "padding": padding, "cost": cost}
        rows.append(row | judged(averaged, bare, labels))
        print(*row.values(), rows[-1]["confirm_cross_entropy_difference"], flush=True)
    return scores(bare, labels), rows


def front(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the wrapper's own padding."""
    return [row for row in rows if row["padding"] in ("reflection", "none")]


def paddings(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean of each copy over the places inside of the network, padding by padding."""
    found = []
    for copy in COPIES:
        for padding in PADDINGS:
            same = [row for row in rows if (row["copy"], row["padding"]) == (copy, padding) and row["place"] != "image"]
            if same:
                means = {key: fmean(row[key] for row in same) for key in same[0] if key.endswith("_difference")}
                found.append({"copy": copy, "padding": padding, "places": len(same), **means})
    return found


def cases() -> Iterator[tuple[str, str, str]]:
    """Place, copy and padding; a mirror image needs no padding."""
    for place in PLACES:
        for copy in COPIES:
            for padding in PADDINGS if copy != "mirror" else ("none",):
                yield place, copy, padding


def wrap(model: nn.Module, place: str, copy: str, padding: str, size: tuple[int, ...]) -> VideoWrap:
    """The network over the image's own map and its copy; the copy by one cell moves it both right and down."""
    how = {"padding": "zeros" if padding == "none" else padding, "input_size": size}
    return VideoWrap(model, "none", genotype=f"identity | {COPIES[copy]}", clip_at=place, **how).eval()


if __name__ == "__main__":
    with torch.inference_mode():
        main()
