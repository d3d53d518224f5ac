"""A run of mmengine that is interrupted and resumed, with and without the hook that makes it exact."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg_tools_cases import forget_runs, load_config, read_checkpoint, small_config

from image2video import InputError
from image2video.integrations.openmmlab import ExactResumeHook
from image2video.integrations.openmmlab.exact_resume import KEY, _reasons, _Restoring
from image2video.reproduce.miniatures import make_cityscapes

pytestmark = pytest.mark.filterwarnings("ignore:The draw is False")

# Dropout and augmentation draw in every step; the run validates after the second.
OPTIONS = {"model.video.T": 2, "model.decode_head.dropout_ratio": 0.5}


class Paths(Hook):
    """Writes down which images every batch holds."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.batches.append([sample.img_path for sample in data_batch["data_samples"]])


def train(
    folder: Path, data: Path, iterations: int, *, hook: bool = True, resume: bool = False, **options: Any
) -> list[list[str]]:
    """Train up to `iterations` in a folder, or go on there; the images of every batch."""
    folder.mkdir(exist_ok=True)
    config = load_config(small_config(folder, data, iterations=iterations), **OPTIONS, **copy.deepcopy(options))
    config.merge_from_dict({"work_dir": str(folder), "resume": resume})
    forget_runs()
    paths = Paths()
    config.custom_hooks = [{"type": "ExactResumeHook"}] if hook else []
    runner = Runner.from_cfg(config)
    runner.register_hook(paths)
    runner.train()
    forget_runs()
    return paths.batches


