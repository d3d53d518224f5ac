"""`image2video show`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from image2video.cli.arguments import add_fields, collect
from image2video.errors import ExistsError, InputError, MissingError

# What is imported below the options takes seconds (torch, the figures), and help needs none of it.
if TYPE_CHECKING:
    from torch import Tensor

EXAMPLE = 'image2video show --image cat.jpg --genotype "rotate(10)" --frames 5 --out clip.png'


@dataclass(frozen=True)
class ShowOptions:
    """What to draw.

    Attributes:
        image: image file
        genotype: text such as "translate_x(0.06) > rotate(10)" or "identity | flip_x", a .json file, or preset:NAME
            (default: the small shift of VideoWrap)
        frames: frames of the clip, T (default: as the genotype's file was found with, else 3; all of a frame set)
        schedule: power of each frame: from_zero, ramp, centred or mirror (default: likewise, else centred)
        padding: what lies outside the image: zeros, border or reflection (default: likewise, else reflection)
        image_size: pixels of the longer side (default: the image's own, at most 320)
        out: where the film strip (.png) or the film (.gif) is written
        overwrite: replace that file
    """

    image: str
    genotype: str | None = None
    frames: int | None = None
    schedule: str | None = None
    padding: str | None = None
    image_size: int | None = None
    out: str = "clip.png"
    overwrite: bool = False


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    add_fields(parser, ShowOptions)


def run(options: Namespace) -> None:
    """Writes the film strip and prints where it is."""
    from image2video.clip.any_clip import as_clip, options_for
    from image2video.clip.genotype import DEFAULT_GENOTYPE
    from image2video.clip.options import WRAP_CLIP
    from image2video.report import film_strip

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
    from torch.nn.functional import interpolate

    from image2video.clip.memory import check_memory
    from image2video.data.image_file import read_image, unit_pixels

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
