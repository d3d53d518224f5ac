"""The way back: unwarped maps, masks and means in the reference image."""

import pytest
import torch
from clip_cases import CHAIN, H, W, noise, smooth

from image2video.clip.image_to_video import Image2Video, clip_to_frames, frames_to_clip
from image2video.clip.sampling import INTERPOLATIONS, PADDINGS
from image2video.clip.schedules import SCHEDULES
from image2video.errors import InputError, InputTypeError


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warp_then_unwarp_is_the_image_inside_the_mask(schedule: str, padding: str, interpolation: str) -> None:
    images = smooth(2, 3)
    to_video = Image2Video(
        "translate_x(0.06) > rotate(7) > shear_y(4) > scale(0.93)",
        T=4,
        schedule=schedule,
        padding=padding,
        interpolation=interpolation,
    )
    back = to_video.unwarp(clip_to_frames(to_video(images)), (H, W))
    mask = to_video.valid_mask((H, W), (H, W))
    assert back.shape == (2, 4, 3, H, W)
    assert mask.shape == (4, 1, H, W)
    assert mask.min() >= 0
    assert mask.max() <= 1 + 1e-6
    # Two pixels at the rim mix with what stands outside the image.
    inside = -torch.nn.functional.max_pool2d(-mask, 5, stride=1, padding=2) > 1 - 1e-5
    rim = torch.zeros(H, W, dtype=torch.bool)
    rim[2:-2, 2:-2] = True
    for t in range(4):
        area = inside[t, 0] & rim
        assert area.float().mean() > 0.2
        tolerance = 0.25 if interpolation == "nearest" else 0.01
        assert (back[:, t] - images)[:, :, area].abs().max() < tolerance


def test_unwarped_frames_at_step_zero_are_copies() -> None:
    maps = noise(10, 4, 6, 9)
    to_video = Image2Video(CHAIN, T=5, schedule="centred")
    assert torch.equal(to_video.unwarp(maps, (H, W))[:, 2], frames_to_clip(maps, 5)[:, 2])
    assert torch.equal(Image2Video("identity", T=5).unwarp(maps, (H, W)), frames_to_clip(maps, 5))


def test_maps_of_another_size_move_as_the_image_does() -> None:
    """A quarter of the width is a quarter of the map's width, whatever its size: exact in whole cells."""
    to_video = Image2Video("translate_x(0.25) > translate_y(-0.5)", T=2)
    maps = noise(2, 3, 6, 8)
    back = to_video.unwarp(maps, (96, 64))[0, 1]
    expected = torch.zeros(3, 6, 8)
    expected[:, 3:, :-2] = maps[1, :, :-3, 2:]
    assert (back - expected).abs().max() < 1e-5
    mask = to_video.valid_mask((6, 8), (96, 64))[1, 0]
    assert torch.equal(mask > 0.5, expected[0] != 0)


def test_the_image_size_matters_for_rotations() -> None:
    """A map of 8 × 8 cells of a 64 × 128 image turns in the image's pixels, not in its own cells."""
    maps = smooth(1, 1, 8, 8).expand(2, 1, 8, 8)
    to_video = Image2Video("rotate(90)", T=2)
    wide = to_video.valid_mask((8, 8), (64, 128))[1, 0]
    assert torch.allclose(wide.sum(0), torch.tensor([0.0, 0, 8, 8, 8, 8, 0, 0]), atol=1e-4)
    assert torch.allclose(to_video.valid_mask((8, 8), (64, 64))[1, 0], torch.ones(8, 8), atol=1e-4)
    assert not torch.allclose(to_video.unwarp(maps, (64, 128)), to_video.unwarp(maps, (64, 64)), atol=0.1)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("text", ["translate_x(0.5)", CHAIN, "scale(0.6)", "scale(1.7) > rotate(33)", "identity"])
def test_constant_maps_stay_constant_with_finite_gradients(text: str, schedule: str, padding: str) -> None:
    to_video = Image2Video(text, T=3, schedule=schedule, padding=padding)
    maps = torch.full((6, 2, 5, 7), 7.0, requires_grad=True)
    mean = to_video.unwarped_mean(maps, (H, W))
    assert mean.shape == (2, 2, 5, 7)
    assert torch.allclose(mean, torch.full_like(mean, 7.0), rtol=1e-5)
    mean.square().sum().backward()
    assert maps.grad.isfinite().all()
    assert maps.grad.sum().item() == pytest.approx(14 * mean.numel(), rel=1e-4)


def test_pixels_that_no_frame_sees_come_from_the_mildest_frame() -> None:
    to_video = Image2Video("translate_x(0.5)", T=2, schedule="ramp")
    maps = torch.stack([torch.full((1, 4, 8), 1.0), torch.full((1, 4, 8), 2.0)])
    maps[0, :, :, -1] = 5
    mean = to_video.unwarped_mean(maps, (16, 32))[0, 0]
    expected = torch.tensor([1.0, 1, 1, 5, 5, 5, 5, 5]).expand(4, 8)  # the right half has left both frames
    assert torch.allclose(mean, expected, atol=1e-4)


