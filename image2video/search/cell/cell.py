"""The search cell: a small graph of clips whose edges are mixtures of all candidate transformations."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from image2video.clip.chain import check_colours
from image2video.clip.colours import Colours
from image2video.clip.genotype import Genotype
from image2video.clip.memory import check_clip_memory
from image2video.clip.ops.op import full_precision
from image2video.clip.options import ClipOptions
from image2video.clip.random_chain import ChainLaw
from image2video.errors import InputError, InputTypeError
from image2video.search.cell.graph import CellTrace
from image2video.search.cell.magnitudes import MagnitudeUnits
from image2video.search.cell.mixed_frames import Mix, MixedFrames
from image2video.search.cell.relaxed import Relaxed
from image2video.search.cell.relaxed_unwarp import RelaxedUnwarp
from image2video.search.cell.view import View
from image2video.search.space.deep_space import AnySpace
from image2video.search.space.space import SearchSpace

__all__ = ["Cell", "CellTrace"]


class Cell(Relaxed):
    """The relaxed cell: images in, clip out, differentiable in τ, in the magnitudes and in the images.

    Node j is the mean (or sum) over its incoming edges of Σ_o softmax(τ)_o · op_o (Casarin et al., CVPR 2024, Eq. 1);
    the last node is the clip. Frame t uses every op at its power s(t), so a path through the cell with one op per edge
    has the matrices of the genotype read from it. (Its pixels differ where the path is longer than one op: the cell
    resamples once per edge, the genotype once in all.) Frames with s = 0 are the image itself and are never sampled.

    A source node is moved once by all candidates for all its outgoing edges, the geometric ones in one call of the
    sampler; the inputs, which are the same image, count as one source; identity is not sampled. The cell computes in
    float32 (float64 for float64 images) under autocast too.

    Args:
        space: candidates and graph.
        T: frames of the clip.
        padding: see `image2video.clip.sampling.warp`.
        interpolation: see `image2video.clip.sampling.warp`.
        generator: draws τ's start, N(0, 0.001²) as in DARTS; without it τ starts at zero (equal weights).
        colours: how the images are normalised; needed where a candidate changes colours.
        learn_magnitudes: make the magnitudes of geometric transforms a parameter (beyond the paper).
        magnitudes_per: `"node"`: a transform has one magnitude per source; `"edge"`: one per edge, and then every edge
            moves its source anew: 10 sampler calls with 4 candidates each for `affine5`, in place of 4.
        magnitude_bound: largest magnitude, in units of the space's own one, either sign.

    Attributes:
        tau: parameter `(edges, candidates)`.
        magnitudes: parameter `(rows, transforms)` that starts at 1, the space's own magnitudes; 0 does nothing (see
            `MagnitudeUnits`). None where they are not learned.

    Shapes:
        forward: `(B, C, H, W)` float -> `(B, T, C, H, W)`.

    Raises:
        InputError: a candidate that is singular within T frames, alone or once per node of a path, or within the
            bounds of its magnitudes; one that changes colours where `colours` is None; magnitudes to learn where there
            are none, or by an interpolation (`nearest`) that has no gradient; an unknown option.

    Example:
        >>> from image2video.search import get_space
        >>> Cell(get_space("affine5"), T=3)(torch.rand(2, 3, 16, 24)).shape
        torch.Size([2, 3, 3, 16, 24])
    """

    space: SearchSpace

    def __init__(
        self,
        space: SearchSpace,
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
        steps = options.steps
        for candidate in space.candidates:
            check_colours(candidate, colours)
        ChainLaw.of(space).check_steps(steps)
        units = magnitude_units(space, magnitudes_per, magnitude_bound, options) if learn_magnitudes else None
        super().__init__(space, units, 1, generator)
        self.T = T
        self._frames = MixedFrames(space, steps, options, units)
        self._unwarp = RelaxedUnwarp((self._frames.warps,), steps)

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
        return self._units.genotype(candidate, self.magnitudes.detach()[self._units.row(edge)].tolist())

    def matrices(self, height: int, width: int) -> Tensor:
        """The matrices of all candidates in all frames, at the space's own magnitudes.

        Args:
            height: H of the images.
            width: W of the images.

        Returns:
            `(candidates, T, 3, 3)` float64, in pixels; the identity for candidates that move no pixel.
        """
        return torch.stack([c.matrices(self.space.schedule, self.T, height, width) for c in self.space.candidates])

    def forward(
        self,
        images: Tensor,
        mixing: Tensor | None = None,
        *,
        trace: CellTrace | None = None,
        active: tuple[int, ...] | None = None,
    ) -> Tensor:
        """The clip of a batch of images.

        Args:
            images: `(B, C, H, W)` float.
            mixing: a matrix in place of τ's. One on the CPU that needs no gradient lets the cell leave out what has
                weight zero.
            trace: shares work between passes over the same images.
            active: the only candidate of each edge that is computed; comes with its `mixing`, see `single_path_mixing`.

        Returns:
            `(B, T, C, H, W)`.

        Raises:
            InputError: images or a mixing matrix of another shape, candidates that do not fit, or a clip that is larger
                than the memory.
            InputTypeError: images that are not float.
        """
        check_images(images, self.T)
        check_mixing(self.space, mixing, trace, active)
        return self._frames.make(images, self._mix(mixing, active), trace or CellTrace(first=0))

    def view(
        self,
        images: Tensor,
        mixing: Tensor | None = None,
        *,
        active: tuple[int, ...] | None = None,
        trace: CellTrace | None = None,
        frozen: bool = True,
        checkpointed: bool = False,
    ) -> View:
        """Images as the network sees them: their clip, and the way back.

        Args:
            images: as in `forward`.
            mixing: likewise.
            active: likewise.
            trace: likewise.
            frozen: give τ and the magnitudes no gradient.
            checkpointed: keep nothing for the backward pass, and compute the clip again there.

        Returns:
            What goes into the network, and how maps come back.
        """
        size = (images.shape[-2], images.shape[-1])
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            if checkpointed and torch.is_grad_enabled():
                make = functools.partial(self, active=active)
                clip = checkpoint(make, images, mixing, use_reentrant=False, preserve_rng_state=False)
            else:
                clip = self(images, mixing, trace=trace, active=active)

        def back(maps: Tensor) -> Tensor:
            matrix = self.mixing() if mixing is None else mixing
            return self.unwarped_mean(maps, size, matrix.detach() if frozen else matrix, active=active)

        return View(clip, back)

    def trace(self, first: int) -> CellTrace:
        """What passes over the same images may share whose mixing agrees on all edges into nodes before `first`.

        Args:
            first: the number of a node.

        Returns:
            An empty trace, for the images of one batch.
        """
        return CellTrace(first)

    def unwarped_mean(
        self,
        maps: Tensor,
        image_size: tuple[int, int],
        mixing: Tensor | None = None,
        *,
        active: tuple[int, ...] | None = None,
    ) -> Tensor:
        """Bring maps of the clip's frames back to the image, and average them.

        The relaxed inverse (ours; the paper has predictions unwarped by one genotype): the same sum over paths as the
        clip's, with every candidate's inverse warp in reverse order; photometric candidates and identity pass through.
        Then Σ_t unwarped / Σ_t unwarped ones, as in `Image2Video.unwarped_mean`: where no frame sees a pixel, the frame
        with the smallest |s| stands, unwarped with border padding. A cell with one op on every edge gives the unwarping
        by those ops, one after the other. Differentiable in the maps, τ and magnitudes.

        Args:
            maps: `(B·T, K, h, w)`, of any size.
            image_size: (H, W) of the images.
            mixing: that of the clip.
            active: that of the clip.

        Returns:
            `(B, K, h, w)`.

        Raises:
            InputError: other shapes.
            InputTypeError: maps that are not floating point.
        """
        check_mixing(self.space, mixing, None, active)
        with full_precision(maps.device):
            return self._unwarp.mean(maps, image_size, (self._mix(mixing, active),))

    def _mix(self, mixing: Tensor | None, active: tuple[int, ...] | None) -> Mix:
        values = None if self.magnitudes is None else self.magnitudes.unbind(0)
        return Mix(self.mixing() if mixing is None else mixing, is_whole(self.space, mixing, active), active, values)


def magnitude_units(space: SearchSpace, per: str, bound: float, options: ClipOptions) -> MagnitudeUnits:
    """What learned magnitudes stand for; `InputError` for an interpolation that has no gradient."""
    if options.interpolation == "nearest":
        raise InputError("learn_magnitudes needs an interpolation with a gradient, got 'nearest'; use 'bilinear'")
    return MagnitudeUnits(space, per, bound, options.steps)


def is_whole(space: AnySpace, mixing: Tensor | None, active: tuple[int, ...] | None) -> bool:
    """Whether the weights of all paths sum to 1: those of τ as it is, and those of a drawn path."""
    return space.reduce == "mean" and (mixing is None or active is not None)


def check_images(images: Tensor, T: int) -> None:
    """Raise `InputError` or `InputTypeError` for images that a cell cannot make clips of."""
    if images.ndim != 4:
        raise InputError(f"the cell takes images (B, C, H, W), got shape {tuple(images.shape)}")
    if not images.is_floating_point():
        raise InputTypeError(f"the cell takes float images, got {images.dtype}; convert and normalise them first")
    check_clip_memory(images, T)


def check_mixing(
    space: AnySpace, mixing: Tensor | None, trace: CellTrace | None, active: tuple[int, ...] | None
) -> None:
    """Raise `InputError` for a mixing matrix of another space, and for active candidates that do not go with it."""
    shape = (len(space.edges), len(space.candidates))
    if mixing is not None and mixing.shape != shape:
        raise InputError(
            f"the mixing matrix of this cell must be (edges, candidates) = {shape}, got {tuple(mixing.shape)}"
        )
    if active is None:
        return
    if mixing is None or trace is not None:
        raise InputError(
            "active needs its mixing matrix (see single_path_mixing) and no trace, got "
            f"{'no mixing matrix' if mixing is None else 'a trace'}"
        )
    if len(active) != len(space.edges) or not all(-1 <= o < len(space.candidates) for o in active):
        raise InputError(
            f"active must name one of {len(space.candidates)} candidates (or -1) for each of {len(space.edges)} edges, "
            f"got {active!r:.200}"
        )
