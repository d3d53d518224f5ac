"""One candidate per edge: the draw, its gradient, and what is not computed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from search_cases import saved_bytes
from torch import Tensor

from image2video.clip.colours import Colours
from image2video.errors import InputError
from image2video.search import Cell, Decisions, SearchSpace, get_space
from image2video.search.cell.cell import CellTrace
from image2video.search.cell.mixing import mixing_matrix, single_path_mixing

SIZE = (14, 18)
SPACES = {
    "affine5": get_space("affine5"),
    "autoaugment13": get_space("autoaugment13"),
    "ramp, no identity": SearchSpace("r", ("rotate(9)", "translate_x(0.1)", "scale(1.1)"), nodes=2, schedule="ramp"),
    "sum": SearchSpace("s", ("rotate(9) > color(1.2)", "identity"), inputs=2, nodes=2, reduce="sum"),
}


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)).to(dtype)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_tau(space: SearchSpace, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(len(space.edges), len(space.candidates), generator=seeded(seed)).to(dtype).requires_grad_()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.05, 0.5, 1.0, 10.0]),
    name=st.sampled_from(sorted(SPACES)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_rows_are_one_hot_to_the_last_bit(seed: int, temperature: float, name: str, dtype: torch.dtype) -> None:
    space = SPACES[name]
    tau = random_tau(space, seed, dtype)
    mixing, active = single_path_mixing(tau, space, temperature, seeded(seed))
    assert mixing.dtype == dtype
    decided = mixing_matrix(tau.detach(), space, Decisions(dict(enumerate(active))))
    assert torch.equal(mixing.detach(), decided)
    assert len(active) == len(space.edges)


def test_the_draw_has_the_probabilities_of_tau() -> None:
    space = SearchSpace("s", ("rotate(9)", "translate_x(0.1)", "identity"), nodes=1)
    tau = torch.tensor([[0.3, -1.0, 1.2]])
    generator = seeded(0)
    counts = torch.zeros(3)
    for _ in range(3000):
        counts[single_path_mixing(tau, space, 0.1, generator)[1][0]] += 1
    expected = 3000 * torch.softmax(tau[0], 0)
    assert ((counts - expected).square() / expected).sum() < 13.8  # χ² with 2 degrees of freedom, p = 0.001


def test_the_draw_depends_on_the_generator_and_tau_alone() -> None:
    space = get_space("affine5")
    tau = random_tau(space, 0)
    one, two = seeded(7), seeded(7)
    decisions = Decisions({3: 2}, {2: 1})
    first = single_path_mixing(tau, space, 1.0, one)
    other = single_path_mixing(tau, space, 5.0, two, decisions)
    assert [a for e, a in enumerate(first[1]) if e not in (2, 3)] == [
        a for e, a in enumerate(other[1]) if e not in (2, 3)
    ]
    assert torch.equal(one.get_state(), two.get_state())
    assert single_path_mixing(tau, space, 1.0, one)[1] != first[1]


def test_the_gradient_of_tau_is_that_of_the_drawn_weight() -> None:
    """By hand, in float64: dL/dτ_k = share · ⟨dL/dclip, op_a(source)⟩ · p_a (δ_ak − p_k) / temperature."""
    space, temperature = SPACES["ramp, no identity"], 0.7
    cell = Cell(space, T=3).double()
    tau = random_tau(space, 5, torch.float64)
    mixing, active = single_path_mixing(tau, space, temperature, seeded(11))
    x = images(torch.float64)
    weight = torch.rand(2, 3, 3, *SIZE, generator=seeded(2), dtype=torch.float64)
    (got,) = torch.autograd.grad((cell(x, mixing, active=active) * weight).sum(), tau)

    uniform = torch.rand(tau.shape, dtype=torch.float64, generator=seeded(11))
    score = torch.log_softmax(tau.detach(), 1) - torch.log(-torch.log(uniform))
    assert score.argmax(1).tolist() == list(active)
    soft = torch.softmax(score / temperature, 1)
    plain = mixing.detach().clone().requires_grad_()
    (sensitivity,) = torch.autograd.grad((cell(x, plain) * weight).sum(), plain)
    shares = torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64)
    wanted = torch.zeros_like(soft)
    for edge, a in enumerate(active):
        for k in range(3):
            slope = soft[edge, a] * (int(a == k) - soft[edge, k]) / temperature
            wanted[edge, k] = shares[edge] * sensitivity[edge, a] * slope
    assert torch.allclose(got, wanted, atol=1e-12)
    assert (wanted.abs() > 1e-9).all()


@pytest.mark.parametrize("learn", [False, "node", "edge"])
@pytest.mark.parametrize("name", SPACES)
def test_the_active_candidates_alone_give_the_clip_of_the_matrix(name: str, learn: bool | str) -> None:
    space = SPACES[name]
    cell = Cell(space, T=3, colours=Colours(), learn_magnitudes=bool(learn), magnitudes_per=learn or "node").double()
    if cell.magnitudes is not None:
        with torch.no_grad():
            cell.magnitudes.mul_(torch.rand(cell.magnitudes.shape, generator=seeded(4), dtype=torch.float64) + 0.5)
    for seed in range(4):
        mixing, active = single_path_mixing(random_tau(space, seed, torch.float64), space, 1.0, seeded(seed))
        x = images(torch.float64).requires_grad_()
        clips = [cell(x, mixing, active=active), cell(x, mixing)]
        assert torch.allclose(clips[0], clips[1], atol=1e-12)
        weight = torch.rand(clips[0].shape, generator=seeded(1), dtype=torch.float64)
        wanted = [p for p in (x, cell.magnitudes) if p is not None]
        gradients = [torch.autograd.grad((clip * weight).sum(), wanted, allow_unused=True) for clip in clips]
        for one, other in zip(*gradients, strict=True):
            other = torch.zeros(()) if other is None else other
            assert torch.allclose(torch.zeros_like(other) if one is None else one, other, atol=1e-9)
        if space.reduce == "mean" and space.schedule == "from_zero":
            assert torch.equal(clips[0][:, 0], x)


def test_decided_edges_stay_and_ignored_ones_are_left_out(resampled_rows: list[int]) -> None:
    space = get_space("affine5")
    edges = {edge: index for index, edge in enumerate(space.edges)}
    decisions = Decisions({edges[0, 4]: 3}, {4: edges[0, 4], 3: edges[1, 3]})
    tau = random_tau(space, 0)
    cell = Cell(space, T=3)
    for seed in range(5):
        mixing, active = single_path_mixing(tau, space, 1.0, seeded(seed), decisions)
        assert active[edges[0, 4]] == 3
        ignored = [edges[1, 4], edges[2, 4], edges[3, 4], edges[0, 3], edges[2, 3]]
        assert {active[e] for e in ignored} == {-1}
        assert mixing[ignored].abs().max() == 0
        assert mixing[edges[0, 4]].tolist() == [0, 0, 0, 1, 0]
        (gradient,) = torch.autograd.grad(mixing.square().sum(), tau)
        assert gradient[[*ignored, edges[0, 4]]].abs().max() == 0
        assert gradient[edges[0, 1]].abs().max() > 0
        clip = cell(images(), mixing, active=active)
        assert torch.allclose(clip, cell(images(), mixing.detach()), atol=1e-6)
    everything = Decisions(dict.fromkeys(range(10), 0), {4: edges[0, 4], 3: edges[0, 3], 2: edges[0, 2]})
    mixing, active = single_path_mixing(tau, space, 1.0, seeded(0), everything)
    resampled_rows.clear()
    cell(images(), mixing, active=active)
    assert resampled_rows == [2]  # one op of the image, in two frames


@pytest.mark.parametrize("name", ["affine5", "autoaugment13"])
def test_memory_is_that_of_single_paths(name: str) -> None:
    space = get_space(name)
    cell = Cell(space, T=5, colours=Colours())
    x = torch.rand(2, 3, 32, 32)
    mixture = saved_bytes(lambda: cell(x))
    single = []
    for seed in range(5):
        mixing, active = single_path_mixing(cell.tau, space, 1.0, seeded(seed))
        single.append(saved_bytes(lambda m=mixing, a=active: cell(x, m, active=a)))
    assert sum(single) / 5 < 0.75 * mixture
    nodes = range(space.inputs, space.num_nodes)
    path = Decisions(dict.fromkeys(range(len(space.edges)), 0), {n: space.incoming(n)[-1] for n in nodes})
    mixing, active = single_path_mixing(cell.tau, space, 1.0, seeded(0), path)
    assert saved_bytes(lambda: cell(x, mixing, active=active)) < 0.4 * mixture


def test_what_does_not_belong_together_is_refused() -> None:
    space = get_space("affine5")
    cell = Cell(space, T=3)
    mixing, active = single_path_mixing(cell.tau, space, 1.0, seeded(0))
    with pytest.raises(InputError, match="active needs its mixing matrix"):
        cell(images(), active=active)
    with pytest.raises(InputError, match="got a trace"):
        cell(images(), mixing, active=active, trace=CellTrace(2))
    for bad in (active[:-1], (*active[:-1], 5), (*active[:-1], -2)):
        with pytest.raises(InputError, match=r"name one of 5 candidates \(or -1\) for each of 10 edges"):
            cell(images(), mixing, active=bad)
    for temperature in (0, -1.0, math.inf, math.nan, "1"):
        with pytest.raises(InputError, match="temperature must be a finite number above 0"):
            single_path_mixing(cell.tau, space, temperature, seeded(0))
