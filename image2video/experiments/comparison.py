"""The runs of a comparison: one arm with one seed at a time, each written as soon as it is finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from image2video.clip.genotype import Genotype
from image2video.data import DataSource
from image2video.experiments.arms import Arm, training_frames
from image2video.experiments.config import DemoConfig
from image2video.experiments.fields import measure_fields
from image2video.experiments.genotypes import Chooser, GenotypeChooser
from image2video.experiments.settings import ComparisonSettings
from image2video.integrations.timm_backbones import build
from image2video.protocols import Progress
from image2video.runs.folders import OutputDirectory, atomic_torch_save, atomic_write_json, read_json, torch_load
from image2video.training import Metrics, TrainResult, evaluate, make_accelerator, measure_cost, train
from image2video.training.recipe import autocast_dtype
from image2video.wrap.video_wrap import VideoWrap

_COST_BATCH = 64


class Comparison:
    """The state of one comparison: data, device, the genotypes chosen so far, and the records of finished runs."""

    def __init__(
        self,
        config: ComparisonSettings,
        arms: Sequence[Arm],
        data: DataSource,
        folder: OutputDirectory,
        progress: Progress | None = None,
        *,
        accelerator: Accelerator | None = None,
        network: Callable[[int], nn.Module] | None = None,
        genotypes: Chooser | None = None,
        fields: Sequence[str] = (),
    ) -> None:
        self.config, self.arms, self.data, self.folder = config, arms, data, folder
        self._field_arms = tuple(fields)
        self.accelerator: Accelerator = accelerator or make_accelerator(config.device)
        self._progress = progress
        self._build = network or self._timm_network
        self._runs: dict[tuple[str, int], dict[str, Any]] = {}
        self._starts = {arm.start for arm in arms if arm.start is not None}
        if genotypes is None:
            assert isinstance(config, DemoConfig)  # other settings say nothing of a search
            genotypes = GenotypeChooser(config, data, folder, self.accelerator, self.network, progress)
        self.genotypes: Chooser = genotypes
        self._planned = training_frames(
            arms,
            images=data.train.num_images,
            T=config.frames,
            epochs=config.epochs,
            finetune_epochs=config.finetune_epochs,
        )

    def network(self, seed: int) -> nn.Module:
        """A fresh bare network on the device: equal weights for equal seeds, so that arms are paired."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._build(seed).to(self.accelerator.device)

    def _timm_network(self, seed: int) -> nn.Module:
        channels = self.data.input_size[0]
        return build(self.config.model, num_classes=self.data.num_classes, in_chans=channels)

    def run(self, arm: Arm, seed: int) -> dict[str, Any]:
        """The record of one arm and seed: read where it is finished, else trained and written."""
        name = f"{arm.name}-seed{seed}"
        path = self.folder / "runs" / f"{name}.json"
        if path.is_file() and (arm.name not in self._starts or self._weights(name).is_file()):
            record = read_json(path)
        else:
            record, state = self._run(arm, seed, name)
            if arm.name in self._starts:
                atomic_torch_save(self._weights(name), state)
            atomic_write_json(path, record)
        self._runs[arm.name, seed] = record
        if self._progress is not None:
            total = sum(self._planned.values()) * self.config.seeds
            done = sum(self._planned[a] for a, _ in self._runs)
            self._progress("training frames of all arms", done, total)
        return record

    def _run(self, arm: Arm, seed: int, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Train and test one arm with one seed; gives its record and its last weights."""
        config, start = self.config, None
        model = self.network(seed)
        if arm.start is not None:
            start = self._runs[arm.start, seed]
            model.load_state_dict(torch_load(self._weights(f"{arm.start}-seed{seed}")))
        genotype = self.genotypes.choose(arm, seed, model)
        began = time.perf_counter()
        model = self._wrapped(model, arm, genotype, seed)
        epochs = arm.epochs(config.epochs, config.finetune_epochs)
        per_image = arm.frames_per_image(config.frames)
        record: dict[str, Any] = {
            "arm": arm.name,
            "seed": seed,
            "genotype": "none" if genotype is None else str(genotype),
        }
        if epochs:
            result = self._train(model, arm, epochs, seed, name)
            record |= _trained(result, self.data.train.num_images * per_image)
        else:
            metrics = self._evaluate(model)
            record |= {"accuracy": 100 * metrics.score, "loss": metrics.loss, "curve": []}
        cost = measure_cost(model, self.data.input_size, _COST_BATCH, repeats=5)
        images = epochs * self.data.train.num_images
        record |= {
            "epochs": epochs,
            "images_seen": images,
            "frames": images * per_image,
            "start_frames": 0 if start is None else start["frames"] + start["start_frames"],
            "parameters": cost.params,
            "macs": cost.macs_per_image,
            "ms": cost.ms_per_image,
            "peak_mib": cost.peak_mib_per_image,
            "seconds": time.perf_counter() - began,
        }
        if arm.name in self._field_arms and seed == config.seed:
            record["fields"] = measure_fields(model, self.data, arm.title)
        return record, {key: value.detach().cpu() for key, value in model.state_dict().items()}

    def _wrapped(self, model: nn.Module, arm: Arm, genotype: Genotype | None, seed: int) -> nn.Module:
        """The network as the arm sees it; fusions on trained weights start as none, others are as published."""
        if genotype is None or arm.fusion is None:
            return model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return VideoWrap(
                model,
                arm.fusion,
                genotype=genotype,
                T=self.config.frames,
                schedule=self.config.schedule,
                residual=arm.start is not None or self.config.trained,
                input_size=self.data.input_size,
                padding=self.config.padding,
                interpolation=self.config.interpolation,
                mean=self.data.mean,
                std=self.data.std,
            ).to(self.accelerator.device)

    def _train(self, model: nn.Module, arm: Arm, epochs: int, seed: int, name: str) -> TrainResult:
        """Train in memory, or in a folder of its own that a killed comparison resumes from."""
        config = self.config.training(epochs, seed, finetune=arm.budget == "finetune")
        out = self.folder / "training" / name if self.config.checkpoints else None
        title = f"{arm.title}, seed {seed}"

        def progress(stage: str, done: int, total: int, **figures: float) -> None:
            if self._progress is not None and stage == "train":
                self._progress(title, done, total, **figures)

        return train(
            model,
            self.data,
            config,
            out=out,
            resume=out is not None,
            progress=progress,
            accelerator=self.accelerator,
        )

    def _evaluate(self, model: nn.Module) -> Metrics:
        """Test an arm that is not trained, with the precision and layout of those that are."""
        device, recipe = self.accelerator.device, self.config.training(1, self.config.seed, finetune=True)
        batches = self.data.test.batches(recipe.batch_size, device=device)
        return evaluate(
            model, batches, device, autocast=autocast_dtype(recipe, device), channels_last=recipe.channels_last
        )

    def _weights(self, name: str) -> Path:
        return self.folder / "weights" / f"{name}.pt"

    def field_records(self) -> list[dict[str, Any]]:
        """What was measured of the receptive fields of the first seed, in the order that the fields were asked for."""
        runs = [self._runs.get((name, self.config.seed), {}) for name in self._field_arms]
        return [run["fields"] for run in runs if "fields" in run]

    def arm_records(self) -> list[dict[str, Any]]:
        """The arms with their runs, as `result.json` holds them."""
        records = []
        for arm in self.arms:
            found = [self._runs[arm.name, seed] for seed in self.config.all_seeds if (arm.name, seed) in self._runs]
            runs = [{key: value for key, value in run.items() if key != "fields"} for run in found]
            records.append(
                {
                    "name": arm.name,
                    "title": arm.title,
                    "group": arm.group,
                    "genotype": arm.genotype,
                    "fusion": arm.fusion,
                    "start": arm.start,
                    "epochs_factor": arm.epochs_factor,
                    "budget": arm.budget,
                    "pool": arm.pool,
                    "runs": runs,
                }
            )
        return records


def _trained(result: TrainResult, frames_per_epoch: int) -> dict[str, Any]:
    """Accuracy of the last epoch on the test set in percent, and the curve on the held-out images."""
    curve = [
        {
            "epoch": record.epoch + 1,
            "frames": (record.epoch + 1) * frames_per_epoch,
            "train_loss": record.train_loss,
            "holdout": None if record.holdout_score is None else 100 * record.holdout_score,
        }
        for record in result.history
    ]
    metrics = result.test_last
    return {
        "accuracy": 100 * metrics.score,
        "loss": metrics.loss,
        "training_seconds": result.seconds,
        "curve": curve,
    }
