"""Frames of maps inside a network: they move as frames of the image do, at the size of the map."""

import pytest
import torch
from clip_cases import noise
from frame_set_cases import chains
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from image2video.clip import memory
from image2video.clip.any_clip import as_clip
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.clip.map_frames import check_inside
from image2video.clip.matrices import inverse_affine, normalise
from image2video.clip.sampling import PADDINGS
from image2video.errors import InputError, InputTypeError

H, W = 48, 64
IMAGE = (H, W)


sizes = st.tuples(st.integers(2, 9), st.integers(2, 9))


@settings(deadline=None, max_examples=80)
@given(chains(most=4), sizes, st.sampled_from(PADDINGS))
def test_a_map_moves_as_its_image_does(genotype: Genotype, size: tuple[int, int], padding: str) -> None:
    """A plane, drawn at any size, is moved by the matrix of the image: in [-1, 1] coordinates there is but one."""
    h, w = size
    ys, xs = ((torch.arange(n, dtype=torch.float64) * 2 + 1) / n - 1 for n in size)
    plane = (2 * xs - 3 * ys[:, None])[None, None]
    to_video = Image2Video(genotype, T=3, schedule="centred", padding=padding)
    frames = to_video.map_frames(plane, IMAGE)
    backward = inverse_affine(normalise(genotype.step_matrices((-1.0, 0.0, 1.0), *IMAGE), *IMAGE))
    points = torch.stack([xs.expand(h, w), ys[:, None].expand(h, w), torch.ones(h, w, dtype=torch.float64)])
    for frame, matrix in zip(frames, backward, strict=True):
        x, y, _ = (matrix @ points.flatten(1)).unflatten(1, size)
        inside = (x.abs() <= 1 - 1 / w) & (y.abs() <= 1 - 1 / h)  # no cell beyond the edge is read
        assert (frame[0] - (2 * x - 3 * y))[inside].abs().sum() < 1e-9


def test_a_frame_of_a_map_is_the_small_frame_of_the_image() -> None:
    """A cell is 8 × 8 pixels, and of a smooth image their mean."""
    ys, xs = torch.linspace(-1, 1, H, dtype=torch.float64), torch.linspace(-1, 1, W, dtype=torch.float64)
    image = (2 * xs - 3 * ys[:, None] + 0.2 * (xs * ys[:, None]))[None, None]
    to_video = Image2Video("rotate(10) > scale(1.2) > translate_y(0.07)", T=2)
    small = to_video.map_frames(nn.functional.avg_pool2d(image, 8), IMAGE)[1, 0]
    large = nn.functional.avg_pool2d(to_video(image)[:, 1], 8)[0, 0]
    assert (small - large)[1:-1, 1:-1].abs().max() < 0.01
    assert (small - nn.functional.avg_pool2d(image, 8)[0, 0])[1:-1, 1:-1].abs().max() > 0.3


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
    with pytest.raises(InputError, match="none of number 2"):
        Image2Video("identity | rotate(5)").map_frames(noise(1, 3, 6, 8), IMAGE, T=3)


@pytest.mark.parametrize("text", ["rotate(10) > brightness(1.2)", "flip_x | rotate(5) | brightness(1.2) > rotate(10)"])
def test_colours_exist_at_the_image_alone(text: str) -> None:
    to_video = Image2Video(text, mean=0, std=1)
    with pytest.raises(
        InputError, match=r"a clip that begins at maps inside a network cannot change colours"
    ) as caught:
        to_video.map_frames(noise(1, 3, 6, 8), IMAGE)
    assert "got brightness in" in str(caught.value)
    assert str(to_video.genotype.geometric) in str(caught.value)
    with pytest.raises(InputError, match="that begins at 'layer3' cannot change colours"):
        check_inside(to_video.genotype, "at 'layer3'")
    check_inside(as_clip(str(to_video.genotype.geometric)), "at 'layer3'")


def test_more_frames_than_the_machine_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 1 << 29)
    maps = torch.zeros(1, 1).expand(64, 64)[None, None].expand(4, 1024, 64, 64)
    with pytest.raises(InputError, match=r"T=20: the clip of 4 images of 1024×64×64 would need .*lower T"):
        Image2Video("translate_x(0.1)", T=2).map_frames(maps, IMAGE, T=20)


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
