"""The benchmark of fresh wrappers averages what a wrapper averages, and lets one half of the images judge the other."""

import pytest
import torch
from torch import nn

from image2video import ClipOptions, Genotype, VideoWrap


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


@torch.no_grad()
@pytest.mark.parametrize("schedule", ["from_zero", "centred"])
def test_it_predicts_what_a_fresh_wrapper_predicts(load, network: nn.Module, schedule: str) -> None:
    images = torch.randn(5, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    clip, text = ClipOptions(3, schedule, "reflection"), "translate_x(0.1) > scale(1.2)"
    found = load("fresh_wrap").Frames(network, images, batch_size=2).averaged(Genotype.parse(text), clip)
    wrapper = VideoWrap(network, fusion="none", genotype=text, **clip.arguments())
    torch.testing.assert_close(found, wrapper(images), rtol=1e-5, atol=1e-5)


def test_a_frame_that_clips_share_is_computed_once(load, network: nn.Module) -> None:
    rows = []
    network.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    frames = load("fresh_wrap").Frames(network, torch.randn(4, 3, 12, 16), batch_size=4)
    for T in (2, 3, 5):
        frames.averaged(Genotype.parse("translate_x(0.1)"), ClipOptions(T))
    assert len(rows) == 5


def test_the_halves_are_judged_apart(load) -> None:
    benchmark = load("fresh_wrap")
    labels = torch.tensor([0, 0, 1, 1])
    bare = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])  # the second half is wrong throughout
    better = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = benchmark.judged(better, bare, labels)
    assert (found["choose_accuracy_difference"], found["confirm_accuracy_difference"]) == (0, 100)
    assert found["confirm_cross_entropy_difference"] == pytest.approx(-1)
    rows = [
        {"genotype": "rotate(5)", "T": T, "schedule": "centred", "padding": padding, "choose_cross_entropy": loss}
        for T in (2, 3, 5)
        for padding, loss in (("zeros", 2.0), ("border", 1.0))
    ]
    assert [(row["T"], row["padding"]) for row in benchmark.front(rows)] == [
        (2, "border"),
        (3, "border"),
        (5, "border"),
    ]
