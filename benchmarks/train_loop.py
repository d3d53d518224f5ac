"""`image2video train` on `folder:` and `npz:` against a loop written by hand: same network, batches and augmentation.

    python benchmarks/train_loop.py --threads 1 --images sample/images --out benchmarks/results/train_loop.json

Both train the same network from the same weights for the same epochs, look at the held-out images after each, keep the
best weights and evaluate the test images; they take turns within one process. The loop by hand is written as one would
with torch and torchvision alone. `ratio` counts the processor's time, worker processes included; `wall_ratio` is by the
clock, which other programs on the machine touch. What files are written at the end of an epoch does not depend on how
long the epoch is, so it stands beside: `files_ms` and `by_hand_files_ms` of one epoch. Without `--images` the files are
made up. Goal: at most 1.1.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from harness import arguments, ratio_of, write_result
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from image2video import VideoWrap
from image2video.cli.allocator import keep_memory
from image2video.data import DataSource, load_data
from image2video.training import TrainConfig, make_accelerator, train

GOAL = 1.1
CLASSES = 10
CASES = (
    ("npz", "resnet18", "bare", 32),
    ("npz", "mobilenetv3_small_050", "bare", 32),
    ("folder", "resnet18", "bare", 64),
    ("folder", "mobilenetv3_small_050", "bare", 64),
    ("npz", "resnet18", "gsf", 32),
)
"""Source, network, fusion (`bare` is no wrapper) and pixels per side. The lightest networks show overhead most."""
Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Sets:
    """The batches of the loop by hand; training takes the epoch, the others are read in order."""

    train: Batches
    held_out: Batches
    test: Batches
    steps: int


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], repeats=6)
    parser.add_argument("--images", type=Path, default=None, help="folder of image files, spread over ten classes")
    parser.add_argument("--train-images", type=int, default=320, help="of each source")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes that read files")
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))), help="rows of CASES")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kept = keep_memory()  # as the command does at its start; the loop by hand gets it as well
    with tempfile.TemporaryDirectory() as place:
        make_data(Path(place), options)
        rows = []
        for case in options.cases:
            rows.append(compare(*CASES[case], Path(place), options))
            print(rows[-1], flush=True)
    settings = {key: str(value) for key, value in vars(options).items() if key not in ("out", "images")}
    settings |= {"real_images": options.images is not None, "memory_kept": kept}
    write_result(options.out, "train_loop", {"settings": settings, "results": rows})


def make_data(place: Path, options: argparse.Namespace) -> None:
    """Write `arrays.npz` and `files/{train,val}/CLASS/*.jpg`; the test set is a fifth of the training set."""
    generator = np.random.default_rng(options.seed)
    count = options.train_images
    arrays = {}
    for part, images in (("train", count), ("test", count // 5)):
        arrays[f"x_{part}"] = generator.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(images) % CLASSES
    np.savez(place / "arrays.npz", **arrays)
    given = itertools.cycle(sorted(options.images.glob("*.jpg"))) if options.images is not None else None
    for part, images in (("train", count), ("val", count // 5)):
        for index in range(images):
            path = place / "files" / part / str(index % CLASSES) / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if given is not None:
                path.symlink_to(next(given).resolve())
            else:
                small = Image.fromarray(generator.integers(0, 256, (25, 33, 3), dtype=np.uint8))
                small.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)


def compare(source: str, name: str, fusion: str, size: int, place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Both trainings in turn."""
    spec = f"npz:{place / 'arrays.npz'}" if source == "npz" else f"folder:{place / 'files'}"
    data = load_data(spec, image_size=None if source == "npz" else size, workers=options.workers)
    network = timm.create_model(name, num_classes=CLASSES)
    if fusion != "bare":
        network = VideoWrap(network, fusion=fusion, T=3, input_size=(3, size, size))
    config = TrainConfig(epochs=options.epochs, batch_size=options.batch, device="cpu")
    sets = by_hand_npz(place, data, config) if source == "npz" else by_hand_folder(place, data, config, options)
    accelerator = make_accelerator("cpu")

    def run(train_it: Callable[[nn.Module, Path | None], object], *, files: bool) -> Callable[[], None]:
        def whole() -> None:
            with tempfile.TemporaryDirectory() as out:
                train_it(copy.deepcopy(network), Path(out) / "run" if files else None)

        return whole

    def ours(model: nn.Module, out: Path | None) -> object:
        return train(model, data, config, out=out, accelerator=accelerator)

    def by_hand(model: nn.Module, out: Path | None) -> object:
        return loop(model, sets, config, out)

    sides = {"ours": ours, "by_hand": by_hand}
    calls = {side: run(sides[side], files=False) for side in sides}
    calls |= {f"{side}_files": run(sides[side], files=True) for side in sides}
    times, walls = in_turn(calls, options.repeats)
    files = {side: statistics.median(times[f"{side}_files"]) - statistics.median(times[side]) for side in sides}
    return {
        "source": source,
        "network": name if fusion == "bare" else f"{name}, {fusion}",
        "size": size,
        **ratio_of(times["ours"], times["by_hand"]),
        "goal": GOAL,
        "met": statistics.median(a / b for a, b in zip(times["ours"], times["by_hand"], strict=True)) <= GOAL,
        "wall_ratio": ratio_of(walls["ours"], walls["by_hand"])["ratio"],
        "images_per_second": data.train.num_images * config.epochs / statistics.median(times["ours"]),
        "files_ms": 1e3 * files["ours"] / config.epochs,
        "by_hand_files_ms": 1e3 * files["by_hand"] / config.epochs,
    }


