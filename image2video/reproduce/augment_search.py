"""The search that AutoAugment and its kin allow for: train with each policy of a grid, until the budget is spent."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from image2video.data import Augmentation, DataSource
from image2video.errors import InputError, StateError, UnsupportedError
from image2video.protocols import Progress
from image2video.reproduce.augment_book import PolicyBook
from image2video.reproduce.augment_loop import policies_in_order, policy_name, try_policies, watched
from image2video.reproduce.augment_result import PolicyScore, PolicySearchResult
from image2video.runs.folders import OutputDirectory
from image2video.training.engine import Engine
from image2video.training.loop import make_accelerator
from image2video.training.recipe import TrainConfig

BuildModel = Callable[[Augmentation | None], nn.Module]


def search_augmentation(
    family: str,
    data: DataSource,
    build_model: BuildModel,
    config: TrainConfig | None = None,
    *,
    minutes: float,
    grid: Sequence[Augmentation | str] | None = None,
    augment_images: bool = True,
    reference: bool = True,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    accelerator: Accelerator | None = None,
    progress: Progress | None = None,
    settings: dict[str, Any] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> PolicySearchResult:
    """Trains one network per policy of a grid, scores each on held-out images, and stops when the minutes are over.

    The baselines of Casarin et al., CVPR 2024, Table 7, where every method has the same time to search: RandAugment is
    searched over its grid of ops × magnitudes, the others over what little they leave open. Policies are tried in an
    order drawn by `seed`. The time is checked after every training step; a policy whose training is not done in time
    does not count, one whose training is done is still scored, so the budget is kept to within one pass over the
    held-out images. The test set is never read. Seeds the global generators with `config.seed` before every policy.

    Args:
        family: `autoaugment`, `randaugment`, `trivialaugment`, `uniformaugment` or `clips`.
        data: with held-out images; its own policy is replaced.
        build_model: policy (None for the reference) → a fresh model `(B, C, H, W)` → `(B, classes)`.
        config: the recipe of every training, a short one; `TrainConfig(epochs=3)` by default.
        minutes: what the search may take, over all resumed parts.
        grid: policies of the family, or their texts; by default those of `Augmentation.grid`.
        augment_images: train on images that the policy augments. False leaves them alone: for models that `build_model`
            gives the policy as `AugmentedFrames`.
        reference: first train without a policy, for comparison; needs `augment_images`.
        seed: of the order of the policies.
        out: folder for `augment.json`, written after every policy; nothing is written without it.
        resume: keep the finished policies of the search in `out`, if there is one, and go on with the rest.
        overwrite: replace the search in `out`.
        accelerator: of Hugging Face accelerate, with one process; one for `config.device` by default.
        progress: called after every step of a training, and with the stage `policies` after every policy.
        settings: what else to record (the model, …); must be equal when resuming.
        clock: seconds that only grow.

    Raises:
        InputError: an unknown family, a grid of another one, no held-out images, or a resumed search with other
            settings (its minutes may change).
        StateError: no policy was done in time, or a training failed.
        ExistsError: `out` holds another run.
    """
    config = config or TrainConfig(epochs=3)
    policies = policies_in_order(family, grid, seed)
    accelerator = accelerator or make_accelerator(config.device)
    _check(data, config, minutes, policies, augment_images, accelerator)
    todo: list[Augmentation | None] = [None] if reference and augment_images else []
    todo += policies
    run = _Run(data, config, build_model, augment_images, accelerator, clock, progress)
    book = PolicyBook(
        family, [policy_name(p) for p in todo], minutes, _record(data, config, seed, augment_images, settings)
    )
    if out is not None:
        book.open(OutputDirectory(out, "augment", overwrite=overwrite, resume=resume))
    try_policies(todo, book, run.score, clock, progress)
    result = book.result()
    if not result.scores:
        raise StateError(
            f"none of the {len(policies)} policies of {family!r} was done within {minutes:g} minutes; allow for more "
            f"minutes, or train with fewer epochs (now {config.epochs}) or images (now {data.train.num_images})"
        )
    book.finish()
    return result


@dataclass(frozen=True)
class _Run:
    """One training per policy."""

    data: DataSource
    config: TrainConfig
    build_model: BuildModel
    augment_images: bool
    accelerator: Accelerator
    clock: Callable[[], float]
    progress: Progress | None

    def score(self, policy: Augmentation | None, end: float) -> PolicyScore:
        """The score of a fresh model trained with `policy`; raises `OutOfTimeError` where it is not done at `end`."""
        begun = self.clock()
        set_seed(self.config.seed)
        data = self.data.with_policy(policy if self.augment_images else None)
        watch = watched(self.progress, self.clock, end)
        engine = Engine(self.build_model(policy), data, self.config, self.accelerator, watch)
        for epoch in range(self.config.epochs):
            engine.train_epoch(epoch)
        assert data.holdout is not None  # checked before the first training
        metrics = engine.evaluate(data.holdout, "holdout")
        return PolicyScore.of(policy_name(policy), metrics, self.clock() - begun)


def _check(
    data: DataSource,
    config: TrainConfig,
    minutes: float,
    policies: Sequence[Augmentation],
    augment_images: bool,
    accelerator: Accelerator,
) -> None:
    if data.holdout is None:
        raise InputError("policies are compared on held-out images; load the data with holdout above 0")
    if not 0 < minutes < float("inf"):
        raise InputError(f"minutes must be a number above 0, got {minutes}")
    if augment_images and not config.crop_flip:
        raise InputError("crop_flip=False trains on the images as they are, without a policy; leave it on")
    if accelerator.num_processes > 1:
        raise UnsupportedError(
            f"a search over policies runs in one process, this one has {accelerator.num_processes}: their clocks would "
            "disagree on when the time is over; start it without accelerate launch"
        )
    for policy in policies:  # before the first training, whose time would be lost
        policy.check_channels(data.input_size[0])
        policy.build(data.mean, data.std)
        if augment_images:
            data.with_policy(policy)


def _record(
    data: DataSource, config: TrainConfig, seed: int, augment_images: bool, settings: dict[str, Any] | None
) -> dict[str, Any]:
    """What must be equal when a search is resumed."""
    described = {key: value for key, value in data.with_policy(None).describe().items() if key != "name"}
    recipe = {key: value for key, value in config.to_dict().items() if key != "device"}
    images = {"augment_images": augment_images, "seed": seed}
    return {**images, "dataset": described, "recipe": recipe, "settings": settings or {}}
