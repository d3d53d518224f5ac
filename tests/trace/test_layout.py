"""A layout brings any feature tensor to (N, C, H, W) and back, and refuses what it does not describe."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from image2video.errors import InputError
from image2video.trace.layout import NCHW, NHWC, NLC, Layout, is_channels_last


@pytest.mark.parametrize(
    ("layout", "shape", "maps"),
    [
        (NCHW, (2, 6, 3, 5), (2, 6, 3, 5)),
        (NHWC, (2, 3, 5, 6), (2, 6, 3, 5)),
        (NLC, (2, 16, 6), (2, 6, 4, 4)),
        (NLC, (2, 15, 6), (2, 6, 1, 15)),
        (Layout(-1, "tokens", grid=(3, 5)), (2, 15, 6), (2, 6, 3, 5)),
        (Layout(1, "tokens", grid=(3, 5)), (2, 6, 15), (2, 6, 3, 5)),
        (Layout(1, "none"), (2, 6), (2, 6, 1, 1)),
        (Layout(-1, "none"), (2, 6), (2, 6, 1, 1)),
        (Layout(1, "none"), (2, 6, 7), (2, 6, 1, 7)),
        (Layout(-1, "none"), (2, 3, 5, 6), (2, 6, 1, 15)),
    ],
)
def test_to_maps_and_back(layout, shape, maps):
    tensor = torch.randn(shape)
    layout.check(tensor, 6)
    came = layout.to_maps(tensor)
    assert came.shape == maps
    assert came.data_ptr() == tensor.data_ptr()
    assert torch.equal(layout.from_maps(came, tensor), tensor)
    assert torch.equal(layout.from_maps(came.contiguous(), tensor), tensor)


def test_tokens_fill_the_grid_row_by_row():
    tokens = torch.arange(15.0).view(1, 15, 1)
    maps = Layout(-1, "tokens", grid=(3, 5)).to_maps(tokens)
    assert torch.equal(maps[0, 0], torch.arange(15.0).view(3, 5))


def test_a_grid_of_another_number_of_places_is_refused():
    with pytest.raises(InputError, match="got 9 tokens for a grid of 3×5"):
        Layout(-1, "tokens", grid=(3, 5)).to_maps(torch.zeros(2, 9, 6))


@given(st.integers(1, 400))
def test_a_token_grid_has_every_token(tokens):
    height, width = NLC.token_grid(tokens)
    assert height * width == tokens
    assert height == width or height == 1


@pytest.mark.parametrize("channel_dim", [1, -1])
def test_prefix_tokens_are_split_and_joined(channel_dim):
    layout = Layout(channel_dim, "tokens", prefix_tokens=2)
    tensor = torch.randn(3, 11, 6) if channel_dim == -1 else torch.randn(3, 6, 11)
    prefix, body = layout.split_prefix(tensor)
    assert layout.to_maps(body).shape == (3, 6, 3, 3)
    assert torch.equal(layout.join_prefix(prefix, body), tensor)


@pytest.mark.parametrize(
    ("layout", "shape", "match"),
    [
        (NCHW, (2, 6, 3), "needs 4 dimensions"),
        (NLC, (2, 6, 3, 3), "needs 3 dimensions"),
        (Layout(1, "none"), (6,), "needs 2 or more dimensions"),
        (NHWC, (2, 6, 3, 5), "expected 6 channels, got 5"),
        (Layout(-1, "tokens", prefix_tokens=4), (2, 4, 6), "got 4 tokens .* none is left"),
    ],
)
def test_check_refuses(layout, shape, match):
    with pytest.raises(InputError, match=match):
        layout.check(torch.zeros(shape), 6)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"channel_dim": 2, "spatial": "map"}, "channel_dim must be .*, got 2"),
        ({"channel_dim": 1, "spatial": "grid"}, "spatial must be .*, got 'grid'"),
        ({"channel_dim": 1, "spatial": "tokens", "prefix_tokens": -1}, "prefix_tokens must be .*, got -1"),
        ({"channel_dim": 1, "spatial": "map", "prefix_tokens": 1}, "belong to spatial='tokens'"),
        ({"channel_dim": 1, "spatial": "tokens", "grid": (0, 3)}, "grid must be"),
    ],
)
def test_a_layout_refuses_wrong_fields(arguments, match):
    with pytest.raises(InputError, match=match):
        Layout(**arguments)


def test_channels_last_is_seen_in_slices():
    frames = torch.randn(2, 8, 3, 5)
    assert not is_channels_last(frames[:, :4])
    assert is_channels_last(frames.to(memory_format=torch.channels_last)[:, :4])
