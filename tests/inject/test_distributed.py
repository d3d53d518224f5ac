"""Two processes: steps at T > 1, at T = 1 and with fusion off follow each other under DistributedDataParallel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked import together
from inject_cases import Pair, block_plan, frames, randomise, seeded_net
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from image2video.inject.api import inject_

# T and switch of each step, per process: alike, unlike, and off at the end (the step after it would fail).
STEPS = [
    ((3, True), (3, True)),
    ((1, True), (1, True)),
    ((3, False), (3, False)),
    ((2, True), (1, True)),
    ((3, True),) * 2,
]
MODES = ["plain", "saved", "find_unused_parameters"]


def make_pair(mode: str) -> Pair:
    net = seeded_net(blocks=2, checkpointing="saved" if mode == "saved" else None)
    pair = Pair(net, inject_(net, block_plan("gsf", blocks=2)))
    randomise(pair.fusion, seed=3)
    for module in pair.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eval()  # so that a sum over two processes equals the sum over one batch
    return pair


def train(folder: str) -> None:
    """Run all steps in each mode, in one of two processes, and save the weights that come out."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    results = {}
    for mode in MODES:
        pair = make_pair(mode)
        model = DistributedDataParallel(pair, find_unused_parameters=mode == "find_unused_parameters")
        optimiser = torch.optim.SGD(pair.parameters(), lr=0.1)
        values = []
        for number, choices in enumerate(STEPS):
            T, enabled = choices[rank]
            optimiser.zero_grad()
            model(frames(2, T, seed=10 * number + rank), T, enabled).square().mean().backward()
            optimiser.step()
            values.append({name: p.detach().clone() for name, p in pair.named_parameters()})
        results[mode] = values
    with torch.no_grad():
        off = pair(frames(2, 3), 3, False)
        pair.fusion.remove_()
        same = torch.equal(off, pair.backbone(frames(2, 3)))
    torch.save(results, Path(folder) / f"{rank}.pt")
    (Path(folder) / f"{rank}.json").write_text(json.dumps({"off equals bare": same}))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[dict[str, torch.Tensor]]]]:
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this build of torch has no gloo")
    folder = tmp_path_factory.mktemp("two_processes")
    ended = together(folder, train, str(folder), processes=2)
    assert [process.code for process in ended] == [0, 0], "\n".join(process.error for process in ended)
    assert [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)] == [{"off equals bare": True}] * 2
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("mode", MODES)
def test_every_step_equals_one_process_on_both_batches(mode: str, two_processes: list) -> None:
    pair = make_pair(mode)
    optimiser = torch.optim.SGD(pair.parameters(), lr=0.1)
    for number, choices in enumerate(STEPS):
        optimiser.zero_grad()
        losses = [
            pair(frames(2, T, seed=10 * number + rank), T, enabled).square().mean() / 2
            for rank, (T, enabled) in enumerate(choices)
        ]
        sum(losses).backward()
        optimiser.step()
        for name, value in pair.named_parameters():
            first, second = (results[mode][number][name] for results in two_processes)
            assert torch.equal(first, second), (number, name)
            torch.testing.assert_close(first, value.detach(), msg=f"step {number}, {name}")


def test_without_a_process_group_outputs_are_not_touched() -> None:
    assert not dist.is_initialized()
    pair = make_pair("plain")
    assert pair(frames(2, 1), 1).grad_fn.name() == "AddmmBackward0"
