"""The steps of wrapping that need no wrapper: checks, the plan, layouts, batch norms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from image2video.clip.any_clip import AnyClip, as_any_clip, options_for
from image2video.clip.deep_clip import DeepClip
from image2video.clip.deep_video import DeepVideo
from image2video.clip.frame_sources import FrameSource
from image2video.clip.genotype import DEFAULT_GENOTYPE
from image2video.clip.image_to_video import Image2Video
from image2video.clip.options import WRAP_CLIP, ClipOptions
from image2video.errors import Image2VideoError, InputError, InputTypeError, StateError
from image2video.fusion.base import Fusion
from image2video.fusion.config import FusionConfig
from image2video.inject.plan import OutputLayout, Plan, Site
from image2video.inject.planning import checked_places, plan
from image2video.protocols import Unwarper
from image2video.trace.places import IMAGE
from image2video.trace.sizes import nominal_size
from image2video.wrap.aggregate import OutputFormats
from image2video.wrap.clip_record import Video
from image2video.wrap.phases import PHASES

UNKNOWN_SIZE = (0, 0, 0)
"""The input size in a plan that was made without a trace, which only a plan without sites can be."""

Sites = str | Sequence[str] | Callable[[Site], bool] | Plan | None


def wanted_clip(
    genotype: object, clip_at: object, resolve: Callable[[], DeepClip]
) -> tuple[AnyClip, str | tuple[str, ...] | None]:
    """Return the clip that a user asks for, and the place or places where it moves.

    A clip with one place alone is the clip there; `resolve` makes that of `preset:phases` for the backbone.

    Raises `InputError` for a `clip_at` beside a genotype that names its places, and `InputTypeError` for one that is no
    name.
    """
    clip = resolve() if isinstance(genotype, str) and genotype == PHASES else as_any_clip(genotype)
    if not isinstance(clip, DeepClip):
        if isinstance(clip_at, list | tuple):
            raise InputTypeError(
                f"clip_at is the one place where the clip begins, got {clip_at!r:.80}; a clip at several places names "
                "a clip for each: genotype={'image': …, 'layer3': …}"
            )
        return clip, clip_at  # type: ignore[return-value]  # the plan refuses other types
    if clip_at is not None:
        raise InputError(
            f"the genotype names its places, {', '.join(clip.places):.200}, got clip_at={clip_at!r:.80} beside it; "
            "leave clip_at out"
        )
    if len(clip.sites) > 1:
        return clip, clip.places
    place, only = clip.sites[0]
    return only.with_provenance(clip.provenance), place


def found_at(genotype: AnyClip | str) -> str | None:
    """Return the place inside of a network with which a genotype was found.

    None for the image, and for a clip that names its places itself.
    """
    if isinstance(genotype, str | DeepClip):
        return None
    place = (genotype.provenance or {}).get("clip_at")
    # A provenance is free text of whoever wrote it.
    return place if isinstance(place, str) and place != IMAGE else None


def clip_maker(backbone: nn.Module, source: FrameSource | None, genotype: AnyClip, **options: Any) -> Video:
    """Return what makes a wrapper's clips: the source, or an `Image2Video` of the genotype and the options.

    Clips at several places are made by a `DeepVideo`. `mean` and `std` default to what the backbone's config says,
    other options to what the genotype was found with. Raises `InputTypeError` for a source of another type, and
    `InputError` for a source beside options that it decides itself.
    """
    if source is None:
        return video_of(genotype, options_for(genotype, WRAP_CLIP, **options).with_colours_of(backbone))
    if not isinstance(source, FrameSource):
        meant = f"; the number of frames is T: write T={source}" if isinstance(source, int) else ""
        raise InputTypeError(f"frames must be a FrameSource such as RandomClips, got {type(source).__name__}{meant}")
    given = ["genotype"] if str(genotype) != DEFAULT_GENOTYPE else []
    given += [name for name, value in options.items() if value is not None]
    if given:
        raise InputError(
            f"frames={type(source).__name__} makes the clips itself; give it {', '.join(given)}, or leave frames out"
        )
    return source


def video_of(clip: AnyClip, options: ClipOptions) -> Image2Video | DeepVideo:
    """Return what makes the frames of a clip."""
    return DeepVideo(clip, options) if isinstance(clip, DeepClip) else Image2Video.of(clip, options)


def make_clip(to_video: Video, images: Tensor, T: int | None) -> tuple[Tensor, Unwarper]:
    """Return the clip `(B, T, C, H, W)` of images, and what brings maps of its frames back to them."""
    if isinstance(to_video, FrameSource):
        return to_video.make(images, T)
    assert isinstance(to_video, Image2Video), "clips at several places are made by hooks"
    return to_video(images, T), to_video


def plan_for(
    backbone: nn.Module,
    config: FusionConfig,
    sites: Sites,
    input_size: tuple[int, int, int] | None,
    example_input: Tensor | None,
    clip_at: str | Sequence[str] | None = None,
    *,
    found: str | None = None,
) -> Plan:
    """Return the given plan, or make one at the given size or at the size that the backbone's config tells.

    Without a given plan and a `clip_at` the clip begins where its genotype was `found`.

    Raises `InputError` for a plan of another fusion, of another clip site or of none where the genotype was found at
    one, and what `plan` raises.
    """
    if isinstance(sites, Plan):
        if sites.fusion != config:
            raise InputError(f"the plan is for {sites.fusion}, got fusion={config}; pass the plan's own fusion")
        if (clip_at is not None or sites.later_sites) and not _is_planned(sites, checked_places(clip_at)):
            planned = sites.places if sites.later_sites else sites.places[0]
            raise InputError(
                f"the plan has clip_at={planned!r}, got clip_at={clip_at!r}; pass the plan's own, or leave it out; a "
                "genotype names its places itself where there are several"
            )
        if clip_at is None and found is not None and not _is_planned(sites, (found,)):
            raise InputError(
                f"the plan has clip_at={sites.places[0]!r}, and the genotype was found at {found!r}, as its provenance "
                f"says; plan with clip_at={found!r}, or pass clip_at={sites.places[0]!r} to let the clip begin there"
            )
        return sites
    clip_at = found if clip_at is None else clip_at
    known = input_size is not None or example_input is not None or nominal_size(backbone) is not None
    if not known and not config.active and sites is None and clip_at in (None, IMAGE):
        # Without fusion the trace only tells the layouts of the outputs: the first maps or tokens trace the backbone.
        return Plan(config, (), UNKNOWN_SIZE, model=type(backbone).__name__)
    try:
        return plan(
            backbone, fusion=config, sites=sites, input_size=input_size, example_input=example_input, clip_at=clip_at
        )
    except InputError as error:
        if "clip_at" not in str(error):
            raise
        if isinstance(clip_at, tuple):
            raise InputError(f"{error}; the genotype names the places, {', '.join(clip_at):.200}") from error
        if found is None or clip_at != found:
            raise
        raise InputError(
            f"{error}; the genotype was found there, as its provenance says: clip_at={IMAGE!r} lets the clip begin at "
            "the image"
        ) from error


def _is_planned(the_plan: Plan, places: Sequence[str]) -> bool:
    """Whether places are those of a plan, by any of their names."""
    known: list[tuple[str, ...]] = [(IMAGE,)] if the_plan.clip_site is None else []
    known += [(site.name, *site.aliases) for site in the_plan.clip_sites]
    return len(known) == len(places) and all(place in names for place, names in zip(places, known, strict=True))


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """List the batch norms of a backbone that keep running statistics; others compute the same in both modes."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def output_formats(
    backbone: nn.Module,
    plan: Plan,
    *,
    later: Callable[[], OutputFormats] | None = None,
    planned: OutputFormats | None = None,
) -> OutputFormats:
    """Return what is known of the layouts of a backbone's outputs: what it declares itself, and what was traced.

    `later` traces the backbone once more, where an output was not there when the plan was made. `planned` is what
    `planned_formats` returned for the plan, where it is at hand.
    """
    declared = getattr(backbone, "output_fmt", None)
    # timm's `output_fmt` is an enumeration of strings; its other values (NLC) are no layouts of maps.
    name = str(getattr(declared, "value", declared)).upper()
    known = planned_formats(plan) if planned is None else planned
    return OutputFormats(
        name if name in ("NCHW", "NHWC") else None,  # type: ignore[arg-type]
        known.layouts,
        known.grids,
        known.tokens,
        later,
        known.before,
        inside=known.inside,
    )


