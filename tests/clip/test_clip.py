"""Clips: the layout first, then frames, compilation, export and bad input."""

import copy
import pickle

import pytest
import torch
from clip_cases import CHAIN, H, W, noise, smooth
from hypothesis import given, settings
from hypothesis import strategies as st

from image2video.clip import image_to_video as clip_module
from image2video.clip.colours import Colours
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video, clip_to_frames, frames_to_clip
from image2video.clip.ops.op import GRADIENTS
from image2video.clip.ops.registry import get_op, op_names
from image2video.clip.sampling import warp
from image2video.clip.schedules import SCHEDULES, schedule_steps
from image2video.errors import InputError, InputTypeError

MIXED = "rotate(10) > brightness(1.2) > translate_x(0.1) > solarize(0.2)"
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def test_frame_t_of_image_b_is_its_row_with_its_channels() -> None:
    B, T, C = 2, 5, 3
    clip = torch.arange(B * T * C * H * W).view(B, T, C, H, W)
    frames = clip_to_frames(clip)
    assert frames.shape == (B * T, C, H, W)
    for b in range(B):
        for t in range(T):
            assert torch.equal(frames[b * T + t], clip[b, t])
    images = noise(B, C, H, W)
    frames = clip_to_frames(Image2Video(Genotype.identity(), T=T)(images))
    for b in range(B):
        for t in range(T):
            assert torch.equal(frames[b * T + t], images[b])


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(1, 4), st.lists(st.integers(1, 3), max_size=3))
def test_clip_to_frames_and_back(B: int, T: int, rest: list[int]) -> None:
    clip = noise(B, T, *rest)
    assert torch.equal(frames_to_clip(clip_to_frames(clip), T), clip)


def test_rows_are_a_multiple_of_the_frames() -> None:
    with pytest.raises(InputError, match=r"frames of T = 4 must have B·T rows, got the shape \(10, 3, 2, 2\)"):
        frames_to_clip(torch.zeros(10, 3, 2, 2), 4)
    with pytest.raises(InputTypeError, match="must be an integer"):
        frames_to_clip(torch.zeros(10, 3), 2.5)
    with pytest.raises(InputError, match=r"shape \(B, T, …\), got \(3,\)"):
        clip_to_frames(torch.zeros(3))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_frames_at_step_zero_are_the_image(schedule: str) -> None:
    images = noise(2, 3, H, W)
    clip = Image2Video(CHAIN, T=5, schedule=schedule)(images)
    zero = {"from_zero": [0], "ramp": [], "centred": [2], "mirror": [2]}[schedule]
    for t in range(5):
        assert torch.equal(clip[:, t], images) == (t in zero)


def test_frames_follow_the_matrices_of_the_genotype() -> None:
    """Each frame of the composed chain is the frame that one matrix gives, so it was resampled once."""
    images = smooth(1, 2)
    to_video = Image2Video(CHAIN, T=3)
    clip = to_video(images)
    ys, xs = torch.meshgrid(torch.arange(H) - (H - 1) / 2, torch.arange(W) - (W - 1) / 2, indexing="ij")
    points = torch.stack([xs, ys, torch.ones_like(xs)]).double().flatten(1)
    x, y, _ = (torch.linalg.inv(to_video.genotype.matrix(2, H, W)) @ points).unflatten(1, (H, W))
    inside = (x.abs() < (W - 1) / 2) & (y.abs() < (H - 1) / 2)
    u, v = x / (W - 1) + 0.5, y / (H - 1) + 0.5
    expected = torch.stack([torch.sin(2 * u + 3 * v + n) + u * v * n / 6 for n in range(2)]).float()
    assert inside.float().mean() > 0.3
    assert (clip[0, 2] - expected)[:, inside].abs().max() < 4e-3


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_colours_change_at_the_power_of_the_frame(schedule: str) -> None:
    images, colours = noise(2, 3, H, W), Colours(MEAN, STD)
    to_video = Image2Video(MIXED, T=5, schedule=schedule, mean=MEAN, std=STD)
    clip = to_video(images)
    for t, step in enumerate(schedule_steps(schedule, 5)):
        frame = images
        for run in to_video.genotype.runs() if step != 0 else ():
            if run.is_geometric:
                frame = warp(frame, run.step_matrices((step,), H, W))[:, 0]
            else:
                op = get_op(run.chain[0].op)
                frame = colours.to_normalised(op.apply(colours.to_unit(frame), run.chain[0].magnitude, step))
        assert torch.equal(clip[:, t], images) == (step == 0)
        assert torch.allclose(clip[:, t], frame, atol=1e-4)
    assert torch.allclose(to_video(images, T=3), Image2Video(MIXED, T=3, schedule=schedule, mean=MEAN, std=STD)(images))


