"""A running search: network, cell, optimisers, data and records, and what can be done with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast
from torch import Tensor

from image2video.clip.colours import Colours
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError, StateError, UnsupportedError
from image2video.protocols import Batches, ImageSet, Progress
from image2video.search.cell.cell import Cell, CellTrace
from image2video.search.cell.mixing import mixing_matrix
from image2video.search.optimise.bilevel import Bilevel, weight_optimizer
from image2video.search.optimise.memory import checkpoint_activations_
from image2video.search.optimise.tensors import on_cpu
from image2video.search.optimise.watch import Meter
from image2video.search.score.measure import score_variants
from image2video.search.score.network import FrameNetwork, in_mode, predictions
from image2video.search.score.scores import Scores
from image2video.search.score.task import ClassificationTask, Task
from image2video.search.space.space import SearchSpace
from image2video.search.state.budget import Budget
from image2video.search.state.config import SearchConfig
from image2video.search.state.seeds import derived_seed, seeded
from image2video.search.state.state import SearchState

_KEPT_VIDEOS = 64
_SPLIT_MODELS = ("FSDP", "DEEPSPEED", "MEGATRON_LM")


class SearchRun:
    """Everything that a search through the cell needs while it runs, on the accelerator's device.

    Args:
        network: the fused network; it is trained in place.
        space: candidates and graph.
        config: the settings.
        train: the images for the weights.
        validation: the images for τ and for scores.
        accelerator: for devices, precision and processes.
        task: what the network is for (default: classification).
        progress: called after every step.
        colours: how the images are normalised; needed by candidates that change colours.

    Raises:
        InputError: an accelerator that accumulates gradients itself, and what `Cell` raises.
        UnsupportedError: an accelerator that splits the model over processes.

    """

    def __init__(
        self,
        network: FrameNetwork,
        space: SearchSpace,
        config: SearchConfig,
        train: ImageSet,
        validation: ImageSet,
        accelerator: Accelerator,
        task: Task | None = None,
        progress: Progress | None = None,
        colours: Colours | None = None,
    ) -> None:
        _check_accelerator(accelerator)
        self.task = task or ClassificationTask()
        self.space, self.config, self.accelerator, self.colours = space, config, accelerator, colours
        self.device = accelerator.device
        self.progress = progress
        self.state = SearchState()
        self.kept: dict[str, Any] | None = None  # what `snapshot` has kept
        self.measurements = 1  # how often `score` is called in all, for the progress
        self.cell = self._new_cell().to(self.device)
        if config.channels_last:
            network.backbone.to(memory_format=torch.channels_last)  # 5-D gates of the fusions know no such layout
        if config.checkpoint_activations:
            checkpoint_activations_(network)
        optimizer = weight_optimizer(network, config)
        if optimizer is None:
            # DistributedDataParallel refuses a network that has nothing to train.
            prepared = accelerator.prepare_model(network, evaluation_mode=True)
            self.bilevel = Bilevel(prepared, self.cell, None, accelerator, config, self.task)
        else:
            prepared, prepared_optimizer = accelerator.prepare(network, optimizer)
            self.bilevel = Bilevel(prepared, self.cell, prepared_optimizer, accelerator, config, self.task)
        self.train_batches = self._batches(train, "weights", training=True)
        self.tau_batches = self._batches(validation, "tau", training=True)
        limit = config.validation_images
        self.held_out = validation
        if limit is not None and limit < validation.num_images:
            self.held_out = validation.take(limit, seed=derived_seed(config.seed, "held out"))
        self._held_out_batches = self._batches(self.held_out, "held out", training=False)
        self._videos: dict[Genotype, Image2Video] = {}
        self.budget = Budget(config, accelerator)

    @property
    def steps_per_epoch(self) -> int:
        """Weight steps of one epoch over the training part."""
        return -(-len(self.train_batches) // self.config.accumulate)

    def tau(self) -> Tensor:
        """τ as it is, on the CPU, without gradient."""
        return self.cell.tau.detach().cpu()

    def spent(self) -> float:
        """The share of the budget that is used, 0 without one; all processes must ask together and get one answer.

        The search stage ends at `budget.SEARCH_SHARE` of it, tuning at `budget.TUNE_SHARE`.
        """
        return self.budget.spent(self.state)

    def tick(self) -> None:
        """Add the time and the images since the last time to the records; all processes must take part."""
        self.budget.settle(self.state)

    def score(self, mixings: list[Tensor], first: int, stop: Callable[[Scores], bool] | None = None) -> Scores:
        """Held-out scores under several mixing matrices that agree on all edges into nodes before `first`.

        `stop` is asked after every batch whether the scores so far suffice.
        """
        self.share_buffers()
        bare = self.bilevel.bare
        batches, decided = len(self._held_out_batches), self.state.measured
        meter = Meter(self.progress, "select", decided * batches, max(self.measurements, decided + 1) * batches)

        def variants(images: Tensor) -> list[Any]:
            trace, size = CellTrace(first), (images.shape[-2], images.shape[-1])

            def predicted(mixing: Tensor) -> Any:
                clip = self.cell(images, mixing, trace=trace)
                return predictions(bare, clip, self.task, lambda maps: self.cell.unwarped_mean(maps, size, mixing))

            with self.accelerator.autocast():
                return [predicted(mixing) for mixing in mixings]

        with in_mode(bare, training=False), torch.no_grad():
            images = self._held_out_batches.epoch(0)
            scores = score_variants(variants, images, self.accelerator, task=self.task, on_batch=meter.step, stop=stop)
        self.state.evaluated_frames += scores.n * self.config.T * len(mixings)
        return scores

    def score_chosen(self) -> None:
        """Score the discretised cell and put it into the records."""
        scores = self.score([mixing_matrix(self.tau(), self.space, self.state.decisions)], self.space.inputs)
        self.state.score = {
            "images": scores.n,
            "accuracy": scores.accuracy(0),
            "accuracy_error": scores.accuracy_error(0),
            "loss": scores.mean_loss(0),
            "loss_error": scores.loss_error(0),
        }

    def snapshot(self) -> None:
        """Keep weights and their optimizer as they are, also in the checkpoints to come."""
        self.share_buffers()
        self.kept = self.bilevel.weights_state()

    def restore(self) -> None:
        """Put weights and their optimizer back to the last `snapshot`; raises `StateError` where there is none."""
        if self.kept is None:
            raise StateError("there is no snapshot of the network to go back to; call snapshot() first")
        # A copy: an optimizer goes on in the tensors that it is given.
        self.bilevel.load_weights_state(on_cpu(self.kept))

    def share_buffers(self) -> None:
        """Give all processes the main one's buffers: each has moved its own BatchNorm statistics."""
        if self.accelerator.num_processes > 1:
            for buffer in self.bilevel.bare.buffers():
                buffer.copy_(broadcast(buffer))

    def video(self, chain: Genotype) -> Image2Video:
        """The clips of one chain, as the space and the settings have them."""
        if chain not in self._videos:
            if len(self._videos) >= _KEPT_VIDEOS:
                self._videos.clear()
            config, colours = self.config, self.colours
            self._videos[chain] = Image2Video(
                chain,
                T=config.T,
                schedule=self.space.schedule,
                padding=config.padding,
                interpolation=config.interpolation,
                mean=None if colours is None else colours.mean,
                std=None if colours is None else colours.std,
            )
        return self._videos[chain]

    def _new_cell(self) -> Cell:
        config = self.config
        return Cell(
            self.space,
            config.T,
            padding=config.padding,
            interpolation=config.interpolation,
            generator=seeded(config.seed, "tau"),
            colours=self.colours,
            learn_magnitudes=config.learn_magnitudes,
            magnitudes_per=config.magnitudes_per,
            magnitude_bound=config.magnitude_bound,
        )

    def _batches(self, images: ImageSet, purpose: str, *, training: bool) -> Batches:
        config = self.config
        return images.batches(
            config.batch_size,
            augment=training and config.crop_flip,
            # A score that may stop early needs its first images to be a fair sample.
            shuffle=training or config.stop_early is not None,
            seed=derived_seed(config.seed, purpose),
            device=self.device,
            shard=(self.accelerator.process_index, self.accelerator.num_processes),
        )


def _check_accelerator(accelerator: Accelerator) -> None:
    steps = accelerator.gradient_accumulation_steps
    if steps != 1:
        raise InputError(
            f"the accelerator accumulates {steps} steps, which the search does itself: give accumulate={steps} to the "
            "search, and leave the accelerator's at 1"
        )
    kind = accelerator.distributed_type
    if kind in [getattr(DistributedType, name) for name in _SPLIT_MODELS]:
        raise UnsupportedError(
            f"the search shares out images, not the model: {kind.value} is not supported; launch with plain data "
            "parallelism (torchrun, or accelerate launch --multi_gpu)"
        )
