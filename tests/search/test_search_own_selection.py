"""A user's own selections: registered, run through `search`, resumed after a kill, and refused."""

from pathlib import Path

import pytest
from search_cases import KilledError, Killer, blobs, tiny_network
from torch import Tensor

from image2video.errors import InputError, InputTypeError, StateError
from image2video.search import (
    Run,
    SearchConfig,
    SearchResult,
    SearchSpace,
    Selection,
    Unit,
    get_selection,
    register_selection,
    register_space,
    search,
    selection_names,
)
from image2video.search.cell.mixing import mixing_matrix

SPACE = register_space(SearchSpace("own_selection", ("translate_x(0.1)", "rotate(10)", "scale(1.2)"), nodes=2))
FILES = ("genotype.json", "tau.json", "scores.json", "config.yaml")


@register_selection("least_harm")
class LeastHarm(Selection):
    """Keeps on every edge the candidate under which alone the held-out loss is lowest."""

    default_space = SPACE.name

    def units(self, space: SearchSpace, config: SearchConfig) -> list[Unit]:
        training = [Unit("search", epoch) for epoch in range(config.epochs)]
        return [*training, *(Unit("try", edge) for edge in range(len(space.edges))), Unit("sources"), Unit("score")]

    def decide(self, unit: Unit, run: Run) -> None:
        decisions = run.state.decisions
        if unit.kind == "sources":
            decisions.sources = {node: run.space.incoming(node)[0] for node in (1, 2)}
            return
        mixings: list[Tensor] = []
        for op in range(len(run.space.candidates)):
            decisions.ops[unit.index] = op
            mixings.append(mixing_matrix(run.tau(), run.space, decisions))
        scores = run.score(mixings, first=run.space.edges[unit.index][1])
        decisions.ops[unit.index] = min(range(scores.variants), key=scores.mean_loss)


@register_selection("two_chains")
class TwoChains(Selection):
    """Ranks two chains for the backbone as it is."""

    trains = False
    needs_trained = True
    default_space = SPACE.name

    def units(self, space: SearchSpace, config: SearchConfig) -> list[Unit]:
        return [Unit("rank")]

    def decide(self, unit: Unit, run: Run) -> None:
        run.rank(run.space.candidates[:2])
        with pytest.raises(StateError, match=r"'two_chains' trains no network, so there is no τ"):
            run.tau()


def run(out: Path, selection: str, at: int = -1, resume: bool = False) -> tuple[SearchResult, list[str]]:
    """The search, killed at its step number `at`, and the stages of its steps."""
    killer = Killer(at)
    config = SearchConfig(selection=selection, T=3, epochs=2, batch_size=16, device="cpu")
    result = search(tiny_network(), blobs(60, 0), config, out=out, resume=resume, progress=killer)
    return result, killer.stages


def test_a_selection_of_ones_own_searches_and_resumes(tmp_path: Path) -> None:
    result, stages = run(tmp_path / "whole", "least_harm")
    assert (result.genotype.provenance or {})["selection"] == "least_harm"
    assert result.space == SPACE
    assert set(stages) == {"search", "select"}
    assert set(result.state.decisions.ops) == {0, 1, 2}
    for at in (3, stages.index("select") + 3, len(stages)):
        out = tmp_path / str(at)
        with pytest.raises(KilledError):
            run(out, "least_harm", at)
        assert not (out / "genotype.json").exists()
        _, rest = run(out, "least_harm", resume=True)
        assert len(rest) < len(stages)
        for name in FILES:
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_selection_of_ones_own_ranks_for_a_trained_backbone(tmp_path: Path) -> None:
    result, stages = run(tmp_path, "two_chains")
    assert set(stages) == {"rank"}
    assert [str(entry.genotype) for entry in result.ranking.entries].count("translate_x(0.1)") == 1
    record = result.genotype.provenance or {}
    assert (record["selection"], record["space"], record["candidates"]) == ("two_chains", SPACE.name, 3)


def test_names_of_selections() -> None:
    built_in = {"perturbation", "frozen", "argmax", "random", "one_shot", "fixed_weights"}
    assert built_in < set(selection_names())
    assert isinstance(get_selection("least_harm"), LeastHarm)
    with pytest.raises(InputError, match=r"unknown selection 'best'; choose one of .*perturbation.*least_harm"):
        SearchConfig(selection="best")
    with pytest.raises(InputError, match=r"unknown selection 'best'; choose one of .*least_harm"):
        get_selection("best")
    with pytest.raises(InputError, match="'argmax' is registered already"):
        register_selection("argmax")
    with pytest.raises(InputTypeError, match="must be a text"):
        register_selection(3)
    with pytest.raises(InputTypeError, match="only subclasses of Selection"):
        register_selection("a_function")(print)
