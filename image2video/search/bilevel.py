"""First-order bilevel optimisation: one step for τ on validation images, one for the weights on training images."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from image2video.errors import StateError
from image2video.search.cell import Cell
from image2video.search.config import SearchConfig


class Bilevel:
    """The two optimisers of a search (Casarin et al., CVPR 2024, Eq. 2; Liu et al., ICLR 2019, first order).

    τ: Adam on validation images; its gradient is taken with `autograd.grad`, so the weights' gradients are never
    touched, and averaged over the processes here. Weights: SGD with momentum on training images, through the clip as
    the cell gives it at that moment. No parameter's `requires_grad` is ever switched. A network without trainable
    parameters takes no weight steps.

    Args:
        network: clip to logits, as `accelerator.prepare` gave it.
        cell: the cell, on the accelerator's device; never wrapped.
        optimizer: of the weights, prepared too; None where there is nothing to train.
        accelerator: for devices, precision and processes.
        config: learning rates, decays, clipping.

    """

    def __init__(
        self,
        network: nn.Module,
        cell: Cell,
        optimizer: torch.optim.Optimizer | None,
        accelerator: Accelerator,
        config: SearchConfig,
    ) -> None:
        self.network = network
        self.cell = cell
        self.optimizer = optimizer
        self.accelerator = accelerator
        self.config = config
        # The reducer of DistributedDataParallel waits for a backward of the weights after each of its forwards, which
        # a step for τ never makes: that step goes past it.
        self.bare = accelerator.unwrap_model(network)
        self.tau_optimizer = torch.optim.Adam(
            [cell.tau], lr=config.tau_lr, betas=config.tau_betas, weight_decay=config.tau_weight_decay
        )

    def tau_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Move τ against the gradient of the loss on a validation batch; returns the loss, detached."""
        with self.accelerator.autocast():
            loss = cross_entropy(self.bare(self.cell(images)), labels)
        gradient = self.tau_gradient(loss)
        if self.accelerator.scaler is None or bool(gradient.isfinite().all()):
            self.cell.tau.grad = gradient
            self.tau_optimizer.step()
            self.cell.tau.grad = None
        return loss.detach()

    def tau_gradient(self, loss: Tensor) -> Tensor:
        """dloss/dτ, averaged over the processes; half precision is scaled as the weights' loss is."""
        scale = 1.0 if self.accelerator.scaler is None else float(self.accelerator.scaler.get_scale())
        (gradient,) = torch.autograd.grad(loss * scale, [self.cell.tau])
        if self.accelerator.num_processes > 1:
            gradient = self.accelerator.reduce(gradient.contiguous(), "mean")
        return gradient / scale

    def weight_step(self, images: Tensor, labels: Tensor, mixing: Tensor | None = None) -> Tensor:
        """Move the weights against the gradient of the loss on a training batch; returns the loss, detached."""
        with torch.no_grad():
            clip = self.cell(images, mixing)
        if self.optimizer is None:
            with torch.no_grad(), self.accelerator.autocast():
                return cross_entropy(self.bare(clip), labels)
        with self.accelerator.autocast():
            loss = cross_entropy(self.network(clip), labels)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        if self.config.grad_clip > 0:
            self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.grad_clip)
        self.optimizer.step()
        return loss.detach()

    def set_lr(self, lr: float) -> None:
        """Give the weights' optimizer a learning rate."""
        if self.optimizer is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = lr


def weight_optimizer(network: nn.Module, config: SearchConfig) -> torch.optim.Optimizer | None:
    """SGD for the trainable weights, without decay on biases, norms and scales; None where none is trainable."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    if not trainable:
        return None
    decayed = [p for p in trainable if p.ndim > 1]
    plain = [p for p in trainable if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD([g for g in groups if g["params"]], lr=config.lr, momentum=config.momentum)


class LossWatch:
    """Keeps the losses of one epoch on the device and stops at the first that is not finite, by its step.

    Reading a loss back stalls an accelerator, so there it looks only every `every` steps.
    """

    def __init__(self, what: str, first_step: int, device: torch.device) -> None:
        self.what = what
        self.first_step = first_step
        self.every = 1 if device.type == "cpu" else 25
        self._losses: list[Tensor] = []
        self._seen: list[float] = []

    def add(self, loss: Tensor) -> None:
        """Take one more loss."""
        self._losses.append(loss)
        if len(self._losses) >= self.every:
            self._look()

    def mean(self) -> float:
        """The mean of all losses (NaN where there was none)."""
        self._look()
        return sum(self._seen) / len(self._seen) if self._seen else float("nan")

    @property
    def latest(self) -> float:
        """The last loss that was read back."""
        return self._seen[-1] if self._seen else float("nan")

    def _look(self) -> None:
        if not self._losses:
            return
        values = torch.stack(self._losses).float().cpu().tolist()
        self._losses.clear()
        for value in values:
            if not abs(value) < float("inf"):
                raise StateError(
                    f"the {self.what} loss is {value} at step {self.first_step + len(self._seen)}; the search "
                    "stopped and its last checkpoint is kept. Lower the learning rate, or search in float32"
                )
            self._seen.append(value)
