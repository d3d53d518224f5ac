"""What timm calls intermediates, of images; and the plan of a wrapped backbone at another input size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from image2video.errors import InputError, UnsupportedError
from image2video.inject.plan import Plan
from image2video.inject.planning import plan
from image2video.trace.layout import Layout
from image2video.wrap.aggregate import OutputFormats
from image2video.wrap.steps import output_formats

FORMATS = ("NCHW", "NHWC", "NLC")
MAPS = OutputFormats("NCHW")


def check_format(output_fmt: str) -> None:
    """Raise `InputError` for a format that intermediates cannot have."""
    if output_fmt not in FORMATS:
        raise InputError(f"output_fmt must be one of {', '.join(FORMATS)}, got {output_fmt!r}")


def check_mapping(the_plan: Plan, output_fmt: str) -> None:
    """Check what is asked of a backbone that returns its intermediates by name, as open_clip's towers do.

    Raises:
        UnsupportedError: another format than `"NCHW"`, or a clip that moves inside of the backbone.
    """
    if output_fmt != "NCHW" or the_plan.clip_sites:
        came = f"output_fmt={output_fmt!r}" if output_fmt != "NCHW" else f"a clip at {', '.join(the_plan.places)}"
        raise UnsupportedError(
            f"{the_plan.model} returns its intermediates by name, which works with output_fmt='NCHW' and a clip that "
            f"begins at the image alone; got {came}; call it so, or wrap a backbone of timm"
        )


def aggregated(
    found: Any,
    of_images: Callable[[Any, OutputFormats, str], Any],
    backbone: nn.Module,
    the_plan: Plan,
    output_fmt: str,
    intermediates_only: bool,
) -> Any:
    """Aggregate what `forward_intermediates(…, output_fmt="NCHW")` returned for frames, and bring it into the format.

    Args:
        found: the intermediates, or `(final features, intermediates)`.
        of_images: aggregates tensors of known formats over T; it is told their paths in `found`.
        backbone: what returned them.
        the_plan: its plan.
        output_fmt: of the intermediates that are returned.
        intermediates_only: whether `found` has no final features.

    Returns:
        The same for images.
    """
    final, maps = (None, found) if intermediates_only else found

    def one(item: Any, path: str) -> Any:
        if isinstance(item, tuple):  # a map and its prefix tokens, which have no place in the image
            body, prefix = item
            vectors = of_images(prefix.flatten(1), MAPS, f"{path}[1]")
            return _formatted(of_images(body, MAPS, f"{path}[0]"), output_fmt), vectors.unflatten(-1, prefix.shape[1:])
        return _formatted(of_images(item, MAPS, path), output_fmt)

    where = "" if intermediates_only else "[1]"
    images = [one(item, f"{where}[{number}]") for number, item in enumerate(maps)]
    if intermediates_only:
        return images
    return of_images(final, _final_formats(final, maps, backbone, the_plan), "[0]"), images


def _final_formats(final: Any, maps: list[Any], backbone: nn.Module, the_plan: Plan) -> OutputFormats:
    """Return the layout of final features: they have the places of an intermediate, whose layout was asked for."""
    formats = output_formats(backbone, the_plan)
    if isinstance(final, Tensor) and final.ndim == 4 and formats.declared is None:
        return _map_formats(final, maps) or formats
    if not isinstance(final, Tensor) or final.ndim != 3:
        return formats
    prefix = getattr(backbone, "num_prefix_tokens", 0)
    for item in reversed(maps):
        height, width = (item[0] if isinstance(item, tuple) else item).shape[-2:]
        if final.shape[1] == prefix + height * width:
            grid = (int(height), int(width))
            return OutputFormats(None, {"": Layout(-1, "tokens", prefix_tokens=prefix, grid=grid)})
    return formats


def _map_formats(final: Tensor, maps: list[Any]) -> OutputFormats | None:
    """Return the layout of final maps by the intermediate of the same size; None where both layouts would fit."""
    for item in reversed(maps):
        size = (item[0] if isinstance(item, tuple) else item).shape[-2:]
        fitting = [name for name, found in (("NCHW", final.shape[2:4]), ("NHWC", final.shape[1:3])) if found == size]
        if fitting:
            return OutputFormats(fitting[0]) if len(fitting) == 1 else None  # type: ignore[arg-type]
    return None


def _formatted(maps: Tensor, output_fmt: str) -> Tensor:
    """Bring maps `(…, C, h, w)` into a format."""
    if output_fmt == "NCHW":
        return maps
    last = maps.movedim(-3, -1)
    return last if output_fmt == "NHWC" else last.flatten(-3, -2)


def plan_of_size(model: nn.Module, img_size: int | tuple[int, int] | None, options: Mapping[str, Any]) -> Plan:
    """Make the plan of a wrapped backbone after `set_input_size`, on a copy; the sites must stay the same."""
    bare = copy.deepcopy(model).unwrap()  # type: ignore[operator]
    bare.set_input_size(img_size=img_size, **options)
    known: Plan = model.plan  # type: ignore[assignment]
    channels, height, width = known.input_size
    if img_size is not None:
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    sites = list(known.names) or None
    size = (channels, height, width)
    return plan(bare, fusion=known.fusion, sites=sites, input_size=size, clip_at=known.places)
