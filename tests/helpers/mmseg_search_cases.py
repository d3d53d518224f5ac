"""A miniature of CamVid and the config of a tiny segmentor for it, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmseg_cases import tiny_config

from image2video.reproduce.miniatures import CAMVID_CLASSES
from image2video.search import Problem, Request, SearchConfig

CROP = (32, 40)
SPLITS = {"train_dataloader": "train", "val_dataloader": "val", "test_dataloader": "test"}
TRAIN = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "RandomResize", "scale": (64, 48), "ratio_range": (0.5, 2.0), "keep_ratio": True},
    {"type": "RandomCrop", "crop_size": CROP, "cat_max_ratio": 0.75},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackSegInputs"},
]
TEST = [
    {"type": "LoadImageFromFile"},
    {"type": "Resize", "scale": (64, 48), "keep_ratio": True},
    {"type": "LoadAnnotations"},
    {"type": "PackSegInputs"},
]


def config(data: Path, decode: str = "psp", **model: Any) -> Config:
    """A config of a tiny segmentor and a folder in CamVid's layout; `model` adds to its model."""
    chosen = tiny_config(decode, size=CROP, **model)
    for name in {"decode_head", "auxiliary_head"} & set(chosen):
        for head in chosen[name] if isinstance(chosen[name], list) else [chosen[name]]:
            head["num_classes"] = CAMVID_CLASSES
    loaders = {
        loader: {
            "batch_size": 2,
            "num_workers": 0,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "dataset": {
                "type": "CamVidDataset",
                "data_root": str(data),
                "data_prefix": {"img_path": f"images/{split}", "seg_map_path": f"labels/{split}"},
                "pipeline": TRAIN if split == "train" else TEST,
            },
        }
        for loader, split in SPLITS.items()
    }
    imports = {"imports": ["image2video.integrations.openmmlab"]}
    return Config({"default_scope": "mmseg", "custom_imports": imports, "model": chosen, **loaders})


def written(config: Config, folder: Path, name: str = "tiny.py") -> str:
    """The path of the config as a file."""
    config.dump(folder / name)
    return str(folder / name)


def built(config: Config, folder: Path, request: Request | None = None, **settings: Any) -> Problem:
    """The problem of a config; `settings` are those of the search."""
    from image2video.integrations.openmmlab.search_task import build

    return build(written(config, folder), request or Request(SearchConfig(T=3, batch_size=4, **settings), workers=0))
