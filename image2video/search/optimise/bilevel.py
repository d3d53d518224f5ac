"""Bilevel optimisation: a step for τ on validation images, a step for the weights on training images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from image2video.clip.deep_video import DeepVideo
from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError
from image2video.runs.weights import load_state
from image2video.search.cell.clip_view import clip_view
from image2video.search.cell.deep_cell import AnyCell
from image2video.search.cell.draw import Draw
from image2video.search.cell.mixing import mixing_matrix
from image2video.search.cell.topology import Decisions
from image2video.search.cell.view import View
from image2video.search.optimise.second_order import unrolled_gradients
from image2video.search.optimise.tensors import averaged, on_cpu
from image2video.search.score.network import predictions
from image2video.search.score.task import ClassificationTask, Task
from image2video.settings.search import SearchConfig

Batch = tuple[Tensor, Tensor]
Views = Callable[[Tensor], View]
"""How the network sees images, with the way back."""
Path = Callable[[], tuple[Tensor | None, tuple[int, ...] | None]]
"""A mixing matrix and the candidates that it holds, made anew at every call, since τ may need a gradient."""


class Bilevel:
    """The two optimisers of a search (Casarin et al., CVPR 2024, Eq. 2; Liu et al., ICLR 2019).

    The outer parameters, τ and the magnitudes where they are learned: Adam on validation images. Their gradient is
    taken with `autograd.grad`, so the weights' gradients are never touched, and averaged over the processes here, in
    one reduction. First order, or through one step of the weights (`config.second_order`; a network without trainable
    parameters takes no steps, so that its gradient is the first-order one). Weights: SGD with momentum on training
    images, through the clip as the cell gives it at that moment. No parameter's `requires_grad` is ever switched.

    With `config.accumulate` a step takes that many batches as one and works through them in pieces of at most
    `config.batch_size` images (over all processes); a piece's gradient counts by its share of the images.

    Args:
        network: clip to frame outputs, as `accelerator.prepare` gave it.
        cell: the cell, on the accelerator's device; never wrapped.
        optimizer: of the weights, prepared too; None where there is nothing to train.
        accelerator: for devices, precision and processes.
        config: learning rates, decays, clipping.
        task: the loss (default: classification).
    """

    def __init__(
        self,
        network: nn.Module,
        cell: AnyCell,
        optimizer: torch.optim.Optimizer | None,
        accelerator: Accelerator,
        config: SearchConfig,
        task: Task | None = None,
    ) -> None:
        self.task = task or ClassificationTask()
        self.network, self.cell, self.optimizer = network, cell, optimizer
        self.accelerator, self.config = accelerator, config
        # The reducer of DistributedDataParallel waits for a backward of the weights after each of its forwards, which
        # a step for τ never makes: that step goes past it. Past accelerate's own autocast too: `_precision` decides.
        self.bare = accelerator.unwrap_model(network, keep_fp32_wrapper=False)
        self.outer = cell.outer_parameters()
        groups: list[dict[str, Any]] = [{"params": [cell.tau]}]
        if cell.magnitudes is not None:
            groups.append({"params": [cell.magnitudes], "lr": config.magnitude_lr, "weight_decay": 0.0})
        self.tau_optimizer = torch.optim.Adam(
            groups,
            lr=config.tau_lr,
            betas=(config.tau_betas[0], config.tau_betas[1]),
            weight_decay=config.tau_weight_decay,
        )

    def tau_step(
        self,
        images: Tensor,
        labels: Tensor,
        train_batch: Batch | None = None,
        draw: Draw | None = None,
        decisions: Decisions | None = None,
    ) -> Tensor:
        """Take a step with the outer parameters on a validation batch; returns the loss before it.

        `train_batch` is that of the weight step which follows; the second order needs it (`InputError`), the first
        ignores it. `draw` is the path of `single_path`; without it `decisions` hold in the mixture.
        """
        path = self._path_of(draw, decisions)
        held = functools.partial(self._gradients, (images, labels), path)
        if not self.config.second_order or self.optimizer is None:
            loss, gradients = held(self.outer)
        elif train_batch is None:
            raise InputError("a second-order step for τ needs the batch of the weight step after it: train_batch=")
        else:
            training = functools.partial(self._gradients, train_batch, path)
            loss, gradients = unrolled_gradients(
                self.outer, self.bare, self.optimizer, training, held, clip=self.config.grad_clip
            )
        if self.accelerator.scaler is None or all(bool(gradient.isfinite().all()) for gradient in gradients):
            for parameter, gradient in zip(self.outer, gradients, strict=True):
                parameter.grad = gradient
            self.tau_optimizer.step()
            self.cell.clamp_magnitudes_()
        self._forget_outer()
        return loss

    def weight_step(
        self,
        images: Tensor,
        labels: Tensor,
        mixing: Tensor | None = None,
        active: tuple[int, ...] | None = None,
    ) -> Tensor:
        """Take a step with the weights on a training batch; returns the loss before it, detached.

        The clip is the cell's, under its own τ or `mixing`; `active` names the candidates of a single path.
        """

        return self._descend(images, labels, lambda part: self._seen(part, mixing, active, frozen=True))

    def clip_step(self, images: Tensor, labels: Tensor, video: Image2Video | DeepVideo) -> Tensor:
        """As `weight_step`, with the clip of one chain in place of the cell's."""

        return self._descend(images, labels, lambda part: clip_view(video, part, self.bare.clip_sites))

    def weights_state(self) -> dict[str, Any]:
        """Weights, buffers and the state of their optimizer, as copies on the CPU: plain containers of tensors."""
        scaler, optimizer = self.accelerator.scaler, self.optimizer
        return {
            "network": on_cpu(self.bare.state_dict()),
            "optimizer": None if optimizer is None else on_cpu(optimizer.state_dict()),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def load_weights_state(self, saved: dict[str, Any]) -> None:
        """Put back what `weights_state` gave; raises `InputError` where it is of another network."""
        load_state(self.bare, saved["network"], "the checkpoint of the search")
        if self.optimizer is not None:
            self.optimizer.load_state_dict(saved["optimizer"])
        if self.accelerator.scaler is not None and saved["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(saved["scaler"])

    def set_lr(self, lr: float) -> None:
        """Give the weights' optimizer a learning rate."""
        if self.optimizer is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = lr

    def restart_weights(self) -> None:
        """Forget what the weights' optimizer has gathered: its momentum."""
        if self.optimizer is not None:
            self.optimizer.state.clear()

    def _path_of(self, draw: Draw | None, decisions: Decisions | None) -> Path | None:
        """How a step for τ goes through the cell: a mixing matrix with its candidates; None is the whole mixture."""
        cell = self.cell
        if draw is not None:
            return lambda: draw.path(cell.tau, cell.space)
        if decisions is not None and decisions.ops:
            return lambda: (mixing_matrix(cell.tau, cell.space, decisions), None)
        return None

    def _gradients(self, batch: Batch, path_of: Path | None, wanted: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The loss of this process's batch through the relaxed cell, and its gradients averaged over the processes.

        The second order takes differences of nearby losses, which half precision cannot tell apart: full precision.
        """
        halved = not self.config.second_order
        scaler = self.accelerator.scaler if halved else None
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        relaxed = any(tensor is self.cell.tau for tensor in wanted)  # else the weights' gradients are wanted
        losses: list[Tensor] = []
        sums = [torch.zeros_like(tensor) for tensor in wanted]
        for images, labels, share in self._pieces(images=batch[0], labels=batch[1]):
            with torch.set_grad_enabled(relaxed):
                path = (None, None) if path_of is None else path_of()
            view = self._seen(images, *path, frozen=not relaxed)
            with self._precision(halved):
                predicted = predictions(self.bare, view.inputs, self.task, view.unwarp, view.maker)
                loss = share * self.task.loss(predicted, labels)
            found = torch.autograd.grad(loss * scale, list(wanted), allow_unused=True)
            # A part of the outer parameters may take no part in the loss: magnitudes of candidates that none drew.
            sums = [total if part is None else total + part for total, part in zip(sums, found, strict=True)]
            losses.append(loss.detach())
        gradients = averaged(sums, self.accelerator)
        return torch.stack(losses).sum(), [g if scale == 1.0 else g / scale for g in gradients]

    def _seen(self, images: Tensor, mixing: Tensor | None, active: tuple[int, ...] | None, *, frozen: bool) -> View:
        """Images as the cell shows them to the network; a `frozen` one gives τ no gradient."""
        checkpointed = self.config.checkpoint_activations
        return self.cell.view(images, mixing, active=active, frozen=frozen, checkpointed=checkpointed)

    def _descend(self, images: Tensor, labels: Tensor, view: Views) -> Tensor:
        """Take a step with the weights through the clips that `view` makes, piece by piece."""
        trains = self.optimizer is not None
        network = self.network if trains else self.bare
        if self.optimizer is not None:
            self.optimizer.zero_grad()
        losses: list[Tensor] = []
        pieces = list(self._pieces(images, labels))
        for number, (part, targets, share) in enumerate(pieces, start=1):
            seen = view(part)
            with self._held_back(number < len(pieces)), torch.set_grad_enabled(trains):
                with self._precision(True):
                    predicted = predictions(network, seen.inputs, self.task, seen.unwarp, seen.maker)
                    loss = share * self.task.loss(predicted, targets)
                if trains:
                    self.accelerator.backward(loss)
            losses.append(loss.detach())
        if self.optimizer is not None:
            if self.config.grad_clip > 0:
                self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.grad_clip)
            self.optimizer.step()
        self._forget_outer()
        return torch.stack(losses).sum()

    def _pieces(self, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Cut a batch into pieces of at most `config.batch_size` images; each comes with its share of the images."""
        largest = -(-self.config.batch_size // self.accelerator.num_processes)
        count = min(self.config.accumulate, max(1, -(-len(labels) // largest)))
        for part, targets in zip(images.tensor_split(count), labels.tensor_split(count), strict=True):
            yield part, targets, len(targets) / max(1, len(labels))

    def _precision(self, halved: bool) -> AbstractContextManager[Any]:
        return self.accelerator.autocast() if halved else nullcontext()

    def _held_back(self, more: bool) -> AbstractContextManager[Any]:
        """Where `more` pieces follow, leave the reduction of the weights' gradients to the last one."""
        return self.accelerator.no_sync(self.network) if more else nullcontext()

    def _forget_outer(self) -> None:
        for parameter in self.outer:
            parameter.grad = None


def weight_optimizer(network: nn.Module, config: SearchConfig) -> torch.optim.Optimizer | None:
    """SGD for the trainable weights, without decay on biases, norms and scales; None where none is trainable."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    if not trainable:
        return None
    decayed = [p for p in trainable if p.ndim > 1]
    plain = [p for p in trainable if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD([g for g in groups if g["params"]], lr=config.lr, momentum=config.momentum)
