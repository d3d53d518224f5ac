"""Clips of augmented copies: what AutoAugment and its kin give in place of a searched chain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from image2video.clip.colours import Colours
from image2video.clip.frame_sources import FrameSource, register_frame_source
from image2video.clip.image_to_video import clip_to_frames, frames_to_clip
from image2video.clip.sampling import stack_frames
from image2video.data.augment import Augmentation
from image2video.data.augment_apply import apply_each
from image2video.errors import InputError, InputTypeError
from image2video.protocols import Unwarper


@register_frame_source
class AugmentedFrames(FrameSource):
    """Clips whose frame 0 is the image and whose other frames are copies augmented by a policy, each on its own.

    For the comparisons of Casarin et al., CVPR 2024, Table 7: AutoAugment or RandAugment make the frames that their
    search chooses there. In training every copy is another draw (also on every process of a distributed run); in
    evaluation frame t has the same draw for all images, so that a prediction depends on its image alone.

    The copies of policies on pixels are rounded to 256 levels, and no gradient flows through them to the images. Maps
    of the frames cannot be unwarped.

    Args:
        policy: an `Augmentation` or its text.
        T: frames.
        mean: how the images are normalised, one value per channel or one for all.
        std: goes with `mean`.
        seed: of the draws.

    Raises:
        InputError: the policy is unknown, or none.

    >>> source = AugmentedFrames("randaugment:ops=1,magnitude=5", T=3, mean=(0.5,), std=(0.25,))
    >>> source(torch.zeros(2, 3, 16, 24)).shape
    torch.Size([2, 3, 3, 16, 24])
    """

    kind = "augmented_frames"

    def __init__(
        self,
        policy: Augmentation | str,
        *,
        T: int = 5,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int = 0,
    ) -> None:
        super().__init__(T, seed)
        found = Augmentation.coerce(policy)
        if found is None:
            raise InputError('frames need a policy, such as "randaugment"; plain copies are the genotype "identity"')
        self.policy = found
        self.colours = Colours(mean, std)
        self._augment = found.build(self.colours.mean, self.colours.std)

    @property
    def genotype(self) -> None:
        """None: the frames are not those of a chain."""
        return None

    def clip(self, images: Tensor, T: int, generator: torch.Generator) -> tuple[Tensor, Unwarper]:
        """Make the clip of a batch.

        Args:
            images: `(B, C, H, W)`, normalised.
            T: frames.
            generator: what the draws come from.

        Returns:
            The clip `(B, T, C, H, W)`, and this source, which refuses to bring maps back.

        Raises:
            InputTypeError: the images are not floating point.

        """
        if not images.is_floating_point() or images.ndim != 4:
            raise InputTypeError(
                f"images must be floating point (B, C, H, W), normalised; got {tuple(images.shape)} {images.dtype}"
            )
        self.policy.check_channels(images.shape[1])
        if T == 1 or len(images) == 0:
            return stack_frames([images] * T, like=images), self
        if self.training:
            seeds = torch.randint(2**62, (len(images), T - 1), generator=generator) ^ _rank()
        else:
            seeds = torch.randint(2**62, (T - 1,), generator=generator).expand(len(images), T - 1)
        copies = clip_to_frames(images.detach()[:, None].expand(-1, T - 1, -1, -1, -1))
        augmented = frames_to_clip(self._augmented(copies, seeds.flatten()), T - 1)
        return stack_frames([images, *augmented.unbind(1)], like=images), self

    def to_dict(self) -> dict[str, Any]:
        """Describe the source."""
        colours = {"mean": list(self.colours.mean), "std": list(self.colours.std)}
        return {"policy": str(self.policy), "T": self.T, **colours, "seed": self.seed}

    def _augmented(self, copies: Tensor, seeds: Tensor) -> Tensor:
        """The copies, each augmented by its seed; policies on pixels see uint8."""
        if not self.policy.on_pixels:
            return apply_each(self._augment, copies, seeds)
        unit = self.colours.to_unit(copies.float()).clamp(0, 1)
        pixels = apply_each(self._augment, unit.mul(255).round().to(torch.uint8), seeds)
        return self.colours.to_normalised(pixels.float() / 255).to(copies.dtype)


def _rank() -> int:
    """The number of this process in a distributed run: its images are others, so its draws are."""
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if running else 0
