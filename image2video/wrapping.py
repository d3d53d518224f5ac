"""The steps of wrapping that need no wrapper: checks, the plan, layouts, batch norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from image2video.aggregate import OutputFormats
from image2video.errors import InputError, InputTypeError, StateError
from image2video.fusion.config import FusionConfig
from image2video.inject.api import Injection
from image2video.inject.plan import Plan, Site
from image2video.inject.planning import plan
from image2video.inject.sizes import nominal_size
from image2video.timm_like import TimmLike

UNKNOWN_SIZE = (0, 0, 0)
"""The input size in a plan that was made without a trace, which only a plan without sites can be."""

Sites = str | Sequence[str] | Callable[[Site], bool] | Plan | None


def check_backbone(backbone: Any) -> None:
    """Raise `InputTypeError` for what is no module, `StateError` for one that is wrapped or holds a wrapped one."""
    if not isinstance(backbone, nn.Module):
        raise InputTypeError(f"the backbone must be a torch.nn.Module, got {type(backbone).__name__}")
    for name, module in backbone.named_modules():
        if isinstance(module, TimmLike | Injection):
            where = "is" if not name else f"holds at {name!r}"
            raise StateError(
                f"the backbone {where} a {type(module).__name__}: it is wrapped already; use it as it is, or wrap "
                "model.unwrap()"
            )


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
