"""The steps of wrapping that need no wrapper: checks, the plan, layouts, batch norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from image2video.clip.frame_sources import FrameSource
from image2video.clip.genotype import DEFAULT_GENOTYPE, Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.clip.options import ClipOptions
from image2video.errors import InputError, InputTypeError
from image2video.fusion.config import FusionConfig
from image2video.inject.plan import Plan, Site
from image2video.inject.planning import plan
from image2video.protocols import Unwarper
from image2video.trace.sizes import nominal_size
from image2video.wrap.aggregate import OutputFormats

UNKNOWN_SIZE = (0, 0, 0)
"""The input size in a plan that was made without a trace, which only a plan without sites can be."""

Sites = str | Sequence[str] | Callable[[Site], bool] | Plan | None


def clip_maker(
    backbone: nn.Module, source: FrameSource | None, genotype: Genotype | str, options: ClipOptions
) -> Image2Video | FrameSource:
    """What makes a wrapper's clips: the source, or an `Image2Video` of the genotype and the options.

    `mean` and `std` default to what the backbone's config says. Raises `InputTypeError` for a source that is none,
    `InputError` where one is given beside options that it decides itself, and what `Image2Video` raises.
    """
    if source is None:
        return Image2Video.of(genotype, options.with_colours_of(backbone))
    if not isinstance(source, FrameSource):
        raise InputTypeError(f"frames must be a FrameSource such as RandomClips, got {type(source).__name__}")
    defaults = ClipOptions().arguments()
    given = ["genotype"] if genotype != DEFAULT_GENOTYPE else []
    given += [name for name, value in options.arguments().items() if value != defaults[name]]
    if given:
        raise InputError(
            f"frames={type(source).__name__} makes the clips itself; give it {', '.join(given)}, or leave frames out"
        )
    return source


def make_clip(to_video: Image2Video | FrameSource, images: Tensor, T: int | None) -> tuple[Tensor, Unwarper]:
    """The clip `(B, T, C, H, W)` of images, and what brings maps of its frames back to them."""
    return to_video.make(images, T) if isinstance(to_video, FrameSource) else (to_video(images, T), to_video)


def plan_for(
    backbone: nn.Module,
    config: FusionConfig,
    sites: Sites,
    input_size: tuple[int, int, int] | None,
    example_input: Tensor | None,
) -> Plan:
    """The plan of a wrapper: the given one, or that of the backbone at the size that is given or that it tells itself.

    Raises `InputError` for a plan of another fusion, and what `plan` raises.
    """
    if isinstance(sites, Plan):
        if sites.fusion != config:
            raise InputError(f"the plan is for {sites.fusion}, but fusion={config}; pass the plan's own fusion")
        return sites
    known = input_size is not None or example_input is not None or nominal_size(backbone) is not None
    if not known and not config.active and sites is None:
        # Without fusion the trace only tells the layouts of the outputs: it may be left out.
        return Plan(config, (), UNKNOWN_SIZE, model=type(backbone).__name__)
    return plan(backbone, fusion=config, sites=sites, input_size=input_size, example_input=example_input)


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """The batch norms of a backbone that keep running statistics."""
    # Batch norms without running statistics compute the same in both modes; eval would be a change without a purpose.
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def output_formats(backbone: nn.Module, plan: Plan) -> OutputFormats:
    """What the backbone declares (timm's `output_fmt`) and the plan has traced of the layouts of its outputs."""
    declared = getattr(backbone, "output_fmt", None)
    # timm's Format is an enumeration of strings; its others (NLC) are no layouts of maps.
    name = str(getattr(declared, "value", declared)).upper()
    layouts = {output.path: output.layout for output in plan.outputs if output.layout is not None}
    return OutputFormats(name if name in ("NCHW", "NHWC") else None, layouts)  # type: ignore[arg-type]
