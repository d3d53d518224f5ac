"""What a clip and an average over copies cost, beside other libraries that do the same.

    python benchmarks/peers.py --threads 1 --out benchmarks/results/peers_cpu.json

Frames: T = 3 of one chain (zoom, rotation, shift by whole pixels), the middle one the image itself, as
`(B, T, C, H, W)`. Each library makes them from the same magnitudes in its own way: torchvision's `affine` and kornia's
`warp_affine` once a frame, `affine_grid` and `grid_sample` for all moved frames at once, OpenCV image by image on its
own layout, with nothing counted for bringing tensors there. Ours and one of them take turns; times are the processor's.
`difference` is the largest one inside of the image, for pixels in 0 … 1, so that like is compared with like.

Averages: a network's outputs over mirror images, with `VideoWrap` and with ttach's wrapper.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import kornia
import numpy as np
import timm
import torch
import ttach
from harness import arguments, measure_pair, ratio_fields, timing_fields, versions, write_result
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as tv

from image2video import Image2Video, VideoWrap
from image2video.cli.allocator import keep_memory
from image2video.integrations.tta_transforms import frame_set_of

ZOOM, ANGLE_DEG, SHIFT_FRAC = 1.1, 5.0, 0.0625
CHAIN = f"scale({ZOOM}) > rotate({ANGLE_DEG:g}) > translate_x({SHIFT_FRAC})"
POWERS = (-1, 0, 1)
CASES = ((1, 160), (1, 224), (16, 224))
MODELS = (("tf_efficientnet_lite0", 1, 160), ("resnet18", 1, 224))
INNER = (..., slice(24, -24), slice(24, -24))
"""Where no frame shows what is outside of the image."""

Frames = Callable[[Tensor], Tensor]


def main() -> None:
    options = arguments(__doc__.splitlines()[0], repeats=40).parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    torch.manual_seed(options.seed)
    keep_memory()
    with torch.inference_mode():
        frames = [row for batch, size in CASES for row in clip_rows(options, batch, size)]
        averages = [row for model, batch, size in MODELS for row in average_rows(options, model, batch, size)]
    columns = ("what", "peer", "batch", "size", "ratio", "ratio_low", "ratio_high", "difference")
    found = versions() | {"kornia": kornia.__version__, "opencv": cv2.__version__}
    payload = {"settings": {"repeats": options.repeats, "chain": CHAIN}, "peers": found, "results": frames + averages}
    write_result(options.out, "peers", payload, columns=columns)


def clip_rows(options: argparse.Namespace, batch: int, size: int) -> list[dict[str, Any]]:
    """A row per library that makes the frames of these images."""
    images = smooth(batch, size)
    to_video = Image2Video(CHAIN, T=len(POWERS), schedule="centred", padding="zeros")
    arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]
    peers: dict[str, tuple[Callable[[], object], Callable[[], Tensor]]] = {
        name: (lambda make=make: make(images), lambda make=make: make(images))
        for name, make in {
            "affine_grid and grid_sample": textbook_frames,
            "torchvision": torchvision_frames,
            "kornia": kornia_frames,
        }.items()
    }
    peers["OpenCV"] = (lambda: opencv_frames(arrays), lambda: torch.from_numpy(opencv_frames(arrays)).movedim(-1, 2))
    ours, rows = to_video(images), []
    for name, (run, as_clip) in peers.items():
        timing = measure_pair(lambda: to_video(images), run, options.repeats, clock=time.process_time)
        difference = (ours - as_clip())[INNER].abs().max().item()
        rows.append(row("frames of a clip", name, batch, size, timing, difference))
    return rows


def average_rows(options: argparse.Namespace, model: str, batch: int, size: int) -> list[dict[str, Any]]:
    """ttach's wrapper of a network, with two and with four copies."""
    images, rows = smooth(batch, size), []
    for transforms in (ttach.aliases.hflip_transform(), ttach.aliases.flip_transform()):
        network = timm.create_model(model, num_classes=100).eval()
        theirs = ttach.ClassificationTTAWrapper(network, transforms, merge_mode="mean")
        before = theirs(images)
        ours = VideoWrap(copy.deepcopy(network), fusion="none", genotype=frame_set_of(transforms)).eval()
        timing = measure_pair(partial(ours, images), partial(theirs, images), options.repeats, clock=time.process_time)
        scale = before.abs().max().item()
        difference = (ours(images) - before).abs().max().item() / scale
        rows.append(row(f"average over {ours.T} copies, {model}", "ttach", batch, size, timing, difference))
    return rows


