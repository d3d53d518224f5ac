"""The default clip on a network trained on ImageNet, by images that did not choose it."""

import pytest
import torch
from imagenet_sample import SIZE, logits_of, needs_sample, network_and_images
from torch.nn.functional import cross_entropy

from image2video import VideoWrap


@pytest.mark.data
@needs_sample
@torch.inference_mode()
def test_the_default_wrap_costs_an_imagenet_network_nothing():
    network, images, labels = network_and_images(slice(1, None, 2))  # the others chose the clip

    def scores(model):
        logits = logits_of(model, images)
        return 100 * (logits.argmax(1) == labels).double().mean().item(), cross_entropy(logits, labels).item()

    bare, bare_loss = scores(network)
    wrapped, loss = scores(VideoWrap(network, fusion="none", input_size=(3, SIZE, SIZE)))
    assert bare > 74  # 75.2
    assert wrapped >= bare - 0.5
    assert loss <= bare_loss
