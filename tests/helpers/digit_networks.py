"""Small ResNets that were trained on digits, kept as weights, so that no test depends on the luck of one training.

    python tests/helpers/digit_networks.py     # trains them again, in about a minute, and writes the file

The digits of scikit-learn are enlarged to 16×16; 1 200 of them are trained on with random crops, as usual, the other
597 are for tests. The crops matter: the digits fill their image, and a network that never saw one moved loses 2 to 7
points of accuracy to moved frames.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from image2video.integrations.timm_backbones import build

WEIGHTS = Path(__file__).with_name("digit_networks.safetensors")
SEEDS = range(5)
TRAINED_ON = 1200
CROP = 2
EPOCHS, BATCH, LR = 12, 60, 0.01


def digits() -> tuple[Tensor, Tensor]:
    """All images `(1797, 1, 16, 16)`, normalised, in a fixed random order, and their classes."""
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8)
    images = functional.interpolate((images - images.mean()) / images.std(), size=(16, 16), mode="bilinear")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order], torch.tensor(labels)[order]


def network(seed: int) -> nn.Module:
    """The trained network of a seed, in eval mode."""
    model = build("cifar_resnet8", num_classes=10, in_chans=1)
    weights = load_file(WEIGHTS)
    prefix = f"{seed}."
    state = {name.removeprefix(prefix): value.float() for name, value in weights.items() if name.startswith(prefix)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    # Counters of batches are not kept: no test reads them.
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return model.eval()


def trained(seed: int) -> nn.Module:
    """Train a network from scratch."""
    images, labels = digits()
    images, labels = images[:TRAINED_ON], labels[:TRAINED_ON]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build("cifar_resnet8", num_classes=10, in_chans=1).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=EPOCHS * (TRAINED_ON // BATCH))
    for _ in range(EPOCHS):
        for rows in torch.randperm(TRAINED_ON, generator=generator).split(BATCH):
            loss = functional.cross_entropy(model(crops(images[rows], generator)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move every image by up to `CROP` pixels, each on its own."""
    height, width = images.shape[-2:]
    padded = functional.pad(images, (CROP, CROP, CROP, CROP), value=images.min().item())
    offsets = torch.randint(0, 2 * CROP + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, offsets, strict=True)])


def main() -> None:
    """Train all networks, and keep their weights in half precision."""
    torch.set_num_threads(1)
    weights = {}
    for seed in SEEDS:
        for name, value in trained(seed).state_dict().items():
            if value.is_floating_point():
                weights[f"{seed}.{name}"] = value.half().contiguous()
    save_file(weights, WEIGHTS)


if __name__ == "__main__":
    main()
