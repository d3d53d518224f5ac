"""Selection by perturbation: several orders, early ends, budgets, and what the records say of it."""

import warnings
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from search_cases import CentreWindow, blobs, planted, tiny_network

from image2video.runs.folders import read_json
from image2video.search import SearchConfig, SearchResult, SearchSpace, get_space, register_space, search
from image2video.search.score.scores import PairedScores
from image2video.search.select.decidedness import Decidedness
from image2video.search.select.edge_records import LEAST_IMAGES, clear_gap, hurt_most, mean_record, record
from image2video.search.select.perturbation import Perturbation, edge_order, node_order
from image2video.search.state.state import SearchState

SPACE = register_space(SearchSpace("three_more", ("translate_x(0.1)", "rotate(10)", "scale(1.2)"), nodes=2))
NEED = register_space(SearchSpace("one_need", ("translate_x(0.06)", "rotate(10)"), nodes=1))
FILES = ("genotype.json", "tau.json", "scores.json", "config.yaml")


def config(**options: object) -> SearchConfig:
    defaults: dict[str, object] = {"space": SPACE.name, "T": 3, "epochs": 1, "batch_size": 16, "device": "cpu"}
    return SearchConfig(**{**defaults, **options})


def run(out: Path | None = None, resume: bool = False, progress: object = None, **options: object) -> SearchResult:
    return search(tiny_network(), blobs(60, 0), config(**options), out=out, resume=resume, progress=progress)


def masked(accuracies: list[float], n: int = 400, seed: int = 0) -> PairedScores:
    """Scores of an unmasked cell and of masked ones, independent over the images; the loss is 1 − accuracy."""
    generator = torch.Generator().manual_seed(seed)
    correct = torch.stack([(torch.rand(n, generator=generator) < a).double() for a in accuracies])
    return PairedScores.from_images(correct, 1 - correct)


def test_orders_cover_every_edge_and_end_with_one_decision() -> None:
    space = get_space("affine5")
    units = Perturbation().units(space, SearchConfig(epochs=2, tune_epochs=1, orders=3, seed=4))
    kinds = [unit.kind for unit in units]
    assert [unit.index for unit in units if unit.kind == "order"] == [0, 1, 2]
    starts = [place for place, kind in enumerate(kinds) if kind in ("order", "settle")]
    orders = []
    for start, end in pairwise(starts):
        part = units[start + 1 : end]
        orders.append([unit.index for unit in part if unit.kind == "edge"])
        assert sorted(orders[-1]) == list(range(10))
        assert [unit.index for unit in part if unit.kind == "tune"] == list(range(10))
    assert len(orders) == 3
    assert orders == [edge_order(space, 4, order) for order in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    last = units[starts[-1] :]
    nodes = node_order(space, 4)
    assert sorted(nodes) == [2, 3, 4]
    decided = [part for place, node in enumerate(nodes, 11) for part in (("node", node), ("tune", place))]
    assert [(u.kind, u.index) for u in last] == [("settle", 0), ("tune", 10), *decided, ("score", 0)]
    assert len({tuple(node_order(space, seed)) for seed in range(8)}) > 2
    single = Perturbation().units(space, SearchConfig(epochs=2, tune_epochs=1, seed=4))
    assert [unit.index for unit in single if unit.kind == "edge"] == orders[0]


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Path]:
    out = tmp_path_factory.mktemp("orders") / "run"
    return run(out, orders=2), out


def test_every_order_starts_from_the_searched_network(averaged: tuple[SearchResult, Path]) -> None:
    state = averaged[0].state
    assert [len(records) for records in state.orders] == [3, 3]
    first, second = (records[0] for records in state.orders)
    # The unmasked cell with nothing decided, before any tuning.
    assert first["loss"] == second["loss"]
    assert first["accuracy"] == second["accuracy"]
    assert state.orders[0][1]["loss"] != first["loss"]


