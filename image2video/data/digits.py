"""scikit-learn's handwritten digits: real images that need no download."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from image2video.data.limits import check_images_memory
from image2video.data.splits import stratified_split

_IMAGES = 1797
_TEST_IMAGES = 599  # a third of 1797; the same images whatever the seed, so that no run trains on another's test set
_TEST_SEED = 0


def load_digits(image_size: int = 16) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The 1797 digits as ((train images, labels), (test images, labels)): 1198 and 599 images, stratified.

    Images are `(N, 1, image_size, image_size)` uint8, one channel (three equal ones would triple the first layer's work
    for nothing), enlarged bilinearly from 8×8. Labels are `(N,)` int64.
    """
    check_images_memory(_IMAGES, 1, image_size, bytes_per_value=4)
    import sklearn.datasets  # takes a second to import, and only the digits need it

    bunch = sklearn.datasets.load_digits()
    small = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16  # grey levels are 0 … 16
    size = (image_size, image_size)
    enlarged = interpolate(small, size=size, mode="bilinear", align_corners=False, antialias=image_size < 8)
    images = (enlarged * 255).round().to(torch.uint8)
    labels = torch.from_numpy(bunch.target).long()
    test, train = stratified_split(labels, _TEST_IMAGES, seed=_TEST_SEED)
    return (images[train], labels[train]), (images[test], labels[test])
