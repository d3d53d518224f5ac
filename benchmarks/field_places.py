"""The effective field of one frame's features in a trained network, by where the clip begins.

    python benchmarks/field_places.py --images SAMPLE/images --labels SAMPLE/labels.json --weights lite0.safetensors \\
        --size 224 --figure docs/figures/erf_places.png

The clip is `identity | X`; the unit is the centre of the first map of stride 32, in the frame that X moves.
Nothing is fused and nothing is trained anew, so that a field changes by the warp alone. 16 images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from field_figures import write_small
from fresh_wrap import sample_arguments, trained
from harness import write_result
from torch import Tensor, nn

from image2video import VideoWrap
from image2video.receptive_field import EffectiveField, Unit, effective
from image2video.report import ErfPanel, erf_caption, erf_figure
from image2video.report.style import png_bytes

PLACES = ("image", "blocks.3", "blocks.5")
CHAINS = ("translate_x(0.2)", "shear_x(40)", "scale(0.6)")
LAYER = "blocks.5.0"
IMAGES = 16


def main() -> None:
    parser = sample_arguments(__doc__, "field_places")
    parser.add_argument("--figure", type=Path, required=True)
    options = parser.parse_args()
    model, images, _ = trained(options)
    grid = measured(model.eval(), images[:IMAGES])
    panels = {chain: [ErfPanel.of(name, field) for name, field in row.items()] for chain, row in grid.items()}
    shown = [next(iter(grid.values()))["bare"]]
    caption = erf_caption(shown, model=f"{options.model} with its ImageNet weights", images="photographs")
    drawn = erf_figure(panels, caption=f"{caption} Above each: where the clip begins.", width=8.0)
    write_small(options.figure, png_bytes(drawn, dpi=100))
    settings = {"model": options.model, "weights": options.weights.name, "size": options.size, "images": IMAGES}
    rows = [row(chain, panel, line[0]) for chain, line in panels.items() for panel in line]
    columns = ("chain", "place", "times_bare", "times_bare_error", "spread", "axes", "x", "y")
    write_result(options.out, "field_places", {"settings": settings, "results": rows}, columns=columns)


def measured(model: nn.Module, images: Tensor) -> dict[str, dict[str, EffectiveField]]:
    """The fields of every chain at every place, the bare network's first."""
    bare = effective(model, images, Unit(LAYER), weights="trained")
    found: dict[str, dict[str, EffectiveField]] = {}
    for chain in CHAINS:
        found[chain] = {"bare": bare}
        for place in PLACES:
            how: dict[str, Any] = {"genotype": f"identity | {chain}", "clip_at": place}
            video = VideoWrap(model, "none", **how, input_size=tuple(images.shape[1:])).eval()
            found[chain][place] = effective(video, images, Unit(LAYER, frame=1), weights="trained")
            video.unwrap()
            print(chain, place, found[chain][place].measures.spread, flush=True)
    return found


def row(chain: str, panel: ErfPanel, bare: ErfPanel) -> dict[str, Any]:
    """The figures of a panel: its area, its axes, and how far its centre lies from the bare network's."""
    (y, x), (y0, x0) = panel.measures.centre, bare.measures.centre
    times, error = (1.0, None) if panel is bare else panel.growth(bare)
    axes = panel.measures.anisotropy
    numbers = {"spread": panel.measures.spread, "axes": axes, "angle": panel.measures.angle if panel.turned else None}
    moved = {"x": x - x0, "y": y - y0}
    return {"chain": chain, "place": panel.name, "times_bare": times, "times_bare_error": error, **numbers, **moved}


if __name__ == "__main__":
    main()
