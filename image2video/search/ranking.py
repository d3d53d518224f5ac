"""The outcome of ranking chains for a trained model: scores with errors, and what may be said about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from image2video.genotype import Genotype
from image2video.search.measure import PairedScores

TOLERANCE = 1.0
"""Standard errors within which two chains count as equal when the simplest of the best is chosen."""

DECIDED = 2.0
"""Standard errors by which a gain over the identity must exceed zero before it is called decided."""


@dataclass(frozen=True)
class RankedGenotype:
    """One chain with its scores on `images` held-out images; gains are over the identity on the same images.

    Accuracies are 0 … 1, losses nats; every `*_error` is one standard error. `gain` > 0 and `loss_gain` < 0 are better
    than the identity.
    """

    genotype: Genotype
    images: int
    accuracy: float
    accuracy_error: float
    loss: float
    loss_error: float
    gain: float
    gain_error: float
    loss_gain: float
    loss_gain_error: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the genotype as text."""
        values = {name: value for name, value in asdict(self).items() if name != "genotype"}
        return {"genotype": str(self.genotype), **values}


@dataclass(frozen=True)
class Ranking:
    """Chains ranked by held-out accuracy of the averaged predictions of a model that is left as it is.

    Args:
        entries: finalists first, by accuracy and then loss; after them what was eliminated, latest round first.
        finalists: how many entries were scored on all images.
        best: the chain to use, with provenance: the shortest finalist whose accuracy is within one standard error of
            the first one's *and* whose loss is within one standard error of the first one's (paired over the images);
            among equally short ones the higher ranked. So the identity stays unless something is better than it.
        decided: whether the best chain's gain in accuracy over the identity exceeds two standard errors. The best of
            many is flattered by its choice, and more so the closer they lie: confirm on images that chose nothing.
        images: held-out images in all.
        frames: frames that went through the model.
        seconds: time taken.

    """

    entries: tuple[RankedGenotype, ...]
    finalists: int
    best: Genotype
    decided: bool
    images: int
    frames: int
    seconds: float

    @property
    def best_entry(self) -> RankedGenotype:
        """The entry of `best`."""
        return next(entry for entry in self.entries if entry.genotype == self.best)

    @property
    def identity(self) -> RankedGenotype:
        """The entry of the identity, the reference."""
        return next(entry for entry in self.entries if not entry.genotype.chain)

    def sentence(self) -> str:
        """What the ranking says, in one sentence that claims no gain which is not decided."""
        entry = self.best_entry
        if not self.best.chain:
            return (
                f"No chain is better than the image itself on {self.images} held-out images "
                f"({100 * entry.accuracy:.2f} %): the identity is kept."
            )
        gain = f"{100 * entry.gain:+.2f} ± {100 * entry.gain_error:.2f} points on {entry.images} held-out images"
        verdict = "better than the image itself" if self.decided else "not decidedly better than the image itself"
        return f"{self.best} is {verdict}: {gain} (one standard error)."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without durations."""
        return {
            "best": str(self.best),
            "decided": self.decided,
            "finalists": self.finalists,
            "images": self.images,
            "frames": self.frames,
            "entries": [entry.to_dict() for entry in self.entries],
        }


def order_of(scores: PairedScores) -> list[int]:
    """The variants by accuracy, ties by loss, further ties by position."""
    return sorted(range(len(scores.correct)), key=lambda v: (-float(scores.correct[v]), float(scores.loss[v]), v))


def entry_of(genotype: Genotype, scores: PairedScores, variant: int, identity: int) -> RankedGenotype:
    """The entry of one variant."""
    gain, loss_gain = scores.accuracy_gap(variant, identity), scores.loss_gap(variant, identity)
    return RankedGenotype(
        genotype,
        scores.n,
        scores.accuracy(variant),
        scores.accuracy_error(variant),
        scores.mean_loss(variant),
        scores.loss_error(variant),
        *gain,
        *loss_gain,
    )


def simplest_of_the_best(genotypes: Sequence[Genotype], scores: PairedScores) -> int:
    """The variant that `Ranking.best` describes."""
    order = order_of(scores)
    first = order[0]
    equal = []
    for place, variant in enumerate(order):
        behind, error = scores.accuracy_gap(first, variant)
        worse, loss_error = scores.loss_gap(variant, first)
        if behind <= TOLERANCE * error and worse <= TOLERANCE * loss_error:
            equal.append((len(genotypes[variant].chain), place, variant))
    return min(equal)[2]


def is_decided(scores: PairedScores, variant: int, identity: int) -> bool:
    """Whether the variant's gain in accuracy over the identity exceeds two standard errors."""
    gain, error = scores.accuracy_gap(variant, identity)
    return variant != identity and gain > 0 and gain > DECIDED * error
