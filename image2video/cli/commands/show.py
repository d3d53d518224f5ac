"""The options of `image2video show`."""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse import ArgumentParser

from image2video.cli.arguments import add_fields

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
