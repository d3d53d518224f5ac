"""Genotypes: round trips, normalisation, immutability, singular chains and matrices."""

import copy
import dataclasses
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from image2video.clip.genotype import DEFAULT_GENOTYPE, Genotype, Transform
from image2video.clip.genotype_text import MAX_CHAIN
from image2video.clip.ops.registry import get_op, op_names
from image2video.clip.schedules import schedule_steps
from image2video.errors import InputError, InputTypeError

TEXT = "translate_x(0.06) > rotate(10) > scale(1.1)"
MILD = {"scale": (0.5, 2.0)}  # five of these in a row can be inverted in numbers


def transforms() -> st.SearchStrategy[Transform]:
    def of(name: str) -> st.SearchStrategy[Transform]:
        op = get_op(name)
        low, high = MILD.get(name, (op.low, op.high))
        magnitudes = st.floats(low, high, exclude_min=op.open_ends, exclude_max=op.open_ends)
        found = magnitudes.map(lambda magnitude: Transform(name, magnitude))
        if op.shifts is None:
            return found
        cells = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9)
        return found | cells.map(lambda magnitude: Transform(name, magnitude, "cell"))

    return st.sampled_from(op_names()).flatmap(of)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
genotypes = st.builds(Genotype, st.lists(transforms(), max_size=5).map(tuple))


@settings(deadline=None)
@given(genotypes)
@example(Genotype((Transform("translate_x", 1e-300), Transform("rotate", 5e-324))))
def test_text_round_trip(g: Genotype) -> None:
    assert Genotype.parse(str(g)) == g
    assert hash(Genotype.parse(str(g))) == hash(g)
    assert str(Genotype.parse(str(g))) == str(g)


@settings(deadline=None)
@given(genotypes, st.none() | st.dictionaries(st.text(), json_values, max_size=3))
def test_json_round_trip(g: Genotype, provenance: dict[str, Any] | None) -> None:
    again = Genotype.from_json(g.with_provenance(provenance).to_json())
    assert again == g
    assert again.provenance == g.with_provenance(provenance).provenance
    assert again.to_json() == g.with_provenance(provenance).to_json()


def test_identities_vanish_and_equal_neighbours_stay() -> None:
    text = "translate_x(0) > rotate(-0.0) > scale(1) > identity > identity(0) > shear_x(0)"
    assert Genotype.parse(text) == Genotype.identity() == Genotype(())
    assert str(Genotype.parse(text)) == "identity"
    assert Genotype.parse("identity").chain == ()
    assert str(Genotype.parse("rotate(5) > identity > rotate(5)")) == "rotate(5) > rotate(5)"
    assert len({Genotype.identity(), Genotype.parse("scale(1)")}) == 1


MIXED = "translate_x(0.1) > rotate(5) > solarize(0.2) > invert(1) > scale(1.1)"


def test_the_geometric_part_and_the_runs() -> None:
    g = Genotype.parse(MIXED).with_provenance({"seed": 0})
    assert not g.is_geometric
    assert g.geometric == Genotype.parse("translate_x(0.1) > rotate(5) > scale(1.1)")
    assert g.geometric.provenance is None
    assert g.geometric.is_geometric
    assert [str(run) for run in g.runs()] == [
        "translate_x(0.1) > rotate(5)",
        "solarize(0.2)",
        "invert(1)",
        "scale(1.1)",
    ]
    assert [run.is_geometric for run in g.runs()] == [True, False, False, True]
    assert Genotype(tuple(t for run in g.runs() for t in run.chain)) == g
    assert Genotype.parse(TEXT).runs() == (Genotype.parse(TEXT),)
    assert Genotype.identity().runs() == ()
    assert Genotype.identity().is_geometric
    assert Genotype.parse("invert(0) > color(1) > cutout(0)") == Genotype.identity()


