"""What an assessment found: the clips with their figures, the one to use, and three sentences about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from image2video.assess.figures import Figures, PixelFigures
from image2video.assess.finalists import Finalist
from image2video.search.rank.gain import INTERVAL, GainEstimate
from image2video.training import Cost

Verdict = Literal["better", "likelihood", "undecided", "keep"]


@dataclass(frozen=True)
class Row:
    """One clip with its figures.

    Attributes:
        finalist: the clip.
        choosing: its figures on the images that chose.
        judging: on the images that chose nothing.
        gain: over the bare network, on the images that chose nothing.
        single: cost of one image alone; None where it was not measured.
        batched: cost of an image in a batch; likewise.
        single_ms: milliseconds of one image alone in each round of measuring, in turn with the other network; empty
            where it was not measured.
    """

    finalist: Finalist
    choosing: Figures
    judging: Figures
    gain: GainEstimate
    single: Cost | None = None
    batched: Cost | None = None
    single_ms: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The row for records.

        Returns:
            Plain JSON values.
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Row:
        """The row that `to_dict` gave.

        Args:
            record: what it gave.

        Returns:
            An equal row.
        """
        costs = {name: None if record[name] is None else Cost(**record[name]) for name in ("single", "batched")}
        kind = PixelFigures if "pixel_accuracy" in record["judging"] else Figures
        return cls(
            Finalist(**record["finalist"]),
            kind.from_dict(record["choosing"]),
            kind.from_dict(record["judging"]),
            GainEstimate.from_dict(record["gain"]),
            **costs,
            single_ms=tuple(record.get("single_ms", ())),  # earlier versions measured one round
        )


@dataclass(frozen=True)
class Tuning:
    """Networks that were fine-tuned on the images that chose, at equal compute.

    Attributes:
        rows: the bare network, the clip averaged, the clip fused. `Row.choosing` is of the images that only fitted the
            temperature, `Row.gain` over the bare network as it came.
        against: what the averaged and the fused one gain over the fine-tuned bare one, by the names of their rows.
        images: that trained.
        epochs: of the averaged and the fused network.
    """

    rows: tuple[Row, ...]
    against: Mapping[str, GainEstimate]
    images: int
    epochs: int

    def sentence(self) -> str:
        """What fine-tuning gives, and whether the clip adds to it.

        Returns:
            One sentence.
        """
        accuracies = ", ".join(f"{row.finalist.title}: {100 * row.judging.accuracy:.2f} %" for row in self.rows)
        words = []
        for name, gain in self.against.items():
            low, high = (100 * end for end in gain.interval)
            decided = "decidedly better" if low > 0 else "decidedly worse" if high < 0 else "not decidedly different"
            words.append(
                f"{name.removeprefix('tuned_')} {100 * gain.gain:+.2f} points ({low:+.2f} … {high:+.2f}, {decided})"
            )
        return (
            f"Fine-tuned on {self.images} of the images that chose, at equal compute: {accuracies}; over the network "
            f"fine-tuned alone: {', '.join(words)}."
        )

    def to_dict(self) -> dict[str, Any]:
        """The networks for records.

        Returns:
            Plain JSON values.
        """
        return {
            "rows": [row.to_dict() for row in self.rows],
            "against": {name: gain.to_dict() for name, gain in self.against.items()},
            "images": self.images,
            "epochs": self.epochs,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Tuning:
        """The networks that `to_dict` gave.

        Args:
            record: what it gave.

        Returns:
            Equal ones.
        """
        return cls(
            tuple(Row.from_dict(row) for row in record["rows"]),
            {name: GainEstimate.from_dict(gain) for name, gain in record["against"].items()},
            images=record["images"],
            epochs=record["epochs"],
        )


@dataclass(frozen=True)
class Assessment:
    """Whether a clip helps a trained classifier, on which images, and at which cost.

    Attributes:
        rows: the bare network first, then the clips that were compared to the end.
        choice: which of the rows is the one to use; 0 where the model is to be kept as it is.
        candidates: how many chains and frames the searches looked at.
        max_cost: the most frames per image that were allowed.
        temperature: of the bare network, fitted on the images that chose.
        batch: images of a batch in `Row.batched`.
        seconds: time taken.
        input_size: (C, H, W) of the images.
        notes: what could not be looked at, and why.
        about: model, weights and data in words, for the report; empty where nobody said.
        tuning: what fine-tuning gives beside it; None where nobody asked.
    """

    rows: tuple[Row, ...]
    choice: int
    candidates: int
    max_cost: float
    temperature: float
    batch: int
    seconds: float
    input_size: tuple[int, int, int]
    notes: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    tuning: Tuning | None = None

    metric: ClassVar[str] = "accuracy"
    """What `Figures.accuracy` is."""
    kind: ClassVar[str] = "assessment"
    """What the record is."""
    verdicts: ClassVar[Mapping[Verdict, str]] = {
        "better": "decidedly right more often",
        "likelihood": "decidedly better in its probabilities, undecided in accuracy",
        "undecided": "not decidedly better",
        "keep": "decidedly worse on the images that chose nothing",
    }
    """What each verdict says of the chosen clip."""

    @property
    def bare(self) -> Row:
        """The row of the bare network."""
        return self.rows[0]

    @property
    def chosen(self) -> Row:
        """The row to use."""
        return self.rows[self.choice]

    @property
    def advised(self) -> Row:
        """The row that the last sentence speaks for: the chosen one where it is decidedly better, else the bare one."""
        return self.chosen if self.verdict in ("better", "likelihood") else self.bare

    @property
    def verdict(self) -> Verdict:
        """What the images that chose nothing say of the chosen clip.

        `better`: it is right more often, the 95 % interval lies above 0. `likelihood`: its probabilities are better
        after temperature scaling of both, likewise, and it is not decidedly wrong more often. `keep`: nothing was
        chosen, or what was chosen is decidedly worse. `undecided`: none of these.
        """
        gain = self.chosen.gain
        _, high = gain.interval
        if self.chosen.finalist.is_bare or high < 0:
            return "keep"
        if gain.decided:
            return "better"
        scaled, error = gain.scaled_loss_gain, gain.scaled_loss_gain_error
        if scaled is not None and error is not None and scaled + INTERVAL * error < 0:
            return "likelihood"
        return "undecided"

    @property
    def images_to_decide(self) -> int | None:
        """How many labelled images it would take to decide a gain in accuracy of the size that was seen.

        None where it is decided already, or where the gain that was seen is none.
        """
        gain = self.chosen.gain
        if self.verdict != "undecided" or gain.gain <= 0:
            return None
        share = gain.images / (gain.images + self.chosen.choosing.images)
        return math.ceil(gain.images * (INTERVAL * gain.gain_error / gain.gain) ** 2 / share)

    def wrap_options(self) -> dict[str, Any]:
        """What makes the advised clip of the model: `VideoWrap(net, "none", **assessment.wrap_options())`.

        Returns:
            The arguments; those of one frame, the image itself, where the model is to be kept.
        """
        return self.advised.finalist.wrap_options()

    def sentences(self) -> tuple[str, str, str]:
        """What was done, what came out, and what to do next.

        Returns:
            Three sentences.
        """
        chosen, bare = self.chosen, self.bare
        clip, n = chosen.finalist, chosen.gain.images
        done = (
            f"{self.candidates} chains and frames at up to {self.max_cost:g} times the cost of the image were compared "
            f"on {chosen.choosing.images} labelled images, and what they chose was judged on {n} others."
        )
        if clip.is_bare:
            return done, self._kept(), "Keep your model as it is."
        low, high = (100 * end for end in chosen.gain.interval)
        schedule = "" if clip.is_listed else f", {clip.schedule}"
        place = "" if clip.clip_at is None else f" at {clip.clip_at}"
        found = f"{clip.genotype}{place} (T = {clip.T}{schedule}, {clip.aggregate})"
        points = (
            f"{self.metric} {100 * bare.judging.accuracy:.2f} → {100 * chosen.judging.accuracy:.2f} %, "
            f"{100 * chosen.gain.gain:+.2f} points (95 % interval {low:+.2f} … {high:+.2f})"
        )
        loss = self._loss_words()
        cost = "as much as the image" if clip.cost == 1 else f"{clip.cost:.3g} times the image"
        out = f"{found} costs {cost} and is {self.verdicts[self.verdict]}: {points}{loss}."
        return done, out, self._next()

    def _kept(self) -> str:
        bare = self.bare.judging
        return (
            "No clip is better than the image itself by more than one standard error on the images that chose "
            f"(bare {self.metric} {100 * bare.accuracy:.2f} %, cross-entropy {bare.loss:.4f} on the others)."
        )

    def _loss_words(self) -> str:
        gain = self.chosen.gain
        if gain.scaled_loss_gain is None or gain.scaled_loss_gain_error is None:
            return ""
        return (
            f", cross-entropy {gain.scaled_loss_gain:+.4f} ± {INTERVAL * gain.scaled_loss_gain_error:.4f} where both "
            "are temperature-scaled"
        )

    def line(self) -> str:
        """What makes the chosen clip of the model, as a line of a program.

        Returns:
            The line.
        """
        words = {
            name: str(value) if name == "genotype" else value
            for name, value in self.chosen.finalist.wrap_options().items()
        }
        return f'VideoWrap(net, "none", {", ".join(f"{name}={value!r}" for name, value in words.items())})'

    def _next(self) -> str:
        line = self.line()
        if self.verdict == "keep":
            return "Keep your model as it is."
        if self.verdict == "undecided":
            more = self.images_to_decide
            need = "" if more is None else f", or label about {more} images, which would decide a gain of this size"
            return f"Keep your model as it is{need}; {line} would be the clip."
        return f"Use it: {line}."

    def to_dict(self) -> dict[str, Any]:
        """The assessment for records.

        Returns:
            Plain JSON values.
        """
        plain = ("choice", "candidates", "max_cost", "temperature", "batch", "seconds")
        return {
            "kind": self.kind,
            "schema_version": 1,
            "verdict": self.verdict,
            "sentences": list(self.sentences()),
            **{name: getattr(self, name) for name in plain},
            "input_size": list(self.input_size),
            "notes": list(self.notes),
            "about": dict(self.about),
            "rows": [row.to_dict() for row in self.rows],
            "tuning": None if self.tuning is None else self.tuning.to_dict(),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Assessment:
        """The assessment that `to_dict` gave.

        Args:
            record: what it gave.

        Returns:
            An equal assessment.
        """
        left_out = ("kind", "schema_version", "verdict", "sentences", "rows", "input_size", "notes", "tuning")
        values = {name: value for name, value in record.items() if name not in left_out}
        rows = tuple(Row.from_dict(row) for row in record["rows"])
        tuning = record.get("tuning")  # earlier versions had none
        return cls(
            rows,
            **values,
            input_size=tuple(record["input_size"]),
            notes=tuple(record["notes"]),
            tuning=None if tuning is None else Tuning.from_dict(tuning),
        )
