"""Search cells at several places of a network, one magnitude parameter τ for each of them."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from image2video.clip.chain import check_colours
from image2video.clip.colours import Colours
from image2video.clip.genotype import Genotype
from image2video.clip.ops.op import full_precision
from image2video.clip.options import ClipOptions
from image2video.clip.random_chain import ChainLaw
from image2video.search.cell.cell import Cell, check_images, check_mixing, is_whole, magnitude_units
from image2video.search.cell.graph import CellTrace
from image2video.search.cell.mixed_frames import Mix, MixedFrames
from image2video.search.cell.place_frames import PlaceFrames, computed, made
from image2video.search.cell.relaxed import Relaxed
from image2video.search.cell.relaxed_unwarp import RelaxedUnwarp
from image2video.search.cell.view import View
from image2video.search.space.deep_space import DeepSpace
from image2video.trace.places import IMAGE


class DeepCell(Relaxed):
    """A relaxed cell at each of several places of a network (ours; see `Cell` for what one does).

    The cell of the first place makes T frames; that of every later place moves frame t, which is there already, once
    more. Each place is a mixture of its own, so that with one op per edge a place does what the chain does that is read
    there, and the network what it does under the `DeepClip` of all places.

    Args:
        space: candidates, graph and places.
        T: as in `Cell`, and so are the others.
        padding: what stands outside the image and outside of maps.
        interpolation: how they are sampled.
        generator: draws τ's start.
        colours: how the images are normalised.
        learn_magnitudes: make the magnitudes of geometric transforms a parameter.
        magnitudes_per: `"node"` or `"edge"`; every place has magnitudes of its own.
        magnitude_bound: largest magnitude, in units of the space's own one.

    Attributes:
        tau: parameter `(edges, candidates)`, the edges of a place together: a τ for each place.
        magnitudes: parameter `(rows, transforms)`, the rows of a place together; None where they are not learned.

    Raises:
        InputError: whatever `Cell` refuses.

    Example:
        >>> from image2video.search import DeepSpace, get_space
        >>> cell = DeepCell(DeepSpace(get_space("affine5"), ("image", "layer2")), T=3)
        >>> tuple(cell.tau.shape), tuple(cell.view(torch.rand(2, 3, 16, 24)).inputs.shape)
        ((20, 5), (2, 3, 3, 16, 24))
    """

    space: DeepSpace

    def __init__(
        self,
        space: DeepSpace,
        T: int = 5,
        *,
        padding: str = "zeros",
        interpolation: str = "bilinear",
        generator: torch.Generator | None = None,
        colours: Colours | None = None,
        learn_magnitudes: bool = False,
        magnitudes_per: str = "node",
        magnitude_bound: float = 3.0,
    ) -> None:
        mean, std = (None, None) if colours is None else (colours.mean, colours.std)
        options = ClipOptions(T, space.schedule, padding, interpolation, mean, std)
        for candidate in space.candidates:
            check_colours(candidate, colours)
        ChainLaw.of(space.cell).check_steps(options.steps)
        units = magnitude_units(space.cell, magnitudes_per, magnitude_bound, options) if learn_magnitudes else None
        super().__init__(space, units, len(space.places), generator)
        self.T = T
        self._frames = tuple(
            MixedFrames(space.cell, options.steps, options, units, later=place > 0)
            for place in range(len(space.places))
        )
        self._unwarp = RelaxedUnwarp([frames.warps for frames in self._frames], options.steps)

    @property
    def begins_at_image(self) -> bool:
        """Whether the first place is the image."""
        return self.space.places[0] == IMAGE

    def chosen_candidate(self, edge: int, candidate: int) -> Genotype:
        """A candidate as an edge has it now.

        Args:
            edge: its number.
            candidate: its number.

        Returns:
            The candidate with its learned magnitudes, or as the space has it.
        """
        if self.magnitudes is None or self._units is None:
            return self.space.candidates[candidate]
        place, number = self.space.place_of(edge)
        row = place * self._units.rows + self._units.row(number)
        return self._units.genotype(candidate, self.magnitudes.detach()[row].tolist())

    def trace(self, first: int) -> CellTrace:
        """What passes over the same images may share whose mixing agrees on all edges into nodes before `first`.

        Args:
            first: the number of a node.

        Returns:
            An empty trace, for the images of one batch: of the first place alone.
        """
        place, node = self.space.place_of_node(first)
        return CellTrace(node if place == 0 else self.space.cell.num_nodes)

    def view(
        self,
        images: Tensor,
        mixing: Tensor | None = None,
        *,
        active: tuple[int, ...] | None = None,
        trace: CellTrace | None = None,
        frozen: bool = True,
        checkpointed: bool = False,
        resting: Collection[int] = (),
    ) -> View:
        """Images as the network sees them: their clip or themselves, what moves maps inside, and the way back.

        Args:
            images: `(B, C, H, W)` float.
            mixing: a matrix in place of τ's, as in `Cell.forward`.
            active: the only candidate of each edge that is computed, likewise.
            trace: shares the first place's work between passes over the same images, where that is the image.
            frozen: give τ and the magnitudes no gradient.
            checkpointed: keep nothing for the backward pass at any place, and compute the frames again there.
            resting: numbers of places that leave the frames as they are.

        Returns:
            What goes into the network, and how maps come back.

        Raises:
            InputError: as `Cell.forward`.
            InputTypeError: images that are not float.
        """
        check_images(images, self.T if self.begins_at_image else 1)
        check_mixing(self.space, mixing, trace, active)
        mixes = [None if place in resting else mix for place, mix in enumerate(self._mixes(mixing, active, frozen))]
        inner = mixes[1:] if self.begins_at_image else mixes
        moved = self._frames[1:] if self.begins_at_image else self._frames
        maker = PlaceFrames(moved, inner, self.T, begun=self.begins_at_image, checkpointed=checkpointed)
        inputs = images
        if self.begins_at_image:
            make = functools.partial(made, self._frames[0], trace=trace or CellTrace(0), T=self.T)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                inputs = computed(make, images, mixes[0], checkpointed=checkpointed)
        size = (images.shape[-2], images.shape[-1])
        return View(inputs, lambda maps: self._mean(maps, size, mixes), maker if inner else None)

    def _mean(self, maps: Tensor, image_size: tuple[int, int], mixes: Sequence[Mix | None]) -> Tensor:
        with full_precision(maps.device):
            return self._unwarp.mean(maps, image_size, mixes)

    def _mixes(self, mixing: Tensor | None, active: tuple[int, ...] | None, frozen: bool) -> list[Mix]:
        """The mixing of each place."""
        matrix = self.mixing() if mixing is None else mixing
        rows: Tensor | None = self.magnitudes
        if frozen:
            matrix, rows = matrix.detach(), None if rows is None else rows.detach()
        whole, found = is_whole(self.space, mixing, active), []
        edges = len(self.space.cell.edges)
        for place in range(len(self.space.places)):
            values = None
            if rows is not None and self._units is not None:
                values = rows[place * self._units.rows : (place + 1) * self._units.rows].unbind(0)
            mine = None if active is None else tuple(self.space.part(place, active))
            found.append(Mix(matrix[place * edges : (place + 1) * edges], whole, mine, values))
        return found


AnyCell = Cell | DeepCell
"""What a search trains: the cell of the image, or those at several places."""
