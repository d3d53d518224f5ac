"""What many classes cost a video segmentor in use, and what averaging at the logits' own size changes.

    python benchmarks/segmentation_classes.py --threads 1 --out benchmarks/results/segmentation_classes_cpu.json

PSPNet (R18-d8) of mmsegmentation with 150 classes, images of 512×512, five frames without fusion, inference: against
the plain segmentor on five images. `label` (the default) brings the logits of every frame to the image's size, unwarps
and adds them; `head` averages them at their own size, an eighth, and resizes once. `differ` is the share of pixels
whose class is another one than by `label`; the weights are random, so that classes lie as close together as they can.
Processor times, one thread; the three take turns.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import mmseg
import torch
from harness import arguments, write_result
from mmengine.logging import MMLogger
from mmseg_models import build, read, shrunk
from torch import Tensor, nn

CONFIG = "pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py"
GOAL = 1.05


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], repeats=5)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--genotype", default="translate_x(0.02) > scale(1.05)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    MMLogger.get_instance("mmengine", log_level="ERROR")
    models = {way: segmentor(options, way) for way in ("plain", "label", "head")}
    for way in ("label", "head"):
        models[way].load_state_dict(models["plain"].state_dict(), strict=False)
    image = waves(options.size, options.seed)
    inputs = {"plain": image.repeat(options.frames, 1, 1, 1), "label": image, "head": image}
    metas = [{"img_shape": image.shape[2:], "ori_shape": image.shape[2:]}]
    times: dict[str, list[float]] = {way: [] for way in models}
    outputs: dict[str, Tensor] = {}
    with torch.inference_mode():
        for index in range(options.repeats + 1):
            for way, model in models.items():
                given = inputs[way]
                start = time.process_time()
                outputs[way] = model.encode_decode(given, metas * len(given))
                if index:
                    times[way].append(time.process_time() - start)
    settings = {key: str(value) for key, value in vars(options).items() if key != "out"}
    settings |= {"mmsegmentation": mmseg.__version__, "config": CONFIG}
    rows = [row(way, times, outputs) for way in ("label", "head")]
    write_result(options.out, "segmentation_classes", {"settings": settings, "results": rows})


def row(way: str, times: dict[str, list[float]], outputs: dict[str, Tensor]) -> dict[str, Any]:
    """The time of a way over the plain segmentor's, and how its result differs from that of `label`."""
    ratios = [a / b for a, b in zip(times[way], times["plain"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    of_label = outputs["label"]
    spread = of_label.max(1).values.mean() - of_label.mean()
    return {
        "unwarp": way,
        "ratio": middle,
        "ratio_low": low,
        "ratio_high": high,
        "goal": GOAL,
        "met": middle <= GOAL,
        "ms": 1e3 * statistics.median(times[way]),
        "plain_ms": 1e3 * statistics.median(times["plain"]),
        "differ": (outputs[way].argmax(1) != of_label.argmax(1)).double().mean().item(),
        "largest_difference_over_spread": ((outputs[way] - of_label).abs().max() / spread).item(),
    }


def segmentor(options: Any, way: str) -> nn.Module:
    """The plain segmentor, or the video segmentor of it that unwarps at a size."""
    config = shrunk(read(CONFIG), (options.size, options.size))
    for head in (config.decode_head, config.auxiliary_head):
        head.num_classes = options.classes
    if way != "plain":
        config.type = f"Video{config.type}"
        config.video = {"genotype": options.genotype, "T": options.frames, "fusion": "none", "unwarp": way}
    torch.manual_seed(options.seed)
    model = build(config)
    model.init_weights()
    return model.eval()


def waves(size: int, seed: int) -> Tensor:
    """An image `(1, 3, size, size)` of large and small structures."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 3, size, size)
    for cells in (4, 16, 64, size):
        noise = torch.randn(1, 3, cells, cells, generator=generator)
        image += nn.functional.interpolate(noise, (size, size), mode="bicubic")
    return image / 2


if __name__ == "__main__":
    main()
