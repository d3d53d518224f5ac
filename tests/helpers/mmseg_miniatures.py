"""The generated data sets of `image2video.reproduce`, for the tests of segmentation."""

from image2video.reproduce.miniatures import (
    CAMVID_CLASSES,
    CAMVID_UNLABELLED,
    CITYSCAPES_CLASSES,
    IGNORED,
    SIZE,
    VOC_CLASSES,
    make_camvid,
    make_cityscapes,
    make_voc,
)

__all__ = [
    "CAMVID_CLASSES",
    "CAMVID_UNLABELLED",
    "CITYSCAPES_CLASSES",
    "IGNORED",
    "SIZE",
    "VOC_CLASSES",
    "make_camvid",
    "make_cityscapes",
    "make_voc",
]
