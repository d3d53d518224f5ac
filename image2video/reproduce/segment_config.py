"""The mmengine configs of segmentation: a setting's plain one, and the one that an arm is trained with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from image2video.errors import InputError, UnsupportedError
from image2video.integrations.openmmlab.search_config import type_name
from image2video.reproduce.genotypes import Chosen
from image2video.reproduce.policies import Policy
from image2video.reproduce.segment_augment import with_policy
from image2video.reproduce.segment_metric import ExactIoU
from image2video.reproduce.segment_model import arm_model, without_pretraining, without_sync
from image2video.reproduce.segment_reading import read_config
from image2video.reproduce.segment_schedule import stretch
from image2video.reproduce.segment_split import LOADERS, hold_out, leaves, loader_leaves
from image2video.reproduce.spec import Cell, Setting

_KEPT_CHECKPOINTS = 2  # mmengine removes the oldest before it writes the next
_SAVES, _LEAST_BETWEEN_SAVES = 10, 20


def plain_config(setting: Setting, root: Path) -> Config:
    """The config of a setting with its data at `root`, and a share of the training images set aside for choices.

    `train_dataloader` reads the others, `val_dataloader` that share by the test pipeline (None where nothing is held
    out), `test_dataloader` the test split. Raises what `read_config` does, and `InputError` where the training images
    cannot be read or are too few.
    """
    config = read_config(setting)
    for loader in (name for name in LOADERS if config.get(name)):
        for _, leaf in loader_leaves(config, loader):
            leaf["data_root"] = str(root)
    hold_out(config, train_images=setting.train_images, holdout=setting.holdout, seed=setting.seed)
    return config


def arm_steps(arm: Cell, setting: Setting, config: Config) -> int:
    """The steps of an arm: the setting's or the config's, in proportion to its epochs; 0 where it is not trained."""
    whole = setting.steps or int(config.train_cfg.max_iters)
    return round(whole * arm.total_epochs(setting) / setting.epochs)


def arm_config(
    arm: Cell,
    setting: Setting,
    seed: int,
    config: Config,
    chosen: Chosen | None,
    policy: Policy,
    *,
    work_dir: Path,
    processes: int = 1,
    device: str = "cpu",
) -> Config:
    """The config that an arm is trained and tested with, made of the plain one.

    It names no weights: `segment_runner.fit` puts those in that the arm starts from. There is no validation. An arm
    that is tuned takes the config's learning rate times `finetune_lr / lr` of the setting. Raises `InputError` where
    the images of a step cannot be divided among the processes, and what `arm_model`, `stretch` and `with_policy` raise.
    """
    found = with_policy(config, policy.text)
    found.model = arm_model(arm, setting, found.model, chosen)
    without_pretraining(found.model)
    if processes == 1 or device == "cpu":
        without_sync(found.model)
    steps = max(1, arm_steps(arm, setting, config))
    stretch(found, steps)
    if arm.budget == "finetune":
        found.optim_wrapper.optimizer.lr *= setting.finetune_lr / setting.lr
    if arm.learned:
        _check_bonus(found.optim_wrapper)
        # Weight decay would narrow the ranges.
        found.merge_from_dict({"optim_wrapper.paramwise_cfg.custom_keys.width": {"decay_mult": 0.0}})
    images = found.train_dataloader.batch_size
    if images % processes:
        raise InputError(f"{setting.config} takes {images} images a step, which {processes} processes cannot share")
    found.train_dataloader.batch_size = images // processes
    for name in ("train_dataloader", "test_dataloader"):
        _set_workers(found[name], processes, device)
    found.val_dataloader = found.val_cfg = found.val_evaluator = None
    evaluator = {key: value for key, value in found.test_evaluator.items() if key not in ("prefix", "output_dir")}
    found.test_evaluator = {**evaluator, "type": ExactIoU.__name__}
    _set_runtime(found, steps)
    _set_processes(found, processes, device)
    found.work_dir, found.randomness, found.experiment_name = str(work_dir), {"seed": seed}, work_dir.name
    return found


def _check_bonus(wrapper: Any) -> None:
    """Refuse what scales gradients: the bonus for wide ranges stands beside the loss, and would not be scaled."""
    if type_name(wrapper.get("type")) != "OptimWrapper" or wrapper.get("accumulative_counts", 1) != 1:
        raise UnsupportedError(
            f"learned averaging with optim_wrapper {wrapper.get('type')!r} and accumulative_counts="
            f"{wrapper.get('accumulative_counts', 1)}; needed OptimWrapper without accumulation"
        )


def _set_workers(loader: Any, processes: int, device: str) -> None:
    """As many workers as there are cores; none on a CPU, where a run that was killed then goes on exactly."""
    cores = (os.cpu_count() or 1) // processes
    loader.num_workers = 0 if device == "cpu" else min(int(loader.get("num_workers", 0)), max(0, cores - 1))
    if loader.num_workers == 0:
        loader.persistent_workers = False
        loader.pop("prefetch_factor", None)
        for _, leaf in leaves(loader.dataset, "dataset"):
            leaf["serialize_data"] = False  # which is for lists that workers share


def _set_runtime(config: Config, steps: int) -> None:
    """Quiet, without pictures, with checkpoints from which a run goes on exactly."""
    config.default_scope, config.log_level = "mmseg", "ERROR"
    config.visualizer = {"type": "Visualizer", "vis_backends": []}
    hooks = {name: hook for name, hook in (config.get("default_hooks") or {}).items() if name != "visualization"}
    between = max(-(-steps // _SAVES), _LEAST_BETWEEN_SAVES)
    configured = (hooks.get("checkpoint") or {}).get("interval", between)
    saving = {"by_epoch": False, "interval": min(steps, between, configured), "max_keep_ckpts": _KEPT_CHECKPOINTS}
    config.default_hooks = {**hooks, "checkpoint": {"type": "CheckpointHook", **saving}}
    config.custom_hooks = [*(config.get("custom_hooks") or []), {"type": "ExactResumeHook"}]


def _set_processes(config: Config, processes: int, device: str) -> None:
    """mmengine takes the process group that is there; on CPUs it has to be told that there is no device for each."""
    config.launcher = "none" if processes == 1 else "pytorch"
    if processes > 1 and device == "cpu":
        unused = config.get("find_unused_parameters", False)
        wrapper = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
        config.model_wrapper_cfg = wrapper | {"find_unused_parameters": unused}
