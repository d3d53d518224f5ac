"""Frames of maps inside a network: they move as frames of the image do, at the size of the map."""

import pytest
import torch
from clip_cases import noise

from image2video.clip.image_to_video import Image2Video
from image2video.clip.sampling import PADDINGS
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


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("text", ["translate_x(0.125) > translate_y(-0.5)", "flip_y > translate_x(-0.25)"])
def test_the_way_back_undoes_the_frames(text: str, padding: str) -> None:
    maps = noise(2, 3, 6, 8)
    to_video = Image2Video(text, T=3, schedule="centred", padding=padding)
    back = to_video.unwarp(to_video.map_frames(maps, IMAGE), IMAGE)
    valid = to_video.valid_mask((6, 8), IMAGE) > 0.5
    assert valid.flatten(1).sum(1).min() > 0
    for t in range(3):
        assert ((back[:, t] - maps) * valid[t]).abs().max() < 1e-5
    mean = to_video.unwarped_mean(to_video.map_frames(maps, IMAGE), IMAGE)
    assert (mean - maps).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_sampled_in_float32(dtype: torch.dtype) -> None:
    maps = noise(2, 3, 6, 8).to(dtype)
    to_video = Image2Video("rotate(10) | translate_x(0.125) | identity")
    frames = to_video.map_frames(maps, IMAGE)
    assert frames.dtype == dtype
    assert torch.equal(frames, to_video.map_frames(maps.float(), IMAGE).to(dtype))


def test_channels_last_is_kept() -> None:
    maps = noise(2, 5, 6, 8)
    to_video = Image2Video("rotate(10) | translate_x(0.125) | translate_y(-0.5) | identity", padding="border")
    frames = to_video.map_frames(maps.to(memory_format=torch.channels_last), IMAGE)
    assert frames.is_contiguous(memory_format=torch.channels_last)
    plain = to_video.map_frames(maps, IMAGE)
    assert plain.is_contiguous()
    assert torch.allclose(frames, plain, atol=1e-6)


@pytest.mark.parametrize("padding", PADDINGS)
def test_gradients(padding: str) -> None:
    to_video = Image2Video("rotate(10) | translate_x(0.25) | flip_x > translate_y(0.5)", padding=padding)
    maps = noise(1, 2, 4, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: to_video.map_frames(x, (8, 12)), maps)


MIXED = "rotate(10) | translate_x(0.125) | flip_x > translate_y(-0.5) | identity"


class _Frames(torch.nn.Module):
    def __init__(self, genotype: str, padding: str = "zeros") -> None:
        super().__init__()
        self.to_video = Image2Video(genotype, padding=padding)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.to_video.map_frames(maps, IMAGE)


def test_compiles_without_graph_breaks() -> None:
    torch._dynamo.reset()
    model = _Frames(MIXED)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for shape in ((2, 3, 6, 8), (3, 3, 3, 4)):  # of the second, an eighth is half a cell
        maps = noise(*shape)
        assert torch.allclose(compiled(maps), model(maps), atol=1e-6)


def test_exports_with_any_batch() -> None:
    model = _Frames(MIXED, "reflection")
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (noise(2, 3, 6, 8),), dynamic_shapes={"maps": {0: batch}})
    maps = noise(5, 3, 6, 8)
    assert torch.allclose(program.module()(maps), model(maps), atol=1e-6)
