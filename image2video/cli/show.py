"""`image2video show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from torch import Tensor
from torch.nn.functional import interpolate

from image2video.cli.arguments import collect
from image2video.cli.commands.show import ShowOptions
from image2video.clip.any_clip import as_clip, options_for
from image2video.clip.memory import check_memory
from image2video.clip.named import DEFAULT_GENOTYPE
from image2video.clip.options import WRAP_CLIP
from image2video.data.image_file import read_image, unit_pixels
from image2video.errors import ExistsError, InputError, MissingError
from image2video.report import film_strip


def run(options: Namespace) -> None:
    """Writes the film strip and prints where it is."""
    if options.image is None:
        raise InputError("--image must name an image file; give --image FILE")
    show = collect(ShowOptions, options)
    out = Path(show.out)
    if out.exists() and not show.overwrite:
        raise ExistsError(f"{out} exists; choose another name, or replace it with --overwrite")
    if not out.parent.is_dir():
        raise MissingError(f"no folder {out.parent} to write {out.name} into; make it, or choose another --out")
    image = _read(Path(show.image), show.image_size)
    genotype = as_clip(DEFAULT_GENOTYPE if show.genotype is None else show.genotype)
    how: dict[str, Any] = {"T": show.frames, "schedule": show.schedule, "padding": show.padding}
    clip = options_for(genotype, WRAP_CLIP, **how)
    film_strip(image, genotype, clip.T, clip.schedule, out, padding=clip.padding)
    Console().print(f"film strip: {out.resolve()}", soft_wrap=True)


def _read(path: Path, longer_side: int | None) -> Tensor:
    """The image `(1, 3, H, W)` in 0 … 1, made smaller to `longer_side`."""
    if not path.is_file():
        raise MissingError(f"no image at {path}; give --image FILE")
    if longer_side is not None and longer_side < 1:
        raise InputError(f"--image-size must be at least 1, got {longer_side}")
    image = unit_pixels(read_image(path)).unsqueeze(0)
    size = max(image.shape[-2:])
    factor = (min(320, size) if longer_side is None else longer_side) / size
    if factor == 1:
        return image
    height, width = (max(1, round(side * factor)) for side in image.shape[-2:])
    what = f"--image-size {longer_side}: an image of 3×{height}×{width}"
    check_memory(3 * 4 * height * width, what, "ask for a smaller one")
    return interpolate(image, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
