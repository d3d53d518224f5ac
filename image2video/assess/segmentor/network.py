"""A trained segmentor under clips, one after the other, scored on the images that choose and on those that judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from image2video.assess.figures import PixelFigures
from image2video.assess.finalists import Finalist
from image2video.assess.scoring import ROUNDS, TIMED, Timed
from image2video.assess.segmentor.assessment import video_options
from image2video.assess.segmentor.scores import PixelScores, score_pixels
from image2video.search.score.network import device_of
from image2video.training import Cost, measure_cost

if TYPE_CHECKING:  # mmsegmentation takes seconds to import, and may not be there
    from image2video.integrations.openmmlab.trained import TrainedSegmentor


@dataclass(frozen=True)
class Scored:
    """What the images said of a clip.

    Attributes:
        choosing: of the images that choose, with the temperature that they fitted.
        judging: of those that judge, with the same temperature.
        temperature: of the clip.
        figures: of both.
    """

    choosing: PixelScores
    judging: PixelScores
    temperature: float
    figures: tuple[PixelFigures, PixelFigures]


@dataclass(frozen=True)
class ClipScorer:
    """Scores clips of a segmentor; every figure is of the segmentor that a user would have.

    Attributes:
        segmentor: with its images.
        choosing: numbers of the images that choose.
        judging: of those that judge.
        seed: of the pixels that fit temperatures.
        found: what was scored, by the names of the clips.
    """

    segmentor: TrainedSegmentor
    choosing: Tensor
    judging: Tensor
    seed: int
    found: dict[str, Scored] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.choosing) + len(self.judging)

    @property
    def example(self) -> Tensor:
        """The first image that chooses, `(1, C, H, W)`, on the segmentor's device."""
        images = self.segmentor.images().at(self.choosing[:1])
        example: Tensor = next(images.batches(1, device=device_of(self.segmentor.plain)).epoch(0))[0]
        return example

    def score(self, finalist: Finalist, on_image: Callable[[], None] | None = None) -> Scored:
        """The scores of a clip, once; `on_image` is called after each image."""
        if finalist.name not in self.found:
            network = self.under(finalist)
            choosing, temperature = self._scores(network, self.choosing, None, on_image)
            judging, _ = self._scores(network, self.judging, temperature, on_image)
            figures = choosing.figures(temperature), judging.figures(temperature)
            # The sample has said what it knows; those of all clips together would be large.
            self.found[finalist.name] = Scored(replace(choosing, sample=None), judging, temperature, figures)
        return self.found[finalist.name]

    def under(self, finalist: Finalist) -> Any:
        """The segmentor under a clip."""
        return self.segmentor.plain if finalist.is_bare else self.segmentor.with_clip(video_options(finalist))

    def costs(self, finalists: Sequence[Finalist], batch: int) -> list[Timed]:
        """What an image costs under clips, alone and in a batch; in turn, since machines slow down and speed up."""
        from image2video.integrations.openmmlab.trained import Inference

        channels, height, width = self.example.shape[1:]
        size = (channels, height, width)
        networks = [Inference(self.under(finalist)) for finalist in finalists]
        rounds: list[list[tuple[Cost, Cost]]] = [[] for _ in finalists]
        for _ in range(ROUNDS):
            for measured, network in zip(rounds, networks, strict=True):
                single = measure_cost(network, size, batch=1, repeats=TIMED)
                measured.append((single, measure_cost(network, size, batch=batch, repeats=TIMED)))
        return [Timed.of(measured) for measured in rounds]

    def _scores(
        self, network: Any, numbers: Tensor, temperature: float | None, on_image: Callable[[], None] | None
    ) -> tuple[PixelScores, float]:
        with torch.no_grad():
            return score_pixels(
                (self.segmentor.pixels(network, number) for number in numbers.tolist()),
                len(numbers),
                len(self.segmentor.classes),
                temperature=temperature,
                seed=self.seed,
                on_image=on_image,
            )
