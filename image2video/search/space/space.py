"""Search spaces: the candidates on every edge of the cell, and the cell's graph."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image2video.clip.checks import check_choice
from image2video.clip.genotype import Genotype
from image2video.clip.random_chain import refuse_cells
from image2video.clip.schedules import SCHEDULES
from image2video.errors import InputError, InputTypeError
from image2video.search.space.graph import EdgeGraph
from image2video.search.space.known_spaces import KNOWN_SPACES
from image2video.search.space.space_file import MAX_CANDIDATES, is_space_file, read_space_file, record_candidates

REDUCTIONS: tuple[str, ...] = ("mean", "sum")
MAX_NODES = 64

_REGISTRY: dict[str, SearchSpace] = {}


@dataclass(frozen=True)
class SearchSpace(EdgeGraph):
    """What a search may choose: the candidates of every edge, and a cell of `nodes` nodes after `inputs` inputs.

    Node j has one edge from every node before it, inputs included, as in the paper's cell (Casarin et al., CVPR 2024,
    Fig. 3). The inputs are all the same image. `load` reads a space from a file, `register_space` makes it known by
    its name.

    Args:
        name: what configs and results call it.
        candidates: what an edge may hold, as genotypes or texts: `"translate_x(0.06)"`, `"identity"`. The same op may
            stand there with several magnitudes, of either sign; a candidate of two transforms is applied as a pair.
        inputs: number of inputs.
        nodes: number of nodes after them, at most 64 together; the last one is the clip.
        reduce: `"mean"` over a node's incoming edges (ours: the image keeps its amplitude) or `"sum"` (the authors'
            code: 2, 4, 8, 16 times the image).
        schedule: the power s(t) of frame t, see `image2video.clip.schedules.schedule_steps`.

    Raises:
        InputError: no candidate, two that are equal, one with a magnitude in cells, a cell without nodes or inputs, an
            unknown option.
        InputTypeError: a name that is no text, candidates that are no tuple.

    Example:
        >>> space = SearchSpace("shifts", ("translate_x(0.03)", "translate_x(-0.03)", "identity"), nodes=2)
        >>> space.edges, space.size
        (((0, 1), (0, 2), (1, 2)), 27)
        >>> space.size_text
        '3^3 = 27'
    """

    name: str
    candidates: tuple[Genotype, ...]
    inputs: int = 1
    nodes: int = 4
    reduce: str = "mean"
    schedule: str = "from_zero"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputTypeError(f"name: a search space is named by a text, got {self.name!r:.80}")
        if isinstance(self.candidates, str) or not isinstance(self.candidates, Iterable):
            raise InputTypeError(f"candidates are a tuple of genotypes or texts, got {self.candidates!r:.80}")
        given = tuple(itertools.islice(self.candidates, MAX_CANDIDATES + 1))
        if len(given) > MAX_CANDIDATES:
            raise InputError(f"the space {self.name!r:.80} has too many candidates; the most is {MAX_CANDIDATES}")
        chains = tuple(_bare(Genotype.coerce(candidate)) for candidate in given)
        object.__setattr__(self, "candidates", chains)
        if not chains:
            raise InputError(f"the space {self.name!r:.80} has no candidates; give at least one, such as 'identity'")
        for chain in chains:
            refuse_cells(chain, f"search spaces ({self.name!r:.80}) are")
        twice = sorted(str(chain) for chain, count in Counter(chains).items() if count > 1)
        if twice:
            raise InputError(
                f"the space {self.name!r:.80} lists {', '.join(twice)} more than once; each may stand there once"
            )
        for what, value in (("inputs", self.inputs), ("nodes", self.nodes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{what} must be an integer of at least 1, got {value!r:.80}")
        if self.num_nodes > MAX_NODES:
            raise InputError(f"inputs and nodes are {self.num_nodes} together; the most is {MAX_NODES}")
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
    def labels(self) -> tuple[str, ...]:
        """The candidates as texts."""
        return tuple(str(candidate) for candidate in self.candidates)

    def edge_name(self, edge: int) -> str:
        """An edge in words, for curves.

        Args:
            edge: its number.

        Returns:
            Source and target.
        """
        source, target = self.edges[edge]
        return f"{source}-{target}"

    def to_dict(self) -> dict[str, Any]:
        """The space as a record.

        Returns:
            Plain JSON values.
        """
        return {
            "name": self.name,
            "candidates": list(self.labels),
            "inputs": self.inputs,
            "nodes": self.nodes,
            "reduce": self.reduce,
            "schedule": self.schedule,
        }

    def describe(self) -> dict[str, Any]:
        """What a listing shows.

        Returns:
            Name, candidates and edges as counts, size as a number and as a text, the cell.
        """
        return {
            "name": self.name,
            "candidates": len(self.candidates),
            "edges": len(self.edges),
            "size": self.size,
            "size_text": self.size_text,
            "inputs": self.inputs,
            "nodes": self.nodes,
            "reduce": self.reduce,
            "schedule": self.schedule,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SearchSpace:
        """The space that `to_dict` wrote, or one written by hand.

        Args:
            record: the key `name`; `candidates`, a list of texts, or `ops`, a mapping of ops to one magnitude, several,
                or None for the op's default (a list of ops means their defaults); `inputs`, `nodes`, `reduce` and
                `schedule` where they are not the defaults.

        Returns:
            The space.

        Raises:
            InputError: an unknown or a missing key, or a value that cannot be used; the message names the key.
            InputTypeError: a value of the wrong type.

        >>> SearchSpace.from_dict({"name": "turns", "ops": {"rotate": [5, -5], "scale": None, "identity": None}}).labels
        ('rotate(5)', 'rotate(-5)', 'scale(1.1)', 'identity')
        """
        known = sorted({*cls.__dataclass_fields__, "ops"})
        unknown = sorted(set(record) - set(known))
        if unknown:
            raise InputError(f"a search space has no key {unknown[0]!r:.80}; its keys are {', '.join(known)}")
        if "name" not in record:
            raise InputError(
                f"a search space needs the key 'name', got {', '.join(map(str, record))[:300] or 'no key'}"
            )
        rest = {key: value for key, value in record.items() if key not in ("candidates", "ops")}
        return cls(candidates=record_candidates(record), **rest)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SearchSpace:
        """The space in a file.

        Args:
            path: of a .yaml, .yml or .json file; its keys are those of `from_dict`, its name the file's by default.

        Returns:
            The space.

        Raises:
            MissingError: there is no such file.
            InputError: unknown keys or ops, more than 1 000 000 bytes, or no YAML or JSON; the message names the file
                and the key, or the line.
            InputTypeError: a value of the wrong type.
        """
        record = {"name": Path(path).stem, **read_space_file(path)}
        try:
            return cls.from_dict(record)
        except (InputError, InputTypeError) as error:
            raise type(error)(f"{os.fspath(path)}: {error}") from None


def _bare(genotype: Genotype) -> Genotype:
    """The chain without provenance."""
    return genotype if genotype.provenance is None else genotype.with_provenance(None)


def register_space(space: SearchSpace) -> SearchSpace:
    """Make a space known to configs under its name.

    Args:
        space: the space.

    Returns:
        The same.

    Raises:
        InputError: a name that another space has, or that looks like a file's.
    """
    if is_space_file(space.name):
        raise InputError(f"a space cannot be registered as {space.name!r}: such names stand for files; choose another")
    if _REGISTRY.get(space.name, space) != space:
        raise InputError(f"a different search space is registered as {space.name!r}; choose another name")
    _REGISTRY[space.name] = space
    return space


def get_space(name: str | os.PathLike[str]) -> SearchSpace:
    """The registered space of that name, or the one in a file.

    Args:
        name: a registered name, or the path of a .yaml, .yml or .json file.

    Returns:
        The space.

    Raises:
        InputTypeError: a name that is no text and no path.
        InputError: an unknown name; the message lists all. Files raise what `SearchSpace.load` raises.
    """
    if not isinstance(name, str | os.PathLike):
        raise InputTypeError(f"a search space is named by a text or a path, got {name!r:.80}")
    if is_space_file(name):
        return SearchSpace.load(name)
    if name not in _REGISTRY:
        raise InputError(
            f"unknown search space {os.fspath(name)!r}; known spaces: {', '.join(space_names())}; or give the path of "
            "a .yaml or .json file"
        )
    return _REGISTRY[os.fspath(name)]


def space_names() -> tuple[str, ...]:
    """The names of all registered spaces.

    Returns:
        The built-in ones first, the others in the order of their registration.
    """
    return tuple(_REGISTRY)


for _record in KNOWN_SPACES:
    register_space(SearchSpace.from_dict(_record))
