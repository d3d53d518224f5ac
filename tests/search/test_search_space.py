"""Search spaces, the cell's graph, and random genotypes."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from image2video import Genotype
from image2video.errors import InputError, InputTypeError, StateError
from image2video.search import (
    Decisions,
    SearchConfig,
    SearchSpace,
    get_space,
    random_decisions,
    random_genotype,
    random_share,
    register_space,
    space_names,
)


def test_affine5_is_the_second_space_of_the_paper() -> None:
    space = get_space("affine5")
    assert space.labels == ("translate_x(0.06)", "translate_y(0.06)", "scale(1.1)", "rotate(10)", "identity")
    assert len(space.edges) == 10
    assert space.size == 5**10
    assert space.edges[:3] == ((0, 1), (0, 2), (1, 2))


def test_autoaugment13_is_the_first_space_of_the_paper() -> None:
    space = get_space("autoaugment13")
    assert len(space.candidates) == 13
    assert space.inputs == 2
    assert len(space.edges) == 14
    assert space.size == 13**14
    assert space.incoming(2) == (0, 1)
    assert space.outgoing(5) == ()
    assert sum(candidate.is_geometric for candidate in space.candidates) == 4  # three that move, and identity
    assert [len(candidate.chain) for candidate in space.candidates] == [2, 2, *[1] * 10, 0]


def test_sizes_are_computed_and_shown() -> None:
    assert get_space("affine5").size_text == "5^10 = 9 765 625"
    assert get_space("autoaugment13").size_text == "13^14 = 3 937 376 385 699 289"
    wide = SearchSpace("wide", tuple(f"rotate({degrees})" for degrees in range(1, 101)), nodes=60)
    assert wide.size_text == "100^1830 ≈ 1.0e3660"
    described = get_space("affine5").describe()
    assert (described["candidates"], described["edges"], described["size"]) == (5, 10, 5**10)


def test_the_gentle_space_has_small_steps_of_either_sign() -> None:
    space = get_space("gentle")
    assert {"identity", "translate_x(0.01)", "translate_x(-0.06)", "rotate(-1)", "scale(1.02)"} < set(space.labels)
    assert len({t.magnitude for c in space.candidates for t in c.chain if t.op == "rotate"}) > 2
    assert SearchConfig(selection="one_shot").space_name == "gentle"
    assert SearchConfig(selection="one_shot", space="affine5").space_name == "affine5"


@pytest.mark.parametrize(("record", "missing"), [({"candidates": ["identity"]}, "name"), ({"name": "s"}, "candidates")])
def test_the_record_of_a_space_is_whole(record: dict[str, object], missing: str) -> None:
    with pytest.raises(InputError, match=f"needs the key '{missing}'"):
        SearchSpace.from_dict(record)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"candidates": ()}, InputError, "no candidates"),
        ({"candidates": ("identity", "translate_x(0)")}, InputError, "lists identity more than once"),
        ({"candidates": "rotate(3)"}, InputTypeError, "tuple of genotypes"),
        ({"candidates": ("rotate(3)",), "nodes": 0}, InputError, "nodes must be"),
        (
            {"candidates": tuple(f"rotate({i / 10})" for i in range(1, 1002))},
            InputError,
            "too many candidates; the most is 1000",
        ),
        ({"candidates": ("rotate(3)",), "inputs": True}, InputError, "inputs must be"),
    ],
)
def test_a_bad_space_is_refused(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SearchSpace("s", **arguments)


def test_the_registry_knows_names_and_keeps_them_apart() -> None:
    space = register_space(SearchSpace("only_here", ("rotate(3)", "identity"), nodes=1))
    assert register_space(space) is space
    assert "only_here" in space_names()
    with pytest.raises(InputError, match="different search space is registered as 'only_here'"):
        register_space(SearchSpace("only_here", ("rotate(4)", "identity"), nodes=1))
    with pytest.raises(InputError, match=r"unknown search space 'nope'; known spaces: .*affine5"):
        get_space("nope")


def test_random_genotypes_depend_on_the_generator_alone() -> None:
    space = get_space("affine5")
    texts = [str(random_genotype(space, torch.Generator().manual_seed(seed))) for seed in range(30)]
    assert texts == [str(random_genotype(space, torch.Generator().manual_seed(seed))) for seed in range(30)]
    assert len(set(texts)) > 15
    assert max(len(Genotype.parse(text).chain) for text in texts) <= 4


def enumerated_share(space: SearchSpace, op: str) -> float:
    """Over every candidate on every edge and every incoming edge of every node."""
    nodes = range(space.inputs, space.num_nodes)
    count = hits = 0
    for sources in itertools.product(*(space.incoming(node) for node in nodes)):
        for ops in itertools.product(range(len(space.candidates)), repeat=len(space.edges)):
            chosen = Decisions(dict(enumerate(ops)), dict(zip(nodes, sources, strict=True)))
            hits += any(t.op == op for t in chosen.genotype(space).chain)
            count += 1
    return hits / count


@settings(max_examples=15, deadline=None)
@given(
    inputs=st.integers(1, 2),
    nodes=st.integers(1, 2),
    magnitudes=st.lists(st.sampled_from([0.01, -0.02, 0.05]), min_size=1, max_size=2, unique=True),
    others=st.integers(0, 1),
)
def test_the_share_of_an_op_is_that_of_all_genotypes(
    inputs: int, nodes: int, magnitudes: list[float], others: int
) -> None:
    texts = [f"translate_x({m})" for m in magnitudes] + ["rotate(5)", "identity"][: others + 1]
    space = SearchSpace("s", tuple(texts), inputs=inputs, nodes=nodes)
    if len(texts) ** len(space.edges) > 2000:
        space = SearchSpace("s", tuple(texts[-2:]), inputs=inputs, nodes=nodes)
        assert len(space.edges) <= 5
    op = space.candidates[0].chain[0].op
    assert random_share(space, op) == pytest.approx(enumerated_share(space, op), abs=1e-12)


def test_the_share_in_affine5() -> None:
    space = get_space("affine5")
    # q1 = 0.8, q2 = 0.8 · (1 + 0.8) / 2, …
    assert random_share(space, "translate_x") == pytest.approx(0.3616, abs=1e-12)
    assert random_share(space, lambda chain: not chain.chain) == random_share(space, "rotate")
    with pytest.raises(InputError, match="no candidate of the space 'affine5' holds the op 'shear_x'"):
        random_share(space, "shear_x")


def test_a_path_needs_its_decisions() -> None:
    space = get_space("affine5")
    with pytest.raises(StateError, match="node 4 needs one of its 4 incoming edges"):
        Decisions().path(space)
    chosen = random_decisions(space, torch.Generator().manual_seed(1))
    edge = chosen.path(space)[-1]
    del chosen.ops[edge]
    with pytest.raises(StateError, match="is on the path and needs an op"):
        chosen.genotype(space)


def test_the_chain_runs_from_input_to_output() -> None:
    space = get_space("affine5")
    edges = {edge: index for index, edge in enumerate(space.edges)}
    sources = {2: edges[0, 2], 3: edges[1, 3], 4: edges[2, 4]}
    ops = dict.fromkeys(range(10), 4)
    ops |= {edges[0, 2]: 3, edges[2, 4]: 0}
    decisions = Decisions(ops, sources)
    assert decisions.path(space) == (edges[0, 2], edges[2, 4])
    assert str(decisions.genotype(space)) == "rotate(10) > translate_x(0.06)"
    assert Decisions.from_dict(decisions.to_dict()) == decisions
