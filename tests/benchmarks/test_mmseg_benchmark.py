"""The benchmark of segmentation measures what it says, on a small scale."""

from functools import partial

import pytest

pytest.importorskip("mmseg")

from mmseg_cases import build, samples, tiny_config

from image2video import Image2Video
from image2video.integrations.openmmlab import frames


@pytest.fixture
def benchmark(load):
    return load("segmentation")


def test_a_step_and_its_shares(benchmark, load):
    model = build(tiny_config(video={"T": 2})).train()
    inputs, found = samples(1)
    before = model.decode_head.conv_seg.weight.clone()
    step = benchmark.training_step(model, inputs, found)
    step()
    assert not model.decode_head.conv_seg.weight.equal(before)
    timed = partial(load("harness").measure_pair, repeats=1, warmup=0)
    row = benchmark.step_row(step, step, "cpu", timed)
    assert row["peak_ratio"] == pytest.approx(1, rel=0.05)
    whole, resized, rest = benchmark.share_rows(model, inputs, step, timed)
    assert rest["share"] == whole["share"] - resized["share"]


def test_memory_is_counted_in_volumes(benchmark, monkeypatch):
    size, classes = (64, 96), 16
    monkeypatch.setattr(frames, "_CHUNK", 2 * size[0] * size[1])
    to_video = Image2Video("translate_x(0.02) > scale(1.05)", T=3)
    plain, together, one_by_one = benchmark.memory_rows(to_video, size, classes, "cpu")
    assert plain["volumes"] == 1
    assert together["extra_volumes"] > 4
    assert one_by_one["extra_volumes"] < 2
    assert one_by_one["largest_difference"] < 1e-5
