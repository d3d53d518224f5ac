"""Frame sets on a network trained on ImageNet: means over frames made by hand, and what they gain untrained."""

import pytest
import torch
from imagenet_sample import SIZE, logits_of, needs_sample, network_and_images
from torch.nn.functional import cross_entropy, grid_sample

from image2video import VideoWrap


def zoomed(images, factor):
    """The middle of the images, enlarged; reflection never comes in."""
    points = (torch.arange(SIZE) * 2 + 1) / SIZE - 1
    y, x = torch.meshgrid(points / factor, points / factor, indexing="ij")
    grid = torch.stack([x, y], -1).expand(len(images), -1, -1, -1)
    return grid_sample(images, grid, align_corners=False)


@pytest.mark.data
@needs_sample
@torch.inference_mode()
def test_sets_average_the_frames_and_help_a_trained_network():
    network, images, labels = network_and_images()
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
