"""What every part of a search needs to know."""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerate import Accelerator

from image2video.clip.chain import check_colours
from image2video.clip.colours import Colours
from image2video.clip.options import ClipOptions
from image2video.inject.plan import Plan
from image2video.protocols import Progress
from image2video.search.score.task import ClassificationTask, Task
from image2video.search.space.deep_space import AnySpace
from image2video.settings.search import SearchConfig


@dataclass(frozen=True)
class Setup:
    """The settings of a search with all that they name.

    Attributes:
        config: the settings.
        space: candidates and graph.
        accelerator: for devices, precision and processes.
        task: what the network is for.
        colours: how the images are normalised; needed by candidates that change colours.
        progress: called after every step.
        places: the plan of the places of `space`, where it has some.
    """

    config: SearchConfig
    space: AnySpace
    accelerator: Accelerator
    task: Task = field(default_factory=ClassificationTask)
    colours: Colours | None = None
    progress: Progress | None = None
    places: Plan | None = None

    @property
    def options(self) -> ClipOptions:
        """How clips are made."""
        return self.config.clip_options(self.space.schedule, self.colours)

    def check_colours(self) -> None:
        """Refuse candidates that change colours where nothing says how the images are normalised."""
        for candidate in self.space.candidates:
            check_colours(candidate, self.colours)
