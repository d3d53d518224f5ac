"""The libraries that a clip is compared with make the frames that ours are."""

import numpy as np
import pytest
import torch

from image2video import Image2Video

for name in ("cv2", "kornia", "ttach"):
    pytest.importorskip(name)


def test_every_library_makes_the_same_frames(load):
    peers = load("peers")
    torch.manual_seed(0)
    images = peers.smooth(2, 96)
    ours = Image2Video(peers.CHAIN, T=3, schedule="centred", padding="zeros")(images)
    arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]
    theirs = {
        "textbook": peers.textbook_frames(images),
        "torchvision": peers.torchvision_frames(images),
        "kornia": peers.kornia_frames(images),
        "OpenCV": torch.from_numpy(peers.opencv_frames(arrays)).movedim(-1, 2),
    }
    for frames in theirs.values():
        assert frames.shape == ours.shape
        torch.testing.assert_close(frames[peers.INNER], ours[peers.INNER], atol=1e-4, rtol=0)
    assert (ours[:, 0] - images)[peers.INNER].abs().max() > 0.05
    assert torch.equal(ours[:, 1], images)