def row(what: str, peer: str, batch: int, size: int, timing: Any, difference: float) -> dict[str, Any]:
    """The figures of one comparison."""
    return (
        {"what": what, "peer": peer, "batch": batch, "size": size}
        | ratio_fields(timing)
        | {"difference": difference}
        | timing_fields("ours", timing.first)
        | timing_fields("peer", timing.second)
    )


def smooth(batch: int, size: int) -> Tensor:
    """Images in 0 … 1 without edges, on which samplers of different roundings agree."""
    coarse = torch.rand(batch, 3, 8, 8)
    return functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)


def matrix(power: int, size: int) -> Tensor:
    """Where the frame of a power has the content of the image, in pixels about its centre: zoom, turn, shift."""
    zoom, angle = ZOOM**power, math.radians(ANGLE_DEG * power)
    cosine, sine = zoom * math.cos(angle), zoom * math.sin(angle)
    return torch.tensor([[cosine, sine, SHIFT_FRAC * power * size], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def textbook_frames(images: Tensor) -> Tensor:
    """All moved frames in one call of `grid_sample`."""
    batch, channels, size = images.shape[0], images.shape[1], images.shape[-1]
    powers = [power for power in POWERS if power]
    halves = torch.diag(torch.tensor([2.0 / size, 2.0 / size, 1.0]))
    theta = torch.stack([halves @ torch.linalg.inv(matrix(power, size)) @ halves.inverse() for power in powers])
    grid = functional.affine_grid(theta[:, :2], [len(powers), channels, size, size], align_corners=False)
    grid = grid.unsqueeze(0).expand(batch, -1, -1, -1, -1).reshape(-1, size, size, 2)
    copies = images.unsqueeze(1).expand(-1, len(powers), -1, -1, -1).reshape(-1, channels, size, size)
    moved = functional.grid_sample(copies, grid, align_corners=False).view(batch, len(powers), channels, size, size)
    return torch.stack([moved[:, 0], images, moved[:, 1]], dim=1)


def torchvision_frames(images: Tensor) -> Tensor:
    """A call of `affine` per moved frame; its angles turn the other way."""
    shift = SHIFT_FRAC * images.shape[-1]
    return torch.stack(
        [
            tv.affine(
                images,
                angle=-ANGLE_DEG * power,
                translate=[shift * power, 0.0],
                scale=ZOOM**power,
                shear=[0.0, 0.0],
                interpolation=tv.InterpolationMode.BILINEAR,
            )
            if power
            else images
            for power in POWERS
        ],
        dim=1,
    )


def kornia_frames(images: Tensor) -> Tensor:
    """A call of `warp_affine` per moved frame."""
    size = images.shape[-1]
    return torch.stack(
        [
            kornia.geometry.warp_affine(
                images, about_corner(matrix(power, size), size)[None].expand(len(images), -1, -1), (size, size)
            )
            if power
            else images
            for power in POWERS
        ],
        dim=1,
    )


def opencv_frames(arrays: list[np.ndarray]) -> np.ndarray:
    """A call of `warpAffine` per image and moved frame, each written to its place; `(B, T, H, W, C)`."""
    size = arrays[0].shape[0]
    out = np.empty((len(arrays), len(POWERS), *arrays[0].shape), arrays[0].dtype)
    for place, power in enumerate(POWERS):
        moved = about_corner(matrix(power, size), size).numpy()
        for index, array in enumerate(arrays):
            if power:
                cv2.warpAffine(array, moved, (size, size), dst=out[index, place], flags=cv2.INTER_LINEAR)
            else:
                out[index, place] = array
    return out


def about_corner(centred: Tensor, size: int) -> Tensor:
    """The first two rows of a matrix about the image's centre, for pixels that are counted from the first one."""
    middle = (size - 1) / 2
    there = torch.tensor([[1.0, 0.0, middle], [0.0, 1.0, middle], [0.0, 0.0, 1.0]])
    return (there @ centred @ torch.linalg.inv(there))[:2]


if __name__ == "__main__":
    main()
