"""What a clip costs: now, and as it was made before grids were kept and frames written straight to their place.

    python benchmarks/clip.py --threads 1 --out benchmarks/results/clip_cpu.json

`before` makes the matrices and the grid on every call, samples all images at once and copies the frames once more. Both
take turns within one process; times are the processor's. `equal` says whether the two clips are the same bit for bit
(whole shifts are not: what was sampled is now sliced, without the rounding of the sampler's coordinates).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from harness import arguments, measure_pair, ratio_fields, timing_fields, write_result
from torch import Tensor
from torch.nn import functional

from image2video import Image2Video
from image2video.cli.allocator import keep_memory
from image2video.clip.matrices import inverse_affine, normalise
from image2video.clip.sampling import sampling_grid, stack_frames

AFFINE = "translate_x(0.03) > rotate(3)"
CASES = (
    ("affine", AFFINE, 1, 160, 3, 0.33),
    ("affine", AFFINE, 1, 224, 5, 0.46),
    ("affine", AFFINE, 16, 224, 3, 0.75),
    ("affine", AFFINE, 64, 32, 3, None),
    ("default clip, one axis", "translate_x(0.03)", 16, 224, 3, None),
    ("whole pixels", "translate_x(0.0625)", 1, 160, 3, 0.2),
    ("whole pixels", "translate_x(0.0625)", 16, 224, 3, 0.2),
    ("mirror image", "flip_x", 16, 224, 2, None),
)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], repeats=60)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    rows = [row for keep in (False, True) for row in measured(options, keep)]
    settings = {"repeats": options.repeats, "seed": options.seed}
    columns = ("clip", "kept", "batch", "size", "frames", "ratio", "ratio_low", "ratio_high", "target", "equal")
    write_result(options.out, "clip", {"settings": settings, "results": rows}, columns=columns)


def measured(options: argparse.Namespace, keep: bool) -> list[dict[str, Any]]:
    """A row per case, in a process that gives freed memory back, as Python does, or keeps it, as our commands do."""
    if keep and not keep_memory():
        return []
    rows = []
    with torch.inference_mode():
        for name, genotype, batch, size, frames, target in CASES:
            to_video = Image2Video(genotype, T=frames)
            images = torch.randn(batch, 3, size, size, device=options.device)
            steps = to_video._steps(None)
            timing = measure_pair(
                lambda to_video=to_video, images=images: to_video(images),
                lambda to_video=to_video, images=images, steps=steps: before(to_video, images, steps),
                options.repeats,
                clock=time.process_time,
            )
            now, then = to_video(images), before(to_video, images, steps)
            rows.append(
                {"clip": name, "genotype": genotype, "kept": keep, "batch": batch, "size": size, "frames": frames}
                | ratio_fields(timing)
                | {"target": target, "met": None if target is None else timing.ratio <= target}
                | {"equal": torch.equal(now, then), "largest_difference": (now - then).abs().max().item()}
                | timing_fields("now", timing.first)
                | timing_fields("before", timing.second)
            )
    return rows


def before(to_video: Image2Video, images: Tensor, steps: tuple[float, ...]) -> Tensor:
    """The clip of geometric frames, each call from the start."""
    height, width = images.shape[-2:]
    matrices = to_video.genotype.step_matrices(steps, height, width)
    mirrored = [to_video.genotype.mirrored(step) for step in steps]
    rows = [s for s, axes in enumerate(mirrored) if axes is None]
    moved = iter(())
    if rows:
        theta = normalise(inverse_affine(torch.stack([matrices[s] for s in rows])), height, width)
        grid = sampling_grid(theta, height, width, images.dtype, images.device)
        pictures = images.reshape(1, -1, height, width).expand(len(rows), -1, -1, -1)
        out = functional.grid_sample(pictures, grid, align_corners=False)
        moved = iter(out.view(len(rows), *images.shape).unbind(0))
    frames = [next(moved) if axes is None else images.flip(axes) if axes else images for axes in mirrored]
    return stack_frames(frames, like=images)


if __name__ == "__main__":
    main()
