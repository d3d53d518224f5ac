"""Small backbones and comparisons that the tests of the wrapper share."""

import timm
import torch
from torch import nn

from image2video.clip.image_to_video import clip_to_frames
from image2video.integrations import timm_cifar  # noqa: F401 (registers the small-image ResNets)
from image2video.wrap.video_wrap import VideoWrap

CHAIN = "translate_x(0.1) > rotate(12) > scale(1.1)"
ALL_FUSIONS = ("none", "gsf", "gsm", "tsm", "conv3d")
COLOURFUL = "rotate(12) > contrast(1.4) > translate_x(0.1) > solarize(0.3)"


def backbone(name="cifar_resnet8", seed=0, lively=True, **kwargs):
    """A small timm model in eval mode; `lively` gives zero-initialised gains a value, so that every branch counts."""
    torch.manual_seed(seed)
    model = timm.create_model(name, **kwargs).eval()
    if lively:
        enliven(model)
    return model


def enliven(model):
    generator = torch.Generator().manual_seed(99)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1 and torch.count_nonzero(parameter) == 0:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + 0.5)


def stir(injection, seed=3):
    """Give fresh fusions random values, so that frames mix."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in injection.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * 0.5)


def wrapped(fusion="gsf", name="cifar_resnet8", *, stirred=False, **options):
    """A wrapped backbone; `stirred` lets its fusions mix the frames."""
    model = VideoWrap(backbone(name), fusion, **({"genotype": CHAIN, "T": 3} | options))
    if stirred:
        stir(model.fusion)
    return model


def images(b=2, size=(3, 32, 40), seed=5):
    return torch.randn(b, *size, generator=torch.Generator().manual_seed(seed))


def bare_mean(bare, to_video, batch, T=None):
    """The mean of the bare model's outputs over the frames."""
    clip = to_video(batch, T)
    return bare(clip_to_frames(clip)).unflatten(0, clip.shape[:2]).mean(1)


def state_of(module: nn.Module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same_state(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)
