"""Clips of frame sets, and the way back: every frame is that of its own chain, mirror images bit for bit."""

import pytest
import torch
from frame_set_cases import chains, frame_sets
from hypothesis import given, settings
from hypothesis import strategies as st

from image2video import FrameSet, Genotype, Image2Video
from image2video.clip.sampling import INTERPOLATIONS, PADDINGS

TEXT = "identity | flip_x | scale(1.2) > translate_x(0.03) | flip_y"
COLOURFUL = "rotate(10) > contrast(1.3) > translate_y(0.1) | flip_x | rotate(10) | identity"


def images(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*(shape or (2, 3, 10, 14)), generator=torch.Generator().manual_seed(0), dtype=dtype)


def alone(chain: Genotype, x: torch.Tensor, **options: object) -> torch.Tensor:
    """The one frame that a chain makes at power 1."""
    return Image2Video(chain, T=1, schedule="ramp", **options)(x)[:, 0]  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("text", [TEXT, COLOURFUL])
def test_every_frame_is_that_of_its_chain(text: str, dtype: torch.dtype) -> None:
    x, how = images(dtype=dtype), {"padding": "reflection", "mean": 0.4, "std": (0.2, 0.3, 0.25)}
    to_video = Image2Video(text, **how)
    clip = to_video(x)
    assert (clip.shape, clip.dtype) == ((2, to_video.T, 3, 10, 14), dtype)
    for frame, chain in zip(clip.unbind(1), to_video.genotype.frames, strict=True):
        assert torch.equal(frame, alone(chain, x, **how))


def test_the_image_and_its_mirror_images_are_bit_for_bit() -> None:
    x = images()
    clip = Image2Video(TEXT)(x)
    assert torch.equal(clip[:, 0], x)
    assert torch.equal(clip[:, 1], x.flip(-1))
    assert torch.equal(clip[:, 3], x.flip(-2))
    shifted = Image2Video("translate_x(-0.5) | flip_x > flip_y")(x)
    torch.testing.assert_close(shifted[:, 0], torch.nn.functional.pad(x[..., 7:], (0, 7)), rtol=0, atol=1e-5)
    assert torch.equal(shifted[:, 1], x.flip(-1, -2))


@settings(deadline=None)
@given(
    some=frame_sets(),
    data=st.data(),
    padding=st.sampled_from(PADDINGS),
    interpolation=st.sampled_from(INTERPOLATIONS),
)
def test_a_clip_and_its_way_back_are_those_of_the_frames(some, data, padding, interpolation) -> None:
    x, how = images(), {"padding": padding, "interpolation": interpolation}
    T = data.draw(st.integers(1, some.T))
    to_video = Image2Video(some, **how)
    clip = to_video(x, T=T)
    assert clip.shape[1] == T
    back = to_video.unwarp(clip.flatten(0, 1), (10, 14), T=T)
    for t in range(T):
        one = Image2Video(some.frames[t], T=1, schedule="ramp", **how)
        torch.testing.assert_close(clip[:, t], one(x)[:, 0], rtol=0, atol=1e-5)
        torch.testing.assert_close(back[:, t], one.unwarp(clip[:, t], (10, 14))[:, 0], rtol=0, atol=1e-5)
        assert torch.equal(to_video.unwarp_frame(clip[:, t], t, (10, 14), T=T), back[:, t])


@settings(deadline=None)
@given(m=st.floats(-0.15, 0.15), op=st.sampled_from(["translate_x", "translate_y", "rotate"]))
def test_powers_of_one_op_written_out_give_the_clip_of_the_chain(m: float, op: str) -> None:
    m = 100 * m if op == "rotate" else m
    written = Image2Video(f"identity | {op}({m!r}) | {op}({2 * m!r})")
    chain = Image2Video(f"{op}({m!r})", T=3, schedule="from_zero")
    x, maps = images(dtype=torch.float64), images(6, 4, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(written(x), chain(x), rtol=0, atol=1e-9)
    torch.testing.assert_close(written.unwarp(maps, (10, 14)), chain.unwarp(maps, (10, 14)), rtol=0, atol=1e-9)
    torch.testing.assert_close(written.unwarped_mean(maps, (10, 14)), chain.unwarped_mean(maps, (10, 14)))


@settings(deadline=None, max_examples=30)
@given(first=chains(), some=frame_sets(most=3))
def test_smooth_images_come_back_where_frames_show_them(first: Genotype, some: FrameSet) -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 64), indexing="ij")
    smooth = torch.stack([x, y, x * y])[None].double()
    to_video = Image2Video(FrameSet((first, *some.frames)))
    clip = to_video(smooth)
    back = to_video.unwarp(clip.flatten(0, 1), (48, 64))[0]
    mask = to_video.valid_mask((48, 64), (48, 64), dtype=torch.float64)
    # The frame itself is cut too: what went out at its border came back as zeros.
    ones = to_video.unwarp(to_video(torch.ones_like(smooth[:, :1])).flatten(0, 1), (48, 64))[0]
    seen = ((mask > 1 - 1e-9) & (ones > 1 - 1e-9)).expand_as(back)
    difference = (back - smooth).abs()
    assert difference[seen].numel() == 0 or difference[seen].max() < 0.05


