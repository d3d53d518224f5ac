"""Grids of tokens follow from the size of the image as convolutions, poolings and slices say, and are never guessed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from image2video.trace.graph import Graph
from image2video.trace.layouts import placed
from image2video.trace.scale import CROP, Scale, window
from image2video.trace.token_grid import TokenGrid, grid_for
from image2video.trace.trace import trace_forward

STEPS = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2), st.integers(1, 2))


@settings(deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=4), st.integers(64, 200))
def test_a_chain_of_windows_is_one_scale(steps, pixels):
    scale, places = Scale(1), pixels
    for kernel, stride, padding, dilation in steps:
        scale = scale.then(window(kernel, stride, padding, dilation))
        places = (places + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    assert scale.sizes(pixels) == (places,)


def test_after_a_crop_the_number_is_rounded_down_or_up():
    scale = Scale(4).then(CROP).then(Scale(2))
    assert scale.sizes(32) == (4, 4)
    assert scale.sizes(33) == (4, 5)


class Tokens(nn.Module):
    """Tokens of a map, `(B, L, C)`, the map made in the way that `how` names."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)

    def forward(self, x):
        x = getattr(self, self.how)(self.conv(x))
        return x.flatten(2).transpose(1, 2)

    def valid(self, x):
        return nn.functional.conv2d(x, x.new_ones(8, 1, 5, 3), stride=(3, 2), groups=8)

    def same(self, x):
        return nn.functional.conv2d(x, x.new_ones(8, 1, 3, 3), padding="same", dilation=2, groups=8)

    def pooled(self, x):
        return nn.functional.max_pool2d(nn.functional.avg_pool2d(x, (3, 2)), 3, 2, 1, 1)

    def rounded_up(self, x):
        return nn.functional.max_pool2d(x, 3, 2, ceil_mode=True)

    def every_second(self, x):
        return x[:, :, ::2, 1::2]

    def padded(self, x):
        height, width = x.shape[2:]
        return nn.functional.avg_pool2d(nn.functional.pad(x, (0, -width % 4, 0, -height % 4)), 4)

    def unshuffled(self, x):
        return nn.functional.pixel_unshuffle(x[..., : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2], 2)

    def columns(self, x):
        return nn.functional.unfold(x, (3, 5), dilation=1, padding=1, stride=(2, 3))

    def split(self, x):
        x = x[..., : x.shape[2] // 2 * 2, : x.shape[3] // 5 * 5]
        B, C, H, W = x.shape
        return x.view(B, C, H // 2, 2, W // 5, 5).amax((3, 5))


WAYS = [name for name in vars(Tokens) if not name.startswith("_") and name != "forward"]


def traced_grid(net, size):
    graph = Graph(trace_forward(net, torch.zeros(1, 3, *size)))
    return placed(graph, graph.trace.outputs[0][1]).grid


@pytest.mark.parametrize("how", WAYS)
def test_the_grid_of_another_image_is_the_one_that_its_own_trace_has(how):
    net, planned = Tokens(how), traced_grid(Tokens(how), (48, 80))
    assert planned is not None
    for size in [(80, 48), (96, 40), (24, 160), (45, 83), (61, 80), (160, 240)]:
        own = traced_grid(net, size).grid
        assert grid_for([planned], size, own[0] * own[1]) == own, size


def test_a_grid_that_does_not_follow_from_the_image_is_known_at_the_traced_size_alone():
    class Pooled(nn.Module):
        def forward(self, x):
            return nn.functional.adaptive_avg_pool2d(x, (4, 6)).flatten(2).transpose(1, 2)

    planned = traced_grid(Pooled(), (32, 48))
    assert grid_for([planned], (32, 48), 24) == (4, 6)
    assert grid_for([planned], (48, 32), 24) is None


def test_windows_keep_their_size_and_are_no_larger_than_the_map():
    windows = TokenGrid((64, 64), (4, 4), Scale(8), Scale(8), parts=4)
    assert grid_for([windows], (128, 64), 16, parts=8) == (4, 4)
    assert grid_for([windows], (16, 128), 8, parts=4) == (2, 4)
    assert grid_for([windows], (16, 128), 9, parts=4) is None


def test_what_fits_twice_or_never_has_no_grid():
    planned = TokenGrid((64, 96), (4, 6), Scale(16, None), Scale(16, None))
    assert grid_for([planned], (96, 64), 24) == (6, 4)
    assert grid_for([planned], (100, 104), 42) is None, "6×7 and 7×6 both have 42 places"
    assert grid_for([planned], (96, 64), 25) is None
    assert grid_for([planned], None, 24) is None, "the size of the image is not known"
    assert grid_for([planned], (64, 96), 23) is None, "fewer tokens than the plan has for this image"
