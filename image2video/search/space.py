"""Search spaces: the candidates on every edge of the cell, and the cell's graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from image2video.errors import InputError, InputTypeError
from image2video.genotype import Genotype, Transform
from image2video.geometry import SCHEDULES, check_choice

REDUCTIONS: tuple[str, ...] = ("mean", "sum")

_REGISTRY: dict[str, SearchSpace] = {}


@dataclass(frozen=True)
class SearchSpace:
    """What a search may choose: the candidates of every edge, and a cell of `nodes` nodes after `inputs` inputs.

    Node j has one edge from every node before it, inputs included, as in the paper's cell (Casarin et al., CVPR 2024,
    Fig. 3). The inputs are all the same image.

    Args:
        name: lower-case name that configs and results carry.
        candidates: what an edge may hold, as genotypes or texts: `"translate_x(0.06)"`, `"identity"`. The same op may
            stand there with several magnitudes, of either sign; a candidate of two transforms is applied as a pair.
        inputs: number of inputs.
        nodes: number of nodes after them; the last one is the clip.
        reduce: `"mean"` over a node's incoming edges (ours: the image keeps its amplitude) or `"sum"` (the authors'
            code: 2, 4, 8, 16 times the image).
        schedule: the power s(t) of frame t, see `image2video.geometry.schedule_steps`.

    Raises:
        InputError: no candidate, two that are equal, a cell without nodes or inputs, an unknown option.

    Example:
        >>> space = SearchSpace("shifts", ("translate_x(0.03)", "translate_x(-0.03)", "identity"), nodes=2)
        >>> space.edges, space.size
        (((0, 1), (0, 2), (1, 2)), 27)

    """

    name: str
    candidates: tuple[Genotype, ...]
    inputs: int = 1
    nodes: int = 4
    reduce: str = "mean"
    schedule: str = "from_zero"

    def __post_init__(self) -> None:
        if isinstance(self.candidates, str) or not isinstance(self.candidates, Iterable):
            raise InputTypeError(f"candidates are a tuple of genotypes or texts, got {self.candidates!r:.80}")
        chains = tuple(Genotype.coerce(candidate).with_provenance(None) for candidate in self.candidates)
        object.__setattr__(self, "candidates", chains)
        if not chains:
            raise InputError(f"the space {self.name!r} has no candidates; give at least one, such as 'identity'")
        twice = sorted({str(c) for c in chains if chains.count(c) > 1})
        if twice:
            raise InputError(
                f"the space {self.name!r} lists {', '.join(twice)} more than once; each may stand there once"
            )
        for what, value in (("inputs", self.inputs), ("nodes", self.nodes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{what} must be an integer of at least 1, got {value!r}")
        check_choice("node reduction", self.reduce, REDUCTIONS)
        check_choice("schedule", self.schedule, SCHEDULES)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """All edges as (source, target), ordered by target; inputs are the nodes 0 … inputs − 1."""
        return tuple((i, j) for j in range(self.inputs, self.num_nodes) for i in range(j))

    @property
    def num_nodes(self) -> int:
        """Inputs and nodes together."""
        return self.inputs + self.nodes

    @property
    def size(self) -> int:
        """The number of ways to put one candidate on every edge: 5^10 for `affine5`."""
        return len(self.candidates) ** len(self.edges)

    @property
    def labels(self) -> tuple[str, ...]:
        """The candidates as texts."""
        return tuple(str(candidate) for candidate in self.candidates)

    def incoming(self, node: int) -> tuple[int, ...]:
        """The edges (their indices) that end in `node`."""
        return tuple(index for index, (_, target) in enumerate(self.edges) if target == node)

    def outgoing(self, node: int) -> tuple[int, ...]:
        """The edges (their indices) that start from `node`."""
        return tuple(index for index, (source, _) in enumerate(self.edges) if source == node)

    def to_dict(self) -> dict[str, Any]:
        """The space as plain JSON values."""
        return {
            "name": self.name,
            "candidates": list(self.labels),
            "inputs": self.inputs,
            "nodes": self.nodes,
            "reduce": self.reduce,
            "schedule": self.schedule,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SearchSpace:
        """The space that `to_dict` wrote, or one written by hand in YAML or JSON; unknown keys are refused."""
        known = set(cls.__dataclass_fields__)
        unknown = sorted(set(record) - known)
        if unknown:
            raise InputError(f"a search space has no key {unknown[0]!r}; its keys are {', '.join(sorted(known))}")
        missing = [key for key in ("name", "candidates") if key not in record]
        if missing:
            raise InputError(f"a search space needs the key {missing[0]!r}")
        return cls(**{**record, "candidates": tuple(record["candidates"])})


def register_space(space: SearchSpace) -> SearchSpace:
    """Make `space` known to configs under its name; raises `InputError` where another space has that name."""
    if _REGISTRY.get(space.name, space) != space:
        raise InputError(f"a different search space is registered as {space.name!r}; choose another name")
    _REGISTRY[space.name] = space
    return space


def get_space(name: str) -> SearchSpace:
    """The registered space of that name; raises `InputError` with the list of all."""
    if name not in _REGISTRY:
        raise InputError(f"unknown search space {name!r}; known spaces: {', '.join(space_names())}")
    return _REGISTRY[name]


def space_names() -> tuple[str, ...]:
    """The names of all registered spaces."""
    return tuple(_REGISTRY)


def _gentle() -> tuple[Genotype, ...]:
    """Small steps of either sign: a trained model loses accuracy under large ones."""
    magnitudes = {
        "translate_x": (0.01, 0.02, 0.03, 0.06),
        "translate_y": (0.01, 0.02, 0.03, 0.06),
        "rotate": (1.0, 2.0, 5.0),
    }
    signed = [Transform(op, sign * m) for op, values in magnitudes.items() for m in values for sign in (1, -1)]
    scales = [Transform("scale", factor) for factor in (1.02, 0.98, 1.05, 0.95)]
    return (Genotype.identity(), *(Genotype((transform,)) for transform in [*signed, *scales]))


register_space(
    SearchSpace(
        "affine5",
        tuple(
            Genotype.parse(t)
            for t in ("translate_x(0.06)", "translate_y(0.06)", "scale(1.1)", "rotate(10)", "identity")
        ),
    )
)
register_space(SearchSpace("gentle", _gentle()))
