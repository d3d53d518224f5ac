"""From raw images through mmsegmentation's data preprocessor to results: padding, flips, colours, other sizes."""

import copy

import pytest
import torch

pytest.importorskip("mmseg")

from by_hand import CHAIN, mean_over, warped
from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel
from mmseg.structures import SegDataSample
from mmseg_cases import MEAN, SIZE, STD, build, largest_difference, pair, tiny_config

from image2video import Image2Video

STILL = {"genotype": "identity", "T": 3, "fusion": "gsf"}
DIVISOR = {"test_cfg": {"size_divisor": 32}}


def raw(sizes, *, ori=None, labels=False, seed=0):
    """What a dataloader hands over: images of 0 … 255 and their samples."""
    generator = torch.Generator().manual_seed(seed)
    images, found = [], []
    for size in sizes:
        images.append(torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8))
        sample = SegDataSample(metainfo={"img_shape": size, "ori_shape": ori or size, "img_path": "made.png"})
        if labels:
            sample.gt_sem_seg = PixelData(data=torch.randint(0, 5, (1, *size), generator=generator))
        found.append(sample)
    return {"inputs": images, "data_samples": found}


def logits_of(results):
    return [result.seg_logits.data for result in results]


def normalised(image):
    """The image in RGB, about its mean."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (image.flip(0).float() - mean) / std


def test_padding_at_test_time_is_cut_off_and_the_original_size_comes_back():
    plain, wrapped = pair(video=STILL, preprocessor=DIVISOR)
    data = raw([SIZE, SIZE], ori=(60, 84))
    results = wrapped.test_step(copy.deepcopy(data))
    assert [one.shape for one in logits_of(results)] == [(5, 60, 84)] * 2
    assert results[0].pred_sem_seg.shape == (60, 84)
    assert largest_difference(logits_of(results), logits_of(plain.test_step(data))) < 1e-4


def test_padding_at_test_time_is_no_part_of_the_frames():
    plain, wrapped = pair(
        video={"genotype": CHAIN, "T": 3, "schedule": "from_zero", "padding": "zeros", "fusion": "none"},
        preprocessor=DIVISOR,
    )
    data, canvas = raw([SIZE]), (64, 64)
    image = normalised(data["inputs"][0])[None]
    logits = []
    for step in range(3):
        frame = torch.zeros(1, 3, *canvas)
        frame[:, :, : SIZE[0], : SIZE[1]] = warped(image, step)
        with torch.no_grad():
            logits.append(plain.encode_decode(frame, [{"img_shape": canvas}])[:, :, : SIZE[0], : SIZE[1]])
    expected = mean_over(logits, (0, 1, 2))[0]
    torch.testing.assert_close(logits_of(wrapped.test_step(data))[0], expected, rtol=1e-3, atol=1e-3)


def test_training_pads_images_of_different_sizes_to_the_crop():
    model = build(tiny_config(video=STILL)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data = model.data_preprocessor(raw([(31, 56), SIZE, (22, 29)], labels=True), training=True)
    assert data["inputs"].shape == (3, 3, *SIZE)
    losses = model(**data, mode="loss")
    model.parse_losses(losses)[0].backward()
    optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())


def test_augmentation_at_test_time_merges_both_flips():
    model = build(
        tiny_config(video={"genotype": CHAIN, "T": 3, "schedule": "from_zero", "padding": "zeros", "fusion": "none"})
    )
    straight = raw([SIZE])
    mirrored = copy.deepcopy(straight)
    mirrored["inputs"][0] = mirrored["inputs"][0].flip(2)
    mirrored["data_samples"][0].set_metainfo({"flip": True, "flip_direction": "horizontal"})
    data = {key: [straight[key], mirrored[key]] for key in straight}
    merged = SegTTAModel(module=model).test_step(copy.deepcopy(data))[0]
    shares = [logits_of(model.test_step(copy.deepcopy(one)))[0].softmax(0) for one in (straight, mirrored)]
    assert (shares[0] - shares[1]).abs().max() > 1e-2
    expected = sum(shares).argmax(0)
    assert len(expected.unique()) > 1
    assert torch.equal(merged.pred_sem_seg.data[0], expected)


@pytest.mark.parametrize("normalise", [True, False])
def test_photometric_ops_see_the_colours_as_they_are(normalise):
    """Brightness 1.5 of an image in 0 … 1, whatever the preprocessor does to it."""
    config = tiny_config(video={"genotype": "brightness(1.5)", "T": 2, "schedule": "from_zero", "fusion": "none"})
    if not normalise:
        config["data_preprocessor"] |= {"mean": None, "std": None}
    model = build(config)
    data, seen = raw([SIZE]), []
    image = data["inputs"][0].clone()
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.test_step(data)
    brighter = Image2Video("brightness(1.5)", T=2, mean=0.0, std=1.0)(image[None].flip(1).float() / 255)[0] * 255
    assert (brighter[1] - brighter[0]).abs().max() > 10
    frames = seen[0]
    if normalise:
        frames = frames * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    torch.testing.assert_close(frames, brighter, rtol=0, atol=1e-2)


def test_images_of_one_channel():
    config = tiny_config(
        "fcn",
        video=STILL,
        preprocessor={"mean": [120.0], "std": [60.0], "bgr_to_rgb": False},
        backbone={"in_channels": 1},
    )
    model = build(config)
    assert model.video_fusion.plan.input_size == (1, *SIZE)
    data = raw([SIZE])
    data["inputs"][0] = data["inputs"][0][:1]
    assert logits_of(model.test_step(data))[0].shape == (5, *SIZE)
