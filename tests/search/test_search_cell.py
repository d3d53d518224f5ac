"""The cell: its gradients, its cost, and its agreement with the genotype read from it."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from image2video import Genotype, Image2Video
from image2video.clip.colours import Colours
from image2video.errors import InputError, InputTypeError
from image2video.search import Cell, Decisions, SearchSpace, get_space, random_decisions
from image2video.search.cell.cell import CellTrace
from image2video.search.cell.mixing import mixing_matrix

SIZE = (18, 26)


def images(count: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed)).to(dtype)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), schedule=st.sampled_from(["from_zero", "ramp", "centred", "mirror"]))
def test_a_path_has_the_matrices_of_its_genotype(seed: int, schedule: str) -> None:
    space = SearchSpace("s", (*get_space("affine5").candidates, Genotype.parse("shear_y(-8)")), schedule=schedule)
    cell = Cell(space, T=4)
    decisions = random_decisions(space, torch.Generator().manual_seed(seed))
    matrices = cell.matrices(40, 90)
    chain = torch.eye(3, dtype=torch.float64).expand(4, 3, 3)
    for edge in decisions.path(space):
        chain = matrices[decisions.ops[edge]] @ chain
    assert torch.allclose(chain, decisions.genotype(space).matrices(schedule, 4, 40, 90), atol=1e-9)


@pytest.mark.parametrize("candidate", range(5))
@pytest.mark.parametrize("edges", [[(0, 4)], [(0, 1), (1, 4)], [(0, 2), (2, 3), (3, 4)]])
def test_a_decided_cell_makes_the_clip_of_its_genotype(candidate: int, edges: list[tuple[int, int]]) -> None:
    """One op on the path, anywhere: the same pixels, since both resample once."""
    space = get_space("affine5")
    index = {edge: e for e, edge in enumerate(space.edges)}
    for at in range(len(edges)):
        ops = dict.fromkeys(range(10), (candidate + 1) % 5)
        ops |= {index[edge]: 4 for edge in edges}
        ops[index[edges[at]]] = candidate
        sources = {node: space.incoming(node)[0] for node in range(1, 5)}
        sources |= {edge[1]: index[edge] for edge in edges}
        decisions = Decisions(ops, sources)
        cell = Cell(space, T=5, generator=torch.Generator().manual_seed(0))
        clip = cell(images(), mixing_matrix(cell.tau.detach(), space, decisions))
        expected = Image2Video(decisions.genotype(space), T=5)(images())
        assert torch.allclose(clip, expected, atol=1e-5)
        assert torch.equal(clip[:, 0], images())


def test_longer_paths_differ_from_the_genotype_by_resampling_alone() -> None:
    """Whole-pixel shifts resample without loss, so two in a row are exact again."""
    space = SearchSpace("s", (f"translate_x({2 / 26})", f"translate_y({-1 / 18})"), nodes=2)
    decisions = Decisions({0: 0, 1: 0, 2: 1}, {1: 0, 2: 2})
    cell = Cell(space, T=3)
    clip = cell(images(), mixing_matrix(cell.tau.detach(), space, decisions))
    assert torch.allclose(clip, Image2Video(decisions.genotype(space), T=3)(images()), atol=1e-4)


def test_every_source_is_warped_once_by_every_op(resampled_rows: list[int]) -> None:
    Cell(get_space("affine5"), T=5)(images()).sum().backward()
    assert resampled_rows == [4 * 4] * 4  # 4 sources; 4 ops that move × 4 frames with s > 0


def test_equal_powers_are_warped_once(resampled_rows: list[int]) -> None:
    Cell(SearchSpace("s", ("rotate(5)", "identity"), nodes=1, schedule="mirror"), T=5)(images())
    assert resampled_rows == [2]


def test_what_has_no_weight_is_not_warped(resampled_rows: list[int]) -> None:
    space = get_space("affine5")
    cell = Cell(space, T=5)
    edges = {edge: index for index, edge in enumerate(space.edges)}
    decisions = Decisions(dict.fromkeys(range(10), 0), {2: edges[0, 2], 3: edges[0, 3], 4: edges[0, 4]})
    cell(images(), mixing_matrix(cell.tau.detach(), space, decisions))
    assert resampled_rows == [4]


@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_passes_that_share_a_trace_give_the_same_clips(first: int, resampled_rows: list[int]) -> None:
    space = get_space("affine5")
    cell = Cell(space, T=4, generator=torch.Generator().manual_seed(0))
    edge = space.incoming(first)[0]
    mixings = [mixing_matrix(cell.tau.detach(), space, masked_op=(edge, op)) for op in range(5)]
    alone = [cell(images(), mixing) for mixing in mixings]
    resampled_rows.clear()
    trace = CellTrace(first)
    shared = [cell(images(), mixing, trace=trace) for mixing in mixings]
    for a, b in zip(alone, shared, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert len(resampled_rows) == 4 + 4 * (4 - first)
    assert not torch.allclose(shared[0], shared[3], atol=1e-4)


def test_masking_leaves_the_other_weights_as_they_are() -> None:
    space = get_space("affine5")
    tau = torch.randn(10, 5, generator=torch.Generator().manual_seed(0))
    full = mixing_matrix(tau, space)
    assert torch.allclose(
        full, torch.softmax(tau, 1) / torch.tensor([len(space.incoming(j)) for _, j in space.edges])[:, None]
    )
    masked = mixing_matrix(tau, space, masked_op=(4, 2))
    assert masked[4, 2] == 0
    masked[4, 2] = full[4, 2]
    assert torch.equal(masked, full)
    scaled = mixing_matrix(tau, space, masked_op=(4, 2), renormalise=True)
    assert scaled[4, 2] == 0
    assert torch.allclose(scaled.sum(1), full.sum(1))
    dropped = mixing_matrix(tau, space, masked_edge=4)
    assert dropped[4].abs().max() == 0
    dropped[4] = full[4]
    assert torch.equal(dropped, full)
    rest = mixing_matrix(tau, space, masked_edge=4, renormalise=True)
    assert rest[[3, 5]].sum() == pytest.approx(1)


def test_decisions_are_certain_and_their_nodes_keep_one_edge() -> None:
    space = get_space("affine5")
    tau = torch.randn(10, 5, generator=torch.Generator().manual_seed(0))
    mixing = mixing_matrix(tau, space, Decisions({4: 1}, {2: 2}))
    assert torch.equal(mixing[4] * 3, torch.tensor([0.0, 1, 0, 0, 0]))
    assert mixing[1].abs().max() == 0
    assert torch.allclose(mixing[2], torch.softmax(tau[2], 0))
    only = mixing_matrix(tau, space, Decisions({4: 1}), masked_op=(4, 1), renormalise=True)
    assert only[4].abs().max() == 0
    assert only.isfinite().all()


def test_a_sum_multiplies_the_amplitude_by_its_edges() -> None:
    summed = Cell(SearchSpace("s", ("rotate(5)", "identity"), reduce="sum"), T=3, padding="border")
    assert torch.allclose(summed(torch.ones(1, 3, *SIZE)), torch.full((1, 3, 3, *SIZE), 8.0), atol=1e-4)


CHOICES = ("translate_x(0.2)", "rotate(-25)", "scale(0.8)", "scale(1.3) > shear_y(12)", "translate_y(-0.3)", "identity")


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    chosen=st.sets(st.sampled_from(CHOICES), min_size=1, max_size=4),
    inputs=st.integers(1, 3),
    nodes=st.integers(1, 3),
    schedule=st.sampled_from(["from_zero", "ramp", "centred", "mirror"]),
)
def test_constant_images_stay_constant_where_they_are_seen(
    seed: int, chosen: set[str], inputs: int, nodes: int, schedule: str
) -> None:
    space = SearchSpace("any", tuple(sorted(chosen)), inputs=inputs, nodes=nodes, schedule=schedule)
    tau = 3 * torch.randn(len(space.edges), len(space.candidates), generator=torch.Generator().manual_seed(seed))
    mixing = mixing_matrix(tau, space)
    full = torch.full((1, 1, *SIZE), 3.0)
    assert torch.allclose(Cell(space, T=3, padding="border")(full, mixing), torch.tensor(3.0), atol=1e-4)
    # With zeros outside, a pixel holds the image's share of it: at most the whole, and no less than nothing.
    share = Cell(space, T=3)(torch.ones(1, 1, *SIZE), mixing)
    assert share.min() >= -1e-6
    assert share.max() <= 1 + 1e-5
    assert torch.allclose(Cell(space, T=3)(full, mixing), 3 * share, atol=1e-4)
    # The first frame of the first node still shows the centre, and the nodes are averaged.
    assert share[0, :, 0, SIZE[0] // 2, SIZE[1] // 2].max() >= 1 / nodes - 1e-5


def test_a_cell_used_for_inference_can_still_be_trained() -> None:
    cell = Cell(get_space("affine5"), T=3)
    with torch.inference_mode():
        cell(images())
    cell(images()).square().sum().backward()
    assert cell.tau.grad is not None


KINDS = {
    "geometric": {},
    "colours": {"space": get_space("autoaugment13"), "colours": Colours()},
    "learned": {"learn_magnitudes": True},
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def cell_of(kind: str) -> Cell:
    options = {"space": get_space("affine5"), **KINDS[kind]}
    return Cell(T=3, generator=torch.Generator().manual_seed(0), **options)


@each_kind
def test_parameters_alone_are_state_and_copies_work(kind: str) -> None:
    cell = cell_of(kind)
    assert list(cell.state_dict()) == (["tau", "magnitudes"] if kind == "learned" else ["tau"])
    assert torch.equal(cell.tau, cell_of(kind).tau)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(1.3)
    loaded = cell_of(kind)
    loaded.load_state_dict(cell.state_dict())
    for twin in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell)), loaded):
        assert torch.equal(twin(images()), cell(images()))


@each_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_and_autocast_are_computed_in_float32(dtype: torch.dtype, kind: str) -> None:
    cell = cell_of(kind)
    x = images().to(dtype)
    exact = cell(x.float())
    assert torch.equal(cell(x), exact.to(dtype))
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(cell(x.float()), exact)


def test_sizes_may_change_between_calls() -> None:
    cell = Cell(get_space("affine5"), T=3)
    for size in [(8, 9), (10, 6), (8, 9)]:
        x = torch.rand(2, 1, *size)
        fresh = Cell(get_space("affine5"), T=3)
        assert torch.equal(cell(x), fresh(x))


def test_bad_input_is_refused() -> None:
    cell = Cell(get_space("affine5"), T=3)
    with pytest.raises(InputTypeError, match=r"float images, got torch\.uint8"):
        cell(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"got shape \(3, 8, 8\)"):
        cell(torch.zeros(3, 8, 8))
    with pytest.raises(InputError, match="at least 1"):
        Cell(get_space("affine5"), T=0)
    with pytest.raises(InputError, match="unknown padding 'circular'"):
        Cell(get_space("affine5"), padding="circular")
    with pytest.raises(InputError, match="unknown interpolation 'cubic'"):
        Cell(get_space("affine5"), interpolation="cubic")
    with pytest.raises(InputError, match=r"\(edges, candidates\) = \(10, 5\), got \(14, 5\)"):
        cell(images(), torch.zeros(14, 5))
    with pytest.raises(InputError, match=r"\(edges, candidates\) = \(10, 5\), got \(3, 5\)"):
        cell.unwarped_mean(torch.zeros(6, 1, 4, 4), SIZE, torch.zeros(3, 5))


def test_a_path_whose_genotype_would_be_singular_is_refused_before_the_search() -> None:
    space = SearchSpace("zooms", ("scale(2)", "identity"), nodes=4)
    Cell(space, T=10)
    Genotype.parse("scale(2)").check_steps((11.0,))  # one op alone could be inverted
    with pytest.raises(InputError, match=r"'scale\(2\) > scale\(2\) > .* is singular: at step 10"):
        Cell(space, T=12)
