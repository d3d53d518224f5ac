"""Frame sets on a network trained on ImageNet: the mean over frames made by hand, and what it gains without training.

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
from torch.nn.functional import cross_entropy, grid_sample

from image2video import VideoWrap
from image2video.training import load_weights

SAMPLE = os.environ.get("IMAGE2VIDEO_IMAGENET_SAMPLE")
SIZE = 160


def zoomed(images, factor):
    """The middle of the images, enlarged; reflection never comes in."""
    points = (torch.arange(SIZE) * 2 + 1) / SIZE - 1
    y, x = torch.meshgrid(points / factor, points / factor, indexing="ij")
    grid = torch.stack([x, y], -1).expand(len(images), -1, -1, -1)
    return grid_sample(images, grid, align_corners=False)


@pytest.mark.data
@pytest.mark.skipif(SAMPLE is None, reason="IMAGE2VIDEO_IMAGENET_SAMPLE names no folder")
@torch.inference_mode()
def test_sets_average_the_frames_and_help_a_trained_network():
    folder = Path(SAMPLE)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    load_weights(network, folder / "tf_efficientnet_lite0.safetensors")
    config = timm.data.resolve_data_config({"input_size": (3, SIZE, SIZE)}, model=network)
    transform = timm.data.create_transform(**config)
    listed = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    images = torch.stack([transform(Image.open(folder / "images" / one["file"]).convert("RGB")) for one in listed])
    labels = torch.tensor([one["class"] for one in listed])

    def logits_of(model, some):
        return torch.cat([model(part) for part in some.split(8)])

    frames = [logits_of(network, some) for some in (images, images.flip(-1), zoomed(images, 1.2))]
    losses = []
    for count, text in enumerate(("identity |", "identity | flip_x", "identity | flip_x | scale(1.2)"), 1):
        model = VideoWrap(network, "none", genotype=text, input_size=(3, SIZE, SIZE))
        expected = torch.stack(frames[:count]).mean(0)
        torch.testing.assert_close(logits_of(model, images[:40]), expected[:40], rtol=1e-3, atol=1e-3)
        losses.append(cross_entropy(expected, labels).item())
        model.unwrap()
    assert losses[0] - losses[1] > 0.03  # 0.874, 0.836
    assert losses[1] - losses[2] > 0.02  # 0.811
