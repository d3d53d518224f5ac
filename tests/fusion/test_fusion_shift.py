"""A shift moves exactly the stated channels by exactly one frame, in every layout."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from image2video.errors import InputError
from image2video.fusion import TSM, shift_frames
from image2video.trace.layout import NCHW, NHWC, NLC, Layout


def reference_shift(frames, T, step, parts, padding):
    """Row by row, in Python."""
    out = torch.zeros_like(frames)
    for row in range(len(frames)):
        clip, t, part = row // (T * parts), row // parts % T, row % parts
        source = t + step
        if padding == "circular":
            source %= T
        elif padding == "replicate":
            source = min(max(source, 0), T - 1)
        if 0 <= source < T:
            out[row] = frames[(clip * T + source) * parts + part]
    return out


@settings(deadline=None, max_examples=60)
@given(
    B=st.integers(1, 3),
    T=st.integers(1, 5),
    parts=st.integers(1, 3),
    step=st.sampled_from([1, -1]),
    padding=st.sampled_from(["zeros", "replicate", "circular"]),
    shape=st.sampled_from([(), (3,), (2, 3), (3, 2, 4)]),
)
def test_shift_moves_every_row_by_one_frame(B, T, parts, step, padding, shape):
    frames = torch.randn(B * T * parts, *shape)
    moved = shift_frames(frames, T, step, parts=parts, padding=padding)
    assert torch.equal(moved, reference_shift(frames, T, step, parts, padding))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("T", [1, 3])
def test_shift_keeps_the_memory_format(memory_format, T):
    frames = torch.randn(6, 4, 5, 7).to(memory_format=memory_format)
    assert shift_frames(frames, T, 1).is_contiguous(memory_format=memory_format)


def test_shift_gradient():
    frames = torch.randn(8, 2, 3, dtype=torch.float64, requires_grad=True)
    for padding in ("zeros", "replicate", "circular"):
        assert torch.autograd.gradcheck(lambda x, p=padding: shift_frames(x, 4, 1, padding=p), (frames,))


def test_shift_refuses_another_step():
    with pytest.raises(InputError, match=r"step must be .*, got 2"):
        shift_frames(torch.ones(4), 2, 2)


def test_tsm_moves_the_stated_channels_and_no_other():
    T, frames = 4, torch.randn(8, 16, 5, 7)
    out = TSM(16)(frames, T)
    assert torch.equal(out[:, :2], reference_shift(frames[:, :2], T, 1, 1, "zeros"))
    assert torch.equal(out[:, 2:4], reference_shift(frames[:, 2:4], T, -1, 1, "zeros"))
    assert torch.equal(out[:, 4:], frames[:, 4:])
    assert (out[3::4, :2] == 0).all()
    assert (out[0::4, 2:4] == 0).all()


@pytest.mark.parametrize(("channels", "fold_div", "moved"), [(17, 8, 4), (8, 8, 2), (12, 3, 8), (6, 2, 6)])
def test_tsm_share(channels, fold_div, moved):
    frames = torch.randn(6, channels, 2, 3)
    out = TSM(channels, fold_div=fold_div)(frames, 3)
    assert sum(not torch.equal(out[:, c], frames[:, c]) for c in range(channels)) == moved


@pytest.mark.parametrize("padding", ["replicate", "circular"])
def test_tsm_padding_is_the_identity_on_equal_frames(padding):
    frames = torch.randn(2, 1, 16, 5, 7).expand(2, 3, 16, 5, 7).flatten(0, 1)
    assert torch.equal(TSM(16, padding=padding)(frames, 3), frames)
    assert not torch.equal(TSM(16)(frames, 3), frames)


def test_tsm_at_one_frame_returns_its_input():
    frames = torch.randn(3, 16, 5, 7)
    assert TSM(16)(frames, 1) is frames


@pytest.mark.parametrize(
    ("layout", "order"),
    [
        (NHWC, (0, 2, 3, 1)),
        (Layout(channel_dim=1, spatial="none"), (0, 1, 2, 3)),
        (Layout(channel_dim=-1, spatial="none"), (0, 2, 3, 1)),
    ],
)
def test_tsm_layouts_agree(layout, order):
    frames, tsm = torch.randn(6, 16, 5, 7), TSM(16)
    came = tsm(frames.permute(order).contiguous(), 3, layout=layout)
    assert torch.equal(came, tsm(frames, 3, layout=NCHW).permute(order))
    assert came.is_contiguous()


def test_tsm_shifts_prefix_tokens_too():
    tokens, tsm = torch.randn(6, 37, 16), TSM(16)
    prefixed = Layout(channel_dim=-1, spatial="tokens", prefix_tokens=1)
    assert torch.equal(tsm(tokens, 3, layout=prefixed), tsm(tokens, 3, layout=NLC))
    first = Layout(channel_dim=1, spatial="tokens")
    assert torch.equal(tsm(tokens.mT.contiguous(), 3, layout=first), tsm(tokens, 3, layout=NLC).mT)


@pytest.mark.parametrize("padding", ["zeros", "replicate", "circular"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("T", [2, 4])
def test_shares_without_gradient_are_those_with_it(padding, parts, T):
    """In every layout and memory format, of slices too; nothing is written to the frames."""
    module = TSM(16, padding=padding)
    maps = torch.randn(2 * T * parts, 16, 5, 7)
    last = maps.contiguous(memory_format=torch.channels_last)
    wide = torch.randn(2 * T * parts, 20, 5, 7).to(memory_format=torch.channels_last)
    tokens = torch.randn(2 * T * parts, 9, 16)
    for frames, layout in (
        (maps, NCHW),
        (last, NCHW),
        (wide[:, 2:18], NCHW),
        (last.permute(0, 2, 3, 1), NHWC),
        (tokens, NLC),
        (maps.bfloat16(), NCHW),
    ):
        kept = frames.clone()
        expected = module(frames.detach().requires_grad_(), T, layout=layout, parts=parts)
        out = module(frames, T, layout=layout, parts=parts)
        assert torch.equal(out, expected)
        assert out.stride() == expected.stride()
        assert torch.equal(frames, kept)