def test_photometric_ops_have_no_part_in_the_matrices() -> None:
    g = Genotype.parse(MIXED)
    assert torch.equal(g.matrices("centred", 4, 24, 36), g.geometric.matrices("centred", 4, 24, 36))
    eyes = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
    assert torch.equal(Genotype.parse("invert(1) > color(2)").matrices("ramp", 3, 24, 36), eyes)
    with pytest.raises(InputError, match=r"'invert\(1\) > scale\(4\)' is singular: at step 20"):
        Genotype.parse("invert(1) > scale(4)").check_steps((20.0,))
    Genotype.parse("brightness(4) > solarize(1)").check_steps((1000.0,))


def test_the_default_is_gentle() -> None:
    assert str(Genotype.parse(DEFAULT_GENOTYPE)) == DEFAULT_GENOTYPE == "translate_x(0.03)"


def test_genotypes_are_frozen() -> None:
    g = Genotype.parse(TEXT).with_provenance({"scores": [1, {"a": 2}]})
    with pytest.raises(dataclasses.FrozenInstanceError):
        g.chain = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        g.chain[0].magnitude = 1.0
    with pytest.raises(TypeError):
        g.provenance["scores"] = 1
    with pytest.raises(TypeError):
        g.provenance["scores"][1]["a"] = 1
    given_record = {"scores": [1]}
    h = g.with_provenance(given_record)
    given_record["scores"].append(2)
    assert h.provenance == {"scores": (1,)}


def test_provenance_is_no_part_of_equality() -> None:
    a, b = Genotype.parse(TEXT), Genotype.parse(TEXT).with_provenance({"seed": 0})
    assert a == b
    assert hash(a) == hash(b)
    assert b.with_provenance(None).provenance is None


@pytest.mark.parametrize("provenance", [None, {"seed": 3, "nested": {"scores": [0.5, None, True]}}])
def test_copies_and_pickles(provenance: dict[str, Any] | None) -> None:
    g = Genotype.parse(TEXT).with_provenance(provenance)
    for again in (pickle.loads(pickle.dumps(g)), copy.deepcopy(g), copy.copy(g)):
        assert again == g
        assert again.provenance == g.provenance
        assert again.to_json() == g.to_json()


def test_wrong_types_are_refused() -> None:
    with pytest.raises(InputTypeError, match="text is a string, got 3"):
        Genotype.parse(3)
    with pytest.raises(InputTypeError, match=r"chain is a tuple of Transform.*Genotype.parse reads text"):
        Genotype(TEXT)
    with pytest.raises(InputTypeError, match=r"chain\[1\] must be a Transform"):
        Genotype((Transform("rotate", 1), ("rotate", 1)))
    with pytest.raises(InputTypeError, match="provenance must be a mapping"):
        Genotype((), [1])
    for magnitude in (True, "1", None):
        with pytest.raises(InputTypeError, match="must be a number"):
            Transform("rotate", magnitude)
    with pytest.raises(InputError, match="must be finite, got nan"):
        Transform("rotate", math.nan)
    with pytest.raises(InputTypeError, match=r"got 1\.5"):
        Genotype.parse(TEXT).matrices("from_zero", 1.5, 8, 9)


def test_singular_chains_are_refused_when_they_are_made() -> None:
    with pytest.raises(InputError, match=r"is singular: at step 1 its matrix has determinant"):
        Genotype((Transform("scale", 0.25),) * MAX_CHAIN)


def test_matrices_are_those_of_the_frames() -> None:
    g = Genotype.parse(TEXT)
    M = g.matrices("centred", 4, 24, 36)
    assert M.shape == (4, 3, 3)
    assert M.dtype == torch.float64
    for t, step in enumerate(schedule_steps("centred", 4)):
        assert torch.allclose(g.matrix(step, 24, 36), M[t], atol=1e-12)
    assert torch.equal(M[2], torch.eye(3, dtype=torch.float64))
    assert M[3, 0, 2] != M[3, 1, 2]


def test_ambient_defaults_change_nothing() -> None:
    expected = Genotype.parse(TEXT).matrices("ramp", 3, 24, 36)
    with torch.device("meta"):
        g = Genotype.parse(TEXT)
        assert torch.equal(g.matrices("ramp", 3, 24, 36), expected)
