"""Writes labelled image files as the .npz file of a table's row in which a trained network is tested as it is.

    python benchmarks/labelled_images.py --images FOLDER --labels labels.json --out data/imagenet_sample.npz

`--labels` is the list that `fresh_wrap.py` takes, and images are resized and cropped as there: as the network's own
config says, at `--size`. All of them are the file's test part (`x_test`, `y_test`), and `classes` names the network's
outputs, 0, 1, …: the labels count in those, though most classes may have no image. The row divides the images.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import timm
import torch
from fresh_wrap import image_arguments, read_images


def main() -> None:
    parser = image_arguments(__doc__, size=128)
    parser.add_argument("--out", type=Path, required=True, help="the file, such as data/imagenet_sample.npz")
    options = parser.parse_args()
    arrays = labelled_arrays(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.out, **arrays)
    print(f"{options.out}: {len(arrays['y_test'])} images, {len(arrays['classes'])} classes")


def labelled_arrays(options: Namespace) -> dict[str, np.ndarray]:
    """The images `(N, H, W, 3)` uint8, their labels `(N,)`, and the names of the network's outputs."""
    model = timm.create_model(options.model)
    normalised, labels = read_images(options, model)
    config = timm.data.resolve_data_config({}, model=model)
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    # Grey levels went in, so rounding brings them back.
    pixels = ((normalised * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return {
        "x_test": pixels.permute(0, 2, 3, 1).contiguous().numpy(),
        "y_test": labels.numpy(),
        "classes": np.arange(model.num_classes).astype(str),
    }


if __name__ == "__main__":
    main()
