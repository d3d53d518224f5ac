"""Chains that change colours: composition by hand, one resampling per geometric run, exact copies, gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from image2video.clip import sampling
from image2video.clip.chain import apply_chain, chain_clip
from image2video.clip.colours import Colours
from image2video.clip.genotype import Genotype
from image2video.clip.ops.registry import get_op, op_names
from image2video.clip.options import ClipOptions
from image2video.clip.sampling import warp
from image2video.errors import InputError

H, W = 20, 28
COLOURS = Colours((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
OPTIONS = ClipOptions().with_colours(COLOURS)
WITHOUT_COLOURS = ClipOptions()
STEPS = (-1.0, 0.0, 1.0, 2.0, 0.5)
MIXED = Genotype.parse("rotate(10) > brightness(1.2) > translate_x(0.1)")


def normalised(*shape: int, seed: int = 0) -> Tensor:
    """Normalised images whose colours lie in 0 … 1."""
    size = shape or (2, 3, H, W)
    return COLOURS.to_normalised(torch.rand(size, generator=torch.Generator().manual_seed(seed)))


def moved(images: Tensor, text: str, step: float, **options: Any) -> Tensor:
    return warp(images, Genotype.parse(text).step_matrices([step], H, W), **options)[:, 0]


def changed(images: Tensor, op: str, magnitude: float, step: float) -> Tensor:
    return COLOURS.to_normalised(get_op(op).apply(COLOURS.to_unit(images), magnitude, step))


@pytest.fixture
def sampler_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    calls = []
    original = sampling.sample

    def counted(x: Tensor, grid: Tensor, **options: Any) -> Tensor:
        calls.append(tuple(grid.shape))
        return original(x, grid, **options)

    monkeypatch.setattr(sampling, "sample", counted)
    return calls


@pytest.mark.parametrize("options", [{}, {"padding": "border", "interpolation": "bicubic"}])
def test_a_mixed_chain_is_its_parts_one_after_the_other(options: dict[str, str]) -> None:
    images = normalised()
    clip = chain_clip(images, MIXED, STEPS, OPTIONS.replace(**options))
    for s, step in enumerate(STEPS):
        if step == 0:
            assert torch.equal(clip[:, s], images)
            continue
        expected = moved(images, "rotate(10)", step, **options)
        expected = changed(expected, "brightness", 1.2, step)
        expected = moved(expected, "translate_x(0.1)", step, **options)
        assert torch.allclose(clip[:, s], expected, atol=1e-5)
        assert not torch.allclose(clip[:, s], moved(images, "rotate(10) > translate_x(0.1)", step, **options), atol=0.1)


def test_a_geometric_run_is_one_resampling(sampler_calls: list[tuple[int, ...]]) -> None:
    images, steps = normalised(), (0.0, 1.0, 2.0)
    text = "translate_x(0.1) > rotate(5)"
    clip = chain_clip(images, Genotype.parse(text + " > solarize(0.2)"), steps, OPTIONS)
    assert len(sampler_calls) == 1
    for s, step in enumerate(steps[1:], start=1):
        assert torch.allclose(clip[:, s], changed(moved(images, text, step), "solarize", 0.2, step), atol=1e-5)
    sampler_calls.clear()
    chain_clip(images, MIXED, STEPS, OPTIONS)
    assert len(sampler_calls) == 2  # one for all frames of each run
    sampler_calls.clear()
    chain_clip(images, Genotype.parse("invert(1) > posterize(4)"), STEPS, OPTIONS)
    assert not sampler_calls


@pytest.mark.parametrize(
    "text", ["rotate(10) > scale(1.1)", "color(2) > shear_x(10)", str(MIXED), "cutout(0.4)", "identity"]
)
def test_frames_and_images_go_the_same_way(text: str) -> None:
    images, genotype = normalised(4, 3, H, W), Genotype.parse(text)
    clip = chain_clip(images, genotype, STEPS, OPTIONS)
    frames = images.expand(len(STEPS), *images.shape)
    assert torch.allclose(apply_chain(frames, genotype, STEPS, OPTIONS).transpose(0, 1), clip, atol=1e-5)


def test_every_frame_starts_from_its_own() -> None:
    frames = torch.stack([normalised(seed=s) for s in range(len(STEPS))])
    out = apply_chain(frames, MIXED, STEPS, OPTIONS)
    for s, step in enumerate(STEPS):
        assert torch.allclose(out[s], chain_clip(frames[s], MIXED, (step,), OPTIONS)[:, 0], atol=1e-5)
        assert torch.equal(out[s], frames[s]) == (step == 0)
    assert apply_chain(frames, MIXED, (0.0,) * 5, OPTIONS) is frames
    assert apply_chain(frames, Genotype.identity(), STEPS, WITHOUT_COLOURS) is frames
    geometric = Genotype.parse("rotate(10)")
    assert torch.allclose(
        apply_chain(frames, geometric, STEPS, WITHOUT_COLOURS)[3], moved(frames[3], "rotate(10)", 2.0), atol=1e-5
    )


def test_groups_of_images_do_not_change_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.stack([normalised(6, 3, H, W, seed=s) for s in range(3)])
    expected = apply_chain(frames, MIXED, (1.0, 2.0, 3.0), OPTIONS)
    for threads in (1, 4, 64):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.allclose(apply_chain(frames, MIXED, (1.0, 2.0, 3.0), OPTIONS), expected, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in op_names() if not get_op(n).geometric])
def test_gradients_pass_through_a_mixed_chain(name: str) -> None:
    magnitude = get_op(name).default
    genotype = Genotype.parse(f"translate_x(0.0637) > {name}({magnitude}) > rotate(11.3)")
    middle = 0.3 + 0.4 * torch.rand(1, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    images = COLOURS.to_normalised(middle).requires_grad_()
    if get_op(name).gradient == "exact":
        run = lambda x: chain_clip(x, genotype, (0.0, 1.0), OPTIONS.replace(padding="border"))  # noqa: E731
        assert torch.autograd.gradcheck(run, (images,))
        return
    clip = chain_clip(images, genotype, (0.0, 1.0), OPTIONS)
    without = chain_clip(images, genotype.geometric, (0.0, 1.0), WITHOUT_COLOURS)
    assert not torch.allclose(clip, without, atol=1e-3)
    twice = chain_clip(images, Genotype.parse("translate_x(0.0637)"), (0.0, 1.0), WITHOUT_COLOURS)
    twice = apply_chain(twice.transpose(0, 1), Genotype.parse("rotate(11.3)"), (0.0, 1.0), WITHOUT_COLOURS).transpose(
        0, 1
    )
    weights = torch.rand(clip.shape, dtype=torch.float64)
    (found,) = torch.autograd.grad((clip * weights).sum(), images)
    (expected,) = torch.autograd.grad((twice * weights).sum(), images)
    assert torch.allclose(found, expected, atol=1e-9)


def test_half_precision_is_computed_in_float32() -> None:
    images = normalised().bfloat16()
    clip = chain_clip(images, MIXED, STEPS, OPTIONS)
    assert clip.dtype == torch.bfloat16
    assert torch.equal(clip[:, 1], images)
    assert torch.equal(clip[:, 2], chain_clip(images.float(), MIXED, (1.0,), OPTIONS)[:, 0].bfloat16())
    assert apply_chain(images[None], MIXED, (1.0,), OPTIONS).dtype == torch.bfloat16


def test_neighbours_see_no_rounding_between_them() -> None:
    images = normalised().double()
    pair = chain_clip(images, Genotype.parse("invert(1) > invert(1)"), (1.0,), OPTIONS)[:, 0]
    assert torch.allclose(pair, images, atol=1e-14)


def test_unknown_colours_are_refused() -> None:
    for call in (
        lambda: apply_chain(normalised()[None], MIXED, (1.0,), WITHOUT_COLOURS),
        lambda: chain_clip(normalised(), MIXED, (1.0,), WITHOUT_COLOURS),
    ):
        with pytest.raises(InputError, match=r"changes colours \(brightness\).*say how .* normalised: mean=…, std=…"):
            call()
    with pytest.raises(InputError, match="mean has 3 values and std 3, but the images are"):
        chain_clip(normalised()[:, :1], MIXED, (1.0,), OPTIONS)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"2 steps need frames \(S, N, C, H, W\) with S = 2, got \(2, 3, 20, 28\)"):
        apply_chain(normalised(), MIXED, (1.0, 2.0), OPTIONS)
    with pytest.raises(InputError, match=r"3 steps need frames"):
        apply_chain(normalised()[None], MIXED, (1.0, 2.0, 3.0), OPTIONS)
    with pytest.raises(InputError, match=r"warp_frames needs frames \(S, N, C, H, W\) and matrices \(S, 3, 3\)"):
        sampling.warp_frames(normalised(), torch.eye(3)[None])
