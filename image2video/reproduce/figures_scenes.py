"""Figure 6 of the paper: what segmentors predict for a few test images, side by side with their labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS
from numpy.typing import NDArray

from image2video.data.image_file import pixels, read_image
from image2video.integrations.openmmlab.search_model import build_segmentor
from image2video.protocols import Progress
from image2video.report import SegmentedImage, image_iou, segmentation_figure
from image2video.reproduce.book import Book, Run
from image2video.reproduce.drawing import Drawing, finished, look_at
from image2video.reproduce.genotypes import Load
from image2video.reproduce.policies import Policy
from image2video.reproduce.segment_config import arm_config
from image2video.runs.folders import torch_load
from image2video.runs.weights import load_state
from image2video.search import Request, SearchConfig

_TITLE = "Predictions"
_FEWEST = 2
_NOTE = (
    "Below a whole prediction: the mean IoU of that image over the classes in its label or the prediction; below a "
    "window: the share of labelled pixels that are right. Pixels without a label are striped, and count for nothing."
)


def draw_scenes(
    runs: Sequence[Run],
    book: Book,
    *,
    load: Load,
    device: torch.device,
    images: int,
    progress: Progress | None = None,
) -> Drawing:
    """The first `images` test images by name with their labels, and what each of a row's segmentors predicts for them.

    `runs` are those whose weights are used, of the first seed. A segmentor without weights is said in `gaps`; fewer
    than two are not drawn. Raises `MissingError` where the data are not there.
    """
    setting, title = runs[0].setting, f"{_TITLE}: {runs[0].row}"
    config: Any = load(setting)
    scenes = Scenes(config, images)

    def predicted(run: Run) -> list[NDArray[np.integer]]:
        return list(scenes.predictions(trained_segmentor(run, book, config, device)))

    found, gaps = look_at(runs, predicted, progress, stage="predictions", missing="No predictions")
    if len(found) < _FEWEST:
        gaps.append(
            f"Nothing is drawn: {_FEWEST} networks with weights are needed, there is {', '.join(found) or 'none'}."
        )
        return Drawing(title, None, gaps=tuple(gaps))
    rows = scenes.rows(found)
    return _drawing(title, runs, scenes, rows, gaps)


def trained_segmentor(run: Run, book: Book, config: Config, device: torch.device) -> Any:
    """The segmentor of a finished run with its last weights.

    Raises `InputError` where the run has failed or its weights are not there.
    """
    chosen, weights = finished(run, book)
    where: dict[str, Any] = {"work_dir": book.training_path(run), "device": device.type}
    own = arm_config(run.arm, run.setting, run.seed, config, chosen, Policy(), **where)
    request = Request(SearchConfig(seed=run.seed))
    model = build_segmentor(own.model, own.get("data_preprocessor"), request)
    load_state(model, torch_load(weights)["state_dict"], str(weights))
    return model.to(device).eval()


class Scenes:
    """The first test images of a config by name, as its test pipeline reads them."""

    def __init__(self, config: Config, count: int) -> None:
        with DefaultScope.overwrite_default_scope("mmseg"):
            dataset: Any = DATASETS.build(config.test_dataloader.dataset)
        places = {number: Path(dataset.get_data_info(number)["img_path"]) for number in range(len(dataset))}
        chosen = sorted(places, key=lambda number: places[number].name)[:count]
        self.paths = [places[number] for number in chosen]
        self._items = [dataset[number] for number in chosen]
        self.classes: dict[str, Any] = dict(zip(dataset.metainfo["classes"], dataset.metainfo["palette"], strict=True))
        self.ignored = int(getattr(dataset, "ignore_index", 255))
        self.total = len(dataset)

    def predictions(self, model: Any) -> Iterator[NDArray[np.integer]]:
        """The class of every pixel, image by image."""
        with torch.no_grad():
            for item in self._items:
                (sample,) = model.test_step(pseudo_collate([item]))
                yield sample.pred_sem_seg.data[0].cpu().numpy()

    def rows(self, found: Mapping[str, Sequence[NDArray[np.integer]]]) -> list[SegmentedImage]:
        """Every image with its label and its predictions by network."""
        rows = []
        for number, (path, item) in enumerate(zip(self.paths, self._items, strict=True)):
            label = item["data_samples"].gt_sem_seg.data[0].numpy().astype(np.int64)
            label = np.where(label < len(self.classes), label, self.ignored)
            picture = pixels(read_image(path)).permute(1, 2, 0).numpy()
            rows.append(SegmentedImage(picture, label, {name: maps[number] for name, maps in found.items()}))
        return rows


def _drawing(
    title: str, runs: Sequence[Run], scenes: Scenes, rows: Sequence[SegmentedImage], gaps: Sequence[str]
) -> Drawing:
    setting, names = runs[0].setting, list(rows[0].predictions)
    files = [path.name for path in scenes.paths]
    images, lines = [], []
    totals = dict.fromkeys(names, 0.0)
    for file, row in zip(files, rows, strict=True):
        ious = {}
        for name, ids in row.predictions.items():
            ious[name] = 100 * image_iou(ids, row.label, ignore_index=scenes.ignored)
            totals[name] += ious[name]
        images.append({"file": file, "iou": ious})
        lines.append((file, *(f"{iou:.1f}" for iou in ious.values())))
    means = ", ".join(f"{name} {total / len(files):.1f}" for name, total in totals.items())
    caption = (
        f"The first {len(files)} of {scenes.total} test images of {setting.data} by name ({', '.join(files)}), their "
        f"labels, and the predictions of {setting.config} with the last weights of seed {setting.seed}. Windows: where "
        "the predictions differ most."
    )
    return Drawing(
        title=title,
        figure=segmentation_figure(rows, scenes.classes, ignore_index=scenes.ignored, score="iou"),
        caption=caption,
        columns=("mean IoU in percent", *names),
        lines=tuple(lines),
        numbers=tuple(range(1, len(names) + 1)),
        headlines=(f"Mean IoU in percent over these {len(files)} images, which decide nothing: {means}.",),
        notes=(_NOTE,),
        gaps=tuple(gaps),
        record={"caption": caption, "images": images},
        picture=True,
    )
