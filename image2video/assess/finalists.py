"""The clips that an assessment compares to the end: the image itself, plain averages, and what searches found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from image2video.clip.any_clip import Clip, parse_clip
from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import Genotype
from image2video.wrap.phases import PHASES

PLAIN = {
    "mirror": ("the image and its mirror image", "identity | flip_x"),
    "zoom": ("the image and a zoom of 1.2", "identity | scale(1.2)"),
    "shifts": ("the image and two shifts of 3 %", "identity | translate_x(0.03) | translate_x(-0.03)"),
    "mirror_zoom": ("the image, its mirror image and a zoom", "identity | flip_x | scale(1.2)"),
}
"""Name -> title and frames: the test-time averages that people use without any search."""


@dataclass(frozen=True)
class Finalist:
    """A clip whose averaged predictions are scored on all images.

    Attributes:
        name: `bare`, a key of `PLAIN`, `phases` (other phases of the strides), `chain` (the best of a ranking),
            `inside` (the best that begins inside of the network) or `frames` (the best set of frames).
        title: for people.
        genotype: the text of a genotype or of a frame set, or `preset:phases`.
        T: frames per image.
        schedule: the power of each frame.
        padding: what stands outside the image.
        interpolation: how frames are sampled.
        aggregate: how the predictions of the frames are averaged, `mean` or `mean_prob`.
        clip_at: the module at whose input the clip begins; None for the image.
        cost: multiply-accumulates per image, as a multiple of the bare network's.
    """

    name: str
    title: str
    genotype: str = "identity"
    T: int = 1
    schedule: str = "from_zero"
    padding: str = "reflection"
    interpolation: str = "bilinear"
    aggregate: str = "mean"
    clip_at: str | None = None
    cost: float = 1.0

    @property
    def is_bare(self) -> bool:
        """Whether it is the image itself."""
        return self.T == 1 and self.clip in (Genotype.identity(), FrameSet((Genotype.identity(),)))

    @property
    def clip(self) -> Clip | str:
        """The genotype or frame set; `preset:phases` as it is, since it depends on the network."""
        return self.genotype if self.genotype == PHASES else parse_clip(self.genotype)

    @property
    def is_listed(self) -> bool:
        """Whether the clip lists its frames, so that no schedule moves them."""
        return not isinstance(self.clip, Genotype)

    @property
    def is_inside(self) -> bool:
        """Whether frames begin inside of the network, at places that a trace finds."""
        return self.clip_at is not None or self.genotype == PHASES

    @property
    def frames(self) -> tuple[tuple[object, ...], str]:
        """What is averaged, and how: equal for a set of frames in whatever order."""
        clip = self.clip
        if isinstance(clip, FrameSet):
            return (*sorted(map(str, clip.frames[: self.T])), self.clip_at), self.aggregate
        return (str(clip), self.T, self.schedule, self.padding, self.clip_at), self.aggregate

    def wrap_options(self) -> dict[str, Any]:
        """What makes it of a trained network: `VideoWrap(net, "none", **finalist.wrap_options())`.

        Returns:
            Genotype, T, schedule, padding, interpolation, aggregate and, for a clip inside of the network, `clip_at`.
        """
        left_out = ("name", "title", "cost", *(() if self.clip_at else ("clip_at",)))
        said = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in left_out}
        return said | {"genotype": self.clip}

    @classmethod
    def found(cls, name: str, title: str, options: Mapping[str, Any], cost: float) -> Finalist:
        """The clip that a ranking or a search of frames found.

        Args:
            name: of the finalist.
            title: for people.
            options: what `wrap_options()` of the found clip gives.
            cost: as a multiple of the bare network's.

        Returns:
            The finalist.
        """
        said = {**options, "genotype": str(options["genotype"])}
        if said["aggregate"] == "auto":  # of a classifier
            said["aggregate"] = "mean"
        return cls(name, title, **said, cost=cost)


def bare_finalist() -> Finalist:
    """The image itself."""
    return Finalist("bare", "the bare network")


def plain_finalists(max_cost: float) -> list[Finalist]:
    """The plain averages of at most so many frames."""
    sets = [Finalist(name, title, text, T := FrameSet.parse(text).T, cost=T) for name, (title, text) in PLAIN.items()]
    return [finalist for finalist in sets if max_cost >= finalist.cost]
