"""Learned magnitudes: a planted step is found, bounds hold, and what the cell shares stays right."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

from image2video import Genotype, Image2Video
from image2video.clip.colours import Colours
from image2video.errors import InputError
from image2video.search import Cell, Decisions, SearchSpace, get_space, random_decisions
from image2video.search.cell.cell import CellTrace
from image2video.search.cell.mixed_frames import Mix
from image2video.search.cell.mixing import mixing_matrix

SIZE = (18, 26)
MIXED = SearchSpace("mixed", ("rotate(10) > color(1.3) > scale(1.1)", "translate_x(0.1)", "identity"), nodes=2)


def images(count: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(0)).to(dtype)


def learning(space: SearchSpace, T: int = 3, **options: object) -> Cell:
    return Cell(
        space, T, generator=torch.Generator().manual_seed(1), colours=Colours(), learn_magnitudes=True, **options
    )


def move(cell: Cell, values: float | Tensor) -> Cell:
    with torch.no_grad():
        cell.magnitudes.copy_(torch.as_tensor(values).to(cell.magnitudes))
    return cell


def soft_shapes(count: int, seed: int) -> Tensor:
    """Smooth blobs off the centre, on 24×32 pixels: their place, their turn and their size all show."""
    generator = torch.Generator().manual_seed(seed)
    ys, xs = torch.meshgrid(torch.arange(24) - 11.5, torch.arange(32) - 15.5, indexing="ij")
    picture = torch.zeros(count, 1, 24, 32)
    for _ in range(3):
        cy, cx = (torch.rand(2, count, 1, 1, generator=generator) - 0.5) * torch.tensor([12, 16]).view(2, 1, 1, 1)
        height = 0.5 + torch.rand(count, 1, 1, generator=generator)
        picture[:, 0] += height * torch.exp(-((ys - cy) ** 2 + (xs - cx) ** 2) / 18)
    return picture


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
@pytest.mark.parametrize(
    ("candidates", "planted"),
    [
        (("rotate(10)",), "rotate(14)"),
        (("rotate(10)", "identity"), "rotate(14)"),
        (("translate_x(0.06)",), "translate_x(-0.04)"),  # it has to change its sign
        (("translate_y(0.04)", "identity"), "translate_y(0.06)"),
        (("scale(1.1)",), "scale(1.16)"),
    ],
)
def test_a_planted_step_is_found(candidates: tuple[str, ...], planted: str, seed: int) -> None:
    """A fixed network whose loss is least where every frame has moved by the planted step."""
    cell = learning(SearchSpace("planted", candidates, nodes=1))
    wanted = Image2Video(planted, T=3)
    optimizer = torch.optim.Adam(cell.outer_parameters(), lr=0.05, betas=(0.5, 0.999))
    for step in range(100):
        x = soft_shapes(3, seed=1000 * seed + step)
        loss = (cell(x) - wanted(x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cell.clamp_magnitudes_()
    found = cell.chosen_candidate(0, 0).chain[0]
    target = Genotype.parse(planted).chain[0]
    neutral = 1.0 if found.op == "scale" else 0.0
    assert found.magnitude - neutral == pytest.approx(target.magnitude - neutral, rel=0.1)
    assert cell.mixing().argmax(dim=1).tolist() == [0]


@pytest.mark.parametrize(("per", "padding"), [("node", "zeros"), ("edge", "border")])
def test_the_clip_is_differentiable_in_the_magnitudes(per: str, padding: str) -> None:
    space = SearchSpace("s", ("rotate(8) > translate_y(0.1)", "scale(1.2)", "identity"), nodes=2)
    cell = learning(space, magnitudes_per=per, padding=padding).double()
    x = torch.rand(1, 1, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start = 1 + 0.1 * torch.randn(cell.magnitudes.shape, dtype=torch.float64)

    def clip(values: Tensor, tau: Tensor) -> Tensor:
        return functional_call(cell, {"magnitudes": values, "tau": tau}, (x,))

    assert torch.autograd.gradcheck(clip, (start.requires_grad_(), cell.tau))


def way_there(cell: Cell, values: Tensor) -> Tensor:
    x = 0.3 + 0.4 * torch.rand(1, 1, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return functional_call(cell, {"magnitudes": values}, (x,))


def way_back(cell: Cell, values: Tensor) -> Tensor:
    maps = torch.rand(3, 1, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return cell._unwarp.mean(maps, (20, 24), (Mix(cell.mixing(), True, None, values.unbind(0)),))


@pytest.mark.parametrize("way", [way_there, way_back])
def test_chains_of_both_kinds_are_differentiable_too(way: Callable[[Cell, Tensor], Tensor]) -> None:
    cell = learning(MIXED).double()
    start = torch.full((2, 3), 1.05, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: way(cell, values), (start,))


@pytest.mark.parametrize("per", ["node", "edge"])
@pytest.mark.parametrize("space", [get_space("affine5"), get_space("autoaugment13"), MIXED], ids=lambda s: s.name)
def test_the_start_is_the_space_itself(space: SearchSpace, per: str) -> None:
    fixed = Cell(space, T=3, generator=torch.Generator().manual_seed(1), colours=Colours()).double()
    cell = learning(space, magnitudes_per=per).double()
    x = images(dtype=torch.float64)
    assert torch.allclose(cell(x), fixed(x), atol=1e-9)
    maps = torch.rand(6, 2, 5, 7, dtype=torch.float64)
    assert torch.allclose(cell.unwarped_mean(maps, SIZE), fixed.unwarped_mean(maps, SIZE), atol=1e-9)
    for op, candidate in enumerate(space.candidates):
        assert cell.chosen_candidate(0, op) == candidate == fixed.chosen_candidate(0, op)
    assert fixed.magnitudes is None
    assert fixed.candidate_magnitudes() is None
    assert len(fixed.outer_parameters()) == 1
    assert len(cell.outer_parameters()) == 2
    fixed.clamp_magnitudes_()  # nothing to do


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), per=st.sampled_from(["node", "edge"]))
def test_a_path_is_the_genotype_with_its_learned_values(seed: int, per: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    space = SearchSpace("s", ("rotate(6)", "scale(1.1) > translate_x(0.05)", "identity"), nodes=3)
    cell = learning(space, T=3, magnitudes_per=per).double()
    move(cell, 3 * torch.rand(cell.magnitudes.shape, generator=generator) - 1.5)
    decisions = random_decisions(space, generator)
    genotype = decisions.genotype(space, cell)
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 60), indexing="ij")
    x = torch.exp(-12 * (xs - 0.1) ** 2 - 12 * (ys + 0.2) ** 2)[None, None].double()
    clip = cell(x, mixing_matrix(cell.tau.detach(), space, decisions))
    # A smooth picture: resampling once per edge differs little from once in all.
    assert torch.allclose(clip, Image2Video(genotype, T=3)(x), atol=0.08)
    assert torch.equal(clip[:, 0], x)


def test_the_genotype_holds_the_exact_values() -> None:
    space = get_space("affine5")
    cell = move(learning(space), torch.linspace(-1, 1.5, 16).view(4, 4))
    decisions = Decisions(dict.fromkeys(range(10), 3), {4: space.edges.index((2, 4)), 2: space.edges.index((0, 2))})
    first, second = decisions.genotype(space, cell).chain
    assert first.magnitude == 10 * cell.magnitudes[0, 3].item()  # the input is row 0, node 2 row 2
    assert second.magnitude == 10 * cell.magnitudes[2, 3].item()
    assert str(decisions.genotype(space)) == "rotate(10) > rotate(10)"
    values = cell.candidate_magnitudes()
    assert values[2][3] == [second.magnitude]
    assert values[2][4] == []
    assert values[0][2][0] == pytest.approx(1 + 0.1 * cell.magnitudes[0, 2].item())
    per_edge = learning(space, magnitudes_per="edge")
    assert per_edge.magnitudes.shape == (10, 4)
    moved = move(per_edge, torch.arange(40.0).view(10, 4) / 40)
    assert moved.chosen_candidate(7, 3).chain[0].magnitude == pytest.approx(10 * 31 / 40)


def test_rows_belong_to_sources_and_inputs_share_one() -> None:
    space = SearchSpace("s", ("rotate(6)", "identity"), inputs=2, nodes=2)
    cell = learning(space)
    assert cell.magnitudes.shape == (2, 1)
    (gradient,) = torch.autograd.grad(cell(images()).square().sum(), cell.magnitudes)
    assert (gradient.abs() > 1e-3).all()
    for row in range(2):
        values = torch.ones(2, 1)
        values[row] = 2
        assert not torch.allclose(move(learning(space), values)(images()), cell(images()), atol=1e-3)


@pytest.mark.parametrize("text", ["rotate(10)", "translate_x(0.06)", "scale(1.1)", "shear_y(5)"])
def test_a_step_of_nothing_can_still_be_learned(text: str) -> None:
    cell = move(learning(SearchSpace("s", (text, "identity"), nodes=1)), 0.0)
    clip = cell(images())
    assert torch.allclose(clip[:, 2], images(), atol=1e-5)
    weight = torch.rand(clip.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((clip * weight).sum(), cell.magnitudes)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 1e-3
    assert cell.chosen_candidate(0, 0) == Genotype.identity()


@pytest.mark.parametrize("end", [-1e6, 1e6])
@pytest.mark.parametrize(
    ("text", "bound", "low", "high"),
    [
        ("rotate(10)", 3.0, -30, 30),
        ("rotate(-100)", 3.0, -180, 180),
        ("shear_x(40)", 3.0, -80, 80),
        ("scale(1.1)", 3.0, 0.7, 1.3),
        ("scale(2)", 2.0, 0.25, 3.0),
        ("translate_x(0.9)", 1.0, -0.9, 0.9),
        ("rotate(180)", 1.0, -180, 180),
    ],
)
def test_bounds_hold(text: str, bound: float, low: float, high: float, end: float) -> None:
    cell = learning(SearchSpace("s", (text,), nodes=1), magnitude_bound=bound)
    sign = -1 if text == "rotate(-100)" else 1
    move(cell, end * sign).clamp_magnitudes_()
    magnitude = cell.chosen_candidate(0, 0).chain[0].magnitude  # a Transform refuses what is out of range
    assert magnitude == pytest.approx(low if end < 0 else high, rel=1e-4)
    assert low - 1e-6 <= magnitude <= high + 1e-6
    assert cell(images()).isfinite().all()


def test_what_lies_within_the_bounds_is_left_alone() -> None:
    values = torch.linspace(-2.9, 2.9, 16).view(4, 4)
    cell = move(learning(get_space("affine5")), values)
    cell.clamp_magnitudes_()
    assert torch.equal(cell.magnitudes, values)


@pytest.mark.parametrize(("per", "calls"), [("node", 4), ("edge", 10)])
def test_sources_are_warped_once_or_once_per_edge(per: str, calls: int, resampled_rows: list[int]) -> None:
    learning(get_space("affine5"), magnitudes_per=per)(images())
    assert resampled_rows == [4 * 2] * calls


@pytest.mark.parametrize("per", ["node", "edge"])
@pytest.mark.parametrize("first", [1, 3, 4])
def test_passes_that_share_a_trace_give_the_same_clips(first: int, per: str) -> None:
    space = get_space("affine5")
    cell = learning(space, magnitudes_per=per)
    move(cell, 0.5 + torch.rand(cell.magnitudes.shape, generator=torch.Generator().manual_seed(0)))
    edge = space.incoming(first)[0]
    mixings = [mixing_matrix(cell.tau.detach(), space, masked_op=(edge, op)) for op in range(5)]
    trace = CellTrace(first)
    with torch.no_grad():
        for mixing in mixings:
            assert torch.allclose(cell(images(), mixing, trace=trace), cell(images(), mixing), atol=1e-6)
        other = move(copy.deepcopy(cell), 1.4)
        assert not torch.allclose(other(images(), mixings[0]), cell(images(), mixings[0]), atol=1e-3)


def test_nothing_stale_is_kept() -> None:
    cell = learning(get_space("affine5"))
    with torch.inference_mode():
        before = cell(images()).clone()
        cell.unwarped_mean(torch.rand(6, 1, 5, 7), SIZE)
    cell(images()).square().sum().backward()
    assert cell.magnitudes.grad is not None
    move(cell, 2.0)
    after = cell(images())
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.equal(after, move(learning(get_space("affine5")), 2.0)(images()))


def test_what_cannot_be_learned_is_refused() -> None:
    colours = SearchSpace("colours", ("color(1.2)", "identity"))
    with pytest.raises(InputError, match=r"'colours' has no geometric transform .*color\(1.2\), identity"):
        learning(colours)
    with pytest.raises(InputError, match="an interpolation with a gradient, got 'nearest'"):
        learning(get_space("affine5"), interpolation="nearest")
    with pytest.raises(InputError, match="unknown sharing of magnitudes 'cell'; choose one of node, edge"):
        learning(get_space("affine5"), magnitudes_per="cell")
    for bound in (0.5, math.inf, math.nan, "3"):
        with pytest.raises(InputError, match=r"magnitude_bound must be a finite number of at least 1"):
            learning(get_space("affine5"), magnitude_bound=bound)
    with pytest.raises(InputError, match=r"magnitude_bound=3 is too wide for 'scale\(2\)'.*singular: at step 20"):
        learning(SearchSpace("s", ("scale(2)",), nodes=1), T=32)
