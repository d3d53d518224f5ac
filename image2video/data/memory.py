"""Small images that live on the device: batches, random crops and flips without worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Unpack

import torch
from torch import Tensor
from torch.nn.functional import pad as zero_pad

from image2video.data.augment import Augmentation
from image2video.data.augment_apply import apply_each
from image2video.data.batches import Order, SeededBatches
from image2video.data.seeds import seeded_generator
from image2video.data.splits import DrawnSet
from image2video.errors import InputError, InputTypeError


@dataclass(frozen=True)
class CropFlip:
    """The augmentation of small images: a random crop out of the padded image, then a random mirror image.

    Attributes:
        pad: pixels on each side.
        flip: mirror left-right with probability 1/2.
        padding: what fills the border: `reflect` (ours, after airbench), or `zeros`, for images on a black ground.

    """

    pad: int = 4
    flip: bool = True
    padding: Literal["reflect", "zeros"] = "reflect"


def pad_images(images: Tensor, pad: int, padding: str) -> Tensor:
    """Images `(N, C, H, W)` of any dtype with `pad` pixels added on every side."""
    if padding == "zeros":
        return zero_pad(images, (pad, pad, pad, pad))
    height, width = images.shape[-2:]
    rows = _reflected(height, pad).to(images.device)
    cols = _reflected(width, pad).to(images.device)
    return images.index_select(-2, rows).index_select(-1, cols)


def _reflected(size: int, pad: int) -> Tensor:
    """The places that a reflected border shows, `(size + 2 · pad,)`."""
    index = torch.arange(-pad, size + pad).abs()
    return (size - 1) - ((size - 1) - index).abs()


class MemoryBatches(SeededBatches):
    """Batches of images that stay on the device; they are normalised, cropped and flipped there.

    Order, crops, flips and the seeds of a policy's draws are drawn on the CPU from (seed, epoch) alone, so that every
    device sees the same batches.

    Args:
        images: `(N, C, H, W)` uint8.
        labels: `(N,)`, or `(N, H, W)` for a label per pixel.
        batch_size: the most images of a batch.
        mean: per channel, in 0 … 1.
        std: goes with `mean`.
        augment: crops and flips; None for none.
        policy: what else changes the images; None for nothing.
        order: `shuffle`, `seed`, `device` and `shard`, as `ImageSet.batches` takes them.

    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        mean: Tensor,
        std: Tensor,
        augment: CropFlip | None = None,
        policy: Augmentation | None = None,
        **order: Unpack[Order],
    ) -> None:
        super().__init__(len(images), batch_size, **order)
        self._size = (int(images.shape[-2]), int(images.shape[-1]))
        self._augment = augment
        images = images.to(self.device)
        self._images = images if augment is None else pad_images(images, augment.pad, augment.padding)
        self._labels = labels.to(self.device)
        self._shift = (mean * 255).view(-1, 1, 1).to(self.device)
        self._gain = (1 / (std * 255)).view(-1, 1, 1).to(self.device)
        apply = None if policy is None else policy.build(tuple(mean.tolist()), tuple(std.tolist()))
        self._on_pixels = apply if policy is not None and policy.on_pixels else None
        self._on_normalised = apply if self._on_pixels is None else None

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Make the batches of an epoch.

        Args:
            epoch: its number, from 0.

        Returns:
            Images `(B, C, H, W)` float32 and labels int64, batch by batch, on the device.

        """
        generator = seeded_generator(self._seed, epoch)
        count = self.num_images
        order = self._order(generator)
        pad = self._augment.pad if self._augment else 0
        offsets = torch.randint(0, 2 * pad + 1, (2, count), generator=generator)
        flips = torch.rand(count, generator=generator) < 0.5
        seeds = torch.randint(2**62, (count,), generator=generator)
        order, offsets, flips = (x.to(self.device) for x in (order, offsets, flips))
        for places in self._slices():
            images = self._images_at(order[places], offsets[:, places], flips[places])
            yield self._normalised(images, seeds[places]), self._labels[order[places]].long()

    def _images_at(self, index: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
        """These images, cropped at `offsets` and mirrored where `flips` says so."""
        if self._augment is None:
            return self._images[index]
        height, width = self._size
        crops = self._images.unfold(2, height, 1).unfold(3, width, 1)  # a view: (N, C, 2·pad+1, 2·pad+1, H, W)
        chosen = crops[index, :, offsets[0], offsets[1]]
        if not self._augment.flip:
            return chosen
        return torch.where(flips[:, None, None, None], chosen.flip(-1), chosen)

    def _normalised(self, images: Tensor, seeds: Tensor) -> Tensor:
        """Pixels as the network gets them, augmented by the policy."""
        if self._on_pixels is not None:
            images = apply_each(self._on_pixels, images, seeds)
        images = images.float().sub_(self._shift).mul_(self._gain)
        return images if self._on_normalised is None else apply_each(self._on_normalised, images, seeds)


class MemorySet(DrawnSet):
    """Labelled uint8 images in memory: an `ImageSet` whose subsets share one storage.

    Args:
        images: `(N, C, H, W)` uint8.
        labels: `(N,)`, or `(N, H, W)` for a label per pixel, of any whole-number type: uint8 saves memory, int64 comes
            out.
        mean: per channel, in 0 … 1.
        std: goes with `mean`.
        augment: crops and flips of `batches(augment=True)`, for images with one label; None for none.
        policy: what else changes those images; None for nothing.
        index: which of the images belong to the set; all by default.

    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augment: CropFlip | None = None,
        policy: Augmentation | None = None,
        index: Tensor | None = None,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise InputTypeError(
                f"a MemorySet needs images (N, C, H, W) of dtype uint8, got {tuple(images.shape)} {images.dtype}"
            )
        if augment is not None and augment.padding == "reflect" and augment.pad >= min(images.shape[-2:]):
            raise InputError(f"images of {tuple(images.shape[-2:])} pixels cannot be reflected by {augment.pad}")
        if augment is not None and labels.ndim != 1:
            raise InputError(
                f"crops and flips move images, not labels of pixels {tuple(labels.shape)}; use augment=None"
            )
        if policy is not None:
            policy.check_channels(images.shape[1])
            if labels.ndim != 1:
                raise InputError(f"{policy} moves images, not labels of pixels {tuple(labels.shape)}; leave it out")
        super().__init__(len(images), index)
        self._images, self._labels = images, labels
        self._mean, self._std, self._augment = mean, std, augment
        self.policy = policy

    @property
    def labels(self) -> Tensor:
        """The labels `(N,)` or `(N, H, W)` int64, in the set's own order."""
        return self._labels[self._index].long()

    def raw(self, index: int) -> Tensor:
        """Look at an image as it came.

        Args:
            index: its place in the set.

        Returns:
            The image, `(C, H, W)` uint8.

        """
        return self._images[self._index[index]]

    def with_policy(self, policy: Augmentation | None) -> MemorySet:
        """Augment the same images in training by another policy.

        Args:
            policy: the other policy; None for none.

        Returns:
            The set with it.

        """
        return self._with(policy, self._index)

    def relabelled(self, numbers: Tensor) -> MemorySet:
        """The same images with the label `numbers[label]` in place of each label of an image or a pixel.

        Args:
            numbers: `(classes,)` int64; 255, which marks pixels that do not count, stays.

        Returns:
            The set with them.

        """
        table = torch.arange(max(256, len(numbers)))
        table[: len(numbers)] = numbers
        return self._with(self.policy, self._index, table[self._labels.long()].to(self._labels.dtype))

    def _subset(self, places: Tensor) -> MemorySet:
        return self._with(self.policy, self._index[places])

    def _with(self, policy: Augmentation | None, index: Tensor, labels: Tensor | None = None) -> MemorySet:
        return MemorySet(
            self._images,
            self._labels if labels is None else labels,
            mean=self._mean,
            std=self._std,
            augment=self._augment,
            policy=policy,
            index=index,
        )

    def batches(self, batch_size: int, *, augment: bool = False, **order: Unpack[Order]) -> MemoryBatches:
        """The images in batches.

        Args:
            batch_size: the most images of a batch.
            augment: crop, flip and apply the policy.
            order: `shuffle`, `seed`, `device` and `shard`, as `ImageSet.batches` takes them.

        Returns:
            The batches.

        """
        return MemoryBatches(
            self._images[self._index],
            self._labels[self._index],
            batch_size,
            mean=torch.tensor(self._mean),
            std=torch.tensor(self._std),
            augment=self._augment if augment else None,
            policy=self.policy if augment else None,
            **order,
        )