def test_the_means_over_the_orders_decide(averaged: tuple[SearchResult, Path]) -> None:
    result, out = averaged
    state = result.state
    assert [entry["edge"] for entry in state.edges] == [0, 1, 2]
    for entry in state.edges:
        found = [r for records in state.orders for r in records if r["edge"] == entry["edge"]]
        assert len(found) == entry["orders"] == 2
        assert entry["decided_by"] == "orders"
        drops = [sum(r["accuracy"] - r["masked_accuracy"][op] for r in found) / 2 for op in range(3)]
        rises = [sum(r["masked_loss"][op] - r["loss"] for r in found) / 2 for op in range(3)]
        best = max(range(3), key=lambda op: (round(drops[op], 9), round(rises[op], 9)))
        assert entry["chosen"] == best == state.decisions.ops[entry["edge"]]
        assert entry["accuracy"] == pytest.approx(sum(r["accuracy"] for r in found) / 2)
        assert entry["gap"] >= -1e-12
        assert entry["gap_error"] >= 0
    scores = read_json(out / "scores.json")
    assert scores["orders"] == state.orders
    assert scores["decidedness"] == result.decidedness().to_dict()


def test_the_planted_need_is_found_by_the_means_over_orders() -> None:
    settings = SearchConfig(fusion="none", epochs=1, tune_epochs=0, batch_size=64, orders=2, device="cpu")
    result = search(CentreWindow(), planted(128, 0), settings)
    assert "translate_x" in {t.op for t in result.genotype.chain}
    assert result.state.score["accuracy"] > 0.95


def test_the_mean_record_by_hand() -> None:
    def entry(accuracy: float, drops: list[float]) -> dict[str, object]:
        return {
            "images": 100,
            "accuracy": accuracy,
            "loss": 1.0,
            "masked_accuracy": [accuracy - d for d in drops],
            "masked_loss": [1.0 + 2 * d for d in drops],
            "drop_error": [0.03, 0.04, 0.05],
            "loss_drop_error": [0.01] * 3,
        }

    mean = mean_record([entry(0.8, [0.1, 0.3, 0.0]), entry(0.6, [0.2, 0.06, 0.0])], "accuracy")
    assert mean["chosen"] == 1
    assert mean["accuracy"] == pytest.approx(0.7)
    assert mean["masked_accuracy"] == pytest.approx([0.55, 0.52, 0.7])
    assert mean["gap"] == pytest.approx(0.03)
    # Gaps of 0.2 and −0.14: their spread is 0.17 = 0.34 / 2; the images' part is hypot(0.04, 0.03) = 0.05.
    assert mean["gap_error"] == pytest.approx((0.05**2 + 0.17**2) ** 0.5)
    assert not mean["decided"]
    assert mean["loss_gap"] == pytest.approx(0.06)
    clear = mean_record([entry(0.8, [0.3, 0.1, 0.0])] * 2, "accuracy")
    assert (clear["chosen"], clear["decided"]) == (0, True)
    tied = mean_record([entry(0.9, [0.1, 0.2, 0.0]), entry(0.9, [0.2, 0.1, 0.0])], "accuracy")
    assert tied["chosen"] == 0


def test_a_gap_ends_a_score_when_it_is_clear_and_enough_was_seen() -> None:
    stop = clear_gap("accuracy", 3.0)
    assert clear_gap("accuracy", None) is None
    assert stop(masked([0.9, 0.5, 0.9]))
    assert not stop(masked([0.9, 0.5, 0.9], n=LEAST_IMAGES - 1))
    assert not stop(masked([0.9, 0.89, 0.9]))
    scores = masked([0.9, 0.6, 0.7], n=2000)
    first, second = hurt_most(scores, "accuracy")
    gap, error = scores.accuracy_gap(second + 1, first + 1)
    for factor, expected in ((0.99, True), (1.01, False)):
        found = clear_gap("accuracy", factor * gap / error)
        assert found(scores) is expected


@pytest.mark.parametrize("criterion", ["accuracy", "loss"])
def test_an_early_end_decides_as_all_images_do_where_it_is_clear(criterion: str) -> None:
    def decided(stop_early: float | None) -> dict[str, object]:
        options = {"space": NEED.name, "T": 5, "fusion": "none", "tune_epochs": 0, "batch_size": 64, "epochs": 0}
        settings = config(**options, criterion=criterion, stop_early=stop_early)
        result = search(CentreWindow(), planted(64, 0), settings, validation=planted(1500, 1))
        assert "translate_x" in str(result.genotype)
        return result.state.edges[0]

    early, whole = decided(4.0), decided(None)
    assert early["chosen"] == whole["chosen"] == 0
    assert early["decided"]
    assert whole["decided"]
    assert whole["images"] == 1500
    assert early["images"] == 312  # after the fifth of 24 even batches
    assert early["images"] >= LEAST_IMAGES


