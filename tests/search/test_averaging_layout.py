"""The memory format in which a ranking gives its frames to the network."""

import torch
from torch import Tensor, nn

from image2video.clip.genotype import Genotype
from image2video.clip.options import ClipOptions
from image2video.search.rank.averaging import AveragedFrames
from image2video.search.rank.clip_candidate import ClipCandidate


class Network(nn.Module):
    """Two convolutions, the second one depthwise or not; `flat` reads its maps by a view."""

    def __init__(self, groups: int, flat: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.second = nn.Conv2d(8, 8, 3, groups=groups)
        self.head = nn.LazyLinear(5)
        self.flat = flat
        self.formats: list[bool] = []
        self.eval()(torch.zeros(1, 3, 16, 24))
        self.formats.clear()

    def forward(self, frames: Tensor) -> Tensor:
        self.formats.append(frames.is_contiguous(memory_format=torch.channels_last))
        maps = self.second(self.first(frames).relu())
        return self.head(maps.view(len(maps), -1) if self.flat else maps.flatten(1))


def predicted(network: Network) -> list[Tensor]:
    images = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    clips = [
        ClipCandidate(Genotype.parse(text), ClipOptions(T=3, mean=0.0, std=1.0), "mean", 3)
        for text in ("translate_x(0.03) > rotate(5)", "flip_x", "brightness(1.2)")
    ]
    with torch.inference_mode():
        return AveragedFrames(network, batch_size=4).predictions(images, clips)


def test_depthwise_networks_get_channels_last_frames() -> None:
    network = Network(groups=8, flat=False)
    found = predicted(network)
    assert len(network.formats) > 1
    assert all(network.formats)
    assert all(torch.equal(one, again) for one, again in zip(found, predicted(network), strict=True))


def test_other_networks_get_them_as_they_came() -> None:
    network = Network(groups=1, flat=False)
    predicted(network)
    assert network.formats
    assert not any(network.formats)


def test_a_network_that_cannot_read_them_gets_them_as_they_came() -> None:
    """The predictions are those of the same network that can."""
    network, other = Network(groups=8, flat=True), Network(groups=8, flat=False)
    other.load_state_dict(network.state_dict())
    found = predicted(network)
    assert network.formats[0], "it was asked once"
    assert not any(network.formats[1:])
    for one, another in zip(found, predicted(other), strict=True):
        assert (one - another).abs().max() < 1e-5