def weights(folder: Path, iteration: int) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / f"iter_{iteration}.pth")["state_dict"]


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A run of four steps, and one that was interrupted after two."""
    folder = tmp_path_factory.mktemp("resume")
    data = make_cityscapes(folder / "data", val=1)
    batches = train(folder / "through", data, 4)
    train(folder / "broken", data, 2)
    return SimpleNamespace(through=folder / "through", broken=folder / "broken", data=data, batches=batches)


@pytest.fixture
def broken(runs: SimpleNamespace, tmp_path: Path) -> Path:
    """The interrupted run, to go on with."""
    shutil.copytree(runs.broken, tmp_path / "broken")
    (tmp_path / "broken" / "last_checkpoint").write_text(str(tmp_path / "broken" / "iter_2.pth"))
    return tmp_path / "broken"


def test_a_resumed_run_ends_as_one_that_went_through(runs: SimpleNamespace, broken: Path) -> None:
    assert not differing(weights(broken, 2), weights(runs.through, 2))
    torch.manual_seed(123)  # whatever stands in the generators of a new process
    assert train(broken, runs.data, 4, resume=True) == runs.batches[2:]
    assert not differing(weights(broken, 4), weights(runs.through, 4))


def test_without_the_hook_it_does_not(runs: SimpleNamespace, broken: Path) -> None:
    assert train(broken, runs.data, 4, hook=False, resume=True) == runs.batches[2:]
    assert differing(weights(broken, 4), weights(runs.through, 4))


def test_the_record_is_read_without_pickled_code(runs: SimpleNamespace, tmp_path: Path) -> None:
    torch.save(read_checkpoint(runs.broken / "iter_2.pth")[KEY], tmp_path / "record.pth")
    record = torch.load(tmp_path / "record.pth", weights_only=True)
    assert len(record["processes"]) == 1
    assert record["order"] == 0


def test_another_order_of_the_images_is_refused(runs: SimpleNamespace, broken: Path) -> None:
    with pytest.raises(InputError, match=r"order of seed 0, and now by 1; set randomness=dict\(seed=0\)"):
        train(broken, runs.data, 4, resume=True, **{"randomness.seed": 1})


@pytest.mark.slow  # more runs
def test_with_workers_the_order_holds_and_the_augmentation_does_not(runs: SimpleNamespace, tmp_path: Path) -> None:
    workers = {"train_dataloader.num_workers": 2}
    batches = train(tmp_path / "through", runs.data, 4, **workers)
    train(tmp_path / "broken", runs.data, 2, **workers)
    assert batches == runs.batches
    assert train(tmp_path / "broken", runs.data, 4, resume=True, **workers) == batches[2:]
    assert not differing(weights(tmp_path / "broken", 2), weights(tmp_path / "through", 2))
    assert differing(weights(tmp_path / "broken", 4), weights(tmp_path / "through", 4))


@pytest.mark.slow  # more runs
@pytest.mark.filterwarnings("ignore:.*by_epoch")
def test_runs_by_epochs(runs: SimpleNamespace, tmp_path: Path) -> None:
    epochs = {
        "train_cfg": {"_delete_": True, "type": "EpochBasedTrainLoop", "max_epochs": 2, "val_interval": 1},
        "train_dataloader.sampler.type": "DefaultSampler",
        "default_hooks.checkpoint": {"_delete_": True, "type": "CheckpointHook", "interval": 1},
        "default_hooks.logger": {"_delete_": True, "type": "LoggerHook", "interval": 1},
        "log_processor.by_epoch": True,
    }
    train(tmp_path / "through", runs.data, 0, **epochs)
    train(tmp_path / "broken", runs.data, 0, **epochs, **{"train_cfg.max_epochs": 1})
    train(tmp_path / "broken", runs.data, 0, resume=True, **epochs)
    ends = [read_checkpoint(tmp_path / name / "epoch_2.pth")["state_dict"] for name in ("through", "broken")]
    assert not differing(*ends)


def test_the_original_mmengine_skips_by_loading() -> None:
    """It has no `skip_iter`: what a resumed run has seen is loaded again, with its random numbers."""
    restored: list[bool] = []
    batches = iter(range(10))
    loop = SimpleNamespace(dataloader_iterator=batches)
    loop.dataloader_iterator = _Restoring(loop, 3, lambda: restored.append(True))
    assert [next(loop.dataloader_iterator) for _ in range(3)] == [0, 1, 2]
    assert not restored
    assert [next(loop.dataloader_iterator) for _ in range(3)] == [3, 4, 5]
    assert restored == [True]
    assert loop.dataloader_iterator is batches


def resumed(seed: int = 0, *, iteration: int = 6, epoch: int = 0, **loop: Any) -> SimpleNamespace:
    """A runner as far as the checks look at it."""
    loader = type("Loader", (SimpleNamespace,), {"__len__": lambda self: 4})(sampler=SimpleNamespace(seed=seed))
    return SimpleNamespace(
        iter=iteration, epoch=epoch, train_dataloader=loader, train_loop=SimpleNamespace(**loop), seed=seed
    )


RECORD = {"processes": [{}], "order": 0}


@pytest.mark.parametrize(
    ("runner", "record", "reason"),
    [
        (resumed(dataloader_iterator=None), None, "saved without ExactResumeHook"),
        (resumed(dataloader_iterator=None), {**RECORD, "processes": [{}, {}]}, "of 2 processes, and 1 run"),
        (resumed(5, dataloader_iterator=None), RECORD, r"seed 0, and now by 5.*randomness=dict\(seed=0\)"),
        (resumed(dataloader_iterator=None, fast_forward_on_resume=True), RECORD, "fast_forward_on_resume=True"),
        (resumed(epoch=1), RECORD, "iteration 6 is in the middle of epoch 2"),
    ],
)
def test_why_a_run_cannot_be_exact(runner: SimpleNamespace, record: Any, reason: str) -> None:
    (found,) = _reasons(runner, record)
    assert re.search(reason, found)


def test_a_whole_number_of_epochs_is_exact() -> None:
    assert _reasons(resumed(epoch=1, iteration=4), RECORD) == []


def test_a_lenient_hook_says_what_is_not_exact() -> None:
    said: list[str] = []
    runner = resumed(dataloader_iterator=None)
    runner.train_dataloader.generator, runner.train_dataloader.num_workers = None, 2
    runner.logger = SimpleNamespace(warning=said.append)
    hook = ExactResumeHook(strict=False)
    hook.after_load_checkpoint(runner, {})
    hook.before_train(runner)
    assert "saved without ExactResumeHook" in said[0]
    assert "num_workers=2" in said[1]


def test_validation_leaves_the_generators() -> None:
    hook = ExactResumeHook()
    runner = resumed(dataloader_iterator=None)
    torch.manual_seed(3)
    hook.before_val(runner)
    torch.rand(5)
    checkpoint: dict[str, Any] = {}
    hook.before_save_checkpoint(runner, checkpoint)
    hook.after_val(runner)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))
    assert torch.equal(checkpoint[KEY]["processes"][0]["torch"], torch.Generator().manual_seed(3).get_state())
