"""Batches from memory: content, order, crops and flips."""

import pytest
import torch

from image2video.data import CropFlip, MemorySet
from image2video.data.batches import batch_slices
from image2video.data.memory import pad_images
from image2video.errors import InputError, InputTypeError
from image2video.protocols import Batches, ImageSet

MEAN, STD = (0.1, 0.5, 0.3), (0.2, 0.4, 0.5)


def make_set(count=23, height=8, width=12, augment=None):
    images = torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(1)).byte()
    return MemorySet(images, torch.arange(count) % 3, mean=MEAN, std=STD, augment=augment), images


def normalised(images):
    return (images.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def collect(batches, epoch):
    images, labels = zip(*batches.epoch(epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_the_protocols_hold():
    memory, _ = make_set()
    assert isinstance(memory, ImageSet)
    assert isinstance(memory.batches(4), Batches)


def test_plain_batches_are_the_normalised_images_in_order():
    memory, images = make_set()
    batches = memory.batches(10)
    got, labels = collect(batches, 5)
    assert len(batches) == 3
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), normalised(images), atol=1e-5, rtol=0)
    assert torch.equal(labels, memory.labels)


def test_batches_are_equal_in_size_to_within_one():
    sizes = [s.stop - s.start for s in batch_slices(33, 16)]
    assert sizes == [11, 11, 11]
    assert [len(y) for _, y in make_set(23)[0].batches(10).epoch(0)] == [7, 8, 8]


def test_shuffling_depends_on_seed_and_epoch_alone():
    memory, _ = make_set(60)
    batches = memory.batches(16, shuffle=True, seed=7)
    first = collect(batches, 2)[0]
    collect(batches, 0)  # nothing is kept between epochs
    assert torch.equal(first, collect(batches, 2)[0])
    assert torch.equal(first, collect(memory.batches(16, shuffle=True, seed=7), 2)[0])
    assert not torch.equal(first, collect(batches, 3)[0])
    assert not torch.equal(first, collect(memory.batches(16, shuffle=True, seed=8), 2)[0])
    assert torch.equal(
        first.sum((1, 2, 3)).sort().values, collect(memory.batches(60), 0)[0].sum((1, 2, 3)).sort().values
    )


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
def test_every_augmented_image_is_a_crop_or_its_mirror_image(padding):
    memory, images = make_set(40, augment=CropFlip(pad=2, padding=padding))
    padded = normalised(pad_images(images, 2, padding)).float()
    seen = set()
    for got, image in zip(collect(memory.batches(40, augment=True), 0)[0], padded, strict=True):
        matches = [
            (dy, dx, mirrored)
            for dy in range(5)
            for dx in range(5)
            for mirrored in (False, True)
            if torch.allclose(got.flip(-1) if mirrored else got, image[:, dy : dy + 8, dx : dx + 12], atol=1e-5)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len({dy for dy, _, _ in seen}) == 5
    assert len({dx for _, dx, _ in seen}) == 5
    assert len({mirrored for _, _, mirrored in seen}) == 2


def test_reflection_repeats_no_border_pixel():
    image = torch.arange(5, dtype=torch.uint8).view(1, 1, 1, 5).expand(1, 1, 5, 5)
    assert pad_images(image, 2, "reflect")[0, 0, 0].tolist() == [2, 1, 0, 1, 2, 3, 4, 3, 2]


def test_without_flip_nothing_is_mirrored():
    memory, images = make_set(64, augment=CropFlip(pad=0, flip=False))
    got, _ = collect(memory.batches(64, augment=True), 0)
    torch.testing.assert_close(got.double(), normalised(images), atol=1e-5, rtol=0)


def test_shards_are_disjoint_and_complete():
    memory, _ = make_set(50, augment=CropFlip(pad=1))
    options = {"augment": True, "shuffle": True, "seed": 4}
    whole = list(memory.batches(16, **options).epoch(1))
    shards = [list(memory.batches(16, shard=(rank, 3), **options).epoch(1)) for rank in range(3)]
    for number, (images, labels) in enumerate(whole):
        for rank in range(3):
            assert torch.equal(shards[rank][number][0], images[rank::3])
            assert torch.equal(shards[rank][number][1], labels[rank::3])


def test_split_and_take_share_the_storage_and_are_disjoint():
    memory, images = make_set(30)
    first, second = memory.split(0.4, seed=0)
    assert (first.num_images, second.num_images) == (12, 18)
    together = torch.cat([collect(part.batches(30), 0)[0] for part in (first, second)])
    reference = collect(memory.batches(30), 0)[0]
    assert torch.equal(together.sum((1, 2, 3)).sort().values, reference.sum((1, 2, 3)).sort().values)
    assert first.take(5, seed=1).num_images == 5
    assert first.raw(0).data_ptr() >= images.data_ptr()
    assert torch.equal(torch.bincount(first.labels), torch.tensor([4, 4, 4]))


def test_bad_arguments_are_refused():
    memory, images = make_set()
    with pytest.raises(InputTypeError, match="uint8"):
        MemorySet(images.float(), memory.labels, mean=MEAN, std=STD)
    with pytest.raises(InputError, match="cannot be reflected by 8"):
        MemorySet(images, memory.labels, mean=MEAN, std=STD, augment=CropFlip(pad=8))
    with pytest.raises(InputError, match="batch_size=0"):
        memory.batches(0)
    with pytest.raises(InputError, match="rank"):
        memory.batches(4, shard=(2, 2))
    with pytest.raises(InputError, match="got 23 images for 30"):
        memory.batches(64, shard=(0, 30))
