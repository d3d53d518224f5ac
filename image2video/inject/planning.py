"""`plan`: from a backbone to its frozen plan; nothing is changed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from image2video.errors import InputError, InputTypeError
from image2video.fusion.config import FusionConfig
from image2video.fusion.registry import resolve_fusion
from image2video.inject.checks import check_backbone
from image2video.inject.clip_choice import find_clip_sites
from image2video.inject.clip_fusions import shared_places, split_at_clip
from image2video.inject.clip_rows import Rows
from image2video.inject.clip_site import ClipSite
from image2video.inject.plan import OutputLayout, Plan, Site, Skipped, some
from image2video.inject.rule import (
    Candidate,
    chosen_residuals,
    every_conv_candidates,
    fallback_candidates,
    needs_fallback,
    residual_candidates,
    within_one_size,
)
from image2video.inject.selection import selector, without_decoder
from image2video.inject.sites import site_of
from image2video.trace.graph import Graph
from image2video.trace.layouts import placed
from image2video.trace.places import IMAGE, MAX_PATH, MAX_PLACES
from image2video.trace.sizes import example_for
from image2video.trace.trace import trace_forward


def plan(
    backbone: nn.Module,
    *,
    fusion: str | FusionConfig | Mapping[str, Any] = "gsf",
    sites: str | Iterable[str] | Callable[[Site], bool] | None = None,
    input_size: Sequence[int] | None = None,
    example_input: Tensor | None = None,
    clip_at: str | Sequence[str] | None = None,
) -> Plan:
    """Find where the fusions of a backbone go, from the dataflow of one traced forward; the backbone stays as it is.

    TSM goes before the first weights of each residual branch, GSF and GSM go after the last ones. Where a network has
    no residuals, or fewer than one for every second map size, every convolution with a kernel above 1 except the first
    is a site. A fusion for every convolution (`conv3d`) takes those and the stem. `fusion="none"` has no sites.

    Args:
        backbone: takes images `(B, C, H, W)`.
        fusion: a name from `fusion_names()` or a configuration.
        sites: a regular expression that must match a site's whole name; a list of names, of any modules that run; or a
            predicate on a `Site`; `"published"`, those of the published network with this backbone (GSF in ResNets,
            BN-Inception and Inception-v3, TSM in ResNets). None takes what the rule finds.
        input_size: `(C, H, W)`; without it and an example, the size that timm says the backbone was made for.
        example_input: images `(B, C, H, W)`, of which the size and type count.
        clip_at: path of the module at whose input the clip begins (`clip_sites(backbone)` lists where it can); None or
            `"image"` for the image. Fusion sites before it are left out: they see one frame per image. A list of
            places: the clip begins at the first, and its frames are moved once more at the others.

    Returns:
        The frozen plan; `print(plan)` shows it as a table.

    Raises:
        InputError: no input size known, a forward that fails on it, an unknown fusion, a selection that matches
            nothing, no site left, or a place where no clip can begin.
        InputTypeError: a backbone that is no module, images that are no floating-point tensor, a `clip_at` that is
            neither a string nor a list of strings.
        StateError: a backbone that is wrapped or compiled already.
        UnsupportedError: a backbone that is scripted or cannot be copied.

    Source: the placements are those of Lin et al., ICCV 2019, and of the published GSF models; the rule is ours.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> print(plan(net, fusion="tsm", input_size=(3, 16, 24)))
        Sequential: 1 tsm sites at input 3×16×24
        site  placement  channels  layout        shape      parts  rule      block
        2     before     8         (N, C, H, W)  1×8×14×22  1      fallback  (root)
    """
    config = resolve_fusion(fusion)
    places = checked_places(clip_at)
    check_backbone(backbone)
    selection = selector(sites, config)
    example = example_for(backbone, input_size, example_input)
    graph = Graph(trace_forward(backbone, example))
    _check_images(graph, backbone, example)
    found, skipped = _sites(backbone, graph, config) if config.active else ([], [])
    chosen = selection.choose(backbone, graph, config, found, skipped)
    if selection.everything:
        chosen, of_decoder = without_decoder(backbone, chosen)
        skipped = [*skipped, *of_decoder]
    rows = functools.cache(functools.partial(Rows, backbone, graph, example))  # two more traces, where it is asked
    later = find_clip_sites(backbone, graph, places, rows)
    clip_site = later.pop(0) if places[0] != IMAGE else None
    if clip_site is not None:
        chosen, before = split_at_clip(graph, clip_site, chosen, named=selection.names)
        skipped = [*before, *skipped]
    if config.active and not chosen:
        raise _no_site(backbone, config, skipped, clip_site)
    channels, height, width = example.shape[1:]
    return Plan(
        fusion=config,
        sites=tuple(chosen),
        input_size=(channels, height, width),
        skipped=tuple(skipped),
        model=type(backbone).__name__,
        outputs=_outputs(graph),
        clip_site=clip_site,
        later_sites=tuple(later),
        shared=shared_places(graph, clip_site, later, chosen, rows) if later else 0,
    )


def checked_places(clip_at: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the places that are named, the image where none is; refuse what names no place of a network.

    Raises:
        InputTypeError: something else than strings or None.
        InputError: a text that is longer than any path, too many, none, or the image behind another place.
    """
    if clip_at is None:
        return (IMAGE,)
    places = (clip_at,) if isinstance(clip_at, str) or not isinstance(clip_at, Sequence) else tuple(clip_at)
    if not 1 <= len(places) <= MAX_PLACES:
        raise InputError(f"clip_at must name 1 … {MAX_PLACES} places, got {len(places)}; None is the image")
    for place in places:
        if not isinstance(place, str):
            raise InputTypeError(
                f"clip_at must be the path of a module, {IMAGE!r}, None, or a list of such places, got {place!r:.80}; "
                "clip_sites(backbone) lists them"
            )
        if len(place) > MAX_PATH:
            raise InputError(
                f"clip_at must be the path of a module, which has at most {MAX_PATH} characters, got {len(place)}: "
                f"{place!r:.80}"
            )
    if IMAGE in places[1:]:
        raise InputError(f"clip_at names {IMAGE!r} after {places[0]!r}; the image comes before the network: first")
    return places


