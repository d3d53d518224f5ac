"""Steps of a search that one process and several take alike; the tests of distribution and their workers share them."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from search_cases import bilevel, blobs, tiny_network
from torch import Tensor

from image2video.search.cell.draw import Draw
from image2video.search.optimise.bilevel import Bilevel
from image2video.search.score.network import build_network

STEPS = 5
WAYS: dict[str, dict[str, Any]] = {
    "first order": {},
    "second order": {"second_order": True},
    "learned magnitudes": {"learn_magnitudes": True, "second_order": True},
    "single path": {"relaxation": "single_path"},
    "accumulated": {"accumulate": 2, "batch_size": 4},
}


def run_of(accelerator: Accelerator, way: str, dtype: torch.dtype) -> Bilevel:
    """A search in evaluation mode: BatchNorm is frozen and nothing is dropped."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(tiny_network(), "gsf", residual=True, input_size=(1, 12, 16)).eval().to(dtype)
    rates = {"lr": 0.1, "tau_lr": 0.05, "magnitude_lr": 0.05, "grad_clip": 0.5}
    return bilevel(network, accelerator, **{**rates, **WAYS[way]})


def share(accelerator: Accelerator, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """This process's half of 8 images, or all of them."""
    data = blobs(8, seed)
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    return data.images[mine].to(dtype), data.labels[mine]


def take_steps(accelerator: Accelerator, way: str, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Outer parameters after every step, and the weights after the last one."""
    run = run_of(accelerator, way, dtype)
    taus = []
    for step in range(STEPS):
        held, train = share(accelerator, 2 * step, dtype), share(accelerator, 2 * step + 1, dtype)
        draws = [Draw(2.0, 2 * step + part) if way == "single path" else None for part in (0, 1)]
        run.tau_step(*held, train, draws[0])
        taus.append(torch.cat([p.detach().flatten() for p in run.outer]).clone())
        path = (None, None) if draws[1] is None else draws[1].path(run.cell.tau.detach(), run.cell.space)
        run.weight_step(*train, *path)
    return taus, [p.detach().clone() for p in run.bare.parameters()]


def first_gradient(accelerator: Accelerator, way: str) -> Tensor:
    """The reduced gradient of the outer parameters in the first step, float32."""
    run = run_of(accelerator, way, torch.float32)
    return run._gradients(share(accelerator, 0, torch.float32), None, run.outer)[1][0]
