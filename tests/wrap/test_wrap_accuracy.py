"""Wrapping a trained model must not cost accuracy, and the parameter counts of the paper."""

import pytest
import timm
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from wrap_helpers import backbone

from image2video.wrap.video_wrap import VideoWrap

MARGIN = 0.01
"""The accuracy that averaging over the frames of the default genotype may cost, without any training."""
CROP = 2


@pytest.fixture(scope="module")
def trained():
    """A small ResNet trained on digits upscaled to 16×16, with random crops as usual, and its 597 test images.

    The crops matter: the digits fill their image, and a network that never saw one moved loses 2 to 7 points of
    accuracy to the frames (seeds 0 to 2, T of 3 to 5).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8)
    images = functional.interpolate((images - images.mean()) / images.std(), size=(16, 16), mode="bilinear")
    labels = torch.tensor(labels)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[:1200], order[1200:]
    model = backbone("cifar_resnet8", in_chans=1, lively=False).train()
    epochs, size, lr = 12, 60, 0.01
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * (len(train) // size))
    generator = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for batch in train[torch.randperm(len(train), generator=generator)].split(size):
            loss = nn.functional.cross_entropy(model(crops(images[batch], generator)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    yield model.eval(), images[test], labels[test]
    torch.set_num_threads(threads)


def crops(images, generator):
    height, width = images.shape[-2:]
    padded = functional.pad(images, (CROP, CROP, CROP, CROP), value=images.min().item())
    offsets = torch.randint(0, 2 * CROP + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, offsets, strict=True)])


@torch.no_grad()
def accuracy(model, images, labels):
    return (model(images).argmax(1) == labels).double().mean().item()


def test_wrapping_a_trained_model_does_not_cost_accuracy(trained):
    bare, images, labels = trained
    before = accuracy(bare, images, labels)
    assert before > 0.95, f"the bare model has learned too little for this test: {before}"
    model = VideoWrap(bare, input_size=(1, 16, 16))
    after = accuracy(model, images, labels)
    model.unwrap()
    assert after >= before - MARGIN, f"bare {before:.4f}, wrapped {after:.4f}"
    assert accuracy(bare, images, labels) == before


def test_a_rough_genotype_does(trained):
    # The margin can be missed: 14 degrees and a zoom of 1.15 per step cost more.
    bare, images, labels = trained
    before = accuracy(bare, images, labels)
    model = VideoWrap(bare, genotype="rotate(14) > scale(1.15) > translate_x(0.1)", input_size=(1, 16, 16))
    after = accuracy(model, images, labels)
    model.unwrap()
    assert after < before - MARGIN


@pytest.mark.parametrize(("fusion", "millions"), [("none", 11.18), ("tsm", 11.18), ("gsf", 11.20), ("conv3d", 33.17)])
def test_resnet18_has_the_parameters_of_the_paper(fusion, millions):
    with torch.device("meta"):
        bare = timm.create_model("resnet18", num_classes=10)
    model = VideoWrap(bare, fusion, residual=False)
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 2) == millions
    assert all(p.is_meta for p in model.parameters())
