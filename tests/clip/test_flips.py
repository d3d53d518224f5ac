"""Flips: exact mirror images at odd powers, the image at even ones, in every form and on every way."""

import pytest
import shapely
import torch
from hypothesis import given
from hypothesis import strategies as st

from image2video import ClipOptions, Genotype, Image2Video, VideoWrap
from image2video.clip.ops.op import Op
from image2video.clip.ops.registry import get_op, register_op
from image2video.clip.sampling import warp
from image2video.errors import InputError
from image2video.receptive_field import reshaped
from image2video.report.search import chain_in_words
from image2video.search import SearchSpace
from image2video.search.cell.cell import Cell

AXES = {"flip_x": (-1,), "flip_y": (-2,)}


def images(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("op", AXES)
@pytest.mark.parametrize("schedule", ["from_zero", "ramp", "centred", "mirror"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_odd_powers_mirror_bit_for_bit_and_even_ones_copy(op: str, schedule: str, dtype: torch.dtype) -> None:
    x = images(2, 3, 5, 8, dtype=dtype)
    to_video = Image2Video(op, T=4, schedule=schedule)
    clip = to_video(x)
    for frame, step in zip(clip.unbind(1), to_video.options.steps, strict=True):
        assert torch.equal(frame, x.flip(AXES[op]) if step % 2 else x)


def test_two_flips_turn_the_image_by_half_a_turn_without_sampling() -> None:
    x = images(1, 3, 5, 8)
    assert torch.equal(Image2Video("flip_x > flip_y", T=2)(x)[:, 1], x.flip(-1, -2))
    assert torch.equal(Image2Video("flip_x > flip_x", T=2)(x)[:, 1], x)


@pytest.mark.parametrize("text", ["flip_x > translate_x(0.25)", "translate_x(-0.25) > flip_x"])
def test_flips_stand_in_chains_with_other_ops(text: str) -> None:
    x = images(1, 3, 6, 8)
    expected = torch.nn.functional.pad(x.flip(-1), (2, 0))[..., :8]
    torch.testing.assert_close(Image2Video(text, T=2)(x)[:, 1], expected, rtol=0, atol=1e-5)


def test_colours_change_between_exact_flips() -> None:
    x = images(2, 3, 5, 8)
    coloured = Image2Video("flip_x > brightness(1.2)", T=3, mean=0.5, std=0.5)(x)
    plain = Image2Video("brightness(1.2)", T=3, mean=0.5, std=0.5)
    assert torch.equal(coloured[:, 1], plain(x)[:, 1].flip(-1))
    assert torch.equal(coloured[:, 2], plain(x)[:, 2])
    behind = Image2Video("brightness(1.2) > flip_x", T=3, mean=0.5, std=0.5)(x)
    assert torch.equal(behind[:, 1], coloured[:, 1])


@given(flips=st.lists(st.sampled_from(["flip_x", "flip_y", "rotate(7)", "translate_x(0.1)"]), max_size=5))
def test_text_and_json_keep_the_chain(flips: list[str]) -> None:
    text = " > ".join(flips) or "identity"
    genotype = Genotype.parse(text)
    assert str(genotype) == text
    assert Genotype.from_json(genotype.to_json()) == genotype


@pytest.mark.parametrize("op", AXES)
def test_a_flip_is_its_own_inverse_and_maps_come_back_bit_for_bit(op: str) -> None:
    to_video = Image2Video(op, T=3)
    maps = images(6, 4, 5, 7)
    back = to_video.unwarp(maps, (20, 28))
    clip = maps.unflatten(0, (2, 3))
    assert torch.equal(back[:, 1], clip[:, 1].flip(AXES[op]))
    assert torch.equal(back[:, 2], clip[:, 2])
    assert torch.equal(to_video.unwarp_frame(clip[:, 1], 1, (20, 28)), back[:, 1])
    assert torch.equal(to_video.valid_mask((5, 7), (20, 28)), torch.ones(3, 1, 5, 7))
    matrix = Genotype.parse(op).matrix(1, 20, 28)
    assert torch.equal(matrix @ matrix, torch.eye(3, dtype=torch.float64))


def test_an_image_of_its_own_valid_area_keeps_it() -> None:
    valid = torch.ones(1, 1, 4, 8)
    valid[..., 6:] = 0
    mask = Image2Video("flip_x", T=2).valid_mask((4, 8), (4, 8), valid=valid)
    assert torch.equal(mask[0], valid.expand(2, 1, 4, 8))


def test_a_segmentor_that_commutes_with_flips_is_unchanged() -> None:
    torch.manual_seed(0)
    net = torch.nn.Conv2d(3, 5, 1)
    x = images(2, 3, 6, 8)
    model = VideoWrap(net, "none", genotype="flip_x", T=2, input_size=(3, 6, 8))
    torch.testing.assert_close(model(x), model.unwrap()(x), rtol=0, atol=1e-6)


def test_frames_are_differentiable_and_keep_their_memory_layout() -> None:
    x = images(2, 3, 5, 8).to(memory_format=torch.channels_last).requires_grad_()
    clip = Image2Video("flip_x", T=2)(x)
    assert clip.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    weights = images(2, 3, 5, 8) * 3
    (clip[:, 1] * weights).sum().backward()
    assert torch.equal(x.grad, weights.flip(-1))


def test_the_search_cell_makes_the_frames_of_the_genotype() -> None:
    space = SearchSpace("mirrors", ("flip_x", "rotate(10)", "identity"), nodes=1)
    cell = Cell(space, T=3)
    with torch.no_grad():
        cell.tau.copy_(torch.tensor([[40.0, 0.0, 0.0]]))
    x = images(2, 3, 5, 8)
    expected = Image2Video("flip_x", T=3)(x)
    torch.testing.assert_close(cell(x), expected, rtol=0, atol=1e-5)


def test_the_field_of_a_flip_is_mirrored_about_the_centre_of_the_image() -> None:
    centred, beside = shapely.box(14, 14, 17, 17), shapely.box(19, 14, 22, 17)
    assert reshaped(centred, "flip_x", 3, image_size=(31, 31)).area == pytest.approx(9)
    field = reshaped(beside, "flip_x", 3, image_size=(31, 31))
    assert field.area == pytest.approx(18)
    assert field.bounds == pytest.approx((9, 14, 22, 17))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flip_x(0.5)", "flip_x mirrors the image and takes no magnitude, got 0.5; write flip_x"),
        ("flip_y(-1)", "flip_y mirrors the image and takes no magnitude, got -1; write flip_y"),
        ("flip_x(0)", "takes no magnitude, got 0"),
        ("flip_x rotate(10)", "expected '>' between two ops"),
    ],
)
def test_a_magnitude_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        Genotype.parse(text)


def test_powers_that_are_not_whole_are_refused() -> None:
    with pytest.raises(InputError, match="flip_x has whole powers alone"):
        Genotype.parse("flip_x").matrix(0.5, 8, 8)


def test_a_space_of_learned_magnitudes_refuses_flips() -> None:
    space = SearchSpace("mirrors", ("flip_x", "rotate(10)", "identity"), nodes=1)
    with pytest.raises(InputError, match="flip_x mirrors the image and has none"):
        Cell(space, T=3, learn_magnitudes=True)


def test_an_op_that_says_wrong_things_of_its_mirrors_is_refused() -> None:
    flip = get_op("flip_x")
    cases = [
        ({"mirrors": (-2,)}, "must mirror the axes"),
        ({"mirrors": (1,)}, "must be axes of a geometric op"),
        ({"low": 0.0}, "its default, low and high must be 1"),
    ]
    for changes, message in cases:
        fields = {**flip.__dict__, "name": "flip_z", **changes}
        with pytest.raises(InputError, match=message):
            register_op(Op(**fields))


def test_words_and_warp() -> None:
    assert chain_in_words("flip_x > scale(1.1)") == (
        "from step to step flip_x, which mirrors every second frame, then scale by a factor of 1.1"
    )
    x, still = images(2, 3, 5, 8), torch.eye(3, dtype=torch.float64)[None]
    assert torch.equal(warp(x, still, mirrored=[(-1, -2)])[:, 0], x.flip(-1, -2))
    assert ClipOptions(T=2).steps == (0.0, 1.0)
