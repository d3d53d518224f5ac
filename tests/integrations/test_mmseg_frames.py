"""Clips of padded batches and their way back: each content about its own centre, padding where it is."""

import importlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mmseg")

from by_hand import CHAIN, STEPS, mean_over, warped

from image2video import Image2Video
from image2video.errors import InputError, UnsupportedError
from image2video.integrations.openmmlab import frames
from image2video.integrations.openmmlab.frames import content_sizes, mean_of_frames, padded_frames
from image2video.training.live_memory import peak_bytes

CANVAS = (22, 30)
CONTENT = ((22, 30), (17, 30), (17, 23), (17, 23))


def clip_of(schedule="from_zero", **options):
    return Image2Video(CHAIN, T=3, schedule=schedule, **options)


def maps_of(count=4, channels=2, size=CANVAS, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, count, channels, *size, generator=generator, dtype=torch.float64).to(dtype)


def test_content_is_the_canvas_without_its_padding():
    metas = [{"padding_size": (0, 3, 0, 5)}, {"img_padding_size": [0, 7, 0, 0], "padding_size": (0, 1, 0, 1)}, {}]
    assert content_sizes((20, 30), metas) == ((15, 27), (20, 23), (20, 30))


@pytest.mark.parametrize("padding", [(1, 0, 0, 0), (0, 0, 2, 0)])
def test_padding_on_the_left_or_above_is_refused(padding):
    with pytest.raises(UnsupportedError, match=r"padding on the left and .* above"):
        content_sizes((20, 30), [{"padding_size": padding}])


@pytest.mark.parametrize("padding", [(0, 30, 0, 0), (0, 0, 0, 25), (0, -4, 0, 0)])
def test_padding_that_does_not_fit_is_refused(padding):
    with pytest.raises(InputError, match="must leave some of a batch of 20 × 30"):
        content_sizes((20, 30), [{"img_padding_size": padding}])


