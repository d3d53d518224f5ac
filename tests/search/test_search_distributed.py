"""A search over two processes: one τ, the steps of one process with twice the batch, and a result that resumes."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from search_cases import launch, torchrun
from search_ddp_cases import WAYS, first_gradient, take_steps

from image2video.runs.folders import torch_load

STEPS = """
import gc
import sys
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import gather, gather_object
from search_cases import blobs, tiny_network
from search_ddp_cases import WAYS, first_gradient, take_steps
from image2video.search import SearchConfig, SearchSpace, search
from image2video.search.score.network import build_network
from image2video.search.epochs import search_epoch
from image2video.search.run import SearchRun
from image2video.search.setup import Setup

torch.set_num_threads(1)

def main():
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2

    def alike(tensors):
        for tensor in tensors:
            both = gather(tensor.detach().unsqueeze(0).contiguous())
            assert len(both) == 2
            assert torch.equal(both[0], both[1])

    found = {}
    for way in WAYS:
        taus, weights = take_steps(accelerator, way, torch.float64)
        alike(taus)  # after every step, bit for bit
        alike(weights)
        found[way] = {"taus": taus, "weights": weights, "gradient": first_gradient(accelerator, way)}

    # BatchNorm trains, with statistics of its own on each process, until all take the main one's.
    torch.manual_seed(accelerator.process_index)
    space = SearchSpace("three", ("translate_x(0.1)", "rotate(10)", "scale(1.2)"), nodes=2)
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state()
        accelerator = Accelerator(cpu=True, mixed_precision=precision)
        config = SearchConfig(T=3, epochs=2, batch_size=16, max_images=150, second_order=precision == "bf16")
        network = build_network(tiny_network(), "gsf", residual=True, input_size=(1, 12, 16))
        data = blobs(30, 0)
        run = SearchRun(network, Setup(config, space, accelerator), data, data)
        search_epoch(run, 0, moves_tau=True)
        run.score([run.cell.mixing().detach()], 1)
        alike([run.cell.tau])
        assert run.tau().isfinite().all()
        alike(run.bilevel.bare.parameters())
        buffers = dict(run.bilevel.bare.named_buffers())
        assert any("running_var" in name for name in buffers)
        alike([buffer for buffer in buffers.values()])
        steps, frames, seconds = zip(*gather_object([(run.state.steps, run.state.frames, run.spent())]))
        assert steps[0] == steps[1]
        assert frames[0] == frames[1] > 0
        assert seconds[0] == seconds[1] > 0
        for tensor in buffers.values():
            if tensor.is_floating_point():
                tensor += accelerator.process_index
        run.share_buffers()
        alike([buffer for buffer in buffers.values()])
    if accelerator.is_main_process:
        torch.save(found, sys.argv[1])

main()
gc.collect()  # what is left of DDP holds the process group, whose threads must end before the interpreter
PartialState().destroy_process_group()
"""

SEARCH = """
import gc, json, os, sys
import torch
from accelerate import Accelerator
from search_cases import blobs, tiny_network
from image2video.search import SearchConfig, search

torch.set_num_threads(1)
out, rank, at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
accelerator = Accelerator(cpu=True)
calls = 0

def progress(*_, **figures):
    global calls
    calls += 1
    if accelerator.process_index == rank and calls == at:
        os._exit(7)

def main():
    config = SearchConfig(T=3, epochs=2, tune_epochs=1, batch_size=16, device="cpu", second_order=True)
    result = search(
        tiny_network(), blobs(62, 0), config, out=out, resume=True, accelerator=accelerator, progress=progress
    )
    record = [str(result.genotype), result.state.steps, result.state.edges, result.state.score, result.frames]
    record += [result.state.epochs, result.state.nodes]
    with open(f"{out}.{accelerator.process_index}", "w") as file:
        json.dump(record, file)

main()
gc.collect()
accelerator.end_training()
"""
FILES = ("genotype.json", "tau.json", "scores.json")


def test_two_processes_step_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    out = tmp_path / "found.pt"
    assert launch(tmp_path / "script.py", STEPS, out, processes=2) == 0
    found, alone = torch_load(out), Accelerator(cpu=True)
    assert list(found) == list(WAYS)
    for way, results in found.items():
        taus, weights = take_steps(alone, way, torch.float64)
        for key, expected in (("taus", taus), ("weights", weights)):
            assert len(results[key]) == len(expected) > 0
            for one, two in zip(expected, results[key], strict=True):
                assert (one - two).abs().max() < 1e-9, (way, key)
        assert (taus[0] - taus[-1]).abs().max() > 0.01
        gradient = first_gradient(alone, way)
        assert torch.allclose(results["gradient"], gradient, rtol=1e-4, atol=1e-7), way
        assert gradient.abs().max() > 1e-4


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job_and_the_search_resumes(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    script = tmp_path / "script.py"
    assert torchrun(script, SEARCH, whole, 0, -1) == 0
    # In the second epoch of the search; among the scores; the main process while the network is tuned.
    for rank, at in ((1, 3), (1, 4), (0, 9)):
        assert torchrun(script, SEARCH, out, rank, at) != 0
        assert (out / "checkpoint" / "last.pt").exists()
    assert torchrun(script, SEARCH, out, 0, -1) == 0
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert json.loads((out / "run.json").read_text())["processes"] == 2
    records = [json.loads((tmp_path / f"run.{rank}").read_text()) for rank in (0, 1)]
    assert records[0] == records[1]


PLACES = """
import gc, json, sys
import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from deep_search_cases import SPACE, stages
from search_cases import blobs
from image2video.search import SearchConfig, register_space, search

torch.set_num_threads(1)
register_space(SPACE)
accelerator = Accelerator(cpu=True)

def main():
    config = SearchConfig(
        space="one edge", clip_at=("image", "2"), T=3, fusion="tsm", epochs=2, tune_epochs=0, batch_size=8, tau_lr=0.1,
        criterion="loss", crop_flip=False, device="cpu",
    )
    result = search(stages(), blobs(32, 0), config, accelerator=accelerator)
    record = {"genotype": str(result.genotype), "steps": result.state.steps, "front": result.front}
    with open(f"{sys.argv[1]}.{accelerator.process_index}", "w") as file:
        json.dump(record, file)

main()
gc.collect()
if accelerator.num_processes > 1:
    PartialState().destroy_process_group()
"""


def test_two_processes_search_places_as_one_does(tmp_path: Path) -> None:
    found = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        assert launch(tmp_path / "script.py", PLACES, out, processes=processes) == 0
        found += [json.loads(Path(f"{out}.{rank}").read_text()) for rank in range(processes)]
    one, first, second = found
    assert first == second
    assert first["genotype"] == one["genotype"]
    assert len(one["steps"]) > 2
    for alone, shared in zip(one["steps"], first["steps"], strict=True):
        torch.testing.assert_close(torch.tensor(alone["tau"]), torch.tensor(shared["tau"]), atol=1e-3, rtol=0)
    assert one["front"][0]["loss"] == pytest.approx(first["front"][0]["loss"], abs=1e-3)
