r"""The searched genotype of the CamVid configs: the paper's search with a small network and mIoU, on small frames.

    python benchmarks/camvid_search.py --data data/camvid --out runs/camvid_search

The training frames train the network, the validation frames τ, and choose; the test frames are not read. What is found
stands in OUT/genotype.json, and by hand in configs/camvid/searched.json.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter

import numpy as np
import torch
from mmengine.registry import init_default_scope
from rich.console import Console

from image2video.data.memory import MemorySet
from image2video.integrations.openmmlab import CamVidDataset
from image2video.integrations.small_segmentors import SmallFCN
from image2video.search import SearchConfig, SegmentationTask, search

MEAN, STD = (0.412, 0.425, 0.432), (0.294, 0.299, 0.294)
"""Of the training frames, per channel (RGB), in 0 … 1."""
CLASSES = CamVidDataset.METAINFO["classes"]


def frames(root: str, split: str, size: tuple[int, int]) -> MemorySet:
    """The frames of a split at `size` = (width, height), with their labels."""
    init_default_scope("mmseg")
    dataset = CamVidDataset(
        data_root=root,
        data_prefix={"img_path": f"images/{split}", "seg_map_path": f"labels/{split}"},
        pipeline=[
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations"},
            {"type": "Resize", "scale": size, "keep_ratio": False, "interpolation": "area"},
        ],
    )
    found = [dataset[index] for index in range(len(dataset))]
    images = np.stack([one["img"][..., ::-1] for one in found])  # mmcv reads blue first
    labels = np.stack([one["gt_seg_map"] for one in found])
    return MemorySet(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels), mean=MEAN, std=STD
    )


def settings(options: Namespace) -> SearchConfig:
    """A short search, so τ has a larger rate than the paper's 3e-4."""
    return SearchConfig(
        space=options.space,
        selection="perturbation",
        T=3,
        fusion="gsf",
        residual=False,
        epochs=options.epochs,
        tune_epochs=1,
        batch_size=16,
        lr=0.05,
        tau_lr=3e-3,
        seed=options.seed,
        device="cpu",
    )


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder that holds images/ and labels/")
    parser.add_argument("--out", required=True, help="the result folder of the search")
    parser.add_argument("--space", default="affine5", help="the search space")
    parser.add_argument("--size", type=int, nargs=2, default=(80, 60), help="width and height of the frames")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    size = tuple(options.size)
    console = Console()

    def progress(stage: str, done: int, total: int, **figures: float) -> None:
        if done == total or done % 10 == 0:
            console.print(stage, f"{done}/{total}", figures, highlight=False)

    result = search(
        SmallFCN(num_classes=len(CLASSES)),
        frames(options.data, "train", size),
        settings(options),
        validation=frames(options.data, "val", size),
        task=SegmentationTask(len(CLASSES)),
        mean=MEAN,
        std=STD,
        out=options.out,
        resume=True,
        progress=progress,
        provenance={"dataset": f"camvid {size[0]}x{size[1]}", "backbone": "small_fcn"},
    )
    console.print(result.decided_sentence(), highlight=False)
    console.print(f"found: {result.genotype}; {result.frames} frames, {result.seconds:.0f} s", highlight=False)


if __name__ == "__main__":
    main()
