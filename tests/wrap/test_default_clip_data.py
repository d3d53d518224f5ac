"""The default clip on a network trained on ImageNet, by images that did not choose it.

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
from torch.nn.functional import cross_entropy

from image2video import VideoWrap
from image2video.training import load_weights

SAMPLE = os.environ.get("IMAGE2VIDEO_IMAGENET_SAMPLE")
SIZE = 160


@pytest.mark.data
@pytest.mark.skipif(SAMPLE is None, reason="IMAGE2VIDEO_IMAGENET_SAMPLE names no folder")
@torch.inference_mode()
def test_the_default_wrap_costs_an_imagenet_network_nothing():
    folder = Path(SAMPLE)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    load_weights(network, folder / "tf_efficientnet_lite0.safetensors")
    config = timm.data.resolve_data_config({"input_size": (3, SIZE, SIZE)}, model=network)
    transform = timm.data.create_transform(**config)
    listed = json.loads((folder / "labels.json").read_text(encoding="utf-8"))[1::2]  # the others chose the clip
    images = torch.stack([transform(Image.open(folder / "images" / one["file"]).convert("RGB")) for one in listed])
    labels = torch.tensor([one["class"] for one in listed])

    def scores(model):
        logits = torch.cat([model(part) for part in images.split(8)])
        return 100 * (logits.argmax(1) == labels).double().mean().item(), cross_entropy(logits, labels).item()

    bare, bare_loss = scores(network)
    wrapped, loss = scores(VideoWrap(network, fusion="none", input_size=(3, SIZE, SIZE)))
    assert bare > 74  # 75.2
    assert wrapped >= bare - 0.5
    assert loss <= bare_loss
