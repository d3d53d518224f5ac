"""A network that was trained on ImageNet, and images for it, where somebody has them.

`IMAGE2VIDEO_IMAGENET_SAMPLE` names a folder with `images/`, `labels.json` (a list of file and class) and
`tf_efficientnet_lite0.safetensors`.
"""

import json
import os
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from image2video.training import load_weights

SAMPLE = os.environ.get("IMAGE2VIDEO_IMAGENET_SAMPLE")
SIZE = 160
needs_sample = pytest.mark.skipif(SAMPLE is None, reason="IMAGE2VIDEO_IMAGENET_SAMPLE names no folder")


def network_and_images(part: slice = slice(None)) -> tuple[nn.Module, Tensor, Tensor]:
    """The trained network, some of the images as it takes them `(N, 3, 160, 160)`, and their classes."""
    assert SAMPLE is not None, "tests that call it are marked needs_sample"
    folder = Path(SAMPLE)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    load_weights(network, folder / "tf_efficientnet_lite0.safetensors")
    config = timm.data.resolve_data_config({"input_size": (3, SIZE, SIZE)}, model=network)
    transform = timm.data.create_transform(**config)
    listed = json.loads((folder / "labels.json").read_text(encoding="utf-8"))[part]
    images = torch.stack([transform(Image.open(folder / "images" / one["file"]).convert("RGB")) for one in listed])
    return network, images, torch.tensor([one["class"] for one in listed])


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """The logits of images, a few at a time."""
    return torch.cat([model(part) for part in images.split(8)])