def test_the_mean_weighs_frames_by_what_they_show() -> None:
    to_video = Image2Video("translate_x(0.25)", T=2)
    maps = torch.stack([torch.full((1, 4, 8), 1.0), torch.full((1, 4, 8), 3.0)])
    mean = to_video.unwarped_mean(maps, (16, 32))[0, 0]
    assert torch.allclose(mean, torch.tensor([2.0] * 6 + [1.0] * 2).expand(4, 8), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_means_are_summed_in_full_precision(dtype: torch.dtype) -> None:
    to_video = Image2Video(CHAIN, T=5)
    maps = smooth(10, 2, 6, 9).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    mean = to_video.unwarped_mean(maps, (H, W))
    assert mean.dtype == dtype
    assert torch.equal(mean, to_video.unwarped_mean(maps.to(wide), (H, W)).to(dtype))
    assert to_video.unwarp(maps, (H, W)).dtype == dtype


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_images_with_their_own_valid_area(schedule: str) -> None:
    to_video = Image2Video("translate_x(0.1) > rotate(10)", T=3, schedule=schedule)
    valid = torch.ones(2, 1, H, W)
    plain = to_video.valid_mask((6, 9), (H, W))
    full = to_video.valid_mask((6, 9), (H, W), valid=valid)
    assert full.shape == (2, 3, 1, 6, 9)
    assert torch.allclose(full, plain.expand(2, -1, -1, -1, -1), atol=1e-5)
    valid[1, :, :, W // 3 :] = 0  # the second image is padded from its first third on
    mask = to_video.valid_mask((6, 9), (H, W), valid=valid.bool())
    assert torch.allclose(mask[0], plain, atol=1e-5)
    assert mask[1, :, :, :, 5:].max() < 1e-5
    assert (mask[1] <= plain + 1e-5).all()
    assert mask[1, :, 0, 2:4, 1].min() > 0.5
    for image in (valid, torch.zeros_like(valid)):
        mean = to_video.unwarped_mean(torch.full((6, 2, 6, 9), 7.0), (H, W), valid=image)
        assert torch.allclose(mean, torch.full_like(mean, 7.0), rtol=1e-4)


def test_padding_does_not_pollute_the_mean() -> None:
    to_video = Image2Video("translate_x(0.25)", T=2)
    valid = torch.ones(1, 1, 16, 32)
    valid[..., 16:] = 0
    maps = torch.ones(2, 1, 4, 8)
    maps[0, :, :, 4:] = 1000  # what the padding of each frame gives
    maps[1, :, :, 6:] = 1000
    mean = to_video.unwarped_mean(maps, (16, 32), valid=valid)
    assert torch.allclose(mean[..., :4], torch.ones(1, 1, 4, 4), rtol=1e-3)


def test_the_way_back_compiles_to_one_graph() -> None:
    torch._dynamo.reset()
    to_video = Image2Video(CHAIN, T=5, schedule="ramp")
    mean = torch.compile(to_video.unwarped_mean, fullgraph=True, backend="aot_eager")
    maps = noise(10, 4, 6, 9)
    assert torch.allclose(mean(maps, (H, W)), to_video.unwarped_mean(maps, (H, W)), atol=1e-6)


def test_bad_maps_are_refused() -> None:
    to_video = Image2Video(CHAIN, T=3)
    with pytest.raises(InputError, match=r"T = 3 must have B·T rows, got the shape \(4, 2, 6, 9\)"):
        to_video.unwarp(noise(4, 2, 6, 9), (H, W))
    with pytest.raises(InputError, match=r"must have the shape \(B·T, K, h, w\), got \(3, 2, 6\)"):
        to_video.unwarped_mean(noise(3, 2, 6), (H, W))
    with pytest.raises(InputTypeError, match=r"must be floating point to be resampled, got torch.int64"):
        to_video.unwarp(torch.zeros(3, 1, 6, 9, dtype=torch.int64), (H, W))
    for size in (24, (24,), (0, 5), None):
        with pytest.raises(InputError, match=r"image_size must be \(height, width\), both at least 1"):
            to_video.unwarp(noise(3, 2, 6, 9), size)
    with pytest.raises(InputError, match=r"map_size must be \(height, width\)"):
        to_video.valid_mask((0, 3), (H, W))
    with pytest.raises(InputError, match=r"valid must have the shape \(B, 1, 24, 36\), got \(2, 1, 6, 9\)"):
        to_video.valid_mask((6, 9), (H, W), valid=torch.ones(2, 1, 6, 9))
    with pytest.raises(InputError, match="valid must have the rows of 1 images, got 2"):
        to_video.unwarped_mean(noise(3, 2, 6, 9), (H, W), valid=torch.ones(2, 1, H, W))
