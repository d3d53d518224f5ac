"""The steps of a training run: one epoch of updates, and evaluation with the weights that count."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from image2video.data import DataSource
from image2video.errors import InputError, StateError
from image2video.protocols import Batches, ImageSet, Progress
from image2video.runs.weights import load_state
from image2video.settings.training import TrainConfig
from image2video.training.checkpoint import cpu_state
from image2video.training.ema import Ema
from image2video.training.evaluate import Metrics, batch_loss, check_outputs, check_targets, evaluate
from image2video.training.recipe import autocast_dtype, lr_factor, make_optimizer

_STEPS_BETWEEN_CHECKS = 25  # reading a loss back from an accelerator waits for it, so that is done now and then


class Engine:
    """A model with its optimizer, averaged weights and batches, on the accelerator's device."""

    def __init__(
        self,
        model: nn.Module,
        data: DataSource,
        config: TrainConfig,
        accelerator: Accelerator,
        progress: Progress | None = None,
    ) -> None:
        if data.policy is not None and not config.crop_flip:
            raise InputError(f"crop_flip=False trains on images as they are, but the data has {data.policy}; drop one")
        self.config, self.accelerator, self._progress = config, accelerator, progress
        self.device = accelerator.device
        self.module = model.to(self.device)
        if config.channels_last:
            self.module.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.module, config)
        self.ema = Ema(self.module, config.ema) if config.ema else None
        self._classes = data.num_classes
        self._autocast = autocast_dtype(config, self.device)
        prepared = accelerator.prepare(self.module) if accelerator.num_processes > 1 else self.module
        self._forward: Callable[[Tensor], Any] = torch.compile(prepared) if config.compile else prepared
        self.batches = self._batches(data.train, augment=config.crop_flip, shuffle=True)
        self._evaluation: dict[int, Batches] = {}

    @property
    def evaluated(self) -> nn.Module:
        """The model whose weights are evaluated and saved: the averaged one where there is one."""
        return self.ema.module if self.ema is not None else self.module

    def evaluated_state(self) -> dict[str, Tensor]:
        """A copy of those weights on the CPU."""
        return cpu_state(self.evaluated)

    def load_evaluated(self, state: dict[str, Tensor]) -> None:
        """Puts such weights into the model itself (and ends the averaging): for the end of a run."""
        self.ema = None
        self.module.load_state_dict(state)

    def train_epoch(self, epoch: int) -> tuple[float, float]:
        """All updates of one epoch; returns the mean loss over the images and the last step's learning rate.

        Raises `StateError` that names the step where the loss is NaN or infinite.
        """
        config, steps = self.config, len(self.batches)
        self.module.train()
        losses: list[Tensor] = []
        sizes: list[int] = []
        checked, seen, lr, begun = 0, 0, 0.0, time.perf_counter()
        every = 1 if self.device.type == "cpu" else _STEPS_BETWEEN_CHECKS
        for index, (images, labels) in enumerate(self.batches.epoch(epoch)):
            step = epoch * steps + index
            lr = self._set_lr(step, config.epochs * steps, round(config.warmup_epochs * steps))
            # To look at labels waits for a GPU; the first epoch sees them all.
            losses.append(self._step(images, labels, look=epoch == 0 or self.device.type == "cpu"))
            sizes.append(len(labels))
            seen += len(labels)
            if (index + 1) % every == 0 or index + 1 == steps:
                recent = torch.stack(losses[checked:]).cpu()
                self._check_finite(recent, epoch * steps + checked, lr)
                checked = len(losses)
            if self._progress is not None:
                speed = seen * self.accelerator.num_processes / (time.perf_counter() - begun)
                figures = {"epoch": epoch + 1, **({"loss": float(recent[-1])} if checked else {})}
                self._progress("train", step + 1, config.epochs * steps, images_per_second=speed, **figures)
        weights = torch.tensor(sizes, dtype=torch.float64)
        mean = (torch.stack(losses).cpu().double() * weights).sum() / weights.sum()
        if self.accelerator.num_processes > 1:
            mean = self.accelerator.reduce(mean.float().to(self.device), "mean").cpu()
        return float(mean), lr

    def evaluate(self, images: ImageSet, stage: str) -> Metrics:
        """Quality and loss of the weights that count, on all images (each process evaluates all of them)."""
        key = id(images)
        if key not in self._evaluation:
            self._evaluation[key] = images.batches(self.config.batch_size, device=self.device)
        return evaluate(
            self.evaluated,
            self._evaluation[key],
            self.device,
            autocast=self._autocast,
            channels_last=self.config.channels_last,
            progress=self._progress,
            stage=stage,
        )

    def state(self) -> dict[str, Any]:
        """What a later process needs to go on: weights, optimizer, averaged weights."""
        state: dict[str, Any] = {"model": cpu_state(self.module), "optimizer": self.optimizer.state_dict()}
        if self.ema is not None:
            state["ema"] = {"model": cpu_state(self.ema.module), "updates": self.ema.updates}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` gave; raises `InputError` where the model is another."""
        load_state(self.module, state["model"], "the checkpoint")
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:  # what torch makes of it
            raise InputError(f"the checkpoint is not of this model: {str(error).splitlines()[-1].strip()}") from error
        if self.ema is not None:
            load_state(self.ema.module, state["ema"]["model"], "the checkpoint's averaged weights")
            self.ema.updates = int(state["ema"]["updates"])

    def _batches(self, images: ImageSet, *, augment: bool, shuffle: bool) -> Batches:
        processes = self.accelerator.num_processes
        shard = {"shard": (self.accelerator.process_index, processes)} if processes > 1 else {}
        return images.batches(
            self.config.batch_size,
            augment=augment,
            shuffle=shuffle,
            seed=self.config.seed,
            device=self.device,
            **shard,
        )

    def _set_lr(self, step: int, total: int, warmup: int) -> float:
        factor = lr_factor(step, total, warmup, self.config.min_lr_ratio)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["peak_lr"]
        return factor * self.config.peak_lr

    def _step(self, images: Tensor, labels: Tensor, *, look: bool) -> Tensor:
        if self.config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self._autocast) if self._autocast else nullcontext():
            logits = self._forward(images)
        check_outputs(logits, labels)
        if logits.shape[1] != self._classes:
            raise InputError(
                f"the model has {logits.shape[1]} outputs, the data {self._classes} classes; build it with "
                f"num_classes={self._classes}"
            )
        if look:
            check_targets(labels, self._classes)
        loss = batch_loss(logits, labels, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        if self.config.clip_grad:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_grad)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.module)
        return loss.detach()

    def _check_finite(self, losses: Tensor, first_step: int, lr: float) -> None:
        bad = (~losses.isfinite()).nonzero().flatten().tolist()
        if bad:
            raise StateError(
                f"the training loss is {float(losses[bad[0]])} at step {first_step + bad[0]} (learning rate {lr:.3g}); "
                "lower the learning rate, warm up longer, or set clip_grad"
            )
