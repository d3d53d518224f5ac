"""Places of a network between which a clip's frames stay the same: a warp commutes with what works on single cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

from image2video.clip.genotype import Genotype
from image2video.clip.options import ClipOptions
from image2video.inject.clip_places import Places
from image2video.search.rank.places import Place
from image2video.trace.graph import Graph, has
from image2video.trace.layout import NCHW
from image2video.trace.recorder import Value
from image2video.trace.trace import trace_forward

_AFFINE = frozenset({"batch_norm", "dropout", "feature_dropout", "clone", "contiguous", "to", "identity"})
"""Operations that are, in eval mode, the same affine map at every cell."""
_CELLWISE = frozenset(
    {"relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus"}
    | {"hardtanh", "hardswish", "hardsigmoid", "sigmoid", "tanh"}
)
"""Further operations that work on single cells."""


class SameFrames:
    """Says at which of some places a clip is made in place of others, where it gives the same.

    Between two places there may be nothing but 1×1 convolutions and norms: what is sampled before them is sampled
    behind them, with the border or a reflection outside. Frames that are slices pass activations too.

    Args:
        affine: for a place the last one behind it with nothing but such convolutions and norms between them.
        cellwise: the same with activations.
    """

    def __init__(
        self, affine: Mapping[Place, Place] | None = None, cellwise: Mapping[Place, Place] | None = None
    ) -> None:
        self._affine, self._cellwise = affine or {}, cellwise or {}

    @classmethod
    def of(cls, model: nn.Module, places: Sequence[Place], example: Tensor) -> SameFrames:
        """Read it off the dataflow of a network; `places` are in its order."""
        sites = [place for place in places if place is not None]
        if len(sites) < 2:
            return cls()
        graph = Graph(trace_forward(model, example))
        known = Places(graph)
        affine: dict[Place, Place] = {}
        cellwise: dict[Place, Place] = {}
        for site, later in reversed(list(pairwise(sites))):
            begin, end = (next(call for call in graph.calls if call.name == one.module) for one in (site, later))
            place, value = known.place(begin, begin.inputs[site.index]), end.inputs[later.index]
            between = [v for v in graph.values if has(place.behind, v.index) and has(graph.ancestors[value], v.index)]
            same_outputs = site.outputs_before == later.outputs_before
            if site.layout != NCHW or not between or site.map_size != later.map_size or not same_outputs:
                continue
            if all(_is_affine(v, graph.values[place.value]) for v in between):
                affine[site] = affine.get(later, later)
            if all(_is_affine(v, graph.values[place.value]) or _name(v) in _CELLWISE for v in between):
                cellwise[site] = cellwise.get(later, later)
        return cls(affine, cellwise)

    def last(self, place: Place, chain: Genotype, options: ClipOptions) -> Place:
        """Return the last place at which a clip gives what it gives at this one."""
        if place is None:
            return place
        mirrored = [chain.mirrored(step) is not None for step in options.steps]
        if options.padding == "zeros" and not all(mirrored):
            return place  # zeros outside are none behind a bias
        shifts = [chain.whole_shift(step, *place.map_size) is not None for step in options.steps]
        sliced = all(m or s for m, s in zip(mirrored, shifts, strict=True))
        return (self._cellwise if sliced else self._affine).get(place, place)


NOWHERE = SameFrames()
"""No two places give the same frames."""


def _name(value: Value) -> str:
    """The name of the operation that made a value, in place or not."""
    return value.op.rstrip("_")


def _is_affine(value: Value, begin: Value) -> bool:
    """Whether an operation is the same affine map at every cell of a map."""
    if _name(value) in _AFFINE:
        return True
    same_cells = value.shape[2:] == begin.shape[2:]
    return value.op == "conv2d" and same_cells and all(side == 1 for side in value.kernel)
