"""The greedy search of frames for a trained network, on labelled images: gain against the number of frames.

    python benchmarks/greedy_frames.py --images SAMPLE/images --labels SAMPLE/labels.json --weights lite0.safetensors

`--labels` is a JSON list of {"file", "class"}. One half of the images chooses frames, the other half judges them: of
the set of every T the file holds accuracy and cross-entropy on the second half, and the differences from the bare
network with their standard errors over the images.
"""

from __future__ import annotations

from typing import Any

import torch
from fresh_wrap import sample_arguments, trained
from harness import write_result

from image2video.search import CurvePoint, FrameChoice, greedy_frames


def main() -> None:
    parser = sample_arguments(__doc__, "greedy_frames")
    parser.add_argument("--space", default="pose")
    parser.add_argument(
        "--count", type=int, default=68, help="candidates; 68 of pose are its steps, and these mirrored"
    )
    parser.add_argument("--candidates", nargs="*", default=None, help="chains to choose from instead")
    parser.add_argument("--frames", type=int, default=8, help="frames of the largest set")
    parser.add_argument("--judge", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model, images, labels = trained(options)
    choice = greedy_frames(
        model.eval().to(memory_format=torch.channels_last),
        [(images.contiguous(memory_format=torch.channels_last), labels)],
        space=options.space,
        candidates=options.candidates,
        count=options.count,
        T=options.frames,
        judge=options.judge,
        seed=options.seed,
        progress=shown,
    )
    print(choice.sentence())
    names = ("model", "size", "space", "count", "candidates", "judge", "seed")
    settings = {name: getattr(options, name) for name in names} | {"images": len(labels), "seconds": choice.seconds}
    write_result(options.out, "greedy_frames", payload(choice, settings), columns=("T", "aggregate", "added", "gain"))


def payload(choice: FrameChoice, settings: dict[str, Any]) -> dict[str, Any]:
    """The rows of the curve, those of the best set's aggregate in front, and the outcome as the library writes it."""
    rows = [row(point, is_best=number == choice.choice) for number, point in enumerate(choice.points)]
    front = [r for r in rows if r["aggregate"] == choice.best_point.aggregate]
    return {
        "settings": settings,
        "sentence": choice.sentence(),
        "front": front,
        "results": rows,
        "choice": choice.to_dict(),
    }


def row(point: CurvePoint, *, is_best: bool) -> dict[str, Any]:
    """A point with accuracies in percent and points, on the images that chose and on those that did not."""
    assert point.judging is not None
    chose, judged = point.choosing, point.judging
    return {
        "T": point.T,
        "aggregate": point.aggregate,
        "added": str(point.frames.frames[-1]),
        "accuracy": 100 * judged.accuracy,
        "gain": 100 * judged.gain,
        "gain_error": 100 * judged.gain_error,
        "loss_gain": judged.loss_gain,
        "loss_gain_error": judged.loss_gain_error,
        "calibrated_gain": judged.calibrated_gain,
        "calibrated_gain_error": judged.calibrated_gain_error,
        "choosing_gain": 100 * chose.gain,
        "choosing_calibrated_gain": chose.calibrated_gain,
        "temperature": point.temperature,
        "chosen": is_best,
    }


def shown(stage: str, done: int, total: int, **figures: float) -> None:
    """Print the progress."""
    print(stage, done, total, {name: round(value, 1) for name, value in figures.items()}, flush=True)


if __name__ == "__main__":
    main()
