"""Frames of maps inside a network: they move as frames of the image do, at the size of the map."""

import pytest
import torch
from clip_cases import noise

from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError, InputTypeError

H, W = 48, 64
IMAGE = (H, W)


def ramp(height: int, width: int, across: float, down: float) -> torch.Tensor:
    """A picture of a plane: `across` from edge to edge, `down` likewise, at any size; resampling it is exact."""
    ys = (torch.arange(height, dtype=torch.float64) * 2 + 1) / height - 1
    xs = (torch.arange(width, dtype=torch.float64) * 2 + 1) / width - 1
    return (across * xs + down * ys[:, None])[None, None]


@pytest.mark.parametrize("text", ["rotate(10)", "shear_x(12) > scale(1.3) > translate_y(0.07)", "flip_x > rotate(-7)"])
def test_a_map_moves_as_its_image_does(text: str) -> None:
    """At the points of the map's cells the frame of a plane is the frame of the image of the same plane."""
    to_video = Image2Video(text, T=2)
    small = to_video.map_frames(ramp(6, 8, 2.0, -3.0), IMAGE)[1, 0]
    large = to_video(ramp(H, W, 2.0, -3.0))[0, 1, 0]
    # A cell of the map is 8 × 8 pixels; of a plane it is their mean.
    expected = large.view(6, 8, 8, 8).mean(dim=(1, 3))
    assert (small - expected)[2:-2, 2:-2].abs().max() < 1e-9


def test_identity_and_mirrored_frames_are_copies() -> None:
    maps = noise(2, 3, 6, 8)
    frames = Image2Video("identity | flip_x | rotate(10) | flip_x > flip_y").map_frames(maps, IMAGE)
    assert frames.shape == (8, 3, 6, 8)
    for b in range(2):
        assert torch.equal(frames[4 * b], maps[b])
        assert torch.equal(frames[4 * b + 1], maps[b].flip(-1))
        assert not torch.allclose(frames[4 * b + 2], maps[b], atol=0.1)
        assert torch.equal(frames[4 * b + 3], maps[b].flip(-1, -2))


def test_other_maps_are_refused() -> None:
    to_video = Image2Video("rotate(10)", T=2)
    with pytest.raises(InputError, match=r"maps must have the shape \(B, C, h, w\), got \(3, 6, 8\)"):
        to_video.map_frames(noise(3, 6, 8), IMAGE)
    with pytest.raises(InputTypeError, match=r"must be floating point to be resampled, got torch\.int64"):
        to_video.map_frames(torch.ones(1, 3, 6, 8, dtype=torch.int64), IMAGE)
    with pytest.raises(InputError, match=r"image_size must be \(height, width\)"):
        to_video.map_frames(noise(1, 3, 6, 8), (48,))