def output_layouts(model: nn.Module, example: Tensor) -> tuple[OutputLayout, ...]:
    """Return the layouts of what a model returns for images `(·, C, H, W)` in the mode that it is in.

    Raises:
        InputError: a forward that fails on such images.
        UnsupportedError: a model that cannot be copied.
    """
    return _outputs(Graph(trace_forward(model, example, as_is=True)))


def _sites(backbone: nn.Module, graph: Graph, config: FusionConfig) -> tuple[list[Site], list[Skipped]]:
    """Return the sites that the rule finds, one per module, and the places that have none."""
    found: dict[str, Site] = {}
    skipped: dict[tuple[str, str], Skipped] = {}
    for candidate in _candidates(graph, config):
        result = site_of(backbone, graph, config, candidate)
        if isinstance(result, Site) and result.name not in found:
            found[result.name] = result
        elif isinstance(result, Skipped):
            skipped.setdefault((result.name, result.block), result)
    left_out = [place for place in skipped.values() if place.name not in found]
    return list(found.values()), left_out


def _candidates(graph: Graph, config: FusionConfig) -> list[Candidate]:
    """List the places that the rule chooses, in the order of execution; those without a hook come first."""
    if config.every_conv:
        return every_conv_candidates(graph)
    residuals = chosen_residuals(graph)
    fallback = needs_fallback(graph, residuals)
    if fallback:
        residuals = within_one_size(graph, residuals)
    found = residual_candidates(graph, residuals, config.placement)
    if fallback:
        found += fallback_candidates(graph, residuals, config.placement)
    return sorted(found, key=lambda c: c.point.call if c.point else -1)


def _check_images(graph: Graph, backbone: nn.Module, example: Tensor) -> None:
    """Raise where the images have no effect on what the backbone returns."""
    outputs = [graph.values[value] for _, value in graph.trace.outputs]
    if outputs and not any(value.depends for value in outputs):
        raise InputError(
            f"nothing that {type(backbone).__name__} returns depends on the images of size {tuple(example.shape[1:])}; "
            "a backbone must take images (B, C, H, W) as its first argument and return tensors"
        )


def _no_site(
    backbone: nn.Module, config: FusionConfig, skipped: list[Skipped], clip_site: ClipSite | None
) -> InputError:
    """Make the error for a plan that would have no site."""
    name = type(backbone).__name__
    if skipped:
        reasons = some([f"{place.name}: {place.reason}" for place in skipped], 3)
        advice = "choose another fusion, or name modules: sites=['layer1.0.conv1', …]"
        if clip_site is not None:
            advice = "take fusion='none', which averages the frames, or let the clip begin at an earlier place"
        return InputError(
            f"no site is left for fusion {config.name!r} in {name}: all {len(skipped)} places were left out "
            f"({reasons}); {advice}"
        )
    return InputError(
        f"no site was found for fusion {config.name!r} in {name}: it has neither a residual branch nor a second "
        "convolution with a kernel above 1; name modules: sites=['features.3', …]"
    )


def _outputs(graph: Graph) -> tuple[OutputLayout, ...]:
    """Return the layouts of what the backbone returns, where it depends on the images."""
    out = []
    for path, value in graph.trace.outputs:
        if not graph.values[value].depends:
            continue
        known = placed(graph, value)
        shape = graph.values[value].shape
        one_image = (1, *shape[1:]) if shape else ()
        if isinstance(known, str) or known.parts != 1:
            out.append(OutputLayout(path, one_image, None))
        else:
            out.append(OutputLayout(path, one_image, known.layout, known.grid))
    return tuple(out)
