"""Auxiliary outputs of training, before and behind the place where a clip begins inside of the network."""

import copy

import pytest
import torch
from torch import Tensor, nn

from image2video import Image2Video, VideoWrap
from image2video.errors import InputError

SIZE = (3, 24, 32)
HOW = {"genotype": "translate_x(0.25)", "T": 3, "schedule": "from_zero", "padding": "border"}


class Auxiliary(nn.Module):
    """A classifier with auxiliary heads behind its first and second stage, in training alone."""

    def __init__(self, *, bypass: bool = False) -> None:
        super().__init__()
        self.bypass = bypass
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 4, 3, padding=1)
        self.heads = nn.ModuleList(nn.Linear(4, 5) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        first = self.first(images).relu()
        second = self.second(first).relu()
        last = self.third(second)
        if not self.training:
            return self.heads[2](last.mean((2, 3)))
        if self.bypass:
            second = second + first
        logits = [head(maps.mean((2, 3))) for head, maps in zip(self.heads, (first, second, last), strict=True)]
        return logits[2], logits[1], logits[0]


def same(maps: Tensor) -> Tensor:
    return maps


def wrapped(net: nn.Module, place: str, **options: object) -> VideoWrap:
    return VideoWrap(net, "none", clip_at=place, **{"input_size": SIZE, **HOW, **options}).train()


@pytest.mark.parametrize(("place", "before"), [("second", 1), ("third", 2)])
@pytest.mark.parametrize("aggregate", ["auto", "mean_prob", "first"])
def test_auxiliary_logits_of_training_are_those_of_frames_or_of_images(place: str, before: int, aggregate: str) -> None:
    torch.manual_seed(0)
    net = Auxiliary().train()
    images = torch.randn(2, *SIZE)
    expected = net(images)
    model = wrapped(copy.deepcopy(net), place, aggregate=aggregate)
    found = model(images)
    assert [tuple(logits.shape) for logits in found] == 3 * [(2, 5)]
    for logits, bare in list(zip(found, expected, strict=True))[3 - before :]:
        assert torch.equal(logits, bare)
    if aggregate != "first":  # frame 0 is the image
        for logits, bare in list(zip(found, expected, strict=True))[: 3 - before]:
            assert (logits - bare).abs().max() > 1e-3
    sum(logits.sum() for logits in found).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.eval()(images).shape == (2, 5)


@torch.no_grad()
@pytest.mark.parametrize("image", [None, "identity | flip_y"])
def test_auxiliary_logits_between_places_are_those_of_the_frames_there(image: str | None) -> None:
    torch.manual_seed(0)
    net, images = Auxiliary().train(), torch.randn(2, *SIZE)
    sites = {"second": "identity | flip_x", "third": "identity | translate_x(2 cells)"}
    sites |= {} if image is None else {"image": image}
    order = {place: sites[place] for place in ("image", "second", "third") if place in sites}
    made = [Image2Video(clip, padding="reflection") for clip in order.values()]
    frames = []
    for t in (0, 1):
        inputs = images if image is None else made[0](images)[:, t]
        first = net.first(inputs).relu()
        second = net.second(made[-2].map_frames(first, SIZE[1:])[t::2]).relu()
        last = net.third(made[-1].map_frames(second, SIZE[1:])[t::2])
        heads = zip(net.heads, (first, second, last), strict=True)
        frames.append([head(maps.mean((2, 3))) for head, maps in heads][::-1])
    expected = [(still + moved) / 2 for still, moved in zip(*frames, strict=True)]
    model = VideoWrap(copy.deepcopy(net), "none", genotype=order, input_size=SIZE).train()
    for found, mean in zip(model(images), expected, strict=True):
        torch.testing.assert_close(found, mean, atol=1e-6, rtol=1e-6)


def test_what_leads_past_the_place_in_training_alone_is_named() -> None:
    model = wrapped(Auxiliary(bypass=True), "second")
    # A single image would be added to all of its frames without a word; with more the network itself would fail.
    for count in (1, 2):
        with pytest.raises(InputError, match=r"in training mode what '\(root\)' makes leads past it to"):
            model(torch.randn(count, *SIZE))


def test_torchvision_segmentors_with_an_auxiliary_head() -> None:
    models = pytest.importorskip("torchvision.models")
    getter = models._utils.IntermediateLayerGetter
    heads = models.segmentation.fcn
    torch.manual_seed(0)
    backbone = getter(models.resnet18(weights=None), {"layer4": "out", "layer3": "aux"})
    net = heads.FCN(backbone, heads.FCNHead(512, 5), heads.FCNHead(256, 5))
    for module in net.modules():
        if isinstance(module, nn.Dropout | nn.BatchNorm2d):
            module.forward = same  # so that rows do not depend on one another
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = net.train()(images)
        for place, of_images in (("backbone.layer3", False), ("backbone.layer4", True)):
            model = wrapped(net, place, input_size=(3, 64, 96))
            for training in (True, False):
                found = model.train(training)(images)
                assert {name: tuple(maps.shape) for name, maps in found.items()} == dict.fromkeys(
                    ("out", "aux"), (2, 5, 64, 96)
                )
                assert torch.equal(found["aux"], expected["aux"]) == of_images
                assert not torch.equal(found["out"], expected["out"])
            model.unwrap()


@pytest.mark.slow
def test_googlenet_trains_with_auxiliary_heads_before_and_behind_the_place() -> None:
    models = pytest.importorskip("torchvision.models")
    net = models.googlenet(weights=None, num_classes=5, aux_logits=True, init_weights=False)
    model = wrapped(net, "inception4c", input_size=(3, 64, 96))
    outputs = model(torch.randn(2, 3, 64, 96))
    assert type(outputs).__name__ == "GoogLeNetOutputs"
    assert [tuple(logits.shape) for logits in outputs] == 3 * [(2, 5)]
    sum(logits.square().mean() for logits in outputs).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("place", ["Mixed_6c", "Mixed_7a"])
def test_inception_trains_with_its_auxiliary_head_behind_the_place_and_before_it(place: str) -> None:
    models = pytest.importorskip("torchvision.models")
    net = models.inception_v3(weights=None, num_classes=5, aux_logits=True, init_weights=False)
    size = (3, 299, 299)
    model = wrapped(net, place, input_size=size, T=2)
    outputs = model(torch.randn(2, *size))
    assert type(outputs).__name__ == "InceptionOutputs"
    assert [tuple(logits.shape) for logits in outputs] == 2 * [(2, 5)]
    sum(logits.square().mean() for logits in outputs).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
