"""The outcome of ranking chains: scores with errors, and what may be said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from image2video.clip.deep_clip import DeepClip
from image2video.clip.deep_text import is_deep_text
from image2video.clip.genotype import Genotype
from image2video.search.rank.clip_candidate import Chains, ClipCandidate, transforms_of
from image2video.search.rank.gain import GainEstimate
from image2video.search.rank.places import LeftOut, Together
from image2video.search.score.scores import Scores
from image2video.trace.places import IMAGE
from image2video.wrap.steps import found_at

TOLERANCE = 1.0
"""Standard errors within which two chains count as equal when the simplest of the best is chosen."""

DECIDED = 2.0
"""Standard errors by which a gap must exceed zero before it is called decided."""


@dataclass(frozen=True)
class RankedGenotype:
    """One chain with its scores on held-out images; gains are over the identity on the same images.

    Every `*_error` is one standard error. `gain` > 0 and `loss_gain` < 0 are better than the identity.

    Attributes:
        genotype: the chain, or the chains at several places of the network, which it names.
        images: how many images scored it.
        accuracy: the task's metric, 0 … 1.
        accuracy_error: its error.
        loss: the mean loss, such as nats.
        loss_error: its error.
        gain: accuracy above that of the identity.
        gain_error: its error, paired over the images.
        loss_gain: loss above that of the identity.
        loss_gain_error: its error, paired over the images.
        T: frames of the clip; None in records that do not tell.
        schedule: their powers; likewise.
        padding: what stands outside the image; likewise.
        aggregate: how the frames' logits are averaged: `mean` or `mean_prob`.
        cost: multiply-accumulates per image as a multiple of the bare network's; of clips that begin at the image the
            frames that go through the network. None in records that do not tell.
        macs: multiply-accumulates per image; likewise.
        place: the module at whose input the clip begins, None for the image and where the genotype names its places.
    """

    genotype: Chains
    images: int
    accuracy: float
    accuracy_error: float
    loss: float
    loss_error: float
    gain: float
    gain_error: float
    loss_gain: float
    loss_gain_error: float
    T: int | None = None
    schedule: str | None = None
    padding: str | None = None
    aggregate: str = "mean"
    cost: float | None = None
    macs: float | None = None
    place: str | None = None

    @property
    def is_still(self) -> bool:
        """Whether all frames are the image itself."""
        return transforms_of(self.genotype) == 0

    def wrap_options(self) -> dict[str, Any]:
        """What makes this clip of a trained network: `VideoWrap(net, "none", **entry.wrap_options())`.

        Returns:
            Genotype, T, schedule, padding, aggregate and, where the clip begins inside of the network, `clip_at`, as
            far as they are known; T = 1 for the identity.
        """
        if self.is_still:
            return {"genotype": Genotype.identity() if isinstance(self.genotype, DeepClip) else self.genotype, "T": 1}
        # Of vectors `auto` is the mean; maps were scored unwarped, which it does too.
        how = "auto" if self.aggregate == "mean" else self.aggregate
        known = {"T": self.T, "schedule": self.schedule, "padding": self.padding, "aggregate": how}
        known["clip_at"] = self.place or (None if found_at(self.genotype) is None else IMAGE)
        return {"genotype": self.genotype, **{name: value for name, value in known.items() if value is not None}}

    def to_dict(self) -> dict[str, Any]:
        """The entry for records.

        Returns:
            Plain JSON values, the genotype as text; no place for the image.
        """
        values = {name: value for name, value in asdict(self).items() if name != "genotype"}
        if self.place is None:
            del values["place"]
        return {"genotype": str(self.genotype), **values}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> RankedGenotype:
        """The entry that `to_dict` gave.

        Args:
            record: what it gave.

        Returns:
            An equal entry.
        """
        return cls(**{**record, "genotype": _parsed(record["genotype"])})


@dataclass(frozen=True)
class Ranking:
    """Chains ranked by held-out accuracy under one set of weights: of a trained model, or of a one-shot network.

    Args:
        entries: finalists first, by accuracy and then loss; after them what was eliminated, latest round first.
        finalists: how many entries were scored on all images.
        best: the chain to use, with provenance. For a trained model: the cheapest finalist, and of these the shortest,
            whose accuracy is within one standard error of the first one's *and* whose loss is within one standard error
            of the first one's (paired over the images); among equal ones the higher ranked. So the identity stays
            unless something is better than it. For a one-shot network: the first.
        decided: whether the best chain is better than the identity: by the estimate, where there is one, else whether
            its gain exceeds two standard errors. Without an estimate the best of many is flattered by its choice, and
            more so the closer they lie.
        images: held-out images that chose.
        frames: frames that went through the model.
        seconds: time taken.
        tied: how many other finalists lie within two standard errors of the first one.
        metric: what accuracy is: `accuracy`, or another task's metric.
        estimate: what the best chain gains on images that chose nothing; None where there were none.
        choice: where among the entries the best one stands; None in records that do not tell.
        left_out: what cost more than the ranking allowed, and was not scored.
    """

    entries: tuple[RankedGenotype, ...]
    finalists: int
    best: Chains
    decided: bool
    images: int
    frames: int
    seconds: float
    tied: int = 0
    metric: str = "accuracy"
    estimate: GainEstimate | None = None
    choice: int | None = None
    left_out: tuple[LeftOut, ...] = ()

    @property
    def best_entry(self) -> RankedGenotype:
        """The entry of `best`."""
        if self.choice is not None:
            return self.entries[self.choice]
        return next(entry for entry in self.entries if entry.genotype == self.best)

    @property
    def identity(self) -> RankedGenotype:
        """The entry of the identity, the reference."""
        return next(entry for entry in self.entries if entry.is_still)

    @property
    def front(self) -> tuple[RankedGenotype, ...]:
        """Gain against cost: for each cost the highest ranked finalist, cheapest first."""
        best: dict[float, RankedGenotype] = {}
        for entry in self.entries[: self.finalists]:
            if entry.cost is not None:
                best.setdefault(entry.cost, entry)
        return tuple(best[cost] for cost in sorted(best))

    def sentence(self) -> str:
        """What the ranking says, without claiming a gain that is not decided.

        Returns:
            One sentence.
        """
        entry = self.best_entry
        if transforms_of(self.best) == 0:
            return (
                f"No chain is better than the image itself on {self.images} held-out images "
                f"({100 * entry.accuracy:.2f} %): the identity is kept."
            )
        verdict = "better than the image itself" if self.decided else "not decidedly better than the image itself"
        clip = str(self.best) if entry.place is None else f"{self.best} at {entry.place}"
        if self.estimate is not None:
            return f"{clip} is {verdict}: {self.estimate.text()}."
        gain = f"{100 * entry.gain:+.2f} ± {100 * entry.gain_error:.2f} points on {entry.images} held-out images"
        return f"{clip} is {verdict}: {gain} (one standard error), which also chose it."

    def tied_sentence(self) -> str:
        """How many finalists other held-out images could put first.

        Returns:
            One sentence.
        """
        return (
            f"{self.tied} of the {self.finalists - 1} other finalists lie within two standard errors of the first one."
        )

    def left_out_sentence(self) -> str:
        """What was left out for its cost.

        Returns:
            One sentence; empty where nothing was.
        """
        if not self.left_out:
            return ""
        return f"Left out for their cost (multiples of the bare network): {', '.join(map(str, self.left_out))}."

    def to_dict(self) -> dict[str, Any]:
        """The ranking for records.

        Returns:
            Plain JSON values, without durations; `left_out` only where something was.
        """
        return {
            "best": str(self.best),
            "decided": self.decided,
            "tied": self.tied,
            "finalists": self.finalists,
            "images": self.images,
            "frames": self.frames,
            "metric": self.metric,
            "choice": self.choice,
            "estimate": None if self.estimate is None else self.estimate.to_dict(),
            "entries": [entry.to_dict() for entry in self.entries],
            **({"left_out": [asdict(clip) for clip in self.left_out]} if self.left_out else {}),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], seconds: float = 0.0) -> Ranking:
        """The ranking that `to_dict` gave.

        Args:
            record: what it gave.
            seconds: the time taken, which records do not hold.

        Returns:
            The ranking; its best chain comes without provenance.
        """
        entries = tuple(RankedGenotype.from_dict(entry) for entry in record["entries"])
        judged = record.get("estimate")  # older records have none
        estimate = None if judged is None else GainEstimate.from_dict(judged)
        best = _parsed(record["best"])
        left_out = tuple(LeftOut(**clip) for clip in record.get("left_out", ()))
        values = {"best": best, "entries": entries, "estimate": estimate, "left_out": left_out}
        return cls(**{**record, **values}, seconds=seconds)


def _parsed(text: str) -> Chains:
    """The chain, or the chains at several places, of a record."""
    return DeepClip.parse(text) if is_deep_text(text) else Genotype.parse(text)


def criterion_first(criterion: str, accuracy: float, loss: float, position: int) -> tuple[float, float, int]:
    """A sorting key: the criterion decides, the other value breaks ties, the position those that are left."""
    return (accuracy, loss, position) if criterion == "accuracy" else (loss, accuracy, position)


def order_of(scores: Scores, criterion: str = "accuracy") -> list[int]:
    """The variants by accuracy, ties by loss (`criterion="loss"`: the reverse), further ties by position."""
    return sorted(
        range(scores.variants),
        key=lambda variant: criterion_first(criterion, -scores.accuracy(variant), scores.mean_loss(variant), variant),
    )


def lead_of(scores: Scores, better: int, worse: int, criterion: str) -> tuple[float, float]:
    """By how much one variant is better than another one, in the criterion's unit, with its standard error."""
    return scores.accuracy_gap(better, worse) if criterion == "accuracy" else scores.loss_gap(worse, better)


