"""Frames that move at several places, and their way back, against sums that are worked out pixel by pixel."""

import numpy as np
import pytest
import torch
from clip_cases import noise, smooth
from torch import nn

from image2video import ClipOptions, DeepClip, Genotype, Image2Video
from image2video.clip.deep_video import DeepVideo
from image2video.clip.frame_set import FrameSet
from image2video.clip.walk import Kinds, walk_of
from image2video.errors import InputError
from image2video.wrap.video_wrap import VideoWrap

H, W = 24, 40
SITES = {"image": "translate_x(0.1) > scale(1.1)", "0": "rotate(14)", "1": "translate_y(0.08)"}


def video(sites, T=3, **options):
    clip = DeepClip.of(sites)
    how = {"padding": "border", **options} if clip.is_set else {"schedule": "centred", "padding": "border", **options}
    return DeepVideo(clip, ClipOptions(T=T, **how))


def way_of(clips, sizes, step, x, y, image):
    """Where the content of a point of the image stands behind each place, in centred pixels."""
    points = []
    for clip, cells in zip(clips, sizes, strict=True):
        x, y, _ = clip.step_matrices([step], *image, cells=cells)[0].numpy() @ np.array([x, y, 1.0])
        points.append((x, y))
    return points


def margin(point):
    """How far a point is inside of the image; negative outside."""
    return min(W / 2 - abs(point[0]), H / 2 - abs(point[1]))


@pytest.mark.parametrize("size", [(24, 40), (7, 10)])
def test_maps_go_back_by_the_product_in_the_order_of_the_places(size):
    made = video(SITES, T=3)
    cells = (None, (12, 20), (6, 10))
    h, w = size
    # A map whose values are its own coordinates tells where each value was read.
    ys, xs = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    maps = torch.stack([xs * W / w - W / 2, ys * H / h - H / 2]).repeat(3, 1, 1, 1)
    back = made.at_maps(cells).unwarp_frame(maps[:1], 2, (H, W), padding="border")[0]
    checked = 0
    for row in range(h):
        for column in range(w):
            x, y = xs[row, column] * W / w - W / 2, ys[row, column] * H / h - H / 2
            points = way_of(made.genotype.clips, cells, 1.0, float(x), float(y), (H, W))
            if margin(points[-1]) > max(W / w, H / h):
                expected = torch.tensor(points[-1], dtype=torch.float32)
                torch.testing.assert_close(back[:, row, column], expected, atol=1e-3, rtol=0)
                checked += 1
    assert checked > h * w / 3


