"""Layouts, prefix tokens, grids and rows per frame, read from the trace and checked on real tensors."""

import pytest
import timm
import torch
from plan_cases import SIZE, Mixer, Transformer, Windows, check_frames_outermost
from torch import Tensor, nn

from image2video.inject import plan
from image2video.trace.layout import NCHW, NHWC, Layout


@pytest.mark.parametrize("prefix", [1, 3])
def test_tokens_have_their_prefix_and_their_grid(prefix):
    for site in plan(Transformer(prefix=prefix), input_size=SIZE).sites:
        assert site.layout == Layout(-1, "tokens", prefix, (6, 10))
        assert site.shape == (1, 60 + prefix, 16)


def test_token_mixing_has_its_channels_in_dimension_1():
    net = Mixer()
    for fusion in ("tsm", "gsf"):
        made = plan(net, fusion=fusion, input_size=SIZE)
        tokens, channels = made.sites
        assert (tokens.name[:6], tokens.layout, tokens.channels) == ("tokens", Layout(1, "tokens", 0, (6, 10)), 16)
        assert (channels.name[:8], channels.layout, channels.channels) == (
            "channels",
            Layout(-1, "tokens", 0, (6, 10)),
            16,
        )
        assert check_frames_outermost(net, made) == 2


def test_windows_are_parts_of_their_frame():
    net = Windows()
    for fusion in ("tsm", "gsf"):
        made = plan(net, fusion=fusion, input_size=SIZE)
        (site,) = made.sites
        assert (site.parts, site.layout, site.shape) == (6, Layout(-1, "tokens", 0, (2, 5)), (6, 10, 16))
        assert check_frames_outermost(net, made) == 1


def test_frames_that_are_not_outermost_are_refused_with_the_reason():
    net = Windows(frames_first=False)
    with pytest.raises(ValueError, match="frames are not the outermost part"):
        plan(net, fusion="tsm", input_size=SIZE)


def test_windows_of_swin():
    net = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=(32, 64), embed_dim=16, depths=(2, 1), num_heads=(2, 2), window_size=4
    )
    made = plan(net, fusion="tsm", input_size=(3, 32, 64))
    assert [(site.name, site.parts, site.layout.grid) for site in made.sites] == [
        ("layers.0.blocks.0.attn.qkv", 8, (4, 4)),
        ("layers.0.blocks.0.mlp.fc1", 1, (8, 16)),
        ("layers.0.blocks.1.attn.qkv", 8, (4, 4)),
        ("layers.0.blocks.1.mlp.fc1", 1, (8, 16)),
        ("layers.1.blocks.0.attn.qkv", 2, (4, 4)),
        ("layers.1.blocks.0.mlp.fc1", 1, (4, 8)),
    ]
    assert check_frames_outermost(net, made) == 6


def test_unrolled_tokens_have_no_grid():
    net = timm.create_model("hiera_tiny_224", img_size=64, embed_dim=16, stages=(1, 1, 1, 1), num_heads=1)
    made = plan(net, fusion="gsf", input_size=(3, 64, 64))
    assert made.sites[0].layout == Layout(-1, "none")
    assert "no row-major grid" in str(made)
    assert check_frames_outermost(net, made) == len(made.sites)


def test_a_block_that_ends_channels_last():
    net = timm.create_model("test_convnext3", conv_mlp=False)
    before, after = (plan(net, fusion=f, input_size=(3, 64, 96)).sites[0] for f in ("tsm", "gsf"))
    assert (before.layout, after.layout) == (NCHW, NHWC)
    assert (before.shape, after.shape) == ((1, 32, 16, 24), (1, 16, 24, 32))


def test_rows_of_places_become_parts():
    class Places(nn.Module):
        """A per-place MLP on rows `(B·H·W, C)`."""

        def __init__(self):
            super().__init__()
            self.stem, self.fc1, self.fc2 = nn.Conv2d(3, 16, 4, stride=4), nn.Linear(16, 32), nn.Linear(32, 16)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).permute(0, 2, 3, 1)
            y = self.fc2(self.fc1(x.reshape(-1, 16)).relu())
            return x + y.view(x.shape)

    net = Places()
    made = plan(net, fusion="gsf", input_size=SIZE)
    assert [(s.name, s.parts, s.layout, s.shape) for s in made.sites] == [("fc2", 60, Layout(-1, "none"), (60, 16))]
    assert check_frames_outermost(net, made) == 1


def test_outputs_carry_their_layouts():
    maps = timm.create_model("test_convnext", features_only=True)
    made = plan(maps, input_size=(3, 64, 96))
    assert [out.path for out in made.outputs] == ["[0]", "[1]", "[2]", "[3]"][: len(made.outputs)]
    assert len(made.outputs) > 1
    assert {out.layout for out in made.outputs} == {NCHW}
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, embed_dim=16, depths=(1, 1), num_heads=(2, 2), window_size=4,
        features_only=True, out_indices=(0, 1),
    )  # fmt: skip
    assert {out.layout for out in plan(swin, input_size=(3, 32, 32)).outputs} == {NHWC}
    assert plan(Transformer(), input_size=SIZE).outputs[0].layout == Layout(-1, "tokens", 1, (6, 10))


def test_outputs_in_dictionaries_and_dataclasses_are_named():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Transformer()

        def forward(self, x: Tensor) -> dict[str, object]:
            y = self.net(x)
            return {"tokens": y, "more": [y.mean(1), torch.zeros(1)]}

    made = plan(Nested(), input_size=SIZE)
    assert [(out.path, out.shape) for out in made.outputs] == [("['tokens']", (1, 61, 16)), ("['more'][0]", (1, 16))]
