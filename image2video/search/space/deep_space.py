"""The space of a search over several places of a network: a cell at each of them, with the same candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from image2video.clip.genotype import Genotype
from image2video.clip.map_frames import check_inside
from image2video.errors import InputError
from image2video.search.space.graph import EdgeGraph
from image2video.search.space.space import SearchSpace
from image2video.trace.places import IMAGE

Row = TypeVar("Row")


@dataclass(frozen=True)
class DeepSpace(EdgeGraph):
    """A cell at every place of a network (ours; Casarin et al., CVPR 2024, name it as their next step).

    To whatever decides edges and nodes it is one graph: the inputs of all cells come first, then the nodes of the first
    place, those of the second, and so on. Edges are numbered likewise, those of a place together. No edge leads from
    one place to another.

    Args:
        cell: candidates and graph of each place.
        places: paths of modules, in the order of the network; `"image"` may come first.

    Raises:
        InputError: no place, or candidates that change colours at a place inside of the network.

    Example:
        >>> space = DeepSpace(SearchSpace("two", ("rotate(5)", "identity"), nodes=2), ("image", "layer2"))
        >>> space.edges
        ((0, 2), (0, 3), (2, 3), (1, 4), (1, 5), (4, 5))
        >>> space.edge_name(5)
        'layer2: 1-2'
    """

    cell: SearchSpace
    places: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.places:
            raise InputError("a search over places of a network needs one at least, got none; name them in clip_at")
        for place in self.places:
            if place != IMAGE:
                self._check_colours(place)

    def _check_colours(self, place: str) -> None:
        """Raise `InputError` where a candidate changes colours, which exist at the image alone."""
        for chain in self.cell.candidates:
            if not chain.is_geometric:
                try:
                    check_inside(chain, f"at {place!r}")
                except InputError as error:
                    raise InputError(
                        f"the space {self.cell.name!r} cannot be searched inside of the network: {error}; choose a "
                        "space that moves pixels alone, such as 'affine5'"
                    ) from None

    @property
    def name(self) -> str:
        """That of the cells' space."""
        return self.cell.name

    @property
    def candidates(self) -> tuple[Genotype, ...]:
        """What every edge may hold."""
        return self.cell.candidates

    @property
    def labels(self) -> tuple[str, ...]:
        """The candidates as texts."""
        return self.cell.labels

    @property
    def reduce(self) -> str:
        """How a node adds up its edges."""
        return self.cell.reduce

    @property
    def schedule(self) -> str:
        """The power of each frame, at every place."""
        return self.cell.schedule

    @property
    def inputs(self) -> int:
        """Inputs of all cells."""
        return len(self.places) * self.cell.inputs

    @property
    def nodes(self) -> int:
        """Nodes of all cells."""
        return len(self.places) * self.cell.nodes

    @property
    def num_nodes(self) -> int:
        """Inputs and nodes together."""
        return self.inputs + self.nodes

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """All edges as (source, target), those of a place together."""
        places = range(len(self.places))
        return tuple((self.node(p, i), self.node(p, j)) for p in places for i, j in self.cell.edges)

    def node(self, place: int, number: int) -> int:
        """The number here of a node of a place's cell.

        Args:
            place: the number of the place.
            number: the node's number in the cell.

        Returns:
            Its number in the graph of all places.
        """
        inputs = self.cell.inputs
        if number < inputs:
            return place * inputs + number
        return self.inputs + place * self.cell.nodes + number - inputs

    def place_of_node(self, node: int) -> tuple[int, int]:
        """The place of a node, and its number in the cell there.

        Args:
            node: its number.

        Returns:
            The number of the place, and the number in the cell.
        """
        if node < self.inputs:
            return divmod(node, self.cell.inputs)
        place, number = divmod(node - self.inputs, self.cell.nodes)
        return place, number + self.cell.inputs

    def place_of(self, edge: int) -> tuple[int, int]:
        """The place of an edge, and its number in the cell there.

        Args:
            edge: its number.

        Returns:
            The number of the place, and the number in the cell.
        """
        return divmod(edge, len(self.cell.edges))

    def part(self, place: int, rows: Sequence[Row]) -> Sequence[Row]:
        """Of one row per edge, such as those of τ, the rows of a place.

        Args:
            place: the number of the place.
            rows: one per edge.

        Returns:
            A slice of them.
        """
        count = len(self.cell.edges)
        return rows[place * count : (place + 1) * count]

    def edge_name(self, edge: int) -> str:
        """An edge in words, for curves.

        Args:
            edge: its number.

        Returns:
            The place, and source and target in the cell there.
        """
        place, number = self.place_of(edge)
        source, target = self.cell.edges[number]
        return f"{self.places[place]}: {source}-{target}"

    def to_dict(self) -> dict[str, Any]:
        """The space as a record.

        Returns:
            Plain JSON values: those of the cells' space, and the places.
        """
        return {**self.cell.to_dict(), "places": list(self.places)}


AnySpace = SearchSpace | DeepSpace
"""What a search may choose, at the image or at several places."""