def simplest_of_the_best(clips: Sequence[ClipCandidate], scores: Scores) -> int:
    """The variant that `Ranking.best` describes for a trained model."""
    order = order_of(scores)
    first = order[0]
    equal = []
    for place, variant in enumerate(order):
        behind, error = scores.accuracy_gap(first, variant)
        worse, loss_error = scores.loss_gap(variant, first)
        if behind <= TOLERANCE * error and worse <= TOLERANCE * loss_error:
            equal.append((clips[variant].cost, transforms_of(clips[variant].genotype), place, variant))
    return min(equal)[3]


def is_decided(scores: Scores, variant: int, other: int, criterion: str = "accuracy") -> bool:
    """Whether a variant's lead over another one exceeds two standard errors."""
    if variant == other:
        return False
    lead, error = lead_of(scores, variant, other, criterion)
    return lead > 0 and lead > DECIDED * error


def count_tied(scores: Scores, criterion: str = "accuracy") -> int:
    """How many variants the first one's lead over is not decided."""
    first, *others = order_of(scores, criterion)
    return sum(not is_decided(scores, first, variant, criterion) for variant in others)


@dataclass(frozen=True)
class Outcome:
    """What successive halving found out.

    Attributes:
        clips: what was ranked; the first one is the identity.
        survivors: the finalists, as positions in `clips`.
        scores: of the finalists, in their order, on all images.
        eliminated: the others, latest first: the position in `clips`, and the scores at which it left. These are of
            two variants, the clip and the identity.
        criterion: what ordered the clips, see `order_of`.
    """

    clips: tuple[ClipCandidate, ...]
    survivors: list[int]
    scores: Scores
    eliminated: list[tuple[int, Scores]]
    criterion: str = "accuracy"

    @property
    def finalists(self) -> list[ClipCandidate]:
        """The clips that were scored on all images."""
        return [self.clips[position] for position in self.survivors]

    @property
    def scored(self) -> int:
        """How many images were scored, over all chains."""
        return len(self.survivors) * self.scores.n + sum(pair.n for _, pair in self.eliminated)

    def ranking(
        self, best: int, *, frames: int, seconds: float, metric: str, frame_macs: float | None = None
    ) -> Ranking:
        """The ranking in which the finalist number `best` is to be used; a frame costs `frame_macs`."""
        scores, criterion = self.scores, self.criterion
        identity = self.survivors.index(0)
        order = order_of(scores, criterion)
        entries = [_entry(self.finalists[v], scores, v, identity, frame_macs) for v in order]
        entries += [_entry(self.clips[position], pair, 0, 1, frame_macs) for position, pair in self.eliminated]
        return Ranking(
            tuple(entries),
            len(self.survivors),
            self.finalists[best].genotype,
            is_decided(scores, best, identity, criterion),
            scores.n,
            frames,
            seconds,
            count_tied(scores, criterion),
            metric,
            choice=order.index(best),
        )


def _entry(
    clip: ClipCandidate, scores: Scores, variant: int, identity: int, frame_macs: float | None
) -> RankedGenotype:
    options = clip.options
    return RankedGenotype(
        clip.genotype,
        scores.n,
        scores.accuracy(variant),
        scores.accuracy_error(variant),
        scores.mean_loss(variant),
        scores.loss_error(variant),
        *scores.accuracy_gap(variant, identity),
        *scores.loss_gap(variant, identity),
        T=options.T,
        schedule=options.schedule,
        padding=options.padding,
        aggregate=clip.aggregate,
        cost=clip.cost,
        macs=None if frame_macs is None else clip.cost * frame_macs,
        place=None if clip.place is None or isinstance(clip.place, Together) else clip.place.name,
    )
