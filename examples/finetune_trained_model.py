"""Take a trained classifier, find a genotype for it without training, wrap it, and fine-tune it briefly.

    python examples/finetune_trained_model.py --data digits --epochs 3
    python examples/finetune_trained_model.py --data folder:flowers --model resnet50 --pretrained --epochs 10

The loop is a plain torch loop on purpose: it is what a wrapped model needs in a pipeline of your own.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from image2video import VideoWrap, param_groups
from image2video.data import load_data
from image2video.integrations.timm_backbones import build
from image2video.protocols import Batches
from image2video.search import rank_genotypes
from image2video.training import evaluate


def fit(model: nn.Module, batches: Batches, epochs: int, lr: float) -> None:
    """SGD with a cosine schedule; `param_groups` keeps norms, biases and residual scales free of weight decay."""
    optimizer = torch.optim.SGD(param_groups(model, lr, weight_decay=5e-4), lr=lr, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    model.train()
    for epoch in range(epochs):
        for images, labels in batches.epoch(epoch):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def main() -> None:
    """Train or load, choose a genotype, wrap, fine-tune, and report each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--train-images", type=int)
    parser.add_argument("--model", default="cifar_resnet8")
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Images are normalised and cropped as the published weights want them, where those are asked for.
    published = build(options.model) if options.pretrained else None
    data = load_data(options.data, train_images=options.train_images, holdout=0.3, model=published)
    net = build(
        options.model, num_classes=data.num_classes, in_chans=data.input_size[0], pretrained=options.pretrained
    ).to(device)
    # A classifier of other classes than the published one starts fresh.
    trained = published is not None and published.num_classes == data.num_classes
    batches = data.train.batches(32, augment=True, shuffle=True, device=device)
    test = data.test.batches(256, device=device)
    if not trained:
        fit(net, batches, 3 * options.epochs, lr=0.3)  # your trained network stands here
    print(f"bare, trained:            {100 * evaluate(net, test).top1:.2f} %")

    colours = {"mean": data.mean, "std": data.std}
    ranking = rank_genotypes(net, data.holdout, T=options.frames, count=32, **colours)
    print(ranking.sentence())
    model = VideoWrap(net, genotype=ranking.best, T=options.frames, input_size=data.input_size, **colours)
    print(f"wrapped, before training: {100 * evaluate(model, test).top1:.2f} %")
    fit(model, batches, options.epochs, lr=0.02)
    print(f"wrapped, fine-tuned:      {100 * evaluate(model, test).top1:.2f} %")
    model.save_pretrained("wrapped")


if __name__ == "__main__":
    main()
