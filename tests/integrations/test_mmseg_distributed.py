"""The stock training tool on two CPU processes, with the module that joins them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forked import script, together
from mmseg_tools_cases import TOOLS, read_checkpoint, run_python, small_config

from image2video import StateError
from image2video.integrations.openmmlab import cpu_distributed
from image2video.reproduce.miniatures import make_cityscapes

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2)

TWO_PROCESSES = """
custom_imports = dict(
    imports=[
        "image2video.integrations.openmmlab",
        "image2video.integrations.openmmlab.cpu_distributed",
        "save_ranks",
    ]
)
model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)
randomness = dict(seed=0, diff_rank_seed=True)
custom_hooks = [dict(type="ExactResumeHook"), dict(type="SaveRanks")]
"""

SAVE_RANKS = """
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class SaveRanks(Hook):
    def after_train(self, runner):
        torch.save(runner.model.module.state_dict(), f"rank{get_rank()}_{runner.iter}.pth")
"""


def train_on_two(folder: Path, *arguments: object) -> None:
    """With torch's launcher, in two fresh interpreters."""
    (folder / "save_ranks.py").write_text(SAVE_RANKS)
    command = [*TORCHRUN, TOOLS / "train.py", "small.py", "--launcher", "pytorch", *arguments]
    run_python(command, folder=folder, PYTHONPATH=str(folder))


def train_forked(folder: Path) -> None:
    """As a launcher starts the tool, without its interpreters."""
    (folder / "save_ranks.py").write_text(SAVE_RANKS)
    arguments = (TOOLS / "train.py", "small.py", "--launcher", "pytorch")
    ended = together(folder, script, *arguments, processes=2, CUDA_VISIBLE_DEVICES="")
    assert [process.code for process in ended] == [0, 0], "\n".join(process.error[-4000:] for process in ended)


def ranks(folder: Path, iteration: int) -> tuple[dict, dict]:
    first, second = (torch.load(folder / f"rank{rank}_{iteration}.pth") for rank in (0, 1))
    return first, second


def test_two_processes_end_with_the_same_parameters(tmp_path: Path) -> None:
    small_config(tmp_path, make_cityscapes(tmp_path / "data", val=2), more=TWO_PROCESSES)
    train_forked(tmp_path)
    first, second = ranks(tmp_path, 2)
    statistics = [name for name in first if "running_" in name]
    parameters = [name for name in first if name not in statistics and "num_batches" not in name]
    assert any(name.startswith("video_fusion.") for name in parameters)
    assert all(torch.equal(first[name], second[name]) for name in parameters)
    # Each has seen other images: its statistics are its own, as the config asks for.
    assert any(not torch.equal(first[name], second[name]) for name in statistics)
    saved = read_checkpoint(tmp_path / "work_dirs" / "small" / "iter_2.pth")
    states = [state["torch"] for state in saved["image2video_random"]["processes"]]
    assert len(states) == 2
    assert not torch.equal(*states)


@pytest.mark.slow  # three runs of two processes
def test_two_processes_resume_exactly(tmp_path: Path) -> None:
    for name in ("through", "broken"):
        folder = tmp_path / name
        folder.mkdir()
        data = make_cityscapes(folder / "data", val=2)
        small_config(folder, data, iterations=4 if name == "through" else 2, more=TWO_PROCESSES)
        train_on_two(folder)
    train_on_two(tmp_path / "broken", "--resume", "--cfg-options", "train_cfg.max_iters=4")
    for rank, states in enumerate(zip(ranks(tmp_path / "through", 4), ranks(tmp_path / "broken", 4), strict=True)):
        through, broken = states
        different = [name for name in through if not torch.equal(through[name], broken[name])]
        # A checkpoint holds the statistics of the first process, and the second resumes with them.
        assert all(rank == 1 and "running_" in name for name in different)


def test_outside_of_torchrun_nothing_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert not cpu_distributed.join()
    assert not torch.distributed.is_initialized()
    cpu_distributed.leave()


def test_with_cuda_the_backend_is_mmengines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not cpu_distributed.join()
    assert not torch.distributed.is_initialized()


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StateError, match=r"RANK=0 is set, and WORLD_SIZE, MASTER_ADDR, MASTER_PORT is not.*torchrun"):
        cpu_distributed.join()
