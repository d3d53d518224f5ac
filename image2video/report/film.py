"""The clip of a few images as a film strip: a row per image, a column per frame."""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from image2video.clip.any_clip import Clip
from image2video.clip.frame_set import FrameSet
from image2video.clip.image_to_video import Image2Video
from image2video.clip.schedules import schedule_steps
from image2video.errors import InputError
from image2video.report.style import PALETTE, drawing, new_figure, png_bytes
from image2video.runs.folders import atomic_write_bytes

_OUTLINE = PALETTE[4]
_GIF_SIDE = 160
_GIF_TEXT = 14
_GIF_GAP = 6  # pixels around every tile


def film_strip(
    images: Tensor,
    genotype: Clip,
    T: int,
    schedule: str,
    path: str | Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    padding: str = "zeros",
    interpolation: str = "bilinear",
    labels: Sequence[str] | None = None,
    milliseconds: int = 500,
) -> Path:
    """Draw the clips of images, and write them to a file; an outline shows where the image's border goes.

    Args:
        images: `(B, C, H, W)`, C 1 or 3; values in 0 … 1, or normalised with `mean` and `std`.
        genotype: what moves the frames; a frame set too.
        T: frames of the clip.
        schedule: the power of each frame, by name; `from_zero` for a frame set.
        path: `.png` for a strip, `.gif` for a film.
        mean: per channel, of normalised images; it is undone in the pixels that are drawn.
        std: per channel, of normalised images.
        padding: what lies outside the image.
        interpolation: how frames are sampled.
        labels: a text beside each image's row of a strip.
        milliseconds: how long a frame of the film stays.

    Returns:
        The path.

    Raises:
        InputError: another suffix, another shape, or values out of range.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".png", ".gif"):
        raise InputError(f"a film strip must be written as .png or .gif, got {path.name!r}")
    colours = {"mean": 0 if mean is None else mean, "std": 1 if std is None else std}
    clip = Image2Video(genotype, T=T, schedule=schedule, padding=padding, interpolation=interpolation, **colours)
    if kind == ".png":
        atomic_write_bytes(path, png_bytes(film_figure(images, clip, mean=mean, std=std, labels=labels), dpi=150))
    else:
        atomic_write_bytes(path, _gif_bytes(images, clip, mean, std, milliseconds))
    return path


def film_figure(
    images: Tensor,
    to_video: Image2Video,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
    width: float = 9.0,
) -> Figure:
    """The clips of images as a figure.

    Args:
        images: as `film_strip` takes them.
        to_video: makes the clips.
        mean: of normalised images, per channel.
        std: of normalised images, per channel.
        labels: a text beside each image's row.
        width: of the figure in inches, at most.

    Returns:
        The figure.
    """
    pixels, steps, borders = clip_pixels(images, to_video, mean=mean, std=std)
    rows, columns, height, breadth = pixels.shape[:4]
    margin = _margin(borders, height, breadth)
    cell = min(1.5, width / columns)
    labels_above = [label_lines(to_video.genotype.label(step), cell) for step in steps]
    lines = max(label.count("\n") for label in labels_above)
    with drawing():
        tall = cell * rows * (height + 2 * margin) / (breadth + 2 * margin)
        figure = new_figure(cell * columns + 0.3, tall + 0.55 + 0.2 * lines)
        axes = figure.subplots(rows, columns, squeeze=False)
        for row, column in itertools.product(range(rows), range(columns)):
            _draw(axes[row, column], pixels[row, column], borders[column], margin)
            if row == 0:
                axes[row, column].set_title(f"frame {column}\n{labels_above[column]}")
        for row, label in enumerate(labels or ()):
            axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
        title = textwrap.fill(str(to_video.genotype), max(24, int(11 * cell * columns)))
        figure.suptitle(title, fontsize=9, family="monospace")
    return figure


def _draw(axis: Axes, pixels: NDArray[np.float32], border: NDArray[np.float64], margin: float) -> None:
    """One frame with the outline of the image's border, which may lie outside it."""
    height, width, channels = pixels.shape
    grey = channels == 1
    shown = pixels[..., 0] if grey else pixels
    axis.imshow(shown, cmap="gray" if grey else None, vmin=0, vmax=1, interpolation="nearest")
    axis.add_patch(Polygon(border - 0.5, closed=True, fill=False, edgecolor=_OUTLINE, linewidth=1.2))
    axis.set(
        xlim=(-0.5 - margin, width - 0.5 + margin), ylim=(height - 0.5 + margin, -0.5 - margin), xticks=[], yticks=[]
    )
    axis.spines[:].set_visible(False)


def _margin(borders: Sequence[NDArray[np.float64]], height: int, width: int) -> float:
    """Room around the frames, in pixels, for the parts of outlines that leave them; at most 0.4 of a side."""
    corners = np.concatenate(borders)
    beyond = max(-corners.min(), corners[:, 0].max() - width, corners[:, 1].max() - height, 0.0)
    return float(min(beyond, 0.4 * max(height, width))) + 0.02 * max(height, width)