def test_what_an_earlier_place_has_moved_out_counts_as_not_seen():
    there_and_back = {"image": "translate_x(0.25)", "0": "translate_x(-0.25)"}
    made = video(there_and_back, T=2, schedule="from_zero", padding="zeros")
    way = made.at_maps((None, None))
    mask = way.valid_mask((H, W), (H, W))
    assert torch.equal(mask[0], torch.ones_like(mask[0]))
    expected = torch.ones(H, W)
    expected[:, 3 * W // 4 :] = 0
    torch.testing.assert_close(mask[1, 0], expected, atol=1e-5, rtol=0)
    images = noise(2, 3, H, W)
    frames = made.frames_of_call()
    maps = frames.place_frames(0, frames.image_frames(images), (H, W))
    torch.testing.assert_close(way.unwarped_mean(maps, (H, W)), images, atol=1e-5, rtol=1e-5)
    constant = way.unwarped_mean(torch.full((4, 1, 6, 10), 7.0), (H, W))
    torch.testing.assert_close(constant, torch.full((2, 1, 6, 10), 7.0))
    # Without a frame that shows everything, the nearest one stands in.
    ramp = video(there_and_back, T=2, schedule="ramp").at_maps((None, None))
    maps = torch.full((2, 1, 6, 10), 7.0, requires_grad=True)
    out = ramp.unwarped_mean(maps, (H, W))
    torch.testing.assert_close(out, torch.full_like(out, 7.0))
    out.sum().backward()
    assert torch.isfinite(maps.grad).all()


def test_the_mask_is_that_of_a_point_that_is_followed_place_by_place():
    made = video({"image": "translate_x(0.3)", "0": "rotate(25)", "1": "translate_x(-0.2)"}, T=3)
    mask = made.at_maps((None, None, None)).valid_mask((H, W), (H, W))
    seen = []
    for frame, step in enumerate((-1.0, 0.0, 1.0)):
        for row in range(0, H, 3):
            for column in range(0, W, 3):
                place = column + 0.5 - W / 2, row + 0.5 - H / 2
                margins = [margin(p) for p in way_of(made.genotype.clips, (None,) * 3, step, *place, (H, W))]
                if min(map(abs, margins)) > 2:  # a cell at the edge counts in part
                    assert mask[frame, 0, row, column] == pytest.approx(float(min(margins) > 0), abs=0.02)
                    seen.append(min(margins) > 0)
    assert 20 < sum(seen) < len(seen) - 20


def test_an_image_comes_back_through_a_network_that_only_makes_it_smaller():
    net = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False))
    with torch.no_grad():
        for layer in (net[1], net[2]):
            layer.weight.copy_(torch.eye(3)[..., None, None])
        images = smooth(2, 3, 48, 80)
        expected = net(images)
        how = {"T": 3, "input_size": (3, 48, 80)}
        model = VideoWrap(net, "none", genotype={"image": "translate_x(0.15)", "2": "rotate(20)"}, **how)
        error = (model(images) - expected).abs()
        assert error.max() < 0.04
        bare = model.unwrap()
        turned = VideoWrap(bare, "none", genotype={"image": "translate_x(0.15)", "2": "rotate(-20)"}, **how)
        wrong = turned.to_video.at_maps((None, None))
        turned.to_video = DeepVideo(model.genotype, model.to_video.options)
        turned.to_video.at_maps = lambda *_: wrong
        assert (turned(images) - expected).abs().max() > 0.2


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_a_walk_lists_the_rows_behind_every_place(shared):
    clips = [
        FrameSet.parse("identity | identity | flip_x | identity"),
        FrameSet.parse("identity | flip_y | identity | flip_y"),
    ]
    walk = walk_of([Kinds(clip) for clip in clips], (0.0, 1.0, 2.0, 3.0), shared)
    assert walk.counts == {0: (1, 4, 4), 1: (1, 2, 4), 2: (1, 2, 3)}[shared]
    # Whatever is shared, every frame is moved by its own chains.
    made = [((), 0)]
    for clip, steps, parents in zip(clips, walk.steps, walk.parents, strict=True):
        made = [((*made[parent][0], str(clip.frame(step))), step) for step, parent in zip(steps, parents, strict=True)]
    expected = [(str(clips[0].frames[t]), str(clips[1].frames[t])) for t in range(4)]
    assert {chains for chains, _ in made} == set(expected)
    if shared < 2:
        assert [chains for chains, _ in made] == expected


def test_powers_of_a_chain_that_does_nothing_are_alike():
    kinds = [Kinds(Genotype.identity()), Kinds(Genotype.parse("rotate(3)"))]
    assert walk_of(kinds, (-1.0, 0.0, 1.0), 1).counts == (1, 1, 3)
    assert walk_of(list(reversed(kinds)), (-1.0, 0.0, 1.0, 1.0), 1).counts == (1, 3, 4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_frames_are_moved_as_frames_of_their_own_maps_are(layout):
    made = video(
        {"a": "identity | translate_x(1 cell) | rotate(9) | flip_x", "b": "flip_y | identity | scale(1.2) | rotate(5)"},
        T=4,
    )
    maps = noise(2, 4, 6, 10).to(memory_format=layout)
    frames = made.frames_of_call()
    first = frames.place_frames(0, maps, (H, W))
    assert first.is_contiguous(memory_format=layout)
    second = frames.place_frames(1, first, (H, W))
    assert second.is_contiguous(memory_format=layout)
    for t in range(4):
        alone = maps
        for clip in made.genotype.clips:
            chain = FrameSet((clip.frames[t],))
            alone = Image2Video(chain, padding="border").map_frames(alone, (H, W))
        torch.testing.assert_close(second.unflatten(0, (2, 4))[:, t], alone, atol=1e-6, rtol=1e-6)


def test_options_and_frames_are_checked():
    with pytest.raises(InputError, match="2 frames or more, got T=1"):
        video(SITES, T=1)
    with pytest.raises(InputError, match="no schedule but 'from_zero'"):
        video({"a": "identity | flip_x"}, T=2, schedule="ramp")
    made = video({"a": "identity | flip_x | flip_y"}, T=2)
    with pytest.raises(InputError, match="none of number 3"):
        made.set_frames(4)
    assert made.T == 2
    made.set_frames(3)
    assert (made.T, made.place_videos()[0].T) == (3, 3)
    with pytest.raises(InputError, match="a clip that begins at 'a' cannot change colours"):
        DeepVideo(DeepClip.of({"a": "contrast(1.2)", "b": "identity"}), ClipOptions(T=3))
