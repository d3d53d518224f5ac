"""Warping: equal to slicing and rot90 where those exist, differentiable, exact in every dtype and layout."""

from typing import Any

import pytest
import torch
from clip_cases import H, W, noise
from torch import Tensor, nn

from image2video.clip import sampling
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import clip_to_frames
from image2video.clip.matrices import chain_matrices, inverse_affine, normalise
from image2video.clip.sampling import INTERPOLATIONS, PADDINGS, resample, warp
from image2video.errors import InputError


def matrices(text: str, steps: tuple[float, ...] = (1.0,), height: int = H, width: int = W) -> Tensor:
    return Genotype.parse(text).step_matrices(steps, height, width)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("dx", "dy"), [(5, 0), (-7, 0), (0, 3), (0, -4), (5, -4)])
def test_whole_pixels_equal_slicing(dx: int, dy: int, interpolation: str) -> None:
    images = noise(2, 3, H, W).sigmoid()
    frame = warp(images, matrices(f"translate_x({dx / W!r}) > translate_y({dy / H!r})"), interpolation=interpolation)
    expected = torch.zeros_like(images)
    target = (slice(max(dy, 0), H + min(dy, 0)), slice(max(dx, 0), W + min(dx, 0)))
    source = (slice(max(-dy, 0), H + min(-dy, 0)), slice(max(-dx, 0), W + min(-dx, 0)))
    expected[(..., *target)] = images[(..., *source)]
    assert (frame[:, 0] - expected).abs().max() < 1e-5


def test_rotation_by_90_degrees_on_a_wide_image() -> None:
    images = noise(1, 2, 8, 12)
    frame = warp(images, matrices("rotate(90)", height=8, width=12))[:, 0]
    turned = torch.rot90(images, 1, (2, 3))  # 12 rows of 8, counter-clockwise
    assert (frame[..., 2:10] - turned[..., 2:10, :]).abs().max() < 1e-5
    assert frame[..., :2].abs().max() < 1e-5
    assert frame[..., 10:].abs().max() < 1e-5


def test_linear_content_follows_the_matrix() -> None:
    """On a ramp bilinear interpolation is exact: the frame is the ramp of the inversely mapped points."""
    matrix = matrices("shear_x(12) > rotate(17) > translate_y(0.07) > scale(1.3)")
    ys, xs = torch.meshgrid(torch.arange(H) - (H - 1) / 2, torch.arange(W) - (W - 1) / 2, indexing="ij")
    points = torch.stack([xs, ys, torch.ones_like(xs)]).double().flatten(1)
    x, y, _ = (inverse_affine(matrix)[0] @ points).unflatten(1, (H, W))
    frame = warp((2 * xs - 3 * ys)[None, None], matrix)[0, 0, 0]
    inside = (x.abs() < (W - 1) / 2) & (y.abs() < (H - 1) / 2)
    assert inside.float().mean() > 0.5
    assert (frame - (2 * x - 3 * y))[inside].abs().max() < 1e-4


def test_every_image_by_every_matrix() -> None:
    images = noise(3, 2, H, W)
    M = matrices("translate_x(0.06) > rotate(10) > scale(1.1)", (1.0, 2.0, -1.0, 0.5))
    together = warp(images, M)
    assert together.shape == (3, 4, 2, H, W)
    theta = normalise(inverse_affine(M), H, W).float()
    for n in range(3):
        for s in range(4):
            grid = nn.functional.affine_grid(theta[s : s + 1, :2], [1, 2, H, W], align_corners=False)
            alone = nn.functional.grid_sample(images[n : n + 1], grid, align_corners=False)
            assert (together[n, s] - alone[0]).abs().max() < 1e-4


@pytest.mark.parametrize("copied", [((), None, None), (None, (), None), ((), (), ())])
def test_copied_frames_are_the_image_bit_for_bit(copied: tuple[tuple[int, ...] | None, ...]) -> None:
    images = noise(2, 3, H, W)
    M = matrices("rotate(10) > scale(1.1)", (1.0, 2.0, 3.0))
    clip = warp(images, M, mirrored=copied)
    sampled = warp(images, M)
    for s, copy in enumerate(copied):
        assert torch.equal(clip[:, s], sampled[:, s] if copy is None else images)