def clip_pixels(
    images: Tensor, to_video: Image2Video, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> tuple[NDArray[np.float32], tuple[float, ...], list[NDArray[np.float64]]]:
    """The clips as pixels `(B, T, H, W, C)` in 0 … 1, the steps s(t), and each frame's `image_border`."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
        raise InputError(
            f"a film strip needs float images (B, C, H, W) with 1 or 3 channels; got {tuple(images.shape)} "
            f"{images.dtype}; convert with image.float() / 255"
        )
    if (mean is None) != (std is None):
        raise InputError("mean and std go together; give both, or neither for images in 0 … 1")
    if mean is None and (images.min() < -0.01 or images.max() > 1.01):
        raise InputError(
            f"the images' values reach from {images.min():.2f} to {images.max():.2f}, outside 0 … 1; "
            "give the mean and std that they were normalised with"
        )
    with torch.no_grad():
        clip = to_video(images.detach()).float().cpu()
    if mean is not None and std is not None:
        scale, shift = (torch.tensor(values, dtype=torch.float32).view(1, 1, -1, 1, 1) for values in (std, mean))
        clip = clip * scale + shift
    T, (height, width) = clip.shape[1], images.shape[-2:]
    steps = tuple(float(s) for s in schedule_steps(to_video.schedule, T))
    borders = [image_border(to_video.genotype, step, height, width) for step in steps]
    return clip.clamp(0, 1).permute(0, 1, 3, 4, 2).numpy(), steps, borders


def image_border(genotype: Clip, step: float, height: int, width: int) -> NDArray[np.float64]:
    """The image's four corners in the frame of `step`, `(4, 2)`: x and y in pixels from the upper left corner."""
    matrix = genotype.matrix(step, height, width).double().numpy()
    x, y = width / 2, height / 2
    corners = np.array([[-x, -y, 1], [x, -y, 1], [x, y, 1], [-x, y, 1]]) @ matrix.T
    return corners[:, :2] / corners[:, 2:] + np.array([x, y])


def _gif_bytes(
    images: Tensor, to_video: Image2Video, mean: Sequence[float] | None, std: Sequence[float] | None, milliseconds: int
) -> bytes:
    """A looping GIF: the images side by side, one film frame per clip frame; the genotype and its label stand below."""
    pixels, steps, borders = clip_pixels(images, to_video, mean=mean, std=std)
    height, width = pixels.shape[2:4]
    factor = max(1, round(_GIF_SIDE / max(height, width)))
    font = ImageFont.load_default(size=_GIF_TEXT)
    # Every frame of a film has the same size: that of the images, or wider where one op or step would not fit.
    labels = [to_video.genotype.label(step) for step in steps]
    if isinstance(to_video.genotype, FrameSet):
        labels = [f"frame {t}: {label}" for t, label in enumerate(labels)]
    parts = [part for text in (str(to_video.genotype), *labels) for part in _caption_parts(text)]
    widest = max(math.ceil(font.getlength(part)) for part in parts)
    tiles = len(pixels) * (width * factor + _GIF_GAP) - _GIF_GAP
    breadth = max(tiles, widest) + 2 * _GIF_GAP
    lines, *below_each = (
        caption_lines(text, breadth - 2 * _GIF_GAP, font.getlength) for text in (str(to_video.genotype), *labels)
    )
    count = len(lines) + max(map(len, below_each))
    line_height, below = _GIF_TEXT + 4, height * factor + 10
    pictures = []
    for t, label in enumerate(below_each):
        caption = [*lines, *label]
        sheet = Image.new("RGB", (breadth, below + 6 + line_height * count), "white")
        for column, clip in enumerate(pixels):
            sheet.paste(_tile(clip[t], borders[t], factor), (_GIF_GAP + column * (width * factor + _GIF_GAP), _GIF_GAP))
        for index, line in enumerate(caption):
            place = (_GIF_GAP, below + line_height * index)
            ImageDraw.Draw(sheet).text(place, line, fill="black", font=font)
        pictures.append(sheet)
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()


def _tile(frame: NDArray[np.float32], border: NDArray[np.float64], factor: int) -> Image.Image:
    """One frame, each pixel a square of `factor` pixels, with the outline of the image's border."""
    height, width = frame.shape[:2]
    rgb = np.broadcast_to((frame * 255).round().astype(np.uint8), (height, width, 3))
    size = (width * factor, height * factor)
    tile = Image.fromarray(np.ascontiguousarray(rgb)).resize(size, Image.Resampling.NEAREST)
    outline = [(float(x) * factor, float(y) * factor) for x, y in border]
    ImageDraw.Draw(tile).polygon(outline, outline=_OUTLINE, width=2)
    return tile


def label_lines(text: str, width: float) -> str:
    """What stands above a panel `width` inches wide, broken between ops; one op may be wider."""
    return textwrap.fill(text, max(12, int(12 * width)), break_long_words=False, break_on_hyphens=False)


def caption_lines(text: str, width: float, length: Callable[[str], float]) -> list[str]:
    """A genotype's text in lines of at most `width` by `length`, broken after `>` or `|`; an op may be wider."""
    lines: list[str] = []
    for part in _caption_parts(text):
        if lines and length(f"{lines[-1]} {part}") <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return lines


def _caption_parts(text: str) -> list[str]:
    """The ops of a genotype's text, each with the `>` or `|` behind it."""
    return text.replace(" > ", " >\n").replace(" | ", " |\n").split("\n")
