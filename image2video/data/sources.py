"""One text names a data set: `digits`, `digit_scenes`, `npz:PATH`, `folder:PATH`, `torchvision:NAME@ROOT`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from image2video.data.absent import PARTS
from image2video.data.augment import Augmentation
from image2video.data.folder_source import load_folder
from image2video.data.memory_source import load_digit_scenes_source, load_digits_source, load_npz
from image2video.data.preparation import FIELDS, Preparation
from image2video.data.source import DataSource, LoadOptions, Pool
from image2video.data.torchvision_source import load_torchvision
from image2video.errors import InputError, InputTypeError

MAX_TEXT = 10_000  # longer than the path of any file


@dataclass(frozen=True)
class _Scheme:
    """How a source is written, and what reads it."""

    form: str
    load: Callable[[str, LoadOptions], Pool]


SCHEMES: dict[str, _Scheme] = {
    "digits": _Scheme("digits", load_digits_source),
    "digit_scenes": _Scheme("digit_scenes", load_digit_scenes_source),
    "npz": _Scheme("npz:PATH", load_npz),
    "folder": _Scheme("folder:PATH", load_folder),
    "torchvision": _Scheme("torchvision:NAME@ROOT", load_torchvision),
}


def load_data(
    spec: str,
    *,
    train_images: int | None = None,
    holdout: float = 0.1,
    seed: int = 0,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    resize: str | None = None,
    crop_fraction: float | None = None,
    crop_mode: str | None = None,
    flip: bool | None = None,
    augment: Augmentation | str | None = None,
    workers: int | None = None,
    model: nn.Module | str | os.PathLike[str] | Preparation | None = None,
    classes: Sequence[str] | int | None = None,
    parts: Sequence[str] = PARTS,
) -> DataSource:
    """Read a labelled data set, and set a part of its training images aside.

    Size, mean, std and the crops of files are, in this order: as asked for here; as the run of `model` recorded them;
    as the published config of its weights says; the data's own. A warning names both where what is asked for is not
    what the weights were trained with.

    Args:
        spec: `digits` (scikit-learn's handwritten digits, embedded), `digit_scenes` (3 to 6 of them on a canvas, with
            the class of every pixel: segmentation), `npz:PATH` (arrays x_train y_train x_test y_test, uint8 N×H×W×C or
            N×H×W), `folder:PATH` (train/ and val/ with one folder per class, or Tiny-ImageNet as it is distributed), or
            `torchvision:NAME@ROOT` (a downloaded torchvision set, such as CIFAR10, CIFAR100, ImageNet).
        train_images: how many labelled images may be used in all, the held-out ones included; drawn by class where
            every image has one.
        holdout: the share of those that is set aside to choose an epoch or a genotype; 0 for none.
        seed: draws `train_images` and the held-out part; the test set is the same for every seed.
        image_size: pixels per side (default: as above; the data's own are 16 for digits, 48 for their scenes, as stored
            for arrays, 224 for files).
        mean: per channel in 0 … 1 (the data's own: of the training images for arrays, ImageNet's for files).
        std: goes with `mean`.
        resize: interpolation with which images are resized: `bilinear`, `bicubic`, `nearest`, or for files `lanczos`.
        crop_fraction: for files, the side of the image over the side it is resized to before the crop (the data's own:
            0.875).
        crop_mode: for files, `center`, `squash` or `border`, as in timm.
        flip: mirror images in training (default: yes, except for digits and their scenes).
        augment: a policy that changes every training image besides, an `Augmentation` or its text: `randaugment`,
            `autoaugment:cifar10`, `trivialaugment`, `uniformaugment`, `clips:affine5`.
        workers: processes that read image files (default: one less than CPUs, at most 8).
        model: the network that gets the images: the folder or the weights of a run, a folder of `save_pretrained`, or a
            network with timm's pretrained weights. Images in memory keep their size for the latter, unless it takes one
            size alone.
        classes: the names of the network's outputs in their order, among which the data's classes are found; or their
            number, for data whose classes are numbers (default: the data's own classes).
        parts: which of `train` and `test` to read; the other one need not be there.

    Returns:
        The training images, the held-out ones and the test set.

    Raises:
        InputError: the scheme is unknown, or the content cannot be used.
        InputTypeError: `spec` is no text.
        MissingError: something is not there.

    >>> data = load_data("digits", train_images=200, holdout=0.2)
    >>> data.train.num_images, data.holdout.num_images, data.test.num_images, data.input_size
    (160, 40, 599, (1, 16, 16))
    """
    if not isinstance(spec, str):
        raise InputTypeError(f"a data source is named by a text, got {spec!r:.80} of type {type(spec).__name__}")
    if len(spec) > MAX_TEXT:
        raise InputError(f"a data source's text has at most {MAX_TEXT} characters, got {len(spec)}")
    scheme, _, rest = spec.partition(":")
    forms = ", ".join(s.form for s in SCHEMES.values())
    if scheme not in SCHEMES:
        raise InputError(f"unknown data source {spec!r:.80}; it must be one of: {forms}")
    if bool(rest) != (":" in SCHEMES[scheme].form):
        raise InputError(f"the data source {spec!r:.80} must be written as {SCHEMES[scheme].form}")
    if image_size is not None and not (isinstance(image_size, int) and image_size >= 1):
        raise InputError(f"image_size must be a whole number of at least 1 pixel, got {image_size!r}")
    if std is not None and not all(0 < value < math.inf for value in std):
        raise InputError(f"std must be above 0, since images are divided by it; got {std}")
    if not parts or not set(parts) <= set(PARTS):
        raise InputError(f"parts must be some of {', '.join(PARTS)}; got {tuple(parts)}")
    known = model if isinstance(model, Preparation) or model is None else Preparation.of(model)
    asked: dict[str, Any] = dict(zip(FIELDS, (image_size, mean, std, resize, crop_fraction, crop_mode), strict=True))
    options = LoadOptions(
        **asked,
        flip=flip,
        augment=Augmentation.coerce(augment),
        workers=workers,
        known=known,
        parts=tuple(parts),
    )
    pool = SCHEMES[scheme].load(rest, options)
    if classes is not None:
        pool = pool.with_classes(classes, spec)
    if known is not None:
        known.warn_of(asked)
    return pool.divide(spec, train_images=train_images, holdout=holdout, seed=seed)
