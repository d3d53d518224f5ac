"""The ranking study: its chains, and its figures of agreement; and the peak memory that the benchmarks measure."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from image2video import Genotype
from image2video.search import get_space
from image2video.training.live_memory import peak_bytes

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
study = importlib.import_module("ranking_study")
stats = importlib.import_module("ranking_summary")
paths = importlib.import_module("ranking_paths")
memory = importlib.import_module("live_memory")
sys.path.pop(0)


def test_chains_are_the_cells_and_differ() -> None:
    space = get_space("affine5")
    chains = study.chains(space)
    assert len(chains) >= 12
    assert len(set(chains)) == len(chains)
    assert chains == study.chains(space), "drawn once, by a seed"
    lengths = [len(chain.chain) for chain in chains]
    assert lengths[:5] == [0, 1, 1, 1, 1]
    assert {2, 3, 4} <= set(lengths)
    assert max(lengths) <= space.nodes, "the cell gives no longer chain"
    repeated = [chain for chain in chains if len(chain.chain) > 1 and len(set(chain.chain)) == 1]
    assert {len(chain.chain) for chain in repeated} >= {2, 3, 4}


@pytest.mark.parametrize("values", [9, 3, 50])
def test_tau_is_scipys(values: int) -> None:
    generator = np.random.default_rng(values)
    for _ in range(20):
        a, b = generator.integers(values, size=(2, 14)).astype(float)
        assert stats.kendall_tau(a, b) == pytest.approx(kendalltau(a, b).statistic)
    assert np.isnan(stats.kendall_tau(np.zeros(5), np.arange(5.0)))


def test_rows_tell_agreement_from_chance_and_reversal() -> None:
    generator = np.random.default_rng(0)
    truth = np.linspace(0.5, 0.6, 14) + generator.normal(0, 0.001, size=(2, 14))
    scores = {
        "perturbation": generator.normal(size=(2, 14)),
        "good": np.tile(np.arange(14.0), (2, 1)),
        "reversed": np.tile(-np.arange(14.0), (2, 1)),
    }
    rows = {row["selection"]: row for row in stats.summary_rows(truth, scores, {"good": {"frames": 7}})}
    assert list(rows) == ["good", "perturbation", "reversed"]
    good = rows["good"]
    assert good["tau"] > 0.95
    assert good["tau_low"] <= good["tau"] <= good["tau_high"] <= 1
    assert good["lead_low"] > 0
    assert good["frames"] == 7
    assert good["regret_points"] == pytest.approx(0, abs=0.3)
    assert rows["reversed"]["tau_high"] < -0.8
    assert rows["reversed"]["regret_points"] == pytest.approx(10, abs=0.5)
    assert rows["perturbation"]["tau_low"] < 0 < rows["perturbation"]["tau_high"]
    assert rows["perturbation"]["lead"] is None


def test_ties_at_the_top_count_with_their_mean_and_a_constant_score_orders_nothing() -> None:
    truth = np.array([[0.5, 0.7, 0.6]])
    assert stats.regret(np.array([[1.0, 1.0, 0.0]]), truth) == [pytest.approx(0.1)]
    assert stats.mean_tau(np.zeros((2, 3)), truth) == 0
    assert stats.chance_row(truth)["regret_points"] == pytest.approx(10)


def test_the_truth_says_how_far_it_can_be_trusted() -> None:
    facts = stats.truth_facts(np.array([[0.5, 0.6, 0.7], [0.52, 0.58, 0.72]]))
    assert facts["tau_between_seeds"] == 1
    assert facts["best_points"] == pytest.approx(71)
    assert stats.truth_facts(np.array([[0.5, 0.6, 0.7]]))["tau_between_seeds"] is None


def test_the_rule_without_measurements_prefers_short_chains() -> None:
    assert stats.shortest_first([(), (1, 2), (1,)], 2).tolist() == [[0, -2, -1], [0, -2, -1]]


def test_a_chain_has_a_way_for_every_place_of_its_ops() -> None:
    space = get_space("affine5")
    chains = [Genotype.parse(text) for text in ("identity", "rotate(10)", " > ".join(["scale(1.1)"] * 4))]
    # The 8 paths of the cell have 1, 2, 2, 3, 2, 3, 3 and 4 edges.
    assert [len(list(paths.ways(space, chain))) for chain in chains] == [8, 20, 1]
    for chain in chains:
        for way in paths.ways(space, chain):
            found = [transform for _, candidate in way for transform in space.candidates[candidate].chain]
            assert tuple(found) == chain.chain
            assert [space.edges[edge][0] for edge, _ in way] == [0, *(space.edges[edge][1] for edge, _ in way[:-1])]


def test_the_mean_over_paths_prefers_no_length_where_all_is_noise_and_the_best_path_does() -> None:
    space, generator = get_space("affine5"), np.random.default_rng(0)
    chains = study.chains(space)
    length = np.array([-float(len(chain.chain)) for chain in chains])
    agreement: dict[str, list[float]] = {"frozen": [], "frozen, best path": []}
    for _ in range(40):
        noise = generator.normal(size=(2, len(space.edges), len(space.candidates)))
        edges = [
            {"edge": e, "accuracy": 0.5, "loss": 1.0, "masked_accuracy": a.tolist(), "masked_loss": b.tolist()}
            for e, (a, b) in enumerate(zip(*noise, strict=True))
        ]
        scores = paths.cell_scores("frozen", edges[::-1], space, chains)
        for name, values in agreement.items():
            values.append(stats.kendall_tau(np.array(scores[name]), length))
    assert abs(np.mean(agreement["frozen"])) < 0.1
    assert np.mean(agreement["frozen, best path"]) > 0.15


def test_records_of_runs_become_scores_and_costs_per_order() -> None:
    cost = {"frames": 10, "evaluated_frames": 4, "seconds": 2.0}
    runs = [
        {
            "run": "perturbation",
            "seed": seed,
            "chains": ["identity", "rotate(10)"],
            "scores": {order: [1, 0] for order in stats.RECORDED["perturbation"]} | {"perturbation": [seed, 1]},
            "costs": {"argmax": {"frames": 5, "evaluated_frames": 0, "seconds": None}},
            **cost,
            "seconds": 2.0 + seed,
        }
        for seed in (1, 0)
    ]
    scores, costs = stats.gather(runs, ["identity", "rotate(10)"])
    assert scores["perturbation"].tolist() == [[0, 1], [1, 1]], "in the order of the seeds"
    assert costs["perturbation_loss"] == {**cost, "seconds": 2.5}
    assert costs["argmax"] == costs["argmax, best path"] == {"frames": 5, "evaluated_frames": 0, "seconds": None}
    with pytest.raises(ValueError, match="other chains"):
        stats.gather(runs, ["rotate(10)", "identity"])
    truth = np.array([[0.4, 0.5], [0.42, 0.56]])
    first, second = stats.chain_rows(["identity", "rotate(10)"], truth, scores)
    assert (first["chain"], first["by_seed"], second["scores"]["argmax"]) == ("rotate(10)", [50, 56], 1)


def test_peak_memory_counts_what_is_alive_at_one_time_and_nothing_from_before() -> None:
    x, one = torch.ones(1000, requires_grad=True), 4 * 1000
    cpu = torch.device("cpu")

    def two_at_a_time() -> None:
        y = x.detach() * 2
        for _ in range(5):
            y = y + 1

    def keeps_for_backward() -> torch.Tensor:
        return x.exp().sin().sum()  # exp is saved, and sin's result is gone before the sum is

    assert peak_bytes(two_at_a_time, cpu) == 2 * one
    assert peak_bytes(lambda: x.detach().view(10, 100).t(), cpu) == 0
    forward = peak_bytes(keeps_for_backward, cpu)
    assert 2 * one <= forward <= 2 * one + 16
    assert peak_bytes(lambda: keeps_for_backward().backward(), cpu) > forward
    assert memory.saved_bytes(keeps_for_backward, []) == one, "sin keeps the output that exp keeps too"
    weight = torch.ones(1000, requires_grad=True)
    assert memory.saved_bytes(lambda: (x.detach() * weight).sum().backward(), [x]) == 0
    assert memory.saved_bytes(lambda: [(x * weight).sum().backward() for _ in range(3)], []) == 2 * one


def test_a_second_seed_need_not_be_complete() -> None:
    labels = ["a", "b", "c", "d"]
    first = {(label, 0): value for label, value in zip(labels, (0.1, 0.2, 0.3, 0.4), strict=True)}
    (facts,) = stats.repeated_facts(labels, first | {("a", 1): 0.3, ("b", 1): 0.2, ("c", 1): 0.1})
    assert facts["chains"] == 3
    assert facts["tau_between_seeds"] == -1
    assert stats.repeated_facts(labels, first | {("a", 1): 0.3, ("b", 1): 0.2}) == [], "two chains have no order"
