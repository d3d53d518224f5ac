"""The runs of a comparison: one arm with one seed at a time, each written as soon as it is finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from image2video.experiments.arms import Arm, training_frames
from image2video.experiments.bench import Bench
from image2video.experiments.book import RunFiles
from image2video.experiments.fields import measure_fields
from image2video.experiments.genotypes import Chosen
from image2video.experiments.outcome import arm_record
from image2video.experiments.run import run_arm, train_steps
from image2video.protocols import Progress
from image2video.runs.folders import OutputDirectory, atomic_torch_save

Choose = Callable[[Arm, int, nn.Module], Chosen | None]
"""`(arm, seed, model)`: the genotype of an arm, and `model` is the bare network with the weights it starts from."""


@dataclass(frozen=True)
class ArmRun:
    """An arm with one seed."""

    arm: str
    seed: int

    @property
    def stem(self) -> str:
        """The name of its files."""
        return f"{self.arm}-seed{self.seed}"


class Comparison:
    """The runs of a comparison in one folder, and the records of those that are finished.

    Args:
        bench: what all of them share.
        arms: those that start from another come after it.
        folder: takes records, weights and trainings.
        choose: gives the genotype of an arm.
        seeds: in order; the first is the one whose receptive fields are measured.
        checkpoints: keep a folder of every training, so that a killed run goes on inside it.
        fields: names of the arms whose receptive fields are measured.
        progress: called with the steps of every training, and with the frames of all.
    """

    def __init__(
        self,
        bench: Bench,
        arms: Sequence[Arm],
        folder: OutputDirectory,
        choose: Choose,
        *,
        seeds: Sequence[int],
        checkpoints: bool = False,
        fields: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        self.bench, self.arms, self.seeds = bench, arms, tuple(seeds)
        self.files: RunFiles[ArmRun] = RunFiles(folder)
        self._choose, self._checkpoints, self._field_arms, self._progress = choose, checkpoints, tuple(fields), progress
        self._records: dict[ArmRun, dict[str, Any]] = {}
        self._starts = {arm.start for arm in arms if arm.start is not None}
        self._planned = training_frames(
            arms,
            images=bench.data.train.num_images,
            T=bench.clip.T,
            epochs=bench.epochs,
            finetune_epochs=bench.finetune_epochs,
        )

    def run(self, arm: Arm, seed: int) -> dict[str, Any]:
        """The record of one arm and seed: read where it is finished, else trained and written."""
        one = ArmRun(arm.name, seed)
        record = self.files.read(one)
        # An arm that others start from is of use only with its weights.
        if record is None or (arm.name in self._starts and not self.files.weights_path(one).is_file()):
            record, weights = self._run(arm, one)
            if arm.name in self._starts:
                atomic_torch_save(self.files.weights_path(one), weights)
            self.files.write(one, record)
        self._records[one] = record
        if self._progress is not None:
            done = sum(self._planned[finished.arm] for finished in self._records)
            total = sum(self._planned.values()) * len(self.seeds)
            self._progress("training frames of all arms", done, total)
        return record

    def _run(self, arm: Arm, one: ArmRun) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Train and test one arm with one seed: its record and its last weights."""
        bench, seed = self.bench, one.seed
        start = None if arm.start is None else ArmRun(arm.start, seed)
        model = bench.network(seed, None if start is None else self.files.weights_path(start))
        chosen = self._choose(arm, seed, model)
        finished = run_arm(
            bench,
            arm,
            seed,
            bench.wrapped(model, arm, None if chosen is None else chosen.genotype, seed),
            chosen,
            training=self.files.training_path(one) if self._checkpoints else None,
            progress=train_steps(self._progress, f"{arm.title}, seed {seed}"),
        )
        figures = dict(finished.record)
        del figures["T"]  # of the arm, which `frames` and `images_seen` say
        record = {
            "arm": arm.name,
            "seed": seed,
            "accuracy": figures.pop("score"),
            **figures,
            "genotype": figures["genotype"] or "none",
            "start_frames": 0 if start is None else self._frames_so_far(start),
            "curve": finished.curve,
        }
        if arm.name in self._field_arms and seed == self.seeds[0]:
            record["fields"] = measure_fields(finished.model, bench.data, arm.title)
        return record, finished.weights()

    def _frames_so_far(self, one: ArmRun) -> int:
        """The training frames that the last weights of a finished run have seen."""
        record = self._records[one]
        return int(record["frames"] + record["start_frames"])

    def field_records(self) -> list[dict[str, Any]]:
        """What was measured of the receptive fields of the first seed, in the order that the fields were asked for."""
        runs = [self._records.get(ArmRun(name, self.seeds[0]), {}) for name in self._field_arms]
        return [run["fields"] for run in runs if "fields" in run]

    def arm_records(self) -> list[dict[str, Any]]:
        """The arms with their runs, as `result.json` holds them."""
        records = []
        for arm in self.arms:
            found = [self._records[one] for seed in self.seeds if (one := ArmRun(arm.name, seed)) in self._records]
            # `result.json` has the fields of all arms in one place.
            runs = [{key: value for key, value in run.items() if key != "fields"} for run in found]
            records.append(arm_record(arm, runs))
        return records