def test_maps_of_mirror_images_come_back_bit_for_bit_and_their_mean_shows_every_pixel() -> None:
    to_video, maps = Image2Video("flip_x | flip_y > flip_x | rotate(40)"), images(3, 4, 5, 7)
    back = to_video.unwarp(maps, (20, 28))
    assert torch.equal(back[:, 0], maps[:1].flip(-1))
    assert torch.equal(back[:, 1], maps[1:2].flip(-1, -2))
    assert torch.equal(to_video.valid_mask((5, 7), (20, 28))[:2], torch.ones(2, 1, 5, 7))
    constant = to_video.unwarped_mean(torch.full((3, 4, 5, 7), 2.5), (20, 28))
    torch.testing.assert_close(constant, torch.full((1, 4, 5, 7), 2.5))


def test_where_no_frame_shows_a_place_the_nearest_one_stands_in() -> None:
    to_video = Image2Video("translate_x(0.5) | translate_x(0.25)")
    maps = images(2, 1, 4, 8)
    mean = to_video.unwarped_mean(maps, (4, 8))
    border = to_video.unwarp_frame(maps[:1], 0, (4, 8), padding="border")
    unseen = to_video.valid_mask((4, 8), (4, 8)).sum(0) == 0
    assert unseen.any()
    assert torch.equal(mean[0][unseen], border[0][unseen])


def test_an_image_of_its_own_valid_area_keeps_it() -> None:
    valid = torch.ones(1, 1, 4, 8)
    valid[..., 6:] = 0
    mask = Image2Video("flip_x | identity").valid_mask((4, 8), (4, 8), valid=valid)
    assert torch.equal(mask[0], valid.expand(2, 1, 4, 8))


def test_set_frames_takes_the_first_frames() -> None:
    to_video, x = Image2Video(TEXT), images()
    whole = to_video(x)
    to_video.set_frames(2)
    assert torch.equal(to_video(x), whole[:, :2])
    assert torch.equal(to_video(x, T=4), whole)


def test_frames_are_differentiable_and_keep_their_memory_layout() -> None:
    for text in (TEXT, COLOURFUL):
        x = images().to(memory_format=torch.channels_last).requires_grad_()
        to_video = Image2Video(text, mean=0, std=1)
        clip = to_video(x)
        assert clip.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        weights = images(*clip.shape)
        (clip * weights).sum().backward()
        expected = torch.zeros_like(x)
        for t, chain in enumerate(to_video.genotype.frames):
            leaf = images().requires_grad_()
            (alone(chain, leaf, mean=0, std=1) * weights[:, t]).sum().backward()
            expected += leaf.grad
        torch.testing.assert_close(x.grad, expected)


def test_gradients_of_maps_reach_them_through_the_way_back() -> None:
    to_video = Image2Video("flip_x | rotate(10)")
    maps = images(2, 1, 4, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: to_video.unwarped_mean(m, (4, 6)), (maps,))


@pytest.mark.parametrize("text", [TEXT, COLOURFUL])
def test_compiled_for_every_t(text: str) -> None:
    torch._dynamo.reset()
    x, to_video = images(), Image2Video(text, mean=0.5, std=0.5)
    compiled = torch.compile(to_video, backend="eager", fullgraph=True)
    for T in (None, 2):
        torch.testing.assert_close(compiled(x, T=T), to_video(x, T=T), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit", "ignore::FutureWarning")
@pytest.mark.parametrize("text", [TEXT, COLOURFUL])
def test_captured_graphs_hold_the_matrices_as_constants(text: str) -> None:
    x, to_video = images(), Image2Video(text, mean=0.5, std=0.5)
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(to_video, (x,), dynamic_shapes=dynamic)
    grids = [node.args[1] for node in program.graph.nodes if "grid_sampler" in str(node.target)]
    assert grids
    assert all(grid.op in ("placeholder", "get_attr") or "expand" in str(grid) for grid in grids)
    traced = torch.jit.trace(to_video, (x,), check_trace=False)
    for b in (2, 5):
        batch = images(b, 3, 10, 14)
        torch.testing.assert_close(program.module()(batch), to_video(batch), rtol=0, atol=1e-5)
        torch.testing.assert_close(traced(batch), to_video(batch), rtol=0, atol=1e-5)


def test_an_exported_graph_takes_images_of_other_sizes() -> None:
    to_video, free = Image2Video(TEXT), torch.export.Dim.DYNAMIC
    program = torch.export.export(to_video, (images(),), dynamic_shapes=({0: free, 2: free, 3: free},))
    batch = images(3, 3, 12, 9)
    torch.testing.assert_close(program.module()(batch), to_video(batch), rtol=0, atol=1e-4)
