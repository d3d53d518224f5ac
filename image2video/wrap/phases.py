"""The clip that brings back what layers with stride throw away: one cell before each of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from image2video.clip.deep_clip import DeepClip
from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import Genotype
from image2video.errors import InputError
from image2video.inject.checks import check_backbone
from image2video.inject.clip_places import Places
from image2video.inject.clip_site import ClipSite
from image2video.trace.graph import Graph
from image2video.trace.places import IMAGE
from image2video.trace.scale import Scale
from image2video.trace.sizes import example_for
from image2video.trace.trace import trace_forward

PHASES = "preset:phases"
"""The name under which `VideoWrap` takes the clip of its own network."""
ONE_CELL = "translate_x(1 cell) > translate_y(1 cell)"


def phases(
    backbone: nn.Module, *, input_size: Sequence[int] | None = None, example_input: Tensor | None = None
) -> DeepClip:
    """Make the clip whose frames see other positions of the layers with stride than the image does.

    Frame 0 is the image. Frame k is shifted diagonally by one cell just before the k-th layer with stride, which then
    keeps positions that it throws away of the image. Such a layer is found in the traced forward: the last place where
    maps can be moved before they have fewer cells per pixel; the first may be the image itself. All else is copied, so
    that without fusion frame k costs no more than what lies behind its place.

    Args:
        backbone: takes images `(B, C, H, W)`; it stays as it is.
        input_size: `(C, H, W)`; without it and an example, the size that timm says the backbone was made for.
        example_input: images `(B, C, H, W)`, of which the size and type count.

    Returns:
        The deep clip, to be printed, saved, edited, and given to `VideoWrap(backbone, genotype=…)`.

    Raises:
        InputError: no place before a layer with stride, no input size known, or a forward that fails on it.
        InputTypeError: a backbone that is no module, images that are no floating-point tensor.
        StateError: a backbone that is wrapped or compiled already.
        UnsupportedError: a backbone that is scripted or cannot be copied.

    Source: after Yang, Liu and Yeh, "Activations that subsampling discards", ECCV 2024, who search over the phases of
    all such layers; one diagonal shift before each of them is our simplification.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1))
        >>> phases(net, input_size=(3, 16, 24)).places
        ('image', '2')
    """
    check_backbone(backbone)
    example = example_for(backbone, input_size, example_input)
    graph = Graph(trace_forward(backbone, example))
    known = Places(graph)
    sites = [site for alike in known.found() if isinstance(site := known.site(alike), ClipSite)]
    places = _before_strides(sites)
    if not places:
        raise InputError(
            f"{PHASES} needs a layer with stride behind a place where maps can be moved; {type(backbone).__name__} has "
            f"{len(sites)} such places (clip_sites(backbone) lists them), and no map gets smaller behind one; give "
            "another genotype"
        )
    still, moved = Genotype.identity(), Genotype.parse(ONE_CELL)
    frames = range(len(places) + 1)
    sets = [FrameSet(tuple(moved if frame == number else still for frame in frames)) for number in frames[1:]]
    provenance = {"preset": PHASES, "backbone": type(backbone).__name__}
    return DeepClip(tuple(zip(places, sets, strict=True)), provenance)


def _before_strides(sites: Sequence[ClipSite]) -> list[str]:
    """Name the last place before each layer with stride, the image where that is the first layer."""
    if not sites:
        return []
    found = [IMAGE] if any(_step(sites[0], axis) > 1 for axis in (0, 1)) else []
    return found + [
        before.name
        for before, after in pairwise(sites)
        if any(_step(after, axis) > _step(before, axis) for axis in (0, 1))
    ]


def _step(site: ClipSite, axis: int) -> int:
    """Return how many pixels a cell of a map stands for along the height (0) or the width (1)."""
    scale: Scale | None = (site.grid.rows, site.grid.columns)[axis]
    # Sizes that a model computes itself leave the ratio, which padding and cropping change a little.
    return round(site.stride[axis]) if scale is None else scale.step
