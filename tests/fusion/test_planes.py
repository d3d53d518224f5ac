"""A share that is copied out of frames whose channels are innermost: values, derivatives and memory formats."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from image2video.fusion import GSF
from image2video.fusion.planes import lies_apart, share_apart, share_joined
from image2video.fusion.testing import randomised
from image2video.trace.layout import NCHW, NHWC, Layout

H, W = 3, 2
GRID = Layout(channel_dim=-1, spatial="tokens", prefix_tokens=1, grid=(H, W))
LAYOUTS = {"channels_last": NCHW, "maps": NHWC, "tokens": GRID}


def laid_out(frames: Tensor, name: str) -> Tensor:
    """Frames `(N, C, H, W)` in a layout whose channels are innermost; tokens get one of ones in front."""
    last = frames.permute(0, 2, 3, 1).contiguous()
    if name == "channels_last":
        return last.permute(0, 3, 1, 2)
    if name == "maps":
        return last
    return torch.cat([last.new_ones(len(last), 1, last.shape[3]), last.flatten(1, 2)], dim=1)


def module(channels: int, *, residual: bool = True) -> nn.Module:
    return randomised(GSF(channels, 0.5, residual=residual)).double()


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_gradients_equal_those_of_maps(name: str, residual: bool, training: bool) -> None:
    gsf = module(10, residual=residual).train(training)
    frames = torch.randn(6, 10, H, W, dtype=torch.float64)
    upstream = torch.randn_like(frames)
    found = []
    for layout, shaped in ((NCHW, lambda x: x), (LAYOUTS[name], lambda x: laid_out(x, name))):
        gsf.zero_grad()
        leaf = frames.clone().requires_grad_()
        came = shaped(leaf)
        assert lies_apart(came, layout) == (shaped(leaf) is not leaf)
        out = gsf(came, 3, layout=layout)
        assert out.stride() == came.stride()
        out.backward(shaped(upstream))
        found.append([out, leaf.grad, *(p.grad for p in gsf.parameters())])
    found[0][0] = laid_out(found[0][0], name)
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LAYOUTS)
def test_derivatives(name: str) -> None:
    gsf = module(5)
    frames = laid_out(torch.randn(3, 5, H, W, dtype=torch.float64), name).requires_grad_()

    def call(x: Tensor, *_: Tensor) -> Tensor:
        return gsf(x, 3, layout=LAYOUTS[name])

    inputs = (frames, *gsf.parameters())
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # torch's own, at its first dual
@pytest.mark.parametrize("name", LAYOUTS)
def test_forward_mode_and_graphs_take_plain_operations(name: str) -> None:
    gsf = module(6).eval()
    frames, tangent = (laid_out(torch.randn(3, 6, H, W, dtype=torch.float64), name) for _ in range(2))
    with forward_ad.dual_level():
        out, along = forward_ad.unpack_dual(gsf(forward_ad.make_dual(frames, tangent), 3, layout=LAYOUTS[name]))
    step = 1e-6
    ahead, behind = (gsf(frames + sign * step * tangent, 3, layout=LAYOUTS[name]) for sign in (1, -1))
    torch.testing.assert_close(along, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(out, gsf(frames, 3, layout=LAYOUTS[name]))
    exported = torch.export.export(_At(gsf, LAYOUTS[name]), (frames,)).module()
    torch.testing.assert_close(exported(frames), out)


class _At(nn.Module):
    """A fusion at T = 3 in one layout."""

    def __init__(self, fusion: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.fusion, self.layout = fusion, layout

    def forward(self, frames: Tensor) -> Tensor:
        return self.fusion(frames, 3, layout=self.layout)


def test_the_rest_is_copied_and_nothing_is_written_to_what_came() -> None:
    frames = torch.randn(2, 1 + H * W, 6)
    before = frames.clone()
    share, rest = share_apart(frames, GRID, 4)
    assert share.shape == (2, 4, H, W)
    assert share.is_contiguous()
    out = share_joined(share + 1, rest, GRID)
    assert torch.equal(frames, before)
    assert torch.equal(out[:, 1:, :4], before[:, 1:, :4] + 1)
    assert torch.equal(out[:, :1], before[:, :1])
    assert torch.equal(out[:, :, 4:], before[:, :, 4:])


class Lifted(GSF):
    """Adds to every channel what only all of them tell."""

    def fuse(self, frames: Tensor, T: int, parts: int) -> Tensor:
        return super().fuse(frames, T, parts) + frames.mean(1, keepdim=True)


def test_a_subclass_with_a_fuse_of_its_own_gets_all_channels() -> None:
    gsf = randomised(Lifted(8, 0.5)).double().eval()
    frames = torch.randn(6, 8, H, W, dtype=torch.float64)
    expected = gsf(frames, 3)
    torch.testing.assert_close(gsf(laid_out(frames, "channels_last"), 3), expected)
    tokens = gsf(laid_out(frames, "tokens"), 3, layout=GRID)[:, 1:]
    torch.testing.assert_close(tokens, expected.flatten(2).transpose(1, 2))


def test_a_checkpoint_gives_the_same_gradients() -> None:
    gsf, frames = module(8), torch.randn(4, 1 + H * W, 8, dtype=torch.float64, requires_grad=True)
    found = []
    for run in (gsf, lambda x, T, layout: checkpoint(gsf, x, T, layout=layout, use_reentrant=False)):
        found.append(torch.autograd.grad(run(frames, 2, layout=GRID).square().sum(), (frames, *gsf.parameters())))
    torch.testing.assert_close(found[1], found[0])


def test_half_precision_keeps_its_type() -> None:
    gsf = randomised(GSF(8, residual=True)).bfloat16()
    frames = torch.randn(4, 1 + H * W, 8, dtype=torch.bfloat16, requires_grad=True)
    out = gsf(frames, 2, layout=GRID)
    out.sum().backward()
    assert out.dtype == frames.grad.dtype == torch.bfloat16
    assert torch.equal(out[:, 0], frames[:, 0])


def test_channels_outermost_or_without_places_stay_where_they_are() -> None:
    maps = torch.randn(2, 6, H, W)
    assert not lies_apart(maps, NCHW)
    assert not lies_apart(maps.flatten(2), Layout(channel_dim=1, spatial="tokens", grid=(H, W)))
    assert not lies_apart(maps[:, :, 0, 0], Layout(channel_dim=-1, spatial="none"))
