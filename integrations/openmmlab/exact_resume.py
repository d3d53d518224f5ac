"""`ExactResumeHook`: a training run of mmengine that is interrupted and resumed ends as one that was not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS

from image2video.functional import InputError
from image2video.runs.random_state import random_state, set_random_state

KEY = "image2video_random"


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Saves the random generators of all processes in every checkpoint, and puts them back when a run is resumed.

    In a config:

        custom_hooks = [dict(type="ExactResumeHook")]
        randomness = dict(seed=0)

    mmengine's own resume brings back weights, optimizer, schedules and the order of the images; augmentation and
    dropout then draw anew. With this hook and `num_workers=0`, on a CPU, with the same versions and threads, the
    resumed run ends bit for bit as the one that went through. With workers the order of the images holds and their
    augmentation does not: workers draw by themselves, and start again from the seed. On GPUs the generators are those
    of the run, and sums that are not deterministic (bilinear resizing, warps) differ in the last digits.

    Validation leaves the generators as it finds them, and the training dataloader gets a generator of its own, so
    that how often a run validates or starts its dataloader does not change what it draws.

    Args:
        strict: raise where a resumed run cannot be exact; False: log a warning, and put back what there is.

    Raises:
        InputError: at a resume, under `strict`: the checkpoint was saved without this hook or by another number of
            processes, the images come in another order (another seed, `fast_forward_on_resume`), or a run by epochs
            is resumed in the middle of one.

    """

    def __init__(self, strict: bool = True) -> None:
        self.strict = strict
        self._gathered: tuple[int, list[Any]] | None = None
        self._before_validation: Any = None
        self._record: Any = None

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take the record out of a checkpoint that is loaded; a resumed run puts it back when it trains."""
        self._record = checkpoint.get(KEY)

    def before_train(self, runner: Any) -> None:
        """Check that a resumed run can be exact, and have the generators put back before its first batch."""
        loader = runner.train_dataloader
        if loader.generator is None:
            # Every pass over a loader without one draws from torch's global generator.
            loader.generator = torch.Generator().manual_seed(runner.seed)
        record, self._record = self._record, None
        if runner.iter == 0:
            return
        for reason in _reasons(runner, record):
            if self.strict:
                raise InputError(f"this run cannot be resumed exactly: {reason}; or set strict=False")
            runner.logger.warning(f"ExactResumeHook: this run is not resumed exactly: {reason}")
        if loader.num_workers:
            runner.logger.warning(
                f"ExactResumeHook: the images go on in the same order, but train_dataloader.num_workers="
                f"{loader.num_workers} workers augment them with other random numbers; exact is num_workers=0"
            )
        if record is not None and len(record["processes"]) == get_world_size():
            state = record["processes"][get_rank()]
            _before_first_batch(runner, lambda: set_random_state(state))

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Gather the generators of all processes where a checkpoint is due: only the first one saves it."""
        if get_world_size() > 1 and any(_due(hook, runner) for hook in runner.hooks):
            self._gather(runner)

    def after_train_epoch(self, runner: Any) -> None:
        """The same at the end of an epoch."""
        if get_world_size() > 1:
            self._gather(runner)

    def before_val(self, runner: Any) -> None:
        """Keep the generators as training left them."""
        self._before_validation = random_state()
        if get_world_size() > 1:
            self._gather(runner)

    def after_val(self, runner: Any) -> None:
        """Put them back."""
        set_random_state(self._before_validation)
        self._before_validation = None

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Write the generators of all processes and the seed of the images' order into a checkpoint."""
        if self._gathered is not None and self._gathered[0] == runner.iter:
            processes = self._gathered[1]
        else:
            processes = [self._before_validation or random_state()]
        checkpoint[KEY] = {"processes": processes, "order": _order_seed(runner)}

    def _gather(self, runner: Any) -> None:
        self._gathered = runner.iter, all_gather_object(self._before_validation or random_state())


def _reasons(runner: Any, record: Any) -> list[str]:
    """Why a resumed run cannot be exact, each with what to do."""
    if record is None:
        return ["the checkpoint was saved without ExactResumeHook; take the hook out of custom_hooks"]
    reasons = []
    saved, here = len(record["processes"]), get_world_size()
    if saved != here:
        reasons.append(f"the checkpoint holds the generators of {saved} processes, and {here} run; run {saved}")
    if record["order"] != _order_seed(runner):
        reasons.append(
            f"the images were drawn in the order of seed {record['order']}, and now by {_order_seed(runner)}; set "
            f"randomness=dict(seed={record['order']})"
        )
    loop = runner.train_loop
    if getattr(loop, "fast_forward_on_resume", False):
        reasons.append("train_cfg.fast_forward_on_resume=True starts the images anew; set it to False")
    if not hasattr(loop, "dataloader_iterator") and runner.iter != runner.epoch * len(runner.train_dataloader):
        reasons.append(
            f"iteration {runner.iter} is in the middle of epoch {runner.epoch + 1}, which mmengine starts anew; resume "
            "a checkpoint of the end of an epoch"
        )
    return reasons


def _order_seed(runner: Any) -> int | None:
    """The seed of the sampler, which mmengine draws where the config has none."""
    loader = runner.train_dataloader
    seed = getattr(loader.sampler, "seed", None)
    return seed if seed is not None else getattr(getattr(loader.batch_sampler, "sampler", None), "seed", None)


def _due(hook: Any, runner: Any) -> bool:
    """Whether a hook saves a checkpoint after this iteration."""
    if not isinstance(hook, CheckpointHook) or hook.by_epoch:
        return False
    last = hook.save_last and hook.is_last_train_iter(runner)
    return last or hook.every_n_train_iters(runner, hook.interval, hook.save_begin)


def _before_first_batch(runner: Any, restore: Callable[[], None]) -> None:
    """Call `restore` when all batches that the run has seen are skipped, before the next one is loaded."""
    loop = runner.train_loop
    if not hasattr(loop, "dataloader_iterator"):
        restore()  # by epochs: the next one starts now
        return
    skips = 0 if hasattr(loop.dataloader_iterator, "skip_iter") else runner.iter
    loop.dataloader_iterator = _Restoring(loop, skips, restore)


class _Restoring:
    """The batches of a loop by iterations, until the first one that is trained on.

    mmengine skips by `skip_iter` (newer versions) or by loading `skips` batches, which draws random numbers.
    """

    def __init__(self, loop: Any, skips: int, restore: Callable[[], None]) -> None:
        self._loop, self._skips, self._restore = loop, skips, restore
        self._batches = loop.dataloader_iterator

    def __next__(self) -> Any:
        if self._skips:
            self._skips -= 1
            return next(self._batches)
        self._loop.dataloader_iterator = self._batches
        self._restore()
        return next(self._batches)

    def skip_iter(self, count: int) -> None:
        self._batches.skip_iter(count)
