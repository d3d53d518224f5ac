"""Several networks, several units: the fields that a report shows side by side."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn

from image2video.clip.deep_clip import DeepClip
from image2video.clip.schedules import schedule_steps
from image2video.errors import InputError, UnsupportedError
from image2video.inject.planning import plan
from image2video.protocols import Progress, named
from image2video.receptive_field.effective import EffectiveField, effective_fields
from image2video.receptive_field.inside import places_of
from image2video.receptive_field.models import bare_network
from image2video.receptive_field.target import locate
from image2video.receptive_field.traced import field_of, trace_model
from image2video.receptive_field.units import Unit
from image2video.wrap.video_wrap import VideoWrap

Survey = dict[str, dict[str, EffectiveField]]
"""`{name of the unit: {name of the network: field}}`."""


def survey(
    networks: Mapping[str, nn.Module],
    images: Tensor,
    units: Mapping[str, Unit],
    *,
    weights: str = "as given",
    batch_size: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> Survey:
    """The effective fields of every network and unit on the same images `(N, C, H, W)`.

    A unit of a frame means, for a network without frames, the same unit of its only map. Where a `VideoWrap` without
    fusions has the weights of the first network, which is bare, a frame at step 0 is that network on the image itself,
    and its field is not measured twice. `batch_size` counts images of a wrapped network; bare ones take T times as
    many at a time. Raises what `effective_fields` raises.
    """
    found: Survey = {row: {} for row in units}
    first = next(iter(networks))
    frames = max((model.T for model in networks.values() if isinstance(model, VideoWrap)), default=1)
    for name, model in networks.items():
        wraps = isinstance(model, VideoWrap)
        wanted = {}
        for row, unit in units.items():
            if name == first or not _is_first(model, networks[first], unit):
                wanted[row] = unit if wraps else unit.of_image()
        measured: dict[str, EffectiveField] = {}
        if wanted:
            fields = effective_fields(
                model,
                images,
                list(wanted.values()),
                weights=weights,
                batch_size=batch_size if wraps else batch_size * frames,
                seed=seed,
                progress=named(progress, name, stage_first=True),
            )
            measured = dict(zip(wanted, fields, strict=True))
        for row in units:
            found[row][name] = measured[row] if row in measured else found[row][first]
    return found


def survey_units(
    model: nn.Module, size: tuple[int, int, int], *, layer: str | None = None, frame: int = 0
) -> dict[str, Unit]:
    """The two units that tell fusion from averaging: of one frame, and of the average over the frames, maps unwarped.

    They are at the centre of `layer`, by default of what a network for maps returns, and of a classifier's
    `default_layer`. `model` is a bare network or a `VideoWrap`, `size` is (C, H, W) of the images. Raises `InputError`
    for a layer that does not run or has no units, and of a `VideoWrap` for one that lies before its clip.
    """
    if layer is not None and isinstance(model, VideoWrap):
        locate(model, size[0], size[1:], Unit(layer, frame=frame))
    if locate(model, size[0], size[1:], Unit(layer)).layout is None and layer is None:
        layer = default_layer(model, size)
    place = "output" if layer is None else layer
    return {f"{place}, frame {frame}": Unit(layer, frame=frame), f"{place}, averaged": Unit(layer)}


def default_layer(model: nn.Module, size: tuple[int, int, int]) -> str:
    """The last layer whose theoretical field fits into images of `size` (C, H, W): in later ones, nothing can grow.

    The layers are timm's `feature_info` of the network, else the blocks with a residual sum. Where the first sees more
    than the image, that one; where every unit sees the whole image (attention), the last. `model` is a bare network or
    a `VideoWrap`, whose names are the bare network's; where its clip moves inside, the layers are those behind the
    last place. Raises `InputError` where there are no layers to choose from.
    """
    traced = trace_model(model, size)
    names = _layers(model, size)
    places = places_of(model, traced)
    if places:
        names = [name for name in names if places[-1].sees_frames(traced.layer(name).outputs[0])] or names[-1:]
    # A layer whose field is not known (an operation without a rule) is passed over.
    fields = {}
    for name in names:
        with suppress(UnsupportedError):
            fields[name] = field_of(traced, name)
    bounded = {name: field.size for name, field in fields.items() if not field.whole}
    if not bounded:
        return names[-1]
    fitting = [name for name, (height, width) in bounded.items() if height <= size[1] and width <= size[2]]
    return fitting[-1] if fitting else next(iter(fields))


def _layers(model: nn.Module, size: tuple[int, int, int]) -> list[str]:
    """The names of the layers that hold features, from the first to the last."""
    bare = bare_network(model)
    modules = dict(bare.named_modules())
    records = [info for info in getattr(bare, "feature_info", None) or () if isinstance(info, Mapping)]
    names = [str(info["module"]) for info in records if info.get("module") in modules]
    if names:
        return names
    try:
        sites = model.plan.sites if isinstance(model, VideoWrap) else plan(bare, fusion="tsm", input_size=size).sites
    except InputError:
        sites = ()
    if not sites:
        raise InputError(
            f"{type(bare).__name__} does not say where its features are; name a layer whose output is a map or tokens"
        )
    return list(dict.fromkeys(site.block for site in sites))


def _is_first(model: nn.Module, first: nn.Module, unit: Unit) -> bool:
    """Whether a unit of a wrapper is, bit for bit, the first network on the image itself."""
    if not isinstance(model, VideoWrap) or isinstance(first, VideoWrap) or unit.frame is None:
        return False
    if model.plan.sites or model.genotype is None or isinstance(model.genotype, DeepClip):
        return False
    if not model.genotype.is_still(schedule_steps(str(model.to_video.schedule), model.T)[unit.frame]):
        return False
    # Weights decide, not names: networks that were calibrated on different clips differ in their norms.
    mine, theirs = model.backbone.state_dict(), first.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