def test_each_content_is_warped_about_its_own_centre_and_padding_stays():
    images = torch.rand(4, 3, *CANVAS, generator=torch.Generator().manual_seed(0)) + 1
    clip = padded_frames(clip_of(), images, CONTENT).unflatten(0, (4, 3))
    for b, (h, w) in enumerate(CONTENT):
        for t in range(3):
            expected = images[b].clone()
            expected[:, :h, :w] = warped(images[b : b + 1, :, :h, :w], t)[0]
            torch.testing.assert_close(clip[b, t], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("schedule", STEPS)
@pytest.mark.parametrize("content", [CONTENT, (CANVAS,) * 4], ids=["padded", "whole"])
def test_mean_is_the_sum_over_the_mask(schedule, content, grad):
    maps, to_video = maps_of(), clip_of(schedule)
    with torch.set_grad_enabled(grad):
        mean = mean_of_frames(to_video, maps.__getitem__, content, CANVAS)
    for b, (h, w) in enumerate(content):
        expected = mean_over([one[b : b + 1, :, :h, :w] for one in maps], STEPS[schedule])[0]
        shown = expected.isfinite()
        assert shown.float().mean() > 0.8
        torch.testing.assert_close(mean[b, :, :h, :w][shown], expected[shown], rtol=1e-4, atol=1e-4)
        assert mean.isfinite().all()
        plain = maps[:, b].mean(0)
        torch.testing.assert_close(mean[b, :, h:], plain[:, h:])
        torch.testing.assert_close(mean[b, :, :h, w:], plain[:, :h, w:])


@pytest.mark.parametrize("grad", [False, True])
def test_pixels_that_no_frame_shows_take_the_nearest_frame(grad):
    to_video = Image2Video("translate_x(0.3)", T=3, schedule="ramp")
    maps = maps_of()
    with torch.set_grad_enabled(grad):
        mean = mean_of_frames(to_video, maps.__getitem__, CONTENT, CANVAS)
    for b, (h, w) in enumerate(CONTENT):
        # The content of a pixel x stands in frame 1 (s = 1) at x + 0.3 w; on the right, beyond every frame's edge.
        hidden = int(w * 0.7) + 1
        edge = maps[0, b, :, :h, w - 1 : w].expand(-1, -1, w - hidden)
        torch.testing.assert_close(mean[b, :, :h, hidden:w], edge)


@pytest.mark.parametrize("content", [CONTENT, (CANVAS,) * 4], ids=["padded", "whole"])
def test_gradients_are_those_of_the_sum(content):
    steps, gradients = STEPS["centred"], []
    for by_hand in (False, True):
        maps = maps_of(dtype=torch.float64).requires_grad_()
        if by_hand:
            rows = [mean_over([one[b : b + 1, :, :h, :w] for one in maps], steps) for b, (h, w) in enumerate(content)]
        else:
            mean = mean_of_frames(clip_of("centred"), lambda t, maps=maps: maps[t] * 1.5, content, CANVAS) / 1.5
            rows = [mean[b, :, :h, :w] for b, (h, w) in enumerate(content)]
        sum(row.square().sum() for row in rows).backward()
        gradients.append(maps.grad)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


def test_gradients_where_the_nearest_frame_stands_in():
    maps = maps_of(2, dtype=torch.float64).requires_grad_()
    to_video = Image2Video("translate_x(0.3)", T=3, schedule="ramp")
    assert torch.autograd.gradcheck(
        lambda m: mean_of_frames(to_video, m.__getitem__, ((5, 7), (4, 6)), (5, 7)),
        maps[:, :, :1, :5, :7].detach().requires_grad_(),
    )


def test_maps_are_not_kept_for_the_backward_pass(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    live_memory = importlib.import_module("live_memory")
    maps = maps_of(2, channels=24).requires_grad_()
    volume = maps[0].numel() * 4

    def call():
        mean_of_frames(clip_of("centred"), lambda t: maps[t] * 2, ((22, 30), (17, 23)), CANVAS)

    # Grids of two numbers a pixel, for two frames, beside 24 channels.
    assert live_memory.saved_bytes(call, [maps]) < 0.5 * volume


def test_each_frame_is_asked_for_once():
    for grad in (False, True):
        asked, maps = [], maps_of()
        with torch.set_grad_enabled(grad):
            mean_of_frames(
                clip_of("ramp"), lambda t, asked=asked, maps=maps: asked.append(t) or maps[t], CONTENT, CANVAS
            )
        assert sorted(asked) == [0, 1, 2]


def test_maps_of_the_head_are_not_written_into():
    maps = maps_of()
    before = maps.clone()
    with torch.no_grad():
        mean_of_frames(Image2Video("identity", T=3), maps.__getitem__, CONTENT, CANVAS)
    assert torch.equal(maps, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_summed_in_float32(dtype):
    maps = torch.full((3, 1, 2, *CANVAS), 3.0, dtype=dtype)
    mean = mean_of_frames(clip_of(), maps.__getitem__, [(17, 23)], CANVAS)
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, torch.full_like(mean, 3.0))


def test_maps_of_another_size_stand_for_the_same_content():
    """Half the size: contents of whole pixels there are moved as the ones of full size are."""
    content, half = ((22, 30), (16, 24)), (11, 15)
    maps = maps_of(2, size=half)
    with torch.no_grad():
        mean = mean_of_frames(clip_of(), maps.__getitem__, content, CANVAS)
    expected = mean_over([one[1:, :, :8, :12] for one in maps], STEPS["from_zero"])
    torch.testing.assert_close(mean[1:, :, :8, :12], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("content", [CANVAS, (17, 23)], ids=["whole", "padded"])
def test_prediction_holds_the_sum_one_frame_and_a_chunk(content, monkeypatch):
    monkeypatch.setattr(frames, "_CHUNK", 4 * CANVAS[0] * CANVAS[1])
    maps, to_video = maps_of(1, channels=32), clip_of("ramp")
    volume = maps[0].numel() * 4

    def call():
        with torch.no_grad():
            return mean_of_frames(to_video, lambda t: maps[t].clone(), [content], CANVAS)

    whole = call()
    peak = peak_bytes(call, torch.device("cpu"))
    # The sum, the frame's maps, and of 32 channels 4 at a time, the grid and what it is made of.
    assert 2 * volume <= peak <= (2 + 0.5) * volume
    monkeypatch.setattr(frames, "_CHUNK", 1 << 24)
    torch.testing.assert_close(whole, call(), rtol=0, atol=0)


@settings(max_examples=25, deadline=None)
@given(
    content=st.lists(st.tuples(st.integers(1, 14), st.integers(1, 19)), min_size=1, max_size=4),
    schedule=st.sampled_from(list(STEPS)),
    scale=st.sampled_from([1, 2]),
    value=st.floats(-50, 50, width=32),
)
def test_constant_maps_stay_constant_for_any_padding(content, schedule, scale, value):
    canvas = (14, 19)
    maps = torch.full((3, len(content), 1, canvas[0] * scale, canvas[1] * scale), value)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            mean = mean_of_frames(clip_of(schedule), maps.__getitem__, content, canvas)
        torch.testing.assert_close(mean, maps[0], rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    content=st.lists(st.tuples(st.integers(1, 14), st.integers(1, 19)), min_size=1, max_size=4),
    schedule=st.sampled_from(list(STEPS)),
)
def test_an_image_in_a_padded_batch_is_as_it_is_alone(content, schedule):
    generator = torch.Generator().manual_seed(len(content))
    images = torch.randn(len(content), 2, 14, 19, generator=generator)
    to_video = clip_of(schedule)
    clip = padded_frames(to_video, images, content).unflatten(0, (len(content), 3))
    with torch.no_grad():
        mean = mean_of_frames(to_video, lambda t: clip[:, t], content, (14, 19))
    for b, (h, w) in enumerate(content):
        alone = images[b : b + 1, :, :h, :w]
        frames_alone = to_video(alone)
        torch.testing.assert_close(clip[b, :, :, :h, :w], frames_alone[0], rtol=1e-5, atol=1e-5)
        expected = to_video.unwarped_mean(frames_alone.flatten(0, 1), (h, w))
        torch.testing.assert_close(mean[b, :, :h, :w], expected[0], rtol=1e-4, atol=1e-4)
