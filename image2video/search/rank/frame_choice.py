"""The outcome of a greedy search of frames: the curve of gain against T, the set to use, and what may be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from image2video.clip.frame_set import FrameSet
from image2video.search.rank.gain import GainEstimate


@dataclass(frozen=True)
class FrameScores:
    """How good a set of frames is on some images; gains are over the image itself on the same images.

    Every `*_error` is one standard error, paired over the images. Losses are cross-entropies in nats.

    Attributes:
        images: how many images scored it.
        accuracy: the share of right answers, 0 … 1.
        loss: the cross-entropy.
        calibrated_loss: the cross-entropy after temperature scaling, with the temperature of the images that chose.
        gain: accuracy above that of the image itself; above 0 is better.
        gain_error: its error.
        loss_gain: loss above that of the image itself; below 0 is better.
        loss_gain_error: its error.
        calibrated_gain: calibrated loss above that of the image itself, which has a temperature of its own; below 0 is
            better.
        calibrated_gain_error: its error.
    """

    images: int
    accuracy: float
    loss: float
    calibrated_loss: float
    gain: float
    gain_error: float
    loss_gain: float
    loss_gain_error: float
    calibrated_gain: float
    calibrated_gain_error: float


@dataclass(frozen=True)
class CurvePoint:
    """The set of T frames that a greedy search found.

    Attributes:
        frames: the set, in the order of choice.
        aggregate: how the frames' predictions are averaged: `mean` of the logits, or `mean_prob`.
        temperature: of the set's average, fitted on the images that chose; above 1 the average is too sure.
        choosing: the scores on the images that chose; they flatter it.
        judging: the scores on images that chose nothing; None where there were none.
    """

    frames: FrameSet
    aggregate: str
    temperature: float
    choosing: FrameScores
    judging: FrameScores | None = None

    @property
    def T(self) -> int:  # noqa: N802 (the field's name for the number of frames)
        """Frames of the set, and its cost: so many of them go through the network per image."""
        return self.frames.T

    @property
    def scores(self) -> FrameScores:
        """Those of the images that chose nothing, where there were some, else those that chose."""
        return self.choosing if self.judging is None else self.judging

    def to_dict(self) -> dict[str, Any]:
        """The point for records.

        Returns:
            Plain JSON values, the set as text.
        """
        return {**asdict(self), "frames": str(self.frames), "T": self.T}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> CurvePoint:
        """The point that `to_dict` gave.

        Args:
            record: what it gave.

        Returns:
            An equal point.
        """
        judging = record["judging"]
        return cls(
            FrameSet.parse(record["frames"]),
            record["aggregate"],
            record["temperature"],
            FrameScores(**record["choosing"]),
            None if judging is None else FrameScores(**judging),
        )


@dataclass(frozen=True)
class FrameChoice:
    """What `greedy_frames` found.

    Attributes:
        best: the set to use, with provenance: the smallest set within `max_cost` frames whose criterion is within one
            standard error of the best one's, paired over the images that chose; of equally small ones the better one.
        points: the sets of every T and aggregate, `mean` first.
        choice: which of the points is the best one.
        decided: whether it is better than the image itself in accuracy: by the estimate where there is one, else
            whether its gain exceeds two standard errors on the images that chose it.
        criterion: what was raised: `calibrated` or `accuracy`.
        candidates: how many frames there were to choose from.
        images: images that chose.
        evaluated: frames that went through the network.
        seconds: time taken.
        interpolation: how frames are sampled.
        padding: what stands outside the image.
        estimate: what the best set gains on images that chose nothing; None where there were none.
    """

    best: FrameSet
    points: tuple[CurvePoint, ...]
    choice: int
    decided: bool
    criterion: str
    candidates: int
    images: int
    evaluated: int
    seconds: float
    padding: str = "reflection"
    interpolation: str = "bilinear"
    estimate: GainEstimate | None = None

    @property
    def best_point(self) -> CurvePoint:
        """The point of `best`."""
        return self.points[self.choice]

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """Gain against T, with the aggregate of the best set."""
        return tuple(point for point in self.points if point.aggregate == self.best_point.aggregate)

    @property
    def found_nothing(self) -> bool:
        """Whether the best set is the image itself."""
        return self.best.T == 1 and not self.best.frames[0].chain

    def wrap_options(self) -> dict[str, Any]:
        """What makes this set of frames of a trained network: `VideoWrap(net, "none", **choice.wrap_options())`.

        Returns:
            Genotype (the set), T, schedule, padding, interpolation and aggregate.
        """
        return {
            "genotype": self.best,
            "T": self.best.T,
            "schedule": "from_zero",
            "padding": self.padding,
            "interpolation": self.interpolation,
            "aggregate": self.best_point.aggregate,
        }

    def sentence(self) -> str:
        """What the search says, without claiming a gain that is not decided.

        Returns:
            One sentence.
        """
        point = self.best_point
        if self.found_nothing:
            return (
                f"No set of frames is better than the image itself by more than one standard error on {self.images} "
                f"held-out images ({100 * point.choosing.accuracy:.2f} %): the image is kept as it is."
            )
        verdict = "better than the image itself" if self.decided else "not decidedly better than the image itself"
        what = f"{self.best} (T = {point.T}, {point.aggregate})"
        if self.estimate is not None:
            return f"{what} is {verdict}: {self.estimate.text()}."
        gain = f"{100 * point.choosing.gain:+.2f} ± {100 * point.choosing.gain_error:.2f} points"
        return (
            f"{what} is {verdict}: {gain} on {self.images} held-out images (one standard error), which also chose it."
        )

    def to_dict(self) -> dict[str, Any]:
        """The outcome for records.

        Returns:
            Plain JSON values, without the duration.
        """
        plain = ("choice", "decided", "criterion", "candidates", "images", "evaluated", "padding", "interpolation")
        return {
            "best": str(self.best),
            **{name: getattr(self, name) for name in plain},
            "estimate": None if self.estimate is None else self.estimate.to_dict(),
            "points": [point.to_dict() for point in self.points],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], seconds: float = 0.0) -> FrameChoice:
        """The outcome that `to_dict` gave.

        Args:
            record: what it gave.
            seconds: the time taken, which records do not hold.

        Returns:
            The outcome; its best set comes without provenance.
        """
        points = tuple(CurvePoint.from_dict(point) for point in record["points"])
        judged = record["estimate"]
        estimate = None if judged is None else GainEstimate.from_dict(judged)
        best = FrameSet.parse(record["best"])
        return cls(**{**record, "best": best, "points": points, "estimate": estimate}, seconds=seconds)
