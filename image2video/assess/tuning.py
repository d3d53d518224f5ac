"""Fine-tuning on the images that choose: the bare network, averaged and fused clips, at equal compute."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, Unpack

import torch
from torch import Tensor, nn

from image2video.assess.assessment import Row, Tuning
from image2video.assess.figures import Figures
from image2video.assess.finalists import Finalist, bare_finalist
from image2video.assess.scoring import Images, Network
from image2video.data import DataSource
from image2video.data.batches import Order, SeededBatches
from image2video.data.seeds import seeded_generator
from image2video.data.splits import DrawnSet, stratified_split
from image2video.protocols import Progress, named
from image2video.search.rank.calibration import fit_temperature
from image2video.search.rank.estimate import estimate_of_logits
from image2video.search.score.network import device_of
from image2video.settings.training import FINE_TUNING
from image2video.training import TrainConfig, train
from image2video.wrap.video_wrap import VideoWrap

_KEPT_BACK = 0.2
"""The share of the images that choose on which temperatures are fitted; nothing is trained on them."""
_BATCH = 32
FUSION = "gsf"


@dataclass(frozen=True)
class _Arm:
    """A network to fine-tune."""

    name: str
    title: str
    clip: Finalist
    fusion: str
    epochs: int


def clip_to_tune(rows: Sequence[Row], choice: int) -> Finalist:
    """The clip that a network is fine-tuned with: the chosen one, or the best that has frames for a fusion to mix.

    A clip that begins inside of the network may have no fusion site behind it, and is left out.
    """
    clips = [row for row in rows if row.finalist.T > 1 and not row.finalist.is_inside]
    if rows[choice] in clips:
        return rows[choice].finalist
    return min(clips, key=lambda row: row.choosing.scaled_loss).finalist


def fine_tuned(
    network: Network,
    clip: Finalist,
    bare: Tensor,
    choosing: Images,
    judging: Images,
    *,
    epochs: int,
    seed: int,
    progress: Progress | None,
) -> Tuning:
    """Fine-tune copies of a network on the images that choose, and judge them on the others.

    Args:
        network: the bare network; it stays as it is.
        clip: the clip of the averaged and of the fused network, two frames or more.
        bare: the bare network's logits of the judging images.
        choosing: images that train, but for a fifth that fits temperatures.
        judging: images that judge.
        epochs: of the networks with the clip; the bare one has as many more as a frame costs less.
        seed: of the order of images, and of the fusion's first weights.
        progress: called as the work goes on.

    Returns:
        The networks with their figures.
    """
    kept, trained = stratified_split(choosing.labels, max(2, round(_KEPT_BACK * len(choosing))), seed=seed)
    calibrating, training = (Images(choosing.images[places], choosing.labels[places]) for places in (kept, trained))
    more = max(1, round(clip.cost * epochs))
    arms = (
        _Arm("tuned", f"the network, fine-tuned for {more} epochs", bare_finalist(), "none", more),
        _Arm("tuned_averaged", f"the clip averaged, fine-tuned for {epochs} epochs", clip, "none", epochs),
        _Arm("tuned_fused", f"the clip fused ({FUSION.upper()}), fine-tuned for {epochs} epochs", clip, FUSION, epochs),
    )
    untuned = fit_temperature(network.predicted(bare_finalist(), calibrating).double(), calibrating.labels)
    rows, judged_by, temperatures = [], [], []
    for arm in arms:
        model = _trained(network, arm, training, bare.shape[1], seed, named(progress, arm.name))
        images = Images(
            torch.cat([calibrating.images, judging.images]), torch.cat([calibrating.labels, judging.labels])
        )
        logits = replace(network, model=model).predicted(bare_finalist(), images)
        temperature = fit_temperature(logits[: len(kept)].double(), calibrating.labels)
        judged = logits[len(kept) :]
        rows.append(
            Row(
                replace(arm.clip, name=arm.name, title=arm.title),
                choosing=Figures.of(logits[: len(kept)], calibrating.labels, temperature),
                judging=Figures.of(judged, judging.labels, temperature),
                gain=estimate_of_logits(torch.stack([bare, judged]), judging.labels, (untuned, temperature)),
            )
        )
        judged_by.append(judged)
        temperatures.append(temperature)
    against = {
        rows[number].finalist.name: estimate_of_logits(
            torch.stack([judged_by[0], judged_by[number]]), judging.labels, (temperatures[0], temperatures[number])
        )
        for number in range(1, len(rows))
    }
    return Tuning(tuple(rows), against, images=len(training), epochs=epochs)


def _trained(
    network: Network, arm: _Arm, images: Images, outputs: int, seed: int, progress: Progress | None
) -> nn.Module:
    """A fine-tuned copy."""
    model: nn.Module = copy.deepcopy(network.model)
    if arm.clip.T > 1:
        clip = arm.clip.wrap_options()
        model = VideoWrap(
            model, arm.fusion, **clip, residual=True, mean=network.mean, std=network.std, input_size=network.input_size
        )
    device = device_of(network.model).type
    config = TrainConfig(
        epochs=arm.epochs,
        batch_size=_BATCH,
        lr=FINE_TUNING * TrainConfig().peak_lr,
        warmup_epochs=min(1.0, arm.epochs / 10),
        label_smoothing=0.0,  # whose probabilities are compared
        seed=seed,
        device=device,  # type: ignore[arg-type]
    )
    train(model, _source(images, network, outputs), config, progress=progress)
    return model.eval()


def _source(images: Images, network: Network, outputs: int) -> DataSource:
    """The images as a data set with a class for each output; nobody uses what `train` measures on its test images."""
    some = _Set(images)
    classes = tuple(str(number) for number in range(outputs))
    return DataSource("images", some, None, some, classes, network.input_size, mean=(0.0,), std=(1.0,))


class _Set(DrawnSet):
    """Images as the network takes them: nothing crops or mirrors them, since nobody knows what their classes allow."""

    def __init__(self, images: Images) -> None:
        super().__init__(len(images))
        self._images = images

    @property
    def labels(self) -> Tensor:
        return self._images.labels

    def _subset(self, places: Tensor) -> Self:
        return type(self)(Images(self._images.images[places], self._images.labels[places]))

    def batches(self, batch_size: int, *, augment: bool = False, **order: Unpack[Order]) -> _Batches:
        return _Batches(self._images, batch_size, order)


class _Batches(SeededBatches):
    """Batches of images in memory."""

    def __init__(self, images: Images, batch_size: int, order: Any) -> None:
        super().__init__(len(images), batch_size, **order)
        self._images = images

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order(seeded_generator(self._seed, epoch))
        for places in self._slices():
            chosen = order[places]
            yield self._images.images[chosen].to(self.device), self._images.labels[chosen].to(self.device)
