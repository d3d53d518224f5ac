"""The trace of a model that is followed for its receptive field: a backbone within a `VideoWrap` sees one frame."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from image2video.errors import InputError, InputTypeError, StateError
from image2video.receptive_field.field import Field, field_over
from image2video.receptive_field.models import bare_network, uncompiled
from image2video.receptive_field.reach import Reach, join
from image2video.receptive_field.reach_rules import reach_after
from image2video.trace.operation import Named, Operation
from image2video.trace.recorder import Call, Trace, Value
from image2video.trace.sizes import example_for
from image2video.trace.trace import trace_forward
from image2video.wrap.video_wrap import VideoWrap

_WITHIN = "model.backbone."


class OneFrame(nn.Module):
    """The backbone of a `VideoWrap` on single frames, which its fusions leave as they are."""

    def __init__(self, model: VideoWrap) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        """What the backbone returns for images that are one frame each."""
        with self.model.fusion._frames(1):
            return self.model.backbone(images)


@dataclass(frozen=True)
class Traced:
    """One forward of a model, or of a wrapper's backbone on single frames, by the names of the bare modules.

    Attributes:
        trace: the forward.
        model: the bare network.
        prefix: what stands in the trace before the names of its modules.
        size: (height, width) of the images.
    """

    trace: Trace
    model: nn.Module
    prefix: str
    size: tuple[int, int]

    def layer(self, name: str) -> Call:
        """The last execution of the module of that name; raises `InputError` where there is none."""
        # A name of the wrapper begins with `backbone.`, and so may one of the network itself.
        for wanted in (name, name.removeprefix("backbone.")) if self.prefix else (name,):
            calls = [call for call in self.trace.calls if call.name == self.prefix + wanted]
            if calls:
                return calls[-1]
        known = [call.name.removeprefix(self.prefix) for call in self.trace.calls if call.name.startswith(self.prefix)]
        near = difflib.get_close_matches(name, [n for n in dict.fromkeys(known) if n], n=5, cutoff=0.0)
        raise InputError(
            f"no module {name!r} runs in a forward of {type(self.model).__name__}; near: {', '.join(near)}; "
            "names are those of model.named_modules()"
        )

    def runs(self, name: str) -> int:
        """How often the module of that name is executed in one forward."""
        last = self.layer(name).name
        return sum(call.name == last for call in self.trace.calls)

    def where(self, value: Value) -> str:
        """The module that computed a value, in words."""
        if value.call < 0:
            return "the model"
        name = self.trace.calls[value.call].name.removeprefix(self.prefix.removesuffix(".")).lstrip(".")
        return name or type(self.model).__name__


def trace_model(model: nn.Module, input_size: Sequence[int] | None) -> Traced:
    """Trace a model on images of (C, H, W); None takes the size that it tells itself."""
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"a model must be a torch.nn.Module, got {type(model).__name__}")
    model = uncompiled(model)
    if isinstance(model, VideoWrap) and "backbone" not in dict(model.named_children()):
        raise StateError("this VideoWrap was unwrapped and has no backbone; pass the backbone itself, or wrap it again")
    backbone = bare_network(model)
    # A wrapper is followed through its backbone on single frames: its clip and its fusions move no field of a frame.
    example = example_for(backbone, None if input_size is None else tuple(input_size), None)
    traced = OneFrame(model) if isinstance(model, VideoWrap) else model
    trace = trace_forward(traced, example)
    height, width = example.shape[-2:]
    return Traced(trace, backbone, _WITHIN if traced is not model else "", (height, width))


def field_of(traced: Traced, layer: str | None, *, origin: int = 0, size: tuple[int, int] | None = None) -> Field:
    """The field of the units of a layer's output, or of the model's first output, in pixels of the image.

    With the index of a value as `origin`, and (rows, columns) of that map as `size`, in cells of it.
    """
    values = traced.trace.values
    if layer is None:
        what, candidates = "the output", [value for _, value in traced.trace.outputs]
    else:
        what, candidates = f"layer {layer!r}", [value for value in traced.layer(layer).outputs if value >= 0]
    index = next((value for value in candidates if values[value].depends), None)
    if index is None:
        raise InputError(
            f"{what} of {type(traced.model).__name__} holds no tensor that depends on the images; name a layer whose "
            "output does: layer=…"
        )
    return field_of_value(traced, index, what, origin=origin, size=size)


def field_of_value(
    traced: Traced, index: int, what: str, *, origin: int = 0, size: tuple[int, int] | None = None
) -> Field:
    """The field of the units of a value, which errors call `what`; `origin` and `size` as in `field_of`."""
    height, width = traced.size if size is None else size
    reach = _reaches(traced, index, origin, (height, width))
    reach.check(what)
    if reach.whole:
        centre = (height / 2, width / 2)
        return Field((height, width), (0, 0), centre, whole=True, reason=reach.whole, input_size=(height, width))
    return field_over(*reach.axes, input_size=(height, width))


def _reaches(traced: Traced, target: int, origin: int, size: tuple[int, int]) -> Reach:
    """The reach of one value, from a map of this size through all that it was computed from."""
    values = traced.trace.values
    known: dict[int, Reach] = {origin: Reach.of_image(*size)}
    for value in values[origin + 1 : target + 1]:
        if not value.depends:
            continue
        if value.operation is None:
            known[value.index] = join([known[p] for p in value.parents if p in known])
            continue
        reaches = [known[operand] for operand in _operands(value, value.operation) if operand in known]
        known[value.index] = reach_after(value.operation, reaches, traced.where(value))
    return known[target]


def _operands(value: Value, operation: Operation) -> list[int]:
    """The values of the tensors of an operation that depend on the images, in its own order."""
    named = [leaf for leaf in tree_flatten((operation.args, operation.kwargs))[0] if isinstance(leaf, Named)]
    return [index for index, leaf in zip(value.operands, named, strict=True) if leaf.axes is not None]
