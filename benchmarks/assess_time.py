"""What `assess` takes beside the forward passes of the network.

    python benchmarks/assess_time.py --threads 1 --images sample/images --labels sample/labels.json \\
        --weights lite0.safetensors

EfficientNet-lite0 at 160 px and 60 candidates. Images that are listed once count twice, the second time mirrored, until
there are `--count` of them. Times are the processor's.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import timm
import torch
from harness import arguments, write_result
from PIL import Image
from ranking_speed import Timed
from torch import Tensor

from image2video.assess import assess
from image2video.cli.allocator import keep_memory
from image2video.training import load_weights

TARGET_S = 240.0
SIZE = 160
CANDIDATES = 60


def main() -> None:
    parser = arguments(__doc__ or "", repeats=1)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="a folder")
    parser.add_argument("--labels", type=Path, required=True, help="a list of file and class")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--max-cost", type=float, default=3.0)
    options = parser.parse_args()
    keep_memory()  # as commands do
    torch.set_num_threads(options.threads)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    load_weights(network, options.weights)
    config = timm.data.resolve_data_config({"input_size": (3, SIZE, SIZE)}, model=network)
    images, labels = loaded(options.images, options.labels, timm.data.create_transform(**config), options.count)
    timed = Timed(network)
    begun = time.process_time()
    assessment = assess(
        timed,
        list(zip(images.split(100), labels.split(100), strict=True)),
        max_cost=options.max_cost,
        candidates=CANDIDATES,
        mean=config["mean"],
        std=config["std"],
        progress=lambda stage, done, total, **more: print(stage, done, total, flush=True),
    )
    whole = time.process_time() - begun
    beside = whole - timed.seconds
    result = {
        "images": len(images),
        "candidates": CANDIDATES,
        "whole_s": whole,
        "network_s": timed.seconds,
        "beside_s": beside,
        "target_s": TARGET_S,
        "met": beside <= TARGET_S,
        "answer": assessment.sentences()[1],
    }
    settings = {"model": "tf_efficientnet_lite0", "size": SIZE, "max_cost": options.max_cost}
    columns = ("images", "candidates", "whole_s", "network_s", "beside_s", "target_s", "met")
    write_result(options.out, "assess_time", {"settings": settings, "results": [result]}, columns=columns)


def loaded(folder: Path, labels: Path, transform: object, count: int) -> tuple[Tensor, Tensor]:
    """Images as the network takes them and their classes; the same images once more, mirrored, where `count` asks."""
    listed = json.loads(labels.read_text(encoding="utf-8"))
    images = torch.stack([transform(Image.open(folder / one["file"]).convert("RGB")) for one in listed])  # type: ignore[operator]
    classes = torch.tensor([one["class"] for one in listed])
    return torch.cat([images, images.flip(-1)])[:count], torch.cat([classes, classes])[:count]


if __name__ == "__main__":
    main()
