"""The sum of the valid masks: kept for sizes that come again, carried nowhere; and the windows of sliding inference."""

import copy
import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mmseg")

from by_hand import CHAIN, unwarped

from image2video import Image2Video
from image2video.integrations.openmmlab import cover
from image2video.integrations.openmmlab.frames import mean_of_frames
from image2video.integrations.openmmlab.sliding import windows

CANVAS = (22, 30)
CONTENT = ((22, 30), (17, 30), (17, 23), (17, 23))
sizes = st.integers(1, 40)


def test_the_sum_of_masks_is_worked_out_once_and_not_carried_along():
    to_video = Image2Video(CHAIN, T=3)
    maps = torch.randn(3, 4, 2, *CANVAS, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        mean_of_frames(to_video, maps.__getitem__, CONTENT, CANVAS)
    assert len(cover._COVERS[to_video]) == 3
    first = cover.cover_of(to_video, CANVAS, CANVAS, device=maps.device, dtype=maps.dtype)
    assert cover.cover_of(to_video, CANVAS, CANVAS, device=maps.device, dtype=maps.dtype) is first
    # A backward pass can use what inference_mode has left.
    leaf = maps.clone().requires_grad_()
    mean_of_frames(to_video, leaf.__getitem__, CONTENT, CANVAS).sum().backward()
    assert copy.deepcopy(to_video) not in cover._COVERS
    to_video.set_frames(2)
    fewer = cover.cover_of(to_video, CANVAS, CANVAS, device=maps.device, dtype=maps.dtype)
    torch.testing.assert_close(fewer.divisor, sum(unwarped(torch.ones(1, 1, *CANVAS), t) for t in range(2)))
    for width in range(20, 30):
        cover.cover_of(to_video, (22, width), (22, width), device=maps.device, dtype=maps.dtype)
    assert len(cover._COVERS[to_video]) == cover._KEPT
    alive = weakref.ref(to_video)
    del to_video
    gc.collect()
    assert alive() is None


def test_a_change_of_t_in_another_thread_leaves_no_sum_of_another_clip(monkeypatch):
    """T changes while the masks are added up: what is kept is what it is kept as."""
    to_video = Image2Video(CHAIN, T=3)
    ones = {"device": torch.device("cpu"), "dtype": torch.float32}
    expected = cover.cover_of(Image2Video(CHAIN, T=3), CANVAS, CANVAS, **ones)
    frame = Image2Video.unwarp_frame

    def while_another_sets_frames(self, *args, **options):
        self.set_frames(5)
        return frame(self, *args, **options)

    monkeypatch.setattr(Image2Video, "unwarp_frame", while_another_sets_frames)
    cover.cover_of(to_video, CANVAS, CANVAS, **ones)
    monkeypatch.undo()
    to_video.set_frames(3)
    torch.testing.assert_close(cover.cover_of(to_video, CANVAS, CANVAS, **ones).divisor, expected.divisor)


@pytest.mark.parametrize(
    ("genotype", "schedule", "keeps"),
    [
        (CHAIN, "from_zero", True),
        (CHAIN, "centred", True),
        (CHAIN, "mirror", True),
        (CHAIN, "ramp", False),
        ("identity", "ramp", True),
        ("brightness(1.2)", "ramp", True),
    ],
)
def test_a_clip_knows_whether_it_keeps_the_image(genotype, schedule, keeps):
    to_video = Image2Video(genotype, T=3, schedule=schedule, mean=0.0, std=1.0)
    assert to_video.keeps_image() is keeps
    if keeps:
        assert (to_video.valid_mask((9, 13), (9, 13)).amax(0) == 1).all()
    assert to_video.keeps_image(1) is keeps


@settings(max_examples=60, deadline=None)
@given(size=st.tuples(sizes, sizes), crop=st.tuples(sizes, sizes), stride=st.tuples(sizes, sizes))
def test_windows_are_those_of_mmsegmentation(size, crop, stride):
    found = list(windows(size, crop, stride))
    expected = []
    for i in range(max(size[0] - crop[0] + stride[0] - 1, 0) // stride[0] + 1):
        for j in range(max(size[1] - crop[1] + stride[1] - 1, 0) // stride[1] + 1):
            bottom, right = min(i * stride[0] + crop[0], size[0]), min(j * stride[1] + crop[1], size[1])
            expected.append((max(bottom - crop[0], 0), max(right - crop[1], 0), bottom, right))
    assert found == expected
    assert all(b - t == min(crop[0], size[0]) and r - x == min(crop[1], size[1]) for t, x, b, r in found)
    if stride[0] <= crop[0] and stride[1] <= crop[1]:
        seen = torch.zeros(size, dtype=torch.bool)
        for top, left, bottom, right in found:
            seen[top:bottom, left:right] = True
        assert seen.all()
