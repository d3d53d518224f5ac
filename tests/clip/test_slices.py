"""Frames shifted by whole cells: slices of padded maps, equal to what the sampler reads at the centres of cells."""

import pytest
import torch
from clip_cases import noise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from image2video.clip.genotype import Genotype
from image2video.clip.map_frames import map_clip
from image2video.clip.options import ClipOptions
from image2video.clip.sampling import INTERPOLATIONS, PADDINGS
from image2video.clip.slices import Shift, sliced_frames, write_shifted

AXES = st.sampled_from([(), (-1,), (-2,), (-2, -1)])
SIZES = st.integers(1, 6)
SHIFTS = st.integers(-15, 15)


def sampled(maps: Tensor, shift: Shift, padding: str, interpolation: str = "bilinear") -> Tensor:
    """The frame by the sampler: mirrored first, then shifted."""
    height, width = maps.shape[-2:]
    x = (-1.0 if -1 in shift.axes else 1.0), 2 * shift.right / width
    y = (-1.0 if -2 in shift.axes else 1.0), 2 * shift.down / height
    # The frame at p is the map at S · (p - d), where S mirrors and d shifts.
    theta = torch.tensor([[[x[0], 0, -x[0] * x[1]], [0, y[0], -y[0] * y[1]]]], dtype=torch.float64)
    grid = nn.functional.affine_grid(theta, [1, *maps.shape[1:]], align_corners=False)
    grid = grid.expand(len(maps), -1, -1, -1)
    return nn.functional.grid_sample(maps.double(), grid, mode=interpolation, padding_mode=padding, align_corners=False)


@settings(deadline=None, max_examples=150)
@given(SIZES, SIZES, st.lists(st.tuples(AXES, SHIFTS, SHIFTS), min_size=1, max_size=3), st.sampled_from(PADDINGS))
def test_slices_are_what_the_sampler_reads(
    height: int, width: int, moves: list[tuple[tuple[int, ...], int, int]], padding: str
) -> None:
    """At every distance, beyond the maps too, and for frames of several shifts at once."""
    maps = noise(2, 2, height, width, dtype=torch.float64)
    shifts = [Shift(*move) for move in moves]
    frames = sliced_frames(maps, shifts, padding)
    assert len(frames) == len(shifts)
    for frame, shift in zip(frames, shifts, strict=True):
        assert (frame - sampled(maps, shift, padding)).abs().max() < 1e-12
        written = torch.full_like(frame, torch.nan)
        write_shifted(written, maps, shift, padding)
        assert torch.equal(written, frame)
        values = set(maps.flatten().tolist()) | {0.0}
        assert set(frame.flatten().tolist()) <= values, "no value is made by arithmetic"


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("padding", PADDINGS)
def test_the_interpolation_does_not_matter(padding: str, interpolation: str) -> None:
    maps = noise(1, 2, 5, 7, dtype=torch.float64)
    shift = Shift((-1,), 2, -3)
    frame = sliced_frames(maps, [shift], padding)[0]
    assert (frame - sampled(maps, shift, padding, interpolation)).abs().max() < 1e-12


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 9), st.integers(2, 9), st.data(), st.sampled_from(PADDINGS))
def test_fractions_of_whole_cells_are_sliced(height: int, width: int, data: st.DataObject, padding: str) -> None:
    """Content that stays inside is that of the maps bit for bit, whatever the powers of the schedule."""
    down = data.draw(st.integers(1 - height, height - 1))
    right = data.draw(st.integers(1 - width, width - 1))
    maps = noise(2, 3, height, width)
    genotype = Genotype.parse(f"translate_y({down / height!r}) > translate_x({right / width!r})")
    steps = (-1.0, 1.0, 2.0)
    clip = map_clip(maps, genotype, steps, (8 * height, 8 * width), ClipOptions(padding=padding))
    for s, step in enumerate(steps):
        dy, dx = int(step * down), int(step * right)
        ys = slice(max(0, dy), max(0, height + min(0, dy)))
        xs = slice(max(0, dx), max(0, width + min(0, dx)))
        assert torch.equal(clip[:, s, :, ys, xs], maps.roll((dy, dx), (-2, -1))[:, :, ys, xs])


def test_shifts_between_cells_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = noise(1, 2, 6, 8)
    calls: list[str] = []
    real = nn.functional.grid_sample
    monkeypatch.setattr(nn.functional, "grid_sample", lambda *a, **k: (calls.append("sampled"), real(*a, **k))[1])

    def count(text: str, *steps: float) -> int:
        calls.clear()
        map_clip(maps, Genotype.parse(text), steps, (48, 64), ClipOptions())
        return len(calls)

    assert count("translate_x(0.125) > flip_x > translate_y(-0.5)", 1.0, 2.0, -3.0) == 0
    assert count(f"translate_x({0.125 + 1e-10!r})", 1.0) == 0, "a rounding of the text is no shift between cells"
    assert count(f"translate_x({0.125 + 1e-8!r})", 1.0) == 1
    assert count("translate_x(0.1)", 0.0, 1.0, 2.0) == 1
    assert count("translate_x(0.125) > rotate(5)", 0.0, 1.0) == 1
    assert count("translate_x(0.0625)", 0.0, 1.0, 2.0) == 1, "the second step is a whole cell"


def test_chains_of_mirrors_and_shifts_follow_their_order() -> None:
    maps = noise(1, 1, 2, 4)
    first, last = (
        map_clip(maps, Genotype.parse(text), (1.0,), (16, 32), ClipOptions())[:, 0]
        for text in ("flip_x > translate_x(0.25)", "translate_x(0.25) > flip_x")
    )
    mirrored = maps.flip(-1)
    assert torch.equal(first[..., 1:], mirrored[..., :-1])
    assert torch.equal(last[..., :-1], mirrored[..., 1:])
    assert first[..., 0].abs().max() == last[..., -1].abs().max() == 0


@pytest.mark.parametrize("padding", PADDINGS)
def test_gradients_are_those_of_the_sampler(padding: str) -> None:
    maps = noise(1, 2, 4, 5, dtype=torch.float64).requires_grad_()
    shifts = [Shift((), 1, -2), Shift((-1,), 0, 7), Shift((), 0, 0)]
    weights = noise(3, 1, 2, 4, 5, seed=1, dtype=torch.float64)

    def gradient(frames: list[Tensor]) -> Tensor:
        return torch.autograd.grad((torch.stack(frames) * weights).sum(), maps)[0]

    expected = gradient([sampled(maps, shift, padding) for shift in shifts])
    assert (gradient(sliced_frames(maps, shifts, padding)) - expected).abs().max() < 1e-12
