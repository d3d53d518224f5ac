"""`forward_intermediates` where the clip begins inside of a backbone that reshapes by the rows of the images."""

import pytest
import torch
from torch import nn
from wrap_helpers import images

from image2video import VideoWrap
from image2video.errors import UnsupportedError

timm = pytest.importorskip("timm")
SIZE = (3, 64, 96)
SMALL = {"img_size": SIZE[1:], "patch_size": 16, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 5}


def network(family):
    torch.manual_seed(0)
    if family == "mixer":
        from timm.models.mlp_mixer import MlpMixer

        net = MlpMixer(img_size=SIZE[1:], patch_size=16, embed_dim=24, num_blocks=3, num_classes=5)
    else:
        module = {"vit": "vision_transformer.VisionTransformer", "deit": "deit.VisionTransformerDistilled"}
        module |= {"eva": "eva.Eva", "beit": "beit.Beit"}
        file, name = module[family].split(".")
        net = getattr(__import__(f"timm.models.{file}", fromlist=[name]), name)(**SMALL)
    for weight in net.parameters():  # some begin with zeros, and would hide an order of channels
        nn.init.normal_(weight, std=0.2)
    return net.eval()


def by_hand(net, video, batch, T=3):
    """The tokens behind the block 1 and the last, with the frames made by hand at the input of block 1."""
    grid, prefix = (4, 6), getattr(net, "num_prefix_tokens", 0)

    def frames(module, args):
        tokens = args[0]
        maps = tokens[:, prefix:].transpose(1, 2).unflatten(2, grid)
        moved = video.map_frames(maps, SIZE[1:], T).flatten(2).transpose(1, 2)
        return (torch.cat([tokens[:, :prefix].repeat_interleave(T, 0), moved], 1), *args[1:])

    found = []
    handles = [block.register_forward_hook(lambda m, a, out: found.append(out)) for block in net.blocks]
    handles.append(net.blocks[1].register_forward_pre_hook(frames))
    net.forward_features(batch)
    for handle in handles:
        handle.remove()
    return [tokens[:, prefix:].transpose(1, 2).unflatten(2, grid) for tokens in found]


@pytest.mark.parametrize(
    ("family", "count"), [("vit", 1), ("vit", 2), ("deit", 2), ("eva", 2), ("beit", 2), ("mixer", 2)]
)
def test_frames_do_not_become_channels(family, count):
    net, batch = network(family), images(count, size=SIZE)
    model = VideoWrap(network(family), "none", genotype="rotate(10)", clip_at="blocks.1", T=3, input_size=SIZE).eval()
    with torch.no_grad():
        first, second, third = by_hand(net, model.to_video, batch)
        expected = [first, *(model.to_video.unwarped_mean(maps, SIZE[1:], 3) for maps in (second, third))]
        found = model.forward_intermediates(batch, [0, 1, 2], intermediates_only=True)
        tokens = model.forward_intermediates(batch, [0, 1, 2], output_fmt="NLC")[1]
    assert [maps.shape for maps in found] == [(count, 24, 4, 6)] * 3
    for one, other, sequence in zip(found, expected, tokens, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(sequence, one.flatten(2).transpose(1, 2), atol=0, rtol=0)


@pytest.mark.parametrize(("how", "count"), [("auto", 1), ("auto", 2), ("mean", 2), ("none", 2)])
def test_at_several_places(how, count):
    batch = images(count, size=SIZE)
    clips = {"blocks.1": "translate_x(0.25)", "blocks.2": "flip_x"}
    model = VideoWrap(network("vit"), "none", genotype=clips, T=3, input_size=SIZE, aggregate=how).eval()
    with torch.no_grad():
        first, *later = model.forward_intermediates(batch, [0, 1, 2], intermediates_only=True)
        expected = network("vit").forward_intermediates(batch, [0], intermediates_only=True)[0]
        _, (tokens,) = model.forward_intermediates(batch, [1], return_prefix_tokens=True)
    torch.testing.assert_close(first, expected, atol=0, rtol=0)
    shape = (count, 3, 24, 4, 6) if how == "none" else (count, 24, 4, 6)
    assert [maps.shape for maps in (*later, tokens[0])] == [shape] * 3


def test_another_reshape_is_refused_by_name():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            return self.second(self.first(x)).mean((2, 3))

        def forward_intermediates(self, x, indices, output_fmt, intermediates_only):
            return [self.second(self.first(x)).reshape(x.shape[0], -1, *x.shape[2:])]

    model = VideoWrap(Other(), "none", genotype="rotate(9)", clip_at="second", T=3, input_size=(3, 12, 20)).eval()
    with pytest.raises(UnsupportedError, match=r"out\[0\] of forward_intermediates lies behind .* each of 6 frames"):
        model.forward_intermediates(images(2, size=(3, 12, 20)), intermediates_only=True)
