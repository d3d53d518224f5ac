"""Small data and networks that the tests of the search share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch
from accelerate import Accelerator
from forked import script, together
from torch import Tensor, nn

from image2video.clip.colours import Colours
from image2video.data.batches import Order
from image2video.search import Cell, SearchConfig, get_space
from image2video.search.optimise.bilevel import Bilevel, weight_optimizer


class Arrays:
    """An `ImageSet` over tensors, plain enough to be checked by eye: no augmentation, contiguous batches."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self.num_images = len(labels)

    def _at(self, rows: Tensor) -> Arrays:
        return Arrays(self.images[rows], self.labels[rows])

    def split(self, fraction: float, *, seed: int) -> tuple[Arrays, Arrays]:
        order = torch.randperm(self.num_images, generator=torch.Generator().manual_seed(seed))
        first = round(fraction * self.num_images)
        return self._at(order[:first]), self._at(order[first:])

    def take(self, count: int, *, seed: int) -> Arrays:
        return self._at(torch.randperm(self.num_images, generator=torch.Generator().manual_seed(seed))[:count])

    def batches(self, batch_size: int, *, augment: bool = False, **order: Unpack[Order]) -> ArrayBatches:
        return ArrayBatches(self, batch_size, **order)


@dataclass
class ArrayBatches:
    source: Arrays
    batch_size: int
    shuffle: bool = False
    seed: int = 0
    device: torch.device | str = "cpu"
    shard: tuple[int, int] = (0, 1)

    @property
    def num_images(self) -> int:
        return self.source.num_images

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(self.num_images)
        if self.shuffle:
            order = torch.randperm(
                self.num_images, generator=torch.Generator().manual_seed(self.seed % 2**31 + 1000 * epoch)
            )
        rank, processes = self.shard
        for rows in order.split(self.batch_size):
            mine = rows[rank::processes]
            yield self.source.images[mine].to(self.device), self.source.labels[mine].to(self.device)


def blobs(count: int, seed: int, size: tuple[int, int] = (12, 16), classes: int = 3) -> Arrays:
    """Noise with a bright bar whose height tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    images = 0.5 * torch.randn(count, 1, *size, generator=generator)
    for row, label in enumerate(labels.tolist()):
        images[row, 0, 2 + 3 * label : 4 + 3 * label] += 1
    return Arrays(images, labels)


def tiny_network(channels: int = 1, classes: int = 3, seed: int = 0) -> nn.Module:
    """Two residual-free convolutions with norms and dropout, a few hundred parameters."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((3, 1)),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(24, classes),
    )
    torch.random.set_rng_state(state)
    return network


def smooth_network(dropout: float = 0.0) -> nn.Module:
    """Two convolutions without norms and kinks: gradients and sums are exact in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv2d(4, 6, 3),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 3),
        )


class CentreWindow(nn.Module):
    """A fixed classifier that sees nothing but a window of 4×4 pixels at the image's centre; no parameters.

    The logits of the two classes are ∓ the window's mean.
    """

    def forward(self, images: Tensor) -> Tensor:
        top, left = images.shape[-2] // 2 - 2, images.shape[-1] // 2 - 2
        mean = images[:, 0, top : top + 4, left : left + 4].mean(dim=(1, 2))
        return torch.stack([-mean, mean], dim=1)


def planted(count: int, seed: int) -> Arrays:
    """24×32 noise with a patch of ±1 whose sign is the class, 6 pixels left of the centre: outside the window."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 0.25 * torch.randn(count, 1, 24, 32, generator=generator)
    images[:, 0, 10:14, 8:12] += (2 * labels - 1).float().view(-1, 1, 1)
    return Arrays(images, labels)


def config(**options: object) -> SearchConfig:
    """The settings of a search that takes about a second on `blobs`."""
    return SearchConfig(**{"T": 3, "epochs": 2, "batch_size": 16, "device": "cpu", **options})


class Pixels(nn.Module):
    """Logits of two classes per pixel: the pixel and its negative."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images, -images], dim=1)


class KilledError(Exception):
    """Stands for a kill."""


class Killer:
    """A progress callback that keeps the stages of all steps, and ends the search at step number `at`."""

    def __init__(self, at: int = -1) -> None:
        self.stages: list[str] = []
        self.at = at

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
        assert 0 < done <= total
        self.stages.append(stage)
        if len(self.stages) == self.at:
            raise KilledError


def saved_bytes(make: Callable[[], Tensor], *, but: Iterable[Tensor] = ()) -> int:
    """The bytes that autograd keeps for the backward pass of what `make` gives, each storage once."""
    left_out = {tensor.untyped_storage().data_ptr() for tensor in but}
    saved: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no other tensor gets the address of one that is gone

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        assert make().requires_grad
    return sum(size for address, size in saved.items() if address not in left_out)


def bilevel(network: nn.Module, accelerator: Accelerator | None = None, **options: object) -> Bilevel:
    """The steps of a search with a seeded cell, in the network's precision."""
    accelerator = accelerator or Accelerator(cpu=True)
    settings = SearchConfig(**{"T": 3, **options})
    cell = Cell(
        get_space(settings.space_name),
        settings.T,
        generator=torch.Generator().manual_seed(0),
        colours=Colours(),
        learn_magnitudes=settings.learn_magnitudes,
        magnitude_bound=settings.magnitude_bound,
    ).to(next(network.parameters()).dtype)
    optimizer = weight_optimizer(network, settings)
    if optimizer is not None:
        network, optimizer = accelerator.prepare(network, optimizer)
    return Bilevel(network, cell, optimizer, accelerator, settings)


def launch(path: Path, source: str, *arguments: object, processes: int = 1) -> int:
    """Write a script and run it in processes of its own; the exit code of the first that failed, or 0."""
    path.write_text(source)
    ended = together(path.parent, script, path, *arguments, processes=processes, ACCELERATE_USE_CPU="true")
    for process in ended:
        sys.stderr.write(process.error)
    return next((process.code for process in ended if process.code), 0)


def torchrun(path: Path, source: str, *arguments: object) -> int:
    """Write a script and run it with torch's launcher in two fresh interpreters; the launcher's exit code."""
    path.write_text(source)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(Path(__file__).parent), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(path)]
    return subprocess.run([*command, *map(str, arguments)], env=environment, timeout=300).returncode