def planned_formats(plan: Plan) -> OutputFormats:
    """Return what a plan tells of the layouts of outputs."""
    known = formats_of(plan.outputs)
    tokens = {(site.layout, site.grids) for site in plan.sites}
    for output in plan.outputs:
        if output.layout is not None:
            tokens.add((output.layout, () if output.grid is None else (output.grid,)))
    return OutputFormats(
        layouts=known.layouts,
        grids=known.grids,
        tokens=frozenset((layout, rules) for layout, rules in tokens if layout.spatial == "tokens"),
        before=frozenset() if plan.clip_site is None else frozenset(plan.clip_site.outputs_before),
        inside=plan.clip_site is not None,
    )


def formats_of(outputs: Iterable[OutputLayout]) -> OutputFormats:
    """Return the layouts of traced outputs."""
    known = list(outputs)
    layouts = {output.path: output.layout for output in known}
    return OutputFormats(layouts=layouts, grids={output.path: output.grid for output in known if output.grid})


class CallWords:
    """Around a call of a backbone: says what does not fit, where it fails.

    A check of dtypes before the call would refuse backbones that convert their images themselves; weights that are
    offloaded come and go within a call.
    """

    def __init__(self, backbone: nn.Module, fusions: nn.Module, frames: Tensor) -> None:
        self._backbone = backbone
        self._fusions = fusions
        self._frames = frames

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, RuntimeError) or isinstance(error, Image2VideoError):
            return
        self._empty(error)
        if "type" in str(error):
            self._dtypes(error)

    def _dtypes(self, error: RuntimeError) -> None:
        """Raise where the images are of another dtype than the backbone's weights."""
        weights = {p.dtype for p in self._backbone.parameters() if p.is_floating_point()}
        given = self._frames.dtype
        if not weights or given in weights:
            return
        needed = sorted(str(dtype) for dtype in weights)
        raise InputTypeError(
            f"images are {given}, and the backbone needs {' or '.join(needed)}, the dtype of its weights; convert them "
            f"(images.to({needed[0]})) or the model (model.to({given})), or call it under torch.autocast"
        ) from error

    def _empty(self, error: RuntimeError) -> None:
        """Raise where fusions hold no values."""
        if self._frames.is_meta or not any(parameter.is_meta for parameter in self._fusions.parameters()):
            return
        names = sorted({type(module).__name__ for module in self._fusions.modules() if isinstance(module, Fusion)})
        raise StateError(
            "the fusions' weights hold no values (they are on the meta device): load a checkpoint first; where "
            "accelerate offloads them, it has to bring all those of a fusion at once: give "
            f"preload_module_classes={names} to cpu_offload, disk_offload or dispatch_model"
        ) from error