def test_a_record_says_whether_its_gap_is_decided_by_its_criterion() -> None:
    scores = masked([0.9, 0.5, 0.9])
    entry = record(scores, hurt_most(scores, "accuracy"))
    assert entry["chosen"] == 0
    assert entry["decided"]
    assert entry["gap"] > 2 * entry["gap_error"]
    assert entry["drop_error"] == [scores.accuracy_gap(0, v)[1] for v in (1, 2)]
    close = masked([0.9, 0.8, 0.79])
    assert not record(close, hurt_most(close, "accuracy"))["decided"]
    # Accuracy decides, the loss does not.
    correct = torch.stack([torch.ones(400), torch.zeros(400), torch.ones(400)])
    mixed = PairedScores.from_images(correct, torch.ones(3, 400))
    assert record(mixed, [0, 1], "accuracy")["decided"]
    assert not record(mixed, [0, 1], "loss")["decided"]
    alone = record(mixed.pick([0, 1]), [0])
    assert (alone["gap"], alone["decided"]) == (None, True)


def budgeted(max_images: int, out: Path | None = None, **options: object) -> SearchResult:
    return run(out, max_images=max_images, **options)


def passed(result: SearchResult) -> int:
    """Images that went through the network."""
    return (result.state.frames + result.state.evaluated_frames) // result.config.T


@pytest.mark.filterwarnings("ignore:the budget:UserWarning")
@pytest.mark.parametrize(("max_images", "orders"), [(60, 1), (400, 2)])
def test_what_the_budget_leaves_is_read_from_tau(max_images: int, orders: int, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=rf"budget \(max_images={max_images}\) was spent before") as caught:
        result = budgeted(max_images, tmp_path / "run", orders=orders, epochs=2)
    assert sum("budget" in str(w.message) for w in caught) == 1
    state, counts = result.state, result.decidedness()
    left = [entry for entry in (*state.edges, *state.nodes) if entry["decided_by"] == "tau"]
    assert 0 < len(left) == counts.edges_from_tau + counts.nodes_from_tau
    assert "were read from τ" in counts.sentence()
    tau = torch.tensor(state.steps[-1]["tau"])
    for entry in state.edges:
        if entry["decided_by"] == "tau":
            assert entry["chosen"] == int(torch.tensor(entry["weights"]).argmax())
            assert entry["masked_accuracy"] is None
            assert not entry["decided"]
    best = tau.softmax(-1).amax(-1)
    for entry in state.nodes:
        if entry["decided_by"] == "tau":
            assert entry["chosen"] == int(best[entry["edges"]].argmax())
    assert state.score is None
    # One pass over the 30 held-out images, with at most 4 variants, may begin before the budget is spent.
    assert passed(result) < max_images + 4 * 30
    again = budgeted(max_images, tmp_path / "again", orders=orders, epochs=2)
    assert again.scores_record() == result.scores_record()
    summary = result.summary()
    assert str(result.genotype) == " > ".join(summary["ops"][summary["chosen"][edge]] for edge in summary["path"])


def test_a_budget_that_suffices_leaves_nothing_to_tau() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result, plain = budgeted(100_000), run()
    assert result.state.score is not None
    assert [e["decided_by"] for e in (*result.state.edges, *result.state.nodes)] == ["scores"] * 4
    assert passed(result) == passed(plain)


def test_decidedness_counts_edges_and_nodes(averaged: tuple[SearchResult, Path]) -> None:
    assert Decidedness.of(SearchState()) is None
    entries = [{"decided": True, "decided_by": "scores"}, {"decided": False, "decided_by": "tau"}]
    counts = Decidedness.of(SearchState(edges=entries, nodes=entries[:1]))
    assert counts == Decidedness(2, 1, 1, 1, 1, 0)
    assert counts.sentence() == (
        "1 of 2 edges and 1 of 1 node are decided at two standard errors. The budget was spent before 1 edge and "
        "0 nodes were judged: they were read from τ."
    )
    result = averaged[0]
    assert result.decided_sentence() == result.decidedness().sentence()
    provenance = dict(result.genotype.provenance or {})
    assert provenance["edges"] == 3
    assert provenance["edges_decided"] == sum(entry["decided"] for entry in result.state.edges)
    assert "Nothing was compared" in run(selection="argmax").decided_sentence()