def test_the_way_back_is_that_of_the_geometric_part() -> None:
    mixed = Image2Video(MIXED, T=3, schedule="ramp", mean=0.5, std=0.25)
    moving = Image2Video(mixed.genotype.geometric, T=3, schedule="ramp")
    maps, valid = noise(6, 2, 6, 9), torch.rand(2, 1, H, W)
    assert torch.equal(mixed.unwarp(maps, (H, W)), moving.unwarp(maps, (H, W)))
    assert torch.equal(mixed.valid_mask((6, 9), (H, W)), moving.valid_mask((6, 9), (H, W)))
    assert torch.equal(mixed.unwarped_mean(maps, (H, W), valid=valid), moving.unwarped_mean(maps, (H, W), valid=valid))
    still = Image2Video("invert(1) > color(2)", T=3, schedule="ramp", mean=0, std=1)
    assert torch.equal(still.unwarp(maps, (H, W)), frames_to_clip(maps, 3))
    assert torch.equal(still.unwarped_mean(maps, (H, W)), frames_to_clip(maps, 3).mean(1))
    assert (still.valid_mask((6, 9), (H, W)) == 1).all()


def test_geometric_chains_take_the_way_they_took(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a geometric chain went through the way of mixed ones")

    expected = Image2Video(CHAIN, T=3)(noise(1, 3, H, W))
    monkeypatch.setattr(clip_module, "chain_clip", refuse)
    assert torch.equal(Image2Video(CHAIN, T=3, mean=MEAN, std=STD)(noise(1, 3, H, W)), expected)


def test_photometric_ops_need_to_know_the_colours() -> None:
    for text in (MIXED, "cutout(0.5)"):
        with pytest.raises(InputError, match="say how the images are normalised: mean=…, std=…"):
            Image2Video(text)
    with pytest.raises(InputError, match="mean and std go together, got only std"):
        Image2Video(MIXED, std=1)
    with pytest.raises(InputError, match="mean has 3 values and std 3, but the images are"):
        Image2Video(MIXED, mean=MEAN, std=STD)(noise(1, 1, H, W))


def test_gradients_reach_maps_and_images() -> None:
    to_video = Image2Video("translate_x(0.0637) > rotate(11.3)", T=3, schedule="ramp")
    images = noise(1, 2, 4, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(to_video, (images,))
    maps = noise(3, 2, 4, 6, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda m: to_video.unwarped_mean(m, (8, 12)), (maps,))


def test_half_precision_and_layout_of_images() -> None:
    images = noise(2, 3, H, W)
    for to_video in (Image2Video(CHAIN, T=3), Image2Video(MIXED, T=3, mean=MEAN, std=STD)):
        expected = to_video(images)
        assert to_video(images.bfloat16()).dtype == torch.bfloat16
        frames = clip_to_frames(to_video(images.to(memory_format=torch.channels_last)))
        assert frames.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(frames, clip_to_frames(expected), atol=1e-6)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(to_video(images), expected)


def test_frames_of_a_call_and_of_the_module() -> None:
    images = noise(2, 3, H, W)
    to_video = Image2Video(CHAIN, T=3)
    assert to_video.T == 3
    eight = to_video(images, T=8)
    assert eight.shape[1] == 8
    assert to_video.T == 3
    assert torch.allclose(eight[:, :3], to_video(images), atol=1e-6)
    assert to_video.valid_mask((4, 5), (H, W), T=8).shape == (8, 1, 4, 5)
    assert to_video.unwarp(noise(16, 1, 4, 5), (H, W), T=8).shape == (2, 8, 1, 4, 5)
    to_video.set_frames(8)
    assert torch.equal(to_video(images), eight)
    with pytest.raises(AttributeError):
        to_video.T = 5


def test_nothing_is_stored() -> None:
    for to_video in (Image2Video(CHAIN, T=3), Image2Video(MIXED, T=3, mean=MEAN, std=STD)):
        to_video(noise(1, 3, H, W))
        assert to_video.state_dict() == {}
        assert not list(to_video.buffers())
        assert not list(to_video.parameters())


def test_copies_and_pickles() -> None:
    to_video = Image2Video(CHAIN, T=4, schedule="mirror", padding="border", interpolation="nearest")
    images = noise(1, 3, H, W)
    for again in (copy.deepcopy(to_video), pickle.loads(pickle.dumps(to_video))):
        assert torch.equal(again(images), to_video(images))
        assert repr(again) == repr(to_video)
    coloured = Image2Video(MIXED, T=4, mean=MEAN, std=0.5)
    for again in (copy.deepcopy(coloured), pickle.loads(pickle.dumps(coloured))):
        assert torch.equal(again(images), coloured(images))
    assert "mean=(0.5, 0.4, 0.3), std=(0.5,)" in repr(coloured)
    assert CHAIN in repr(to_video)
    assert "T=4, schedule=mirror, padding=border, interpolation=nearest" in repr(to_video)


def test_compiles_to_one_graph() -> None:
    torch._dynamo.reset()
    to_video = Image2Video(CHAIN, T=5)
    compiled = torch.compile(to_video, fullgraph=True, backend="eager")
    images = noise(2, 3, H, W)
    for T in (5, 3):
        assert torch.allclose(compiled(images, T=T), to_video(images, T=T), atol=1e-6)
    frames = clip_to_frames(compiled(images.to(memory_format=torch.channels_last)))
    assert frames.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(frames, clip_to_frames(to_video(images)), atol=1e-6)


def test_a_compiled_graph_computes_matrices_in_double_precision() -> None:
    """Dynamo of torch 2.11 says that it exports: matrices of compiled clips were float32 there."""
    torch._dynamo.reset()
    dtypes = set()

    def look(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        dtypes.update(node.kwargs["dtype"] for node in graph.graph.nodes if node.target is torch.tensor)
        return graph

    torch.compile(Image2Video(CHAIN, T=5), fullgraph=True, backend=look)(noise(2, 3, H, W))
    assert dtypes == {torch.float64}


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_photometric_ops_compile_without_a_break(gradient: str) -> None:
    torch._dynamo.reset()
    named = [op for op in map(get_op, op_names()) if not op.geometric and op.gradient == gradient]
    assert len(named) >= 3
    text = " > ".join(["rotate(10)", *(f"{op.name}({op.default})" for op in named), "translate_x(0.1)"])
    to_video = Image2Video(text, T=2, mean=MEAN, std=STD)
    compiled = torch.compile(to_video, fullgraph=True, backend="aot_eager")
    images = noise(1, 3, H, W).requires_grad_()
    assert torch.allclose(compiled(images), to_video(images), atol=1e-5)
    (found,) = torch.autograd.grad(compiled(images).square().sum(), images)
    (expected,) = torch.autograd.grad(to_video(images).square().sum(), images)
    assert torch.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("text", [CHAIN, MIXED])
def test_exports_with_a_dynamic_batch(text: str) -> None:
    to_video = Image2Video(text, T=4, schedule="centred", mean=MEAN, std=STD)
    batch = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(to_video, (noise(2, 3, H, W),), dynamic_shapes=batch)
    for B in (1, 2, 5):
        images = noise(B, 3, H, W, seed=B)
        assert torch.allclose(program.module()(images), to_video(images), atol=1e-6)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(2, 3, H, W, dtype=torch.uint8), InputTypeError, r"uint8; convert .*v2: .*ToDtype.*scale=True\)"),
        (
            torch.zeros(2, 3, H, W, dtype=torch.complex64),
            InputTypeError,
            "must be floating point .* got torch.complex64",
        ),
        (torch.zeros(2, 3, H, W, dtype=torch.int64), InputTypeError, "must be floating point .* got torch.int64"),
        ([1], InputTypeError, "must be a tensor .* got list"),
        (torch.zeros(3, H, W), InputError, r"must have the shape \(B, C, H, W\), got"),
        (torch.zeros(2, 3, 4, H, W), InputError, r"must have the shape \(B, C, H, W\), got"),
        (torch.zeros(2, 3, 0, W), InputError, "at least one pixel"),
    ],
)
def test_bad_images_are_refused(images: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Image2Video(CHAIN, T=3)(images)


def test_bad_options_are_refused() -> None:
    """Those of the clip alone stand in test_options.py."""
    for T, error in ((True, InputTypeError), (3.0, InputTypeError), ("3", InputTypeError), (0, InputError)):
        with pytest.raises(error, match="T, the number of frames, must be"):
            Image2Video(CHAIN, T=T)
        with pytest.raises(error, match="T, the number of frames, must be"):
            Image2Video(CHAIN, T=3)(noise(1, 3, H, W), T=T)
    with pytest.raises(InputTypeError, match="a genotype is given as"):
        Image2Video(None)
    with pytest.raises(InputError, match=r"'scale\(4\)' is singular: at step 20"):
        Image2Video("scale(4)", T=30)
    with pytest.raises(InputError, match="is singular"):
        Image2Video("scale(4)", T=3)(noise(1, 3, H, W), T=30)
