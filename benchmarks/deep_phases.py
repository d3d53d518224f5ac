"""What the activations that strides throw away give a trained network: `preset:phases` beside mirror images.

    python benchmarks/deep_phases.py --images SAMPLE/images --labels SAMPLE/labels.json --weights lite0.safetensors

Outputs of the frames are averaged, nothing is trained and nothing is chosen: the clips are the preset, its first and
its last places, mirror images (what ttach's `hflip_transform` and `flip_transform` average), the wrapper's default
clip, and the preset with mirror images. The cost is that of the multiply-accumulates, as a multiple of the bare
network's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from fresh_wrap import sample_arguments, trained
from harness import write_result
from torch import Tensor, nn
from torch.nn import functional

from image2video import DEFAULT_GENOTYPE, DeepClip, FrameSet, Genotype, VideoWrap, phases

BATCH = 8
FLIPS = {"mirror": "identity | flip_x", "flips": "identity | flip_x | flip_y | flip_x > flip_y"}


def main() -> None:
    options = sample_arguments(__doc__, "deep_phases").parse_args()
    model, images, labels = trained(options)
    model = model.eval().to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    bare = torch.cat([model(batch) for batch in images.split(BATCH)])
    rows = [{"clip": "bare", "places": 0, "T": 1, "cost": 1.0, **judged(bare, bare, labels)}]
    for name, how in clips(model, tuple(images.shape[1:])):
        wrapped = VideoWrap(model, "none", input_size=tuple(images.shape[1:]), **how).eval()
        row = {"clip": name, "places": len(wrapped.plan.places), "T": wrapped.T, "cost": wrapped.cost()}
        averaged = torch.cat([wrapped(batch) for batch in images.split(BATCH)])
        model = wrapped.unwrap()
        rows.append(row | judged(averaged, bare, labels))
        print(*rows[-1].values(), flush=True)
    settings = {"model": options.model, "weights": options.weights.name, "size": options.size, "images": len(labels)}
    payload = {"settings": settings, "results": rows}
    columns = ("clip", "T", "cost", "accuracy", "cross_entropy", "accuracy_difference", "cross_entropy_difference")
    write_result(options.out, "deep_phases", payload, columns=columns)


def clips(model: nn.Module, size: tuple[int, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names of clips, and the arguments of the wrapper."""
    whole = phases(model, input_size=size)
    yield "phases", {"genotype": whole}
    for count in range(1, len(whole.sites)):
        yield f"phases, the first {count}", {"genotype": some(whole, range(count))}
        yield f"phases, the last {count}", {"genotype": some(whole, range(len(whole.sites) - count, len(whole.sites)))}
    for name, text in FLIPS.items():
        yield name, {"genotype": text}
    yield "default clip, T = 3", {"genotype": DEFAULT_GENOTYPE, "T": 3}
    yield "default clip, T = 5", {"genotype": DEFAULT_GENOTYPE, "T": 5}
    yield "phases of image and mirror image", {"genotype": mirrored(whole)}


def some(whole: DeepClip, numbers: range) -> DeepClip:
    """The clip of some of the places of the preset, with the image and one frame for each of them."""
    sites = []
    for number in numbers:
        place, clip = whole.sites[number]
        assert isinstance(clip, FrameSet), "the preset is made of frame sets"
        sites.append((place, FrameSet((clip.frames[0], *(clip.frames[1 + other] for other in numbers)))))
    return DeepClip(tuple(sites))


def mirrored(whole: DeepClip) -> DeepClip:
    """The clip with all frames of the preset, and all of them again of the mirror image."""
    sites = []
    for number, (place, clip) in enumerate(whole.sites):
        assert isinstance(clip, FrameSet), "the preset is made of frame sets"
        again = [Genotype((*Genotype.parse("flip_x").chain, *frame.chain)) for frame in clip.frames]
        sites.append((place, FrameSet((*clip.frames, *(clip.frames if number else again)))))
    return DeepClip(tuple(sites))


def judged(logits: Tensor, bare: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy in percent and cross-entropy in nats, and the paired differences from the bare network."""
    right = [100.0 * (z.argmax(1) == labels).double() for z in (logits, bare)]
    losses = [functional.cross_entropy(z, labels, reduction="none").double() for z in (logits, bare)]
    found = {}
    for name, (ours, theirs) in (("accuracy", right), ("cross_entropy", losses)):
        difference = ours - theirs
        found[name] = ours.mean().item()
        found[f"{name}_difference"] = difference.mean().item()
        found[f"{name}_error"] = (difference.std() / len(difference) ** 0.5).item()
    return found


if __name__ == "__main__":
    with torch.inference_mode():
        main()
