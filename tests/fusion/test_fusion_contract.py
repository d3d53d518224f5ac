"""Every fusion, built in, registered or custom, keeps the contract; a broken one is caught."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from image2video.errors import InputError, InputTypeError
from image2video.fusion import GSF, GSM, TSM, Conv3d, Fusion, check_fusion, fusion_names, resolve_fusion
from image2video.fusion.testing import ContractError

CONV = partial(Conv3d, 4, 6, 3)


class ClipMean(Fusion):
    """Ten lines of a user's."""

    placement = "after"

    def __init__(self, channels, *, residual=False, share=1.0):
        super().__init__(channels, residual=residual)
        self.weight = nn.Parameter(torch.zeros(channels) if residual else torch.full((channels,), share))

    def fuse(self, frames, T, parts):
        clip = frames.unflatten(0, (-1, T, parts))
        mean = clip.mean(1, keepdim=True).expand_as(clip).reshape(frames.shape)
        return torch.lerp(frames, mean, self.weight.to(frames.dtype)[:, None, None])


def from_config(config, channels, residual):
    host = nn.Conv2d(channels, 6, (3, 5), stride=2, padding=1)
    return config.build(SimpleNamespace(channels=channels), residual, host)


@pytest.mark.parametrize("name", [name for name in fusion_names() if name != "none"])
@pytest.mark.parametrize("channels", [8, 20])
def test_registered_fusions_keep_the_contract(name, channels):
    check_fusion(partial(from_config, resolve_fusion(name)), channels=channels)


@pytest.mark.parametrize("name", ["tsm", "gsm", "gsf"])
@pytest.mark.parametrize("padding", ["replicate", "circular"])
def test_other_paddings_keep_the_contract(name, padding):
    check_fusion(partial(from_config, resolve_fusion(name, padding=padding)))


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
def test_convolutions_with_padding_modes_keep_the_contract(padding_mode):
    check_fusion(partial(Conv3d, out_channels=6, kernel_size=3, padding=(1, 2), groups=2, padding_mode=padding_mode))


def test_a_custom_fusion_keeps_the_contract():
    check_fusion(ClipMean)


class Leaks(ClipMean):
    def fuse(self, frames, T, parts):
        return torch.lerp(frames, frames.roll(1, 0), self.weight[:, None, None])


class NeverMixes(ClipMean):
    def fuse(self, frames, T, parts):
        return frames * self.weight[:, None, None]


class WrongShape(ClipMean):
    def fuse(self, frames, T, parts):
        return super().fuse(frames, T, parts)[:, :, 1:]


class NeverLearns(ClipMean):
    def fuse(self, frames, T, parts):
        weight = self.weight.detach() + 0 * self.weight
        return torch.lerp(frames, super().fuse(frames, T, parts).detach(), weight[:, None, None])


class NoIdentity(ClipMean):
    def fuse(self, frames, T, parts):
        return super().fuse(frames, T, parts) + 1e-3


class MixesParts(ClipMean):
    def fuse(self, frames, T, parts):
        return super().fuse(frames, T * parts, 1)


class ForgetsMemoryFormat(ClipMean):
    def fuse(self, frames, T, parts):
        return super().fuse(frames, T, parts).contiguous()


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        (Leaks, "changes another clip"),
        (NeverMixes, "neither frame 0 nor frame 2"),
        (WrongShape, "came out as"),
        (NeverLearns, "weight had not moved"),
        (NoIdentity, "does not start as the identity"),
        (MixesParts, "changes another part"),
        (ForgetsMemoryFormat, "did not come out as"),
    ],
)
def test_a_broken_fusion_is_caught(broken, match):
    with pytest.raises(ContractError, match=match):
        check_fusion(broken)


def test_the_contract_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    check_fusion(ClipMean)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("frames", "T", "error", "match"),
    [
        (torch.ones(7, 16, 3, 4), 3, InputError, "got 7 rows, which is no multiple of T = 3"),
        (torch.ones(6, 16, 3, 4), 0, InputError, "T must be .*, got 0"),
        (torch.ones(6, 16, 3, 4), 1.5, InputError, "T must be .*, got 1.5"),
        (torch.ones(6, 12, 3, 4), 3, InputError, "expected 16 channels, got 12"),
        (torch.ones(6, 16, 3), 3, InputError, "needs 4 dimensions"),
        (torch.ones(6, 16, 3, 4, dtype=torch.uint8), 3, InputTypeError, "torch.uint8"),
    ],
)
def test_wrong_frames_are_refused(frames, T, error, match):
    with pytest.raises(error, match=match):
        ClipMean(16)(frames, T)


@pytest.mark.parametrize(
    ("kind", "arguments", "match"),
    [
        (TSM, {"channels": 7}, "7 channels are too few to split: TSM moves 7 // 8 = 0"),
        (TSM, {"channels": 8, "fold_div": 1}, "fold_div must be .*, got 1"),
        (TSM, {"channels": 8, "padding": "mirror"}, "padding must be .*, got 'mirror'"),
        (GSM, {"channels": 3}, "too few to split"),
        (GSM, {"channels": 18}, "GSM needs a multiple of 4 channels, got 18"),
        (GSF, {"channels": 3}, "3 channels are too few to split for GSF, which needs 4"),
        (GSF, {"channels": 16, "ratio": 0.0}, "ratio must be .*, got 0.0"),
        (GSF, {"channels": 16, "ratio": 1.5}, "ratio must be .*, got 1.5"),
        (GSF, {"channels": 16, "padding": "reflect"}, "padding must be .*, got 'reflect'"),
        (CONV, {"groups": 3}, "groups must .*, got 3"),
        (CONV, {"padding": "full"}, "padding must .*, got 'full'"),
        (CONV, {"padding_mode": "mirror"}, "padding_mode must .*, got 'mirror'"),
        (CONV, {"inflate": "max"}, "inflate must .*, got 'max'"),
        (CONV, {"inflate": "mean", "residual": True}, "residual=False"),
    ],
)
def test_wrong_arguments_are_refused(kind, arguments, match):
    with pytest.raises(InputError, match=match):
        kind(**arguments)


def test_rows_that_are_no_multiple_of_the_parts_are_refused():
    with pytest.raises(InputError, match=r"T·parts = 3·2 = 6"):
        ClipMean(16)(torch.ones(9, 16, 3, 4), 3, parts=2)
    with pytest.raises(InputError, match=r"parts must be .*, got 0"):
        ClipMean(16)(torch.ones(9, 16, 3, 4), 3, parts=0)


def test_copies_do_not_share_parameters():
    module = ClipMean(16)
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.weight.zero_()
    assert (module.weight == 1).all()
