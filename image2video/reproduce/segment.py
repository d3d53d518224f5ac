"""One arm of a segmentation table with one seed: a mmsegmentation config, trained and tested by mmengine's Runner."""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from mmengine.config import Config
from torch import Tensor, nn

from image2video.data import Augmentation
from image2video.errors import StateError
from image2video.integrations.openmmlab.search_config import crop_size
from image2video.integrations.openmmlab.search_model import build_segmentor, plain_model
from image2video.protocols import Progress
from image2video.reproduce.augment_search import find_policy
from image2video.reproduce.book import Book, Run
from image2video.reproduce.genotypes import Load
from image2video.reproduce.policies import Policy, searched_family
from image2video.reproduce.record import Named, costs
from image2video.reproduce.segment_augment import AugmentationPolicy
from image2video.reproduce.segment_config import arm_config, arm_steps
from image2video.reproduce.segment_genotypes import choose_for_segmentor
from image2video.reproduce.segment_learned import LearnedEncoderDecoder
from image2video.reproduce.segment_reading import content_hash
from image2video.reproduce.segment_runner import fit, without_advice
from image2video.reproduce.segment_split import loader_leaves
from image2video.reproduce.spec import Cell, Setting
from image2video.runs.folders import torch_load
from image2video.search import Request, SearchConfig
from image2video.training import Cost, measure_cost
from image2video.version import RUNS_SINCE

_CLASS = "IoU."


@without_advice()
def run_segmentation(
    run: Run,
    book: Book,
    accelerator: Accelerator,
    *,
    load: Load,
    start: Path | None = None,
    progress: Named = lambda stage: None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train and test one arm with one seed: its record, and its last weights as a checkpoint of mmengine.

    `load` gives the plain config of a setting; `start` is the file of the weights to begin with. All arms of a seed
    start from equal weights of the plain segmentor and read the same images in the same order with the same draws; the
    test split is read once, at the end, with the last weights. Searches look at `val_dataloader`, held-out training
    images. A killed run goes on from its last checkpoint in `book.training_path(run)`. `score` is the mIoU in percent,
    `classes` that of every class (None where neither labels nor predictions hold it); MACs, time and memory are those
    of one image of the crop's size.
    """
    began = time.perf_counter()
    arm, setting, folder = run.arm, run.setting, book.training_path(run)
    config = load(setting)
    chosen = choose_for_segmentor(
        arm,
        setting,
        config,
        book.searches,
        accelerator,
        load=load,
        weights=start,
        progress=progress("searching a clip"),
    )
    policy = _policy(arm, setting, config, book.searches, folder, accelerator, progress("searching a policy"))
    own = _made(arm, setting, run.seed, config, chosen, policy, folder, accelerator)
    steps = arm_steps(arm, setting, config)
    weights = first_weights(config, run.seed, start)
    fitted = fit(own, weights, accelerator, train=steps > 0, progress=progress(""))
    if not math.isfinite(fitted.metrics["mIoU"]):
        raise StateError(f"the mIoU of {arm.name}, seed {run.seed}, must be finite, got {fitted.metrics['mIoU']}")
    cost = measure(fitted.model, crop_size(config))
    images = steps * config.train_dataloader.batch_size
    there = sum(len(leaf["indices"]) for _, leaf in loader_leaves(config, "train_dataloader"))
    record = {
        "score": fitted.metrics["mIoU"],
        "loss": None,
        "classes": _of_classes(fitted.metrics),
        "steps": steps,
        **costs(
            chosen,
            policy,
            cost,
            T=arm.frames_per_image(arm.frames(setting)),
            epochs=images / there,
            images_seen=images,
            seconds=fitted.seconds,
        ),
        "seconds": time.perf_counter() - began,
    }
    if isinstance(fitted.model, LearnedEncoderDecoder):
        record["widths"] = fitted.model.width.tolist()
    state = {name: value.detach().cpu() for name, value in fitted.model.state_dict().items()}
    return record, {"state_dict": state, "meta": {"steps": steps, "seed": run.seed}}


def _of_classes(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """The IoU of every class; None where neither labels nor predictions hold it."""
    found: dict[str, float | None] = {}
    for name, value in metrics.items():
        if name.startswith(_CLASS):
            found[name.removeprefix(_CLASS)] = None if math.isnan(value) else value
    return found


def first_weights(config: Config, seed: int, start: Path | None = None) -> Mapping[str, Tensor]:
    """The weights that every arm of a seed begins with: the plain segmentor's, or those in the file `start`."""
    if start is not None:
        return dict(torch_load(start)["state_dict"])
    model, _ = plain_model(config)
    segmentor: nn.Module = build_segmentor(model, config.get("data_preprocessor"), Request(SearchConfig(seed=seed)))
    return segmentor.state_dict()


def measure(model: nn.Module, size: tuple[int, int]) -> Cost:
    """What the prediction of one image of `size` = (height, width) costs, all frames of its clip included."""
    return measure_cost(_Prediction(model), (3, *size), 1, repeats=5)


class _Prediction(nn.Module):
    """A segmentor as a function of images; those larger than a window are not cut into windows."""

    def __init__(self, segmentor: Any) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, images: Tensor) -> Tensor:
        size = tuple(images.shape[2:])
        metas = [{"img_shape": size, "ori_shape": size, "pad_shape": size} for _ in images]
        return self.segmentor.encode_decode(images, metas)


def _made(
    arm: Cell,
    setting: Setting,
    seed: int,
    config: Config,
    chosen: Any,
    policy: Policy,
    folder: Path,
    accelerator: Accelerator,
) -> Config:
    """The config that an arm is trained with in these processes."""
    where = {"work_dir": folder, "processes": accelerator.num_processes, "device": accelerator.device.type}
    return arm_config(arm, setting, seed, config, chosen, policy, **where)


def _policy(
    arm: Cell,
    setting: Setting,
    config: Config,
    searches: Path,
    folder: Path,
    accelerator: Accelerator,
    progress: Progress | None,
) -> Policy:
    """The policy of an arm; one that is searched for trains the bare network for half the steps, on held-out images."""
    family = searched_family(arm)
    if family is None:
        return Policy(arm.augment)
    bare = Cell("bare", "bare network")
    short = replace(setting, steps=max(1, arm_steps(bare, setting, config) // 2))
    decides = [setting.data, content_hash(setting), setting.train_images, short.steps]
    told = [family, decides, setting.augment_minutes, setting.seed, setting.holdout, RUNS_SINCE]

    def check(policy: Augmentation) -> None:
        AugmentationPolicy(str(policy))

    def score(policy: Augmentation, watched: Progress) -> float:
        text = str(policy)
        place = folder / hashlib.sha256(text.encode()).hexdigest()[:12]
        # A killed search begins this training anew, so that its time counts in full.
        if accelerator.is_main_process:
            shutil.rmtree(place, ignore_errors=True)
        accelerator.wait_for_everyone()
        own = _made(bare, short, setting.seed, config, None, Policy(text), place, accelerator)
        own.test_dataloader.dataset = config.val_dataloader.dataset
        fitted = fit(own, first_weights(config, setting.seed), accelerator, progress=watched)
        if accelerator.is_main_process:
            shutil.rmtree(place, ignore_errors=True)
        return float(fitted.metrics["mIoU"])

    found = find_policy(family, setting, told, searches, accelerator, check=check, score=score, progress=progress)
    return Policy(*found)