@pytest.mark.parametrize("threads", [1, 3, 7, 64])
def test_groups_of_images_do_not_change_the_frames(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(6, 3, H, W)
    M = matrices("rotate(10) > scale(1.1)", (1.0, 2.0))
    expected = torch.cat([warp(image[None], M) for image in images])
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert sampling._groups(images, 2) == {1: 1, 3: 2, 7: 6, 64: 6}[threads]
    assert torch.allclose(warp(images, M), expected, atol=1e-6)


def test_one_sampler_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = nn.functional.grid_sample

    def counted(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        calls.append(x.shape)
        return real(x, *args, **kwargs)

    monkeypatch.setattr(nn.functional, "grid_sample", counted)
    warp(noise(2, 3, H, W), matrices("rotate(10)", (0.0, 1.0, 2.0)), mirrored=((), None, None))
    assert len(calls) == 1
    assert calls[0][0] == 2 * sampling._groups(torch.zeros(2, 3, H, W), 2)


@pytest.mark.parametrize("channels", [3, 5])
@pytest.mark.parametrize("copied", [((), None, None), None])
def test_channels_last_images_give_channels_last_frames(
    copied: tuple[tuple[int, ...] | None, ...] | None, channels: int
) -> None:
    """So does a slice of their channels, which is not contiguous itself."""
    images = noise(2, channels, H, W)
    M = matrices("rotate(10)", (0.0, 1.0, 2.0))
    expected = warp(images[:, :3], M, mirrored=copied)
    clip = warp(images.to(memory_format=torch.channels_last)[:, :3], M, mirrored=copied)
    frames = clip_to_frames(clip)
    assert frames.is_contiguous(memory_format=torch.channels_last)
    assert frames.data_ptr() == clip.data_ptr()
    assert torch.equal(clip, expected)
    plain = clip_to_frames(expected)
    assert plain.is_contiguous()
    assert plain.data_ptr() == expected.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_images_are_sampled_in_float32(dtype: torch.dtype) -> None:
    images = noise(2, 3, H, W).to(dtype)
    M = matrices("translate_x(0.06) > rotate(10)", (0.0, 1.0))
    clip = warp(images, M, mirrored=((), None))
    assert clip.dtype == dtype
    assert torch.equal(clip, warp(images.float(), M, mirrored=((), None)).to(dtype))


def test_autocast_changes_nothing() -> None:
    images, magnitudes, steps = noise(2, 3, H, W), torch.tensor([0.06, 10.0]), torch.tensor([1.0, 2.0])
    expected = warp(images, chain_matrices(["translate_x", "rotate"], magnitudes, steps, H, W))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = warp(images, chain_matrices(["translate_x", "rotate"], magnitudes, steps, H, W))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_gradients_in_images_and_magnitudes(padding: str, interpolation: str) -> None:
    images = noise(2, 1, 4, 6, dtype=torch.float64).requires_grad_()
    magnitudes = torch.tensor([0.0637, 11.3, 1.13, 4.7], dtype=torch.float64, requires_grad=True)
    names = ["translate_x", "rotate", "scale", "shear_y"]
    steps = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)

    def clip(x: Tensor, m: Tensor) -> Tensor:
        M = chain_matrices(names, m, steps, 4, 6)
        return warp(x, M, padding=padding, interpolation=interpolation, mirrored=((), None, None))

    assert torch.autograd.gradcheck(clip, (images, magnitudes))


@pytest.mark.parametrize("padding", PADDINGS)
def test_paddings_differ_outside_only(padding: str) -> None:
    images = noise(1, 1, H, W)
    frame = warp(images, matrices(f"translate_x({4 / W!r})"), padding=padding)[0, 0, 0]
    image = images[0, 0]
    assert torch.allclose(frame[:, 4:], image[:, :-4], atol=1e-4)
    left = {"zeros": torch.zeros(H, 4), "border": image[:, :1].expand(H, 4), "reflection": image[:, :4].flip(1)}
    assert torch.allclose(frame[:, :4], left[padding], atol=1e-4)


def test_extreme_matrices_stay_finite() -> None:
    for text in ("scale(0.25)", "scale(4)"):
        clip = warp(torch.ones(1, 1, 5, 7), matrices(text, (15.0,), 5, 7))
        assert clip.isfinite().all()
    assert warp(torch.ones(1, 1, 4, 6), matrices("scale(0.25)", (15.0,), 4, 6)).abs().max() == 0


def test_empty_batches() -> None:
    assert warp(torch.zeros(0, 3, H, W), matrices("rotate(10)", (1.0, 2.0))).shape == (0, 2, 3, H, W)


def test_wrong_shapes_and_options_are_refused() -> None:
    images, M = noise(1, 3, H, W), matrices("rotate(10)")
    with pytest.raises(InputError, match=r"images \(N, C, H, W\) and matrices \(S, 3, 3\)"):
        warp(images[0], M)
    with pytest.raises(InputError, match=r"got \(1, 3, 24, 36\) and \(3, 3\)"):
        warp(images, M[0])
    with pytest.raises(InputError, match="mirrored must have one entry per matrix, 1, got 2"):
        warp(images, M, mirrored=((), None))
    with pytest.raises(InputError, match="unknown padding 'wrap'; choose one of zeros, border, reflection"):
        warp(images, M, padding="wrap")
    with pytest.raises(InputError, match="unknown interpolation 'cubic'; choose one of bilinear, nearest, bicubic"):
        warp(images, M, interpolation="cubic")
    with pytest.raises(InputError, match=r"\(G, C, H, W\) and \(G, 3, 3\)"):
        resample(images, M.expand(2, 3, 3))
