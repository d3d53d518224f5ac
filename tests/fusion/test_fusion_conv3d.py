"""A 2-D convolution and the outer taps beside it equal a 3-D convolution."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from image2video.errors import UnsupportedError
from image2video.fusion import Conv3d
from image2video.fusion.testing import randomised


class Conv2dSame(nn.Conv2d):
    """Pads from the size of its input, as TensorFlow does."""

    def forward(self, images):
        totals = [
            max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            for size, k, s, d in zip(images.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True)
        ]
        (top, left) = (total // 2 for total in totals)
        padded = functional.pad(images, (left, totals[1] - left, top, totals[0] - top))
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class StandardisedConv(nn.Conv2d):
    def forward(self, images):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(images, weight, self.bias)


CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2), bias=False),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "depthwise, dilated": lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),
    "same": lambda: nn.Conv2d(4, 6, (3, 5), padding="same", dilation=(1, 2)),
    "valid": lambda: nn.Conv2d(4, 6, 3, padding="valid"),
    "reflect": lambda: nn.Conv2d(4, 6, (3, 5), padding=(1, 2), padding_mode="reflect"),
    "circular": lambda: nn.Conv2d(4, 6, (3, 5), padding=(1, 2), padding_mode="circular"),
    "replicate, same": lambda: nn.Conv2d(4, 6, (2, 3), padding="same", padding_mode="replicate"),
    "Conv2dSame": lambda: Conv2dSame(4, 6, (3, 2), stride=2),
}


def by_frames(conv, previous, following, frames, T):
    """Run the host itself on each neighbouring frame with the tap for its weight, in Python loops."""

    def run(frame, weight):
        changed = {"weight": weight} | ({} if conv.bias is None else {"bias": torch.zeros_like(conv.bias)})
        return torch.func.functional_call(conv, changed, (frame[None],))[0]

    out = conv(frames)
    rows = []
    for row in range(len(frames)):
        total = out[row]
        if row % T:
            total = total + run(frames[row - 1], previous)
        if row % T < T - 1:
            total = total + run(frames[row + 1], following)
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_taps_of_every_kind_of_convolution(name):
    conv = CONVOLUTIONS[name]()
    module = randomised(Conv3d.like(conv))
    assert not torch.equal(module.previous, module.next)
    frames = torch.randn(6, 4, 9, 11)
    came = module.combine(conv(frames), frames, 3, conv.bias)
    torch.testing.assert_close(came, by_frames(conv, module.previous, module.next, frames, 3))


@pytest.mark.parametrize("name", ["plain", "strided", "grouped", "depthwise, dilated"])
@pytest.mark.parametrize("inflate", ["zero", "mean"])
def test_equals_a_3d_convolution(name, inflate):
    conv, T = CONVOLUTIONS[name](), 4
    module = Conv3d.like(conv, inflate=inflate)
    centre = conv.weight
    if inflate == "mean":
        torch.testing.assert_close(module.next, conv.weight / 3)
        centre = conv.weight / 3
    with torch.no_grad():
        module.next.mul_(1.5).add_(0.1)
        module.previous.sub_(0.2)
    kernel = torch.stack([module.previous, centre, module.next], dim=2)
    frames = torch.randn(8, 4, 9, 11)
    clip = frames.unflatten(0, (-1, T)).transpose(1, 2)
    expected = functional.conv3d(
        clip, kernel, conv.bias, (1, *conv.stride), (1, *conv.padding), (1, *conv.dilation), conv.groups
    )
    came = module.combine(conv(frames), frames, T, conv.bias)
    torch.testing.assert_close(came, expected.transpose(1, 2).flatten(0, 1), rtol=1e-5, atol=1e-5)


def test_mean_inflation_keeps_equal_frames_inside_the_clip():
    conv = nn.Conv2d(4, 6, 3, padding=1)
    frames = torch.randn(1, 4, 9, 11).expand(5, 4, 9, 11)
    out = Conv3d.like(conv, inflate="mean").combine(conv(frames), frames, 5, conv.bias)
    torch.testing.assert_close(out[1:4], conv(frames)[1:4])


@pytest.mark.parametrize("inflate", ["zero", "mean"])
def test_one_frame_is_left_alone(inflate):
    conv, frames = nn.Conv2d(4, 6, 3, stride=2), torch.randn(3, 4, 9, 11)
    module, output = randomised(Conv3d.like(conv, inflate=inflate)), conv(frames)
    assert module.combine(output, frames, 1, conv.bias) is output
    assert torch.equal(module(frames, 1), torch.zeros_like(output))


def test_parts_are_convolved_apart():
    conv, T = nn.Conv2d(4, 6, 3), 3
    module, frames = randomised(Conv3d.like(conv)), torch.randn(12, 4, 9, 11)
    together = module(frames, T, parts=2).unflatten(0, (-1, 2))
    for part in range(2):
        torch.testing.assert_close(together[:, part], module(frames.unflatten(0, (-1, 2))[:, part], T))


def test_the_host_is_never_written():
    conv = nn.Conv2d(4, 6, 3)
    before = {name: value.clone() for name, value in conv.state_dict().items()}
    module = Conv3d.like(conv, inflate="mean")
    assert all(torch.equal(value, before[name]) for name, value in conv.state_dict().items())
    assert [name for name, _ in module.named_parameters()] == ["previous", "next"]
    assert module.no_weight_decay() == set()


def test_the_taps_follow_the_type_of_the_host():
    assert Conv3d.like(nn.Conv2d(4, 6, 3).double()).previous.dtype == torch.float64


def test_hosts_that_compute_otherwise_are_refused_by_name():
    for host in (StandardisedConv(4, 6, 3), nn.ConvTranspose2d(4, 6, 3), nn.Linear(4, 6)):
        with pytest.raises(UnsupportedError, match=type(host).__name__):
            Conv3d.like(host)
