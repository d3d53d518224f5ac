"""The way back through the relaxed cell: paths by hand, masks, constants and gradients."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from image2video import Image2Video, clip_to_frames, frames_to_clip
from image2video.clip.colours import Colours
from image2video.clip.sampling import PADDINGS
from image2video.clip.schedules import SCHEDULES
from image2video.errors import InputError, InputTypeError
from image2video.search import Cell, SearchSpace, get_space, random_decisions
from image2video.search.cell.mixing import mixing_matrix, single_path_mixing

SIZE = (24, 36)  # of the image
CANDIDATES = (
    "rotate(15)",
    "translate_x(0.1) > color(1.2) > scale(0.8)",
    "shear_y(8)",
    "invert(0.5)",
    "identity",
)


def cell_of(space: SearchSpace, T: int = 3, seed: int = 0, **options: object) -> Cell:
    generator = torch.Generator().manual_seed(seed)
    cell = Cell(space, T, colours=Colours(), **options).double()
    with torch.no_grad():
        cell.tau.copy_(torch.randn(cell.tau.shape, generator=generator))
    return cell


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def back(text: str, maps: Tensor, T: int, schedule: str) -> Tensor:
    """Maps of frames `(B·T, K, h, w)` unwarped by one chain, as frames again."""
    return clip_to_frames(Image2Video(text, T=T, schedule=schedule, mean=0, std=1).unwarp(maps, SIZE))


def over_paths(cell: Cell, maps: Tensor, mixing: Tensor) -> Tensor:
    """The sum over all paths and all their ops, each unwarped op by op from the last node to the input."""
    space, total = cell.space, torch.zeros_like(maps)
    last = space.num_nodes - 1

    def paths(node: int) -> list[list[int]]:
        if node < space.inputs:
            return [[]]
        return [[e, *rest] for e in space.incoming(node) for rest in paths(space.edges[e][0])]

    for path in paths(last):
        for ops in itertools.product(range(len(space.candidates)), repeat=len(path)):
            frames = maps
            for edge, op in zip(path, ops, strict=True):
                frames = mixing[edge, op] * back(space.labels[op], frames, cell.T, space.schedule)
            total = total + frames
    return total


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("schedule", ["from_zero", "centred", "mirror"])
def test_the_relaxed_inverse_is_the_sum_over_all_paths(schedule: str, inputs: int) -> None:
    space = SearchSpace("s", CANDIDATES, inputs=inputs, nodes=2, schedule=schedule)
    cell = cell_of(space)
    maps = noise(6, 2, 8, 10)
    mixing = cell.mixing()
    total = frames_to_clip(over_paths(cell, maps, mixing), 3).sum(dim=1)
    cover = frames_to_clip(over_paths(cell, torch.ones(3, 1, 8, 10, dtype=torch.float64), mixing), 3).sum(dim=1)
    assert cover.min() > 0.5
    assert torch.allclose(cell.unwarped_mean(maps, SIZE), total / cover, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    schedule=st.sampled_from(SCHEDULES),
    drawn=st.booleans(),
    learned=st.sampled_from([{}, *({"learn_magnitudes": True, "magnitudes_per": per} for per in ("node", "edge"))]),
)
def test_a_path_is_unwarped_op_by_op(seed: int, schedule: str, drawn: bool, learned: dict[str, object]) -> None:
    space = SearchSpace("s", CANDIDATES, nodes=3, schedule=schedule)
    cell, generator = cell_of(space, T=4, seed=seed, **learned), torch.Generator().manual_seed(seed)
    if cell.magnitudes is not None:
        with torch.no_grad():
            cell.magnitudes.copy_(2 * torch.rand(cell.magnitudes.shape, generator=generator) - 1)
    decisions = random_decisions(space, generator)
    maps, ones = noise(8, 2, 9, 13, seed=seed), torch.ones(4, 1, 9, 13, dtype=torch.float64)
    for edge in reversed(decisions.path(space)):
        text = str(cell.chosen_candidate(edge, decisions.ops[edge]))
        maps, ones = back(text, maps, 4, schedule), back(text, ones, 4, schedule)
    cover = ones.sum(dim=0)
    seen = (cover >= 1e-3).expand(2, 2, -1, -1)
    expected = frames_to_clip(maps, 4).sum(dim=1) / cover.clamp_min(1e-3)
    mixing, active = mixing_matrix(cell.tau.detach(), space, decisions), None
    if drawn:
        mixing, active = single_path_mixing(cell.tau, space, 1.0, generator, decisions)
    found = cell.unwarped_mean(noise(8, 2, 9, 13, seed=seed), SIZE, mixing, active=active)
    assert seen.any()
    assert torch.allclose(found[seen], expected[seen], atol=1e-9)
    assert found.isfinite().all()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("options", [*({"padding": padding} for padding in PADDINGS), {"interpolation": "nearest"}])
def test_one_edge_with_one_op_is_the_unwarping_of_the_genotype(schedule: str, options: dict[str, str]) -> None:
    text = "translate_x(0.3) > rotate(20)"
    cell = cell_of(SearchSpace("s", (text,), nodes=1, schedule=schedule), T=4, **options)
    image2video = Image2Video(text, T=4, schedule=schedule, **options)
    for size in [(24, 36), (5, 11), (3, 2)]:
        maps = noise(8, 3, *size)
        assert torch.allclose(cell.unwarped_mean(maps, SIZE), image2video.unwarped_mean(maps, SIZE), atol=1e-12)


@pytest.mark.parametrize("candidates", [("identity",), ("invert(0.5)", "identity", "color(1.3)")])
def test_identity_and_colours_give_the_plain_mean(candidates: tuple[str, ...]) -> None:
    cell = cell_of(SearchSpace("s", candidates, inputs=2, nodes=2), T=4)
    maps = noise(8, 2, 5, 7)
    assert torch.allclose(cell.unwarped_mean(maps, SIZE), frames_to_clip(maps, 4).mean(dim=1), atol=1e-12)
    assert cell_of(SearchSpace("s", candidates), T=1).unwarped_mean(maps, SIZE).equal(maps)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    schedule=st.sampled_from(SCHEDULES),
    reduce=st.sampled_from(["mean", "sum"]),
    count=st.integers(1, 3),
    inputs=st.integers(1, 2),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    masked=st.booleans(),
)
def test_constant_maps_stay_constant_with_finite_gradients(
    seed: int, schedule: str, reduce: str, count: int, inputs: int, size: tuple[int, int], masked: bool
) -> None:
    texts = ("translate_x(0.5)", "rotate(70)", "scale(0.6)", "scale(1.7) > shear_x(30)", "color(1.2)", "identity")
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed)).tolist()
    candidates = tuple(texts[o] for o in order[:count])
    space = SearchSpace("s", candidates, inputs=inputs, nodes=2, reduce=reduce, schedule=schedule)
    cell = cell_of(space, seed=seed)
    maps = torch.full((6, 2, *size), 7.0, dtype=torch.float64, requires_grad=True)
    edge = space.incoming(space.num_nodes - 1)[0]
    mixing = mixing_matrix(cell.tau, space, masked_edge=edge if masked else None)
    mean = cell.unwarped_mean(maps, SIZE, mixing)
    assert torch.allclose(mean, torch.full_like(mean, 7.0), rtol=1e-9)
    for gradient in torch.autograd.grad(mean.square().sum(), [maps, cell.tau]):
        assert gradient.isfinite().all()


def test_gradients_reach_tau_and_the_maps() -> None:
    space = SearchSpace("s", ("rotate(15)", "scale(0.8)", "identity"), nodes=2)
    cell = Cell(space, T=3)
    maps, tau = noise(3, 1, 4, 5).requires_grad_(), noise(3, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, t: cell.unwarped_mean(m, SIZE, mixing_matrix(t, space)), (maps, tau))
    mixing, active = single_path_mixing(tau, space, 1.0, torch.Generator().manual_seed(3))
    gradients = torch.autograd.grad(cell.unwarped_mean(maps, SIZE, mixing, active=active).square().sum(), [maps, tau])
    assert all(gradient.isfinite().all() and gradient.abs().max() > 1e-6 for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maps_are_summed_in_float32(dtype: torch.dtype) -> None:
    cell = Cell(get_space("affine5"), T=3)
    maps = noise(6, 2, 5, 7).to(dtype)
    exact = cell.unwarped_mean(maps.float(), SIZE)
    assert torch.equal(cell.unwarped_mean(maps, SIZE), exact.to(dtype))
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(cell.unwarped_mean(maps.float(), SIZE), exact)


def test_bad_maps_are_refused() -> None:
    cell = Cell(get_space("affine5"), T=3)
    with pytest.raises(InputError, match=r"T = 3 must have B·T rows, got the shape \(4, 2, 6, 9\)"):
        cell.unwarped_mean(torch.zeros(4, 2, 6, 9), SIZE)
    with pytest.raises(InputError, match=r"shape \(B·T, K, h, w\), got \(3, 2, 6\)"):
        cell.unwarped_mean(torch.zeros(3, 2, 6), SIZE)
    with pytest.raises(InputTypeError, match=r"must be floating point to be resampled, got torch.int64"):
        cell.unwarped_mean(torch.zeros(3, 1, 6, 9, dtype=torch.int64), SIZE)
    with pytest.raises(InputError, match=r"image_size must be \(height, width\)"):
        cell.unwarped_mean(torch.zeros(3, 1, 6, 9), (24,))