def in_turn(
    calls: dict[str, Callable[[], None]], repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of the processor, and by the clock; the first round is not kept, and each begins with another side."""
    times: dict[str, list[float]] = {side: [] for side in calls}
    walls: dict[str, list[float]] = {side: [] for side in calls}
    names = list(calls)
    for index in range(repeats + 1):
        first = index % len(names)
        for side in names[first:] + names[:first]:
            start, began = _processor_seconds(), time.perf_counter()
            calls[side]()
            if index:
                times[side].append(_processor_seconds() - start)
                walls[side].append(time.perf_counter() - began)
    return times, walls


def _processor_seconds() -> float:
    """Of this process, and of the workers that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def loop(model: nn.Module, sets: Sets, config: TrainConfig, out: Path | None) -> None:
    """Train as one would write it: SGD with a cosine, the best held-out epoch, a test, and a file of weights."""
    model.to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=config.peak_lr, momentum=config.momentum, nesterov=True)
    total, warmup = config.epochs * sets.steps, sets.steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    best, best_epoch, best_state = -1.0, 0, model.state_dict()
    for epoch in range(config.epochs):
        model.train()
        losses = []
        for images, labels in sets.train(epoch):
            loss = criterion(model(images.contiguous(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        score = accuracy(model, sets.held_out(0))
        if score > best:
            best, best_state = score, {name: value.clone() for name, value in model.state_dict().items()}
            best_epoch = epoch
            if out is not None:
                out.mkdir(exist_ok=True)
                save_file({name: value.contiguous() for name, value in best_state.items()}, out / "best.safetensors")
        if out is not None:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, out / "checkpoint.pt")
    accuracy(model, sets.test(0))
    if out is not None:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, out / "last.safetensors")
    if best_epoch < config.epochs - 1:
        model.load_state_dict(best_state)
        accuracy(model, sets.test(0))


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
    """The share of right answers; the loss is computed as well, as `train` reports it."""
    model.eval()
    right, count, loss = 0, 0, 0.0
    for images, labels in batches:
        logits = model(images.contiguous(memory_format=torch.channels_last))
        right += int((logits.argmax(1) == labels).sum())
        loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        count += len(labels)
    return right / count


def by_hand_npz(place: Path, data: DataSource, config: TrainConfig) -> Sets:
    """Arrays in memory, cropped image by image out of the padded ones, normalised batch by batch."""
    with np.load(place / "arrays.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    train, test = (arrays[f"x_{part}"].permute(0, 3, 1, 2).contiguous() for part in ("train", "test"))
    pad = train.shape[-1] // 8
    kept = len(train) - data.holdout.num_images if data.holdout is not None else len(train)
    padded = nn.functional.pad(train[:kept].float(), (pad, pad, pad, pad), mode="reflect").to(torch.uint8)
    size = train.shape[-1]

    def normalised(images: Tensor) -> Tensor:
        return (images.float() / 255 - mean) / std

    def of_training(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(kept).split(config.batch_size):
            crops = torch.empty(len(index), *train.shape[1:], dtype=torch.uint8)
            tops, lefts = torch.randint(0, 2 * pad + 1, (2, len(index))).tolist()
            for row, (image, top, left) in enumerate(zip(index.tolist(), tops, lefts, strict=True)):
                crops[row] = padded[image, :, top : top + size, left : left + size]
            flips = torch.rand(len(index)) < 0.5
            crops[flips] = crops[flips].flip(-1)
            yield normalised(crops), arrays["y_train"][index]

    def of(images: Tensor, labels: Tensor) -> Batches:
        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for index in torch.arange(len(images)).split(config.batch_size):
                yield normalised(images[index]), labels[index]

        return batches

    held_out = of(train[kept:], arrays["y_train"][kept:])
    return Sets(of_training, held_out, of(test, arrays["y_test"]), -(-kept // config.batch_size))


def by_hand_folder(place: Path, data: DataSource, config: TrainConfig, options: argparse.Namespace) -> Sets:
    """torchvision's `ImageFolder` and transforms, read by as many workers; those of training stay between epochs."""
    size = data.input_size[-1]
    last = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(data.mean), list(data.std))]
    crop = v2.RandomResizedCrop(size, antialias=True)
    for_training = v2.Compose([crop, v2.RandomHorizontalFlip(), *last])
    resize = v2.Resize(math.floor(size / 0.875), antialias=True)
    for_evaluation = v2.Compose([resize, v2.CenterCrop(size), *last])
    images = ImageFolder(place / "files" / "train", for_training)
    same = ImageFolder(place / "files" / "train", for_evaluation)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist()
    kept = len(images) - (data.holdout.num_images if data.holdout is not None else 0)

    def batches(dataset: Any, *, shuffle: bool) -> Batches:
        workers = options.workers
        loader = DataLoader(dataset, config.batch_size, shuffle=shuffle, num_workers=workers)
        return lambda epoch: iter(loader)

    train = torch.utils.data.Subset(images, order[:kept])
    held_out = torch.utils.data.Subset(same, order[kept:])
    test = ImageFolder(place / "files" / "val", for_evaluation)
    return Sets(
        batches(train, shuffle=True),
        batches(held_out, shuffle=False),
        batches(test, shuffle=False),
        -(-kept // config.batch_size),
    )


if __name__ == "__main__":
    main()
