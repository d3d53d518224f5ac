"""What a fresh wrapper does to a trained network: averages over clips, without any training, on labelled images.

    python benchmarks/fresh_wrap.py --images SAMPLE/images --labels SAMPLE/labels.json --weights lite0.safetensors

`--labels` is a JSON list of {"file", "class"}. Every second image is there to choose a clip (`choose`), the others
judge it (`confirm`): of each clip the file holds accuracy and cross-entropy on both halves, and the differences from
the bare network with their standard errors over the images. A frame that several clips share goes through the network
once.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from harness import write_result
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from image2video import ClipOptions, Genotype
from image2video.clip.sampling import warp
from image2video.training import load_weights

FORMER_DEFAULT = "translate_x(0.03) > translate_y(0.03)"
CHAINS = (
    FORMER_DEFAULT,
    *(f"translate_x({shift})" for shift in (0.01, 0.02, 0.03)),
    *(f"scale({factor})" for factor in (1.1, 1.2)),
    "rotate(5)",
)
PADDINGS = ("zeros", "reflection", "border")
SCHEDULES = ("from_zero", "centred")
FRAMES = (2, 3, 5)
HALVES = {"choose": slice(0, None, 2), "confirm": slice(1, None, 2)}


def image_arguments(description: str | None, *, size: int) -> argparse.ArgumentParser:
    """Return the options that name labelled image files and the network for which they are made ready."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of the image files")
    parser.add_argument("--labels", type=Path, required=True, help="JSON list of their names and classes")
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=size, help="pixels per side")
    return parser


def sample_arguments(description: str | None, name: str) -> argparse.ArgumentParser:
    """Return the options of a benchmark of a trained network on labelled images; `name` is that of its result."""
    parser = image_arguments(description, size=160)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    out = Path(__file__).parent / "results" / f"{name}.json"
    parser.add_argument("--out", type=Path, default=out)
    return parser


def trained(options: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the network with its weights, the images and their labels."""
    torch.set_num_threads(options.threads)
    model: nn.Module = timm.create_model(options.model)
    load_weights(model, options.weights)
    return (model, *read_images(options, model))


def main() -> None:
    options = sample_arguments(__doc__, "fresh_wrap").parse_args()
    model, images, labels = trained(options)
    bare, results = measured(model.to(memory_format=torch.channels_last), images, labels)
    settings = {"model": options.model, "weights": options.weights.name, "size": options.size, "images": len(labels)}
    payload = {"settings": settings, "front": front(results), "bare": bare, "results": results}
    columns = (
        "genotype",
        "T",
        "schedule",
        "padding",
        "confirm_accuracy_difference",
        "confirm_cross_entropy_difference",
    )
    write_result(options.out, "fresh_wrap", payload, columns=columns)


ALL_CLIPS = tuple(itertools.product(CHAINS, PADDINGS, SCHEDULES, FRAMES))


def measured(
    model: nn.Module, images: Tensor, labels: Tensor, clips: Sequence[tuple[str, str, str, int]] = ALL_CLIPS
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Score a bare network, and what each clip changes; a clip is its chain, padding, schedule and T."""
    frames = Frames(model.eval(), images)
    bare = frames.logits(Genotype.identity(), 0.0, "zeros")
    results = []
    for chain, padding, schedule, T in clips:
        row = {"genotype": chain, "T": T, "schedule": schedule, "padding": padding}
        averaged = frames.averaged(Genotype.parse(chain), ClipOptions(T, schedule, padding))
        results.append(row | judged(averaged, bare, labels))
        print(*row.values(), flush=True)
    return scores(bare, labels), results


def front(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The former default clip, and for every T the clip with the lowest cross-entropy on the images that choose."""
    former = (FORMER_DEFAULT, 5, "from_zero", "zeros")
    rows = [{"clip": "the former default", **row} for row in results if identity_of(row) == former]
    for T in sorted({row["T"] for row in results}):
        best = min((row for row in results if row["T"] == T), key=lambda row: row["choose_cross_entropy"])
        rows.append({"clip": f"best of T = {T}", **best})
    return rows


def identity_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells a clip from the others."""
    return row["genotype"], row["T"], row["schedule"], row["padding"]


def read_images(options: argparse.Namespace, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Read and normalise all images as the network's own config says, at `--size`."""
    config = timm.data.resolve_data_config({"input_size": (3, options.size, options.size)}, model=model)
    transform = timm.data.create_transform(**config)
    listed = json.loads(options.labels.read_text(encoding="utf-8"))
    pictures = [transform(Image.open(options.images / entry["file"]).convert("RGB")) for entry in listed]
    return torch.stack(pictures), torch.tensor([entry["class"] for entry in listed])


class Frames:
    """The logits of the frames of clips, each computed once."""

    def __init__(self, model: nn.Module, images: Tensor, batch_size: int = 8) -> None:
        self._model, self._images, self._batch_size = model, images, batch_size
        self._known: dict[tuple[str, float, str], Tensor] = {}

    @torch.inference_mode()
    def logits(self, genotype: Genotype, power: float, padding: str) -> Tensor:
        """The logits `(N, K)` of the frame at a power of a chain."""
        still = power == 0
        key = ("", 0.0, "") if still else (str(genotype), power, padding)
        if key not in self._known:
            found = []
            for images in self._images.split(self._batch_size):
                if not still:
                    matrices = genotype.step_matrices([power], *images.shape[-2:])
                    images = warp(images, matrices, padding=padding)[:, 0]
                found.append(self._model(images.contiguous(memory_format=torch.channels_last)))
            self._known[key] = torch.cat(found)
        return self._known[key]

    def averaged(self, genotype: Genotype, clip: ClipOptions) -> Tensor:
        """The mean logits over the frames of a clip."""
        return torch.stack([self.logits(genotype, power, clip.padding) for power in clip.steps]).mean(0)


def judged(logits: Tensor, bare: Tensor, labels: Tensor) -> dict[str, float]:
    """The scores on both halves, and the paired differences from the bare network with their standard errors."""
    found = scores(logits, labels)
    for half, rows in HALVES.items():
        y = labels[rows]
        right = [100.0 * (z[rows].argmax(1) == y).double() for z in (logits, bare)]
        losses = [functional.cross_entropy(z[rows], y, reduction="none").double() for z in (logits, bare)]
        for name, (ours, theirs) in (("accuracy", right), ("cross_entropy", losses)):
            difference = ours - theirs
            found[f"{half}_{name}_difference"] = difference.mean().item()
            found[f"{half}_{name}_error"] = (difference.std() / len(difference) ** 0.5).item()
    return found


def scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy in percent and cross-entropy in nats, on both halves."""
    found = {}
    for half, rows in HALVES.items():
        z, y = logits[rows], labels[rows]
        found[f"{half}_accuracy"] = 100 * (z.argmax(1) == y).double().mean().item()
        found[f"{half}_cross_entropy"] = functional.cross_entropy(z, y).item()
    return found


if __name__ == "__main__":
    main()
