"""A running search: network, cell, optimisers, data and records, and what can be done with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast
from torch import Tensor

from image2video.clip.deep_clip import DeepClip
from image2video.clip.deep_video import DeepVideo
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError, StateError, UnsupportedError
from image2video.protocols import Batches, ImageSet
from image2video.search.cell.cell import Cell
from image2video.search.cell.clip_view import clip_view
from image2video.search.cell.deep_cell import AnyCell, DeepCell
from image2video.search.cell.mixing import mixing_matrix
from image2video.search.cell.view import View
from image2video.search.front import front_records
from image2video.search.optimise.bilevel import Batch, Bilevel, weight_optimizer
from image2video.search.optimise.memory import checkpoint_activations_
from image2video.search.optimise.tensors import on_cpu
from image2video.search.optimise.watch import Meter
from image2video.search.rank.clip_candidate import Chains, ClipCandidate
from image2video.search.rank.halving import Halving, HalvingRules
from image2video.search.rank.places import Together
from image2video.search.rank.pool import HeldOut
from image2video.search.rank.ranking import Ranking, order_of
from image2video.search.rank.shared_weights import SharedWeights, videos
from image2video.search.score.batch_statistics import batch_statistics
from image2video.search.score.even_batches import even_batches, number_of_batches
from image2video.search.score.measure import score_variants
from image2video.search.score.network import FrameNetwork, in_mode, predictions
from image2video.search.score.scores import Scores
from image2video.search.setup import Setup
from image2video.search.space.deep_space import DeepSpace
from image2video.search.state.budget import Budget
from image2video.search.state.seeds import derived_seed, seeded
from image2video.search.state.state import SearchState

_SPLIT_MODELS = ("FSDP", "DEEPSPEED", "MEGATRON_LM")


class SearchRun:
    """Everything that a search through the cell needs while it runs, on the accelerator's device.

    Args:
        network: the fused network; it is trained in place.
        setup: settings, space, accelerator, task.
        train: the images for the weights.
        validation: the images for τ and for scores.

    Raises:
        InputError: an accelerator that accumulates gradients itself, and what `Cell` raises.
        UnsupportedError: an accelerator that splits the model over processes.
    """

    def __init__(self, network: FrameNetwork, setup: Setup, train: ImageSet, validation: ImageSet) -> None:
        _check_accelerator(setup.accelerator)
        config, accelerator = setup.config, setup.accelerator
        self.space, self.config, self.accelerator = setup.space, config, accelerator
        self.task, self.colours, self.progress = setup.task, setup.colours, setup.progress
        self.options = setup.options
        self.device = accelerator.device
        self.state = SearchState()
        self.kept: dict[str, Any] | None = None  # what `snapshot` has kept
        self.measurements = 1  # how often `score` is called in all, for the progress
        self.places = setup.places
        self.cell: AnyCell = self._new_cell().to(self.device)
        self.bilevel = self._prepared(network)
        self.train_batches = self._training_batches(train, "weights")
        self.tau_batches = self._training_batches(validation, "tau")
        limit = config.validation_images
        self.held_out = validation
        if limit is not None and limit < validation.num_images:
            self.held_out = validation.take(limit, seed=derived_seed(config.seed, "held out"))
        self._score_size = min(config.score_batch_size or config.batch_size, self.held_out.num_images)
        self._video = videos(self.options)
        self.budget = Budget(config, accelerator)

    @property
    def ranking(self) -> Ranking | None:
        """The ranking in the records; its best chain comes without provenance."""
        return None if self.state.ranking is None else Ranking.from_dict(self.state.ranking)

    @property
    def frame_choice(self) -> None:
        """None: frames are chosen for a backbone as it is."""
        return None

    def choose_frames(self) -> NoReturn:
        """Refuse: the frames of this network mix, so that no frame has predictions of its own."""
        raise StateError(
            f"selection={self.config.selection!r} trains a network whose frames mix, and frame sets are chosen for a "
            "backbone as it is; it needs trains=False"
        )

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

        The images come in the same seeded batches every time, on any number of processes: norms take the statistics of
        a batch, where `config.score_statistics` says so. `stop` is asked after every batch whether the scores so far
        suffice.
        """
        self.share_buffers()
        held_out, processes = self.held_out.num_images, self.accelerator.num_processes
        batches, decided = -(-number_of_batches(held_out, self._score_size) // processes), self.state.measured
        meter = Meter(self.progress, "select", decided * batches, max(self.measurements, decided + 1) * batches)

        def views(images: Tensor) -> Iterator[View]:
            # The clips agree in the nodes before `first`: these are computed once.
            trace = self.cell.trace(first)
            return (self.cell.view(images, mixing, trace=trace) for mixing in mixings)

        return self._scores(views, len(mixings), meter.step, stop)

    def _scores(
        self,
        views: Callable[[Tensor], Iterator[View]],
        count: int,
        on_batch: Callable[[int], None] | None = None,
        stop: Callable[[Scores], bool] | None = None,
        *,
        by_batch: bool | None = None,
    ) -> Scores:
        """Held-out scores under `count` views of the images; `by_batch` in place of what the settings say."""
        bare = self.bilevel.bare

        def variants(images: Tensor) -> list[Any]:
            with self.accelerator.autocast():
                return [predictions(bare, v.inputs, self.task, v.unwarp, v.maker) for v in views(images)]

        by_batch = self.config.score_statistics == "batch" if by_batch is None else by_batch
        with in_mode(bare, training=False), batch_statistics(bare) if by_batch else nullcontext(), torch.no_grad():
            images = self._score_batches()
            scores = score_variants(variants, images, self.accelerator, task=self.task, on_batch=on_batch, stop=stop)
        self.state.evaluated_frames += scores.n * self.config.T * count
        return scores

    def rank(self, chains: tuple[Chains, ...]) -> Ranking:
        """Rank chains under the network as it is, on the held-out images, within the budget.

        Every process scores its share of the images; the scores, and so the ranking, are the same on all. Over places,
        the best clip is scored without its first places too, as `score_chosen` does.
        """
        self.share_buffers()
        config, accelerator, state = self.config, self.accelerator, self.state
        network = self.bilevel.bare
        shared = SharedWeights(network, self.task, accelerator.autocast)
        there = None if self.places is None else Together(self.places)
        clips = tuple(ClipCandidate.mixed(chain, self.options, there) for chain in chains)
        seed = derived_seed(config.seed, "ranking")
        held_out = HeldOut(self.held_out, None, batch_size=config.batch_size, seed=seed, device=self.device)
        started, before = time.perf_counter(), state.evaluated_frames

        def late() -> bool:
            # The shares of the processes differ by an image at most; what all have scored is put right at the end.
            state.evaluated_frames = before + shared.frames * accelerator.num_processes
            return self.spent() >= 1

        rules = HalvingRules(
            self.task,
            config.first_images,
            config.criterion,
            late=late if self.budget.limited else None,
            accelerator=accelerator,
            progress=self.progress,
        )
        with in_mode(network, training=False), torch.no_grad():
            outcome = Halving(clips, shared, held_out, rules).run()
        first = order_of(outcome.scores, config.criterion)[0]
        frames, seconds = config.T * outcome.scored, time.perf_counter() - started
        ranking = outcome.ranking(first, frames=frames, seconds=seconds, metric=self.task.metric)
        state.evaluated_frames = before + frames
        state.ranking = ranking.to_dict()
        if isinstance(ranking.best, DeepClip) and self.places is not None and self.spent() < 1:
            state.front = front_records(self._scores_without_first(ranking.best), self.places, config.T)
        return ranking

    def _scores_without_first(self, clip: DeepClip) -> Scores:
        """The scores of a clip, of those that leave out its first places, and last of all copies."""
        still = Genotype.identity()
        variants = [
            DeepClip(
                tuple((place, still if number < left else chain) for number, (place, chain) in enumerate(clip.sites))
            )
            for left in range(len(clip.sites) + 1)
        ]
        sites = self.bilevel.bare.clip_sites

        def views(images: Tensor) -> Iterator[View]:
            return (clip_view(self.video(variant), images, sites) for variant in variants)

        return self._scores(views, len(variants), by_batch=False)

    def score_chosen(self) -> None:
        """Score the discretised cell and put it into the records; over places, with those that begin later too."""
        mixing = mixing_matrix(self.tau(), self.space, self.state.decisions)
        if isinstance(self.cell, DeepCell) and self.places is not None:
            scores = self._scores_of_later(self.cell, mixing)
            self.state.front = front_records(scores, self.places, self.config.T)
        else:
            scores = self.score([mixing], self.space.inputs)
        self.state.score = {
            "images": scores.n,
            "accuracy": scores.accuracy(0),
            "accuracy_error": scores.accuracy_error(0),
            "loss": scores.mean_loss(0),
            "loss_error": scores.loss_error(0),
        }

    def _scores_of_later(self, cell: DeepCell, mixing: Tensor) -> Scores:
        """The scores of the chosen clip, of those that leave out its first places, and last of all copies."""
        self.share_buffers()
        count = len(cell.space.places) + 1

        def views(images: Tensor) -> Iterator[View]:
            return (cell.view(images, mixing, resting=range(number)) for number in range(count))

        return self._scores(views, count)

    def snapshot(self) -> None:
        """Keep weights, τ and their optimizers as they are, also in the checkpoints to come."""
        self.share_buffers()
        outer = {"cell": self.cell.state_dict(), "tau_optimizer": self.bilevel.tau_optimizer.state_dict()}
        self.kept = {**self.bilevel.weights_state(), **on_cpu(outer)}

    def restore(self) -> None:
        """Put weights, τ and their optimizers back to the last `snapshot`; raises `StateError` where there is none."""
        if self.kept is None:
            raise StateError("there is no snapshot of the network to go back to; call snapshot() first")
        # A copy: an optimizer goes on in the tensors that it is given.
        kept = on_cpu(self.kept)
        self.bilevel.load_weights_state(kept)
        self.cell.load_state_dict(kept["cell"])
        self.bilevel.tau_optimizer.load_state_dict(kept["tau_optimizer"])

    def share_buffers(self) -> None:
        """Give all processes the main one's buffers: each has moved its own BatchNorm statistics."""
        if self.accelerator.num_processes > 1:
            for buffer in self.bilevel.bare.buffers():
                buffer.copy_(broadcast(buffer))

    def video(self, chain: Chains) -> Image2Video | DeepVideo:
        """The clips of one chain, or of chains at several places, as the space and the settings have them."""
        return self._video(chain)

    def _prepared(self, network: FrameNetwork) -> Bilevel:
        """Lay out the network and prepare it for training, as the settings say."""
        config, accelerator = self.config, self.accelerator
        if config.channels_last:
            network.backbone.to(memory_format=torch.channels_last)  # 5-D gates of the fusions know no such layout
        if config.checkpoint_activations:
            checkpoint_activations_(network)
        optimizer = weight_optimizer(network, config)
        if optimizer is None:
            # DistributedDataParallel refuses a network that has nothing to train.
            prepared = accelerator.prepare_model(network, evaluation_mode=True)
        else:
            prepared, optimizer = accelerator.prepare(network, optimizer)
        return Bilevel(prepared, self.cell, optimizer, accelerator, config, self.task)

    def _new_cell(self) -> AnyCell:
        config = self.config
        kind: Any = DeepCell if isinstance(self.space, DeepSpace) else Cell
        cell: AnyCell = kind(
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
        return cell

    def _training_batches(self, images: ImageSet, purpose: str) -> Batches:
        config = self.config
        return images.batches(
            config.batch_size,
            augment=config.crop_flip,
            shuffle=True,
            seed=derived_seed(config.seed, purpose),
            device=self.device,
            shard=(self.accelerator.process_index, self.accelerator.num_processes),
        )

    def _score_batches(self) -> Iterator[Batch]:
        """This process's batches of a score: every process reads all images and takes whole batches of them."""
        # Shuffled: images sorted by class would give a batch the statistics of one class, and a score that may stop
        # early needs its first images to be a fair sample.
        seed = derived_seed(self.config.seed, "held out")
        batches = self.held_out.batches(self._score_size, shuffle=True, seed=seed, device=self.device)
        shard = (self.accelerator.process_index, self.accelerator.num_processes)
        return even_batches(batches.epoch(0), self.held_out.num_images, self._score_size, shard)


def _check_accelerator(accelerator: Accelerator) -> None:
    """Refuse accelerators that do part of the search's own work, or split the model."""
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
