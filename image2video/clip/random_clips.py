"""Clips of random chains: what a searched genotype has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from image2video.clip.colours import Values
from image2video.clip.frame_sources import EVALUATION, FrameSource, register_frame_source, stream
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.clip.options import ClipOptions
from image2video.clip.random_chain import ChainLaw, ChainSpace
from image2video.errors import InputError
from image2video.protocols import Unwarper
from image2video.trace.capture import constant

_MOST_CANDIDATES, _MOST_NODES = 1000, 64  # those of a search space


@register_frame_source
class RandomClips(FrameSource):
    """A random chain of a search space for every training batch; in evaluation one chain, drawn by the seed.

    The control of Casarin et al., CVPR 2024, Table 8, in its strongest form: the network sees all chains, none is
    chosen. All images of a batch share a chain, and all processes of a distributed run draw the same.

    Args:
        space: a `SearchSpace`, a `ChainLaw`, or candidates, of which each chain is one.
        T: frames of a clip.
        schedule: the power of each frame; by default that of the space, or `from_zero`.
        padding: as in `Image2Video`.
        interpolation: as in `Image2Video`.
        mean: as in `Image2Video`.
        std: as in `Image2Video`.
        seed: of the draws, an integer of at least 0.

    >>> source = RandomClips(("rotate(10)", "scale(1.1)"), T=3)
    >>> source(torch.zeros(2, 3, 16, 24)).shape
    torch.Size([2, 3, 3, 16, 24])
    """

    kind = "random_clips"

    def __init__(
        self,
        space: ChainLaw | ChainSpace | Sequence[Genotype | str],
        *,
        T: int = 5,
        schedule: str | None = None,
        padding: str = "zeros",
        interpolation: str = "bilinear",
        mean: Values = None,
        std: Values = None,
        seed: int = 0,
    ) -> None:
        super().__init__(T, seed)
        self.law = ChainLaw.of(space)
        if schedule is None:
            schedule = getattr(space, "schedule", "from_zero")
        self._options = ClipOptions(T, schedule, padding, interpolation, mean, std)
        for candidate in self.law.candidates:
            Image2Video.of(candidate, self._options)  # refuses candidates that no clip can have
        self.law.check_steps(self._options.steps)

    @property
    def genotype(self) -> Genotype:
        """The chain that evaluation uses."""
        return constant(self.law.draw, stream(self.seed, EVALUATION))

    def clip(self, images: Tensor, T: int, generator: torch.Generator) -> tuple[Tensor, Unwarper]:
        """Make the clip of a chain that the generator draws.

        Args:
            images: `(B, C, H, W)`, floating point and normalised.
            T: frames of the clip.
            generator: of the draw.

        Returns:
            The clip `(B, T, C, H, W)`, and the `Image2Video` that made it.
        """
        to_video = constant(self._drawn, generator, T)
        return to_video(images), to_video

    def _drawn(self, generator: torch.Generator, T: int) -> Image2Video:
        """Draw a chain, and make the clips of it."""
        return Image2Video.of(self.law.draw(generator), self._options.replace(T=T))

    def unwarped_mean(self, maps: Tensor, image_size: tuple[int, int], T: int | None = None) -> Tensor:
        """Bring maps back by the chain of evaluation; refused in training, where every batch has its own chain.

        Args:
            maps: maps of frames, `(B·T, K, h, w)`.
            image_size: (H, W) of the image.
            T: frames of the clip; by default those of the module.

        Returns:
            The mean `(B, K, h, w)` in the reference image.
        """
        if self.training:
            return super().unwarped_mean(maps, image_size, T)
        return constant(self._drawn, stream(self.seed, EVALUATION), self.T).unwarped_mean(maps, image_size, T)

    def to_dict(self) -> dict[str, Any]:
        """Record the source for a file."""
        law = {"candidates": [str(c) for c in self.law.candidates], "inputs": self.law.inputs, "nodes": self.law.nodes}
        return {"space": law, **self._options.replace(T=self.T).to_dict(), "seed": self.seed}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Make the source that `to_dict` recorded."""
        law = record["space"]
        texts, inputs, nodes = law["candidates"], law["inputs"], law["nodes"]
        if not isinstance(texts, list) or len(texts) > _MOST_CANDIDATES:
            raise InputError(f"candidates must be a list of at most {_MOST_CANDIDATES} texts, got {texts!r:.80}")
        if not all(isinstance(count, int) and 1 <= count <= _MOST_NODES for count in (inputs, nodes)):
            raise InputError(f"inputs and nodes must be 1 … {_MOST_NODES}, got {inputs!r:.80} and {nodes!r:.80}")
        # Parsed, not coerced: in a file a candidate is a text, never the path of another file.
        candidates = tuple(Genotype.parse(text) for text in texts)
        return cls(**{**record, "space": ChainLaw(candidates, inputs, nodes)})
