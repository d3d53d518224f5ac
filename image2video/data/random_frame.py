"""One random frame of a random chain of a search space, in place of the image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from image2video.clip.chain import apply_chain
from image2video.clip.genotype import Genotype
from image2video.clip.options import ClipOptions
from image2video.clip.random_chain import ChainLaw, ChainSpace
from image2video.clip.sampling import warp_frames


class RandomFrame:
    """Frame t of the clip of a random chain, t uniform in 0 … frames − 1.

    space: whose random chains and schedule; mean, std: how the images are normalised, for photometric ops.
    """

    def __init__(self, space: ChainSpace, frames: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self._law = ChainLaw.of(space)
        self._options = ClipOptions(frames, space.schedule, mean=mean, std=std)
        self._steps = self._options.steps

    def __call__(self, image: Tensor) -> Tensor:
        """A frame `(C, H, W)` of a normalised image; draws from torch's global CPU generator."""
        return self.moved(image[None], [self.draw(torch.default_generator)])[0]

    def each(self, images: Tensor, seeds: Tensor) -> Tensor:
        """A frame of every image `(N, C, H, W)`, as `__call__` gives it after `torch.manual_seed(seeds[i])`."""
        generator = torch.Generator()
        return self.moved(images, [self.draw(generator.manual_seed(seed)) for seed in seeds.tolist()])

    def draw(self, generator: torch.Generator) -> tuple[Genotype, float]:
        """A random chain, and the power at which its frame shows it; 0 is the image."""
        chain = self._law.draw(generator)
        return chain, self._steps[int(torch.randint(len(self._steps), (), generator=generator))]

    def moved(self, images: Tensor, drawn: Sequence[tuple[Genotype, float]]) -> Tensor:
        """The frame of every image `(N, C, H, W)` that its chain and power give."""
        moved = images.clone()
        height, width = images.shape[-2:]
        moving = [row for row, (chain, step) in enumerate(drawn) if step != 0 and chain.chain]
        warped = [row for row in moving if drawn[row][0].is_geometric]
        if warped:  # one sampler call for all of them
            matrices = torch.stack([_matrix(*drawn[row], height, width) for row in warped])
            moved[warped] = warp_frames(images[warped][:, None], matrices)[:, 0]
        for row in set(moving) - set(warped):
            chain, step = drawn[row]
            moved[row] = apply_chain(images[row][None, None], chain, [step], self._options)[0, 0]
        return moved


@lru_cache(maxsize=8192)
def _matrix(chain: Genotype, step: float, height: int, width: int) -> Tensor:
    return chain.matrix(step, height, width)
