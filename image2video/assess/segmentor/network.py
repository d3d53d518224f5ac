"""A trained segmentor under clips, one after the other, scored on the images that choose and on those that judge."""

from __future__ import annotations

import time
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
from image2video.errors import UnsupportedError
from image2video.protocols import Progress
from image2video.search.score.network import device_of
from image2video.training import Cost, measure_cost

if TYPE_CHECKING:  # mmsegmentation takes seconds to import, and may not be there
    from image2video.integrations.openmmlab.trained import TrainedSegmentor

_TRIED = 5
"""Images that say how long one takes."""


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

    def check_whole(self) -> None:
        """Raise `UnsupportedError` where a segmentor slides and cannot take a whole image, as the rankings ask it."""
        if self.segmentor.plain.test_cfg.get("mode") != "slide":
            return
        example = self.example
        try:
            with torch.no_grad():
                self.segmentor.network(example)
        except Exception as error:
            height, width = example.shape[2:]
            raise UnsupportedError(
                f"model.test_cfg.mode='slide': clips are ranked on whole images, and {self.segmentor.description} "
                f"cannot take one of {width}×{height} pixels ({type(error).__name__}: {error}); set "
                "model.test_cfg.mode='whole', and let the pipeline resize images to model.test_cfg.crop_size"
            ) from error

    def seconds_per_frame(self) -> float:
        """About what the bare segmentor takes for an image, from a few of them after a first one."""
        first, *others = self.choosing[: 1 + _TRIED].tolist()
        self.segmentor.pixels(self.segmentor.plain, first)
        began = time.perf_counter()
        for number in others:
            self.segmentor.pixels(self.segmentor.plain, number)
        return (time.perf_counter() - began) / len(others)

    def costs(
        self, finalists: Sequence[Finalist], batch: int, rounds: int = ROUNDS, progress: Progress | None = None
    ) -> tuple[list[Timed], int]:
        """What an image costs under clips, alone and in a batch, and how large the batch was.

        A batch that the memory does not hold is halved; nothing is measured where it does not hold one image.
        """
        while batch >= 1:
            try:
                return self._timed(finalists, batch, rounds, progress), batch
            except (RuntimeError, MemoryError) as error:
                if not _is_memory(error):
                    raise
            batch //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return [], 1

    def _timed(self, finalists: Sequence[Finalist], batch: int, rounds: int, progress: Progress | None) -> list[Timed]:
        """The costs in turn, since machines slow down and speed up."""
        from image2video.integrations.openmmlab.trained import Inference

        channels, height, width = self.example.shape[1:]
        size = (channels, height, width)
        networks = [Inference(self.under(finalist)) for finalist in finalists]
        found: list[list[tuple[Cost, Cost]]] = [[] for _ in finalists]
        for done in range(rounds * len(networks)):
            number = done % len(networks)
            single = measure_cost(networks[number], size, batch=1, repeats=TIMED)
            found[number].append((single, measure_cost(networks[number], size, batch=batch, repeats=TIMED)))
            if progress is not None:
                progress("cost", done + 1, rounds * len(networks))
        return [Timed.of(measured) for measured in found]

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


def _is_memory(error: Exception) -> bool:
    """Whether an error says that there is no memory left; torch has a type of its own for that on a GPU alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
