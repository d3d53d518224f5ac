"""What a fresh wrapper does to networks that were trained on small images, without any training with clips.

    python benchmarks/fresh_wrap_small.py digits
    python benchmarks/fresh_wrap_small.py cifar10 --npz cifar10.npz --weights lite0.safetensors --work runs/fresh_wrap

`digits` takes the five kept networks of the tests and their 597 test images. `cifar10` fine-tunes an
ImageNet-pretrained network on 5 000 training images at 64 px, and takes 2 000 other training images: no test image is
read; its clips are those that are worth a look after the other two. Halves of the images and scores are those of
`fresh_wrap.py`; where there are several networks, a row holds the mean over them, and errors are those of that mean.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from fresh_wrap import ALL_CLIPS, FORMER_DEFAULT, SCHEDULES, front, measured
from harness import write_result
from torch import Tensor, nn
from torch.nn import functional

from image2video.training import load_weights

HELPERS = Path(__file__).parent.parent / "tests" / "helpers"
TRAINED_ON, JUDGED_ON = 5000, 2000
SHORT_LIST = (
    (FORMER_DEFAULT, "zeros", "from_zero", 5),
    *itertools.product(("translate_x(0.02)", "translate_x(0.03)"), ("reflection", "zeros"), SCHEDULES, (2, 3)),
    *itertools.product(("scale(1.1)",), ("reflection",), SCHEDULES, (2, 3)),
)
SIZE, EPOCHS, BATCH, LR = 64, 10, 50, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("digits", "cifar10"))
    parser.add_argument("--npz", type=Path, help="CIFAR-10 as x_train and y_train")
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path, help="its ImageNet weights")
    parser.add_argument("--work", type=Path, help="folder that keeps the fine-tuned network")
    options = parser.parse_args()
    torch.set_num_threads(1)
    networks, images, labels, settings = digits() if options.task == "digits" else cifar10(options)
    clips = ALL_CLIPS if options.task == "digits" else SHORT_LIST
    rounds = [measured(network, images, labels, clips) for network in networks]
    bare = averaged([bare for bare, _ in rounds])
    results = [averaged(list(rows)) for rows in zip(*(results for _, results in rounds), strict=True)]
    payload = {"settings": settings, "front": front(results), "bare": bare, "results": results}
    write_result(Path(__file__).parent / "results" / f"fresh_wrap_{options.task}.json", "fresh_wrap_small", payload)


def averaged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over several networks; errors are the deviation between networks over the root of their number."""
    if len(rows) == 1:
        return rows[0]
    found = dict(rows[0])
    for name, value in found.items():
        if isinstance(value, float):
            found[name] = statistics.mean(row[name] for row in rows)
    for name in found:
        if name.endswith("_difference"):
            spread = statistics.stdev(row[name] for row in rows) / len(rows) ** 0.5
            found[name.removesuffix("_difference") + "_error"] = spread
    return found


def digits() -> tuple[list[nn.Module], Tensor, Tensor, dict[str, Any]]:
    """The kept networks of the tests, and the digits that they were not trained on."""
    sys.path.insert(0, str(HELPERS))
    import digit_networks

    images, labels = digit_networks.digits()
    rest = slice(digit_networks.TRAINED_ON, None)
    networks = [digit_networks.network(seed) for seed in digit_networks.SEEDS]
    return networks, images[rest], labels[rest], {"networks": len(networks), "images": len(labels[rest])}


def cifar10(options: argparse.Namespace) -> tuple[list[nn.Module], Tensor, Tensor, dict[str, Any]]:
    """The pretrained network, fine-tuned or read from `--work`, and training images that it has not seen."""
    order = np.random.default_rng(0).permutation(50000)[: TRAINED_ON + JUDGED_ON]
    with np.load(options.npz) as held:
        pictures, labels = held["x_train"][order], torch.from_numpy(held["y_train"][order])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1  # the network's mean and std are 0.5
    images = functional.interpolate(images, size=(SIZE, SIZE), mode="bicubic", antialias=True)
    model = timm.create_model(options.model, num_classes=10).to(memory_format=torch.channels_last)
    kept = options.work / "cifar10_network.pt"
    if kept.exists():
        model.load_state_dict(torch.load(kept, weights_only=True))
    else:
        pretrained = timm.create_model(options.model)
        load_weights(pretrained, options.weights)
        own = {name: value for name, value in pretrained.state_dict().items() if not name.startswith("classifier.")}
        model.load_state_dict(own, strict=False)
        fine_tune(model, images[:TRAINED_ON], labels[:TRAINED_ON])
        options.work.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), kept)
    settings = {"model": options.model, "size": SIZE, "epochs": EPOCHS, "trained_on": TRAINED_ON, "images": JUDGED_ON}
    return [model], images[TRAINED_ON:], labels[TRAINED_ON:], settings


def fine_tune(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Fine-tune with flips and crops, under one cycle of AdamW's learning rate."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=EPOCHS * (len(images) // BATCH))
    model.train()
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(images), generator=generator).split(BATCH):
            batch = shaken(images[rows], generator).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(model(batch), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {total / len(images):.4f}", flush=True)


def shaken(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images, and move each by up to an eighth of its side."""
    most = SIZE // 8
    padded = functional.pad(images, (most,) * 4, mode="reflect")
    moves = torch.randint(0, 2 * most + 1, (len(images), 2), generator=generator).tolist()
    mirrored = torch.randint(0, 2, (len(images),), generator=generator).tolist()
    crops = [image[:, y : y + SIZE, x : x + SIZE] for image, (y, x) in zip(padded, moves, strict=True)]
    return torch.stack([crop.flip(-1) if flip else crop for crop, flip in zip(crops, mirrored, strict=True)])


if __name__ == "__main__":
    main()
