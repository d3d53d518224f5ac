"""CamVid in mmsegmentation: the 11 classes of SegNet's preparation, its unlabelled pixels ignored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, ClassVar

from mmengine.fileio import exists, isdir
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from image2video.functional import MissingError

UNLABELLED = 11
"""The id of unlabelled pixels in the files."""


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid (Brostow et al., ECCV 2008) as prepared for SegNet: 367 training, 101 validation, 233 test frames.

    Frames are 480 × 360, `images/{train,val,test}/NAME.jpg`; labels `labels/{train,val,test}/NAME.png` hold the classes
    0 … 10 and 11 for unlabelled pixels, which become `ignore_index` (255), so that losses and metrics leave them out.

    Args:
        img_suffix: the end of the names of images; `.png` for SegNet's own files.
        seg_map_suffix: that of labels.
        kwargs: those of `BaseSegDataset`; `metainfo=dict(classes=…)` chooses classes, the others are ignored.

    Raises:
        MissingError: a folder or a label that does not exist, a folder without images.

    """

    METAINFO: ClassVar[dict[str, Any]] = {
        "classes": (
            *("sky", "building", "pole", "road", "pavement", "tree"),
            *("sign", "fence", "car", "pedestrian", "bicyclist"),
        ),
        "palette": [
            *([128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0]),
            *([192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192]),
        ],
    }

    def __init__(self, img_suffix: str = ".jpg", seg_map_suffix: str = ".png", **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """What the ids of the files become: unlabelled pixels, and classes that were not chosen, 255."""
        return {**(super().get_label_map(new_classes) or {}), UNLABELLED: 255}

    def load_data_list(self) -> list[dict[str, Any]]:
        """The frames, in the order of their names; raises `MissingError` where there are none."""
        for key in ("img_path", "seg_map_path"):
            folder = self.data_prefix.get(key)
            if not folder or not isdir(folder, backend_args=self.backend_args):
                raise MissingError(
                    f"no folder {folder} (dataset.data_prefix.{key} under data_root={self.data_root!r}); CamVid is "
                    "read from images/{train,val,test} and labels/{train,val,test}"
                )
        frames: list[dict[str, Any]] = super().load_data_list()
        if not frames:
            raise MissingError(f"no {self.img_suffix} file in {self.data_prefix['img_path']}; set dataset.img_suffix")
        for frame in frames:
            if not exists(frame["seg_map_path"], backend_args=self.backend_args):
                name = PurePath(frame["img_path"]).name
                raise MissingError(f"no label {frame['seg_map_path']} for the image {name}; set dataset.seg_map_suffix")
        return frames
