"""After a decision τ and the weights are trained on, at a tenth of the rate; nodes lose their edges one by one."""

from functools import partial

import pytest
import search_cases
import torch
from accelerate import Accelerator
from search_cases import blobs, tiny_network
from torch import Tensor

from image2video.search import SearchSpace
from image2video.search.cell.mixing import mixing_matrix
from image2video.search.cell.topology import Decisions
from image2video.search.epochs import search_epoch, tune_epoch
from image2video.search.optimise.schedule import cosine, tuning_rate
from image2video.search.run import SearchRun
from image2video.search.score.network import build_network
from image2video.search.score.scores import PairedScores
from image2video.search.select.perturbation import Perturbation, node_order
from image2video.search.setup import Setup
from image2video.search.state.state import SearchState
from image2video.search.state.units import Unit

SPACE = SearchSpace("tuned", ("translate_x(0.1)", "rotate(10)", "scale(1.2)"), nodes=2)
config = partial(search_cases.config, epochs=1, batch_size=10, tau_weight_decay=0.0)


def running(**options: object) -> SearchRun:
    network = build_network(tiny_network(), "none", residual=True, input_size=(1, 12, 16))
    data = blobs(40, 0)
    run = SearchRun(network, Setup(config(**options), SPACE, Accelerator(cpu=True)), data, data)
    search_epoch(run, 0, moves_tau=True)
    run.state.edges.append({"edge": 0})
    run.state.decisions.ops[0] = 1
    return run


@pytest.mark.parametrize(
    "options", [{}, {"second_order": True}, {"relaxation": "single_path"}], ids=["first", "second", "path"]
)
def test_tuning_goes_on_training_tau_of_the_edges_that_are_open(options: dict[str, object]) -> None:
    run = running(tau_betas=(0.0, 0.999), **options)  # no momentum from before the decision
    before = run.tau().clone()
    tune_epoch(run, 0, 2, moves_tau=True)
    assert torch.equal(run.tau()[0], before[0])  # decided: it has no say any more
    assert (run.tau() - before)[1:].abs().min() > 0
    # 4 steps of 10 images for τ and as many for the weights; the second order's three further passes are counted too.
    steps = 4 * (10 + 10 + (30 if "second_order" in options else 0))
    assert run.state.frames == 2 * 3 * steps
    assert len(run.state.edges[0]["tuning_loss"]) == 1


def test_tau_rests_where_it_was_never_trained_or_all_is_decided() -> None:
    run = running()
    before = run.tau().clone()
    tune_epoch(run, 0, 2, moves_tau=False)
    run.state.decisions.ops = {0: 1, 1: 1, 2: 1}
    tune_epoch(run, 1, 2, moves_tau=True)
    assert torch.equal(run.tau(), before)
    assert run.state.frames == 3 * (80 + 2 * 40)


def test_learned_magnitudes_are_tuned_to_the_end() -> None:
    run = running(learn_magnitudes=True)
    run.state.decisions.ops = {0: 1, 1: 1, 2: 1}
    before = run.cell.magnitudes.detach().clone()
    tune_epoch(run, 0, 1, moves_tau=True)
    assert not torch.equal(run.cell.magnitudes.detach(), before)


def test_tuning_begins_at_a_tenth_of_the_rate_without_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    run = running(lr=0.5, lr_min=0.01)
    optimizer, seen = run.bilevel.optimizer, []
    run.bilevel.network.register_forward_pre_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
    forgets: list[int] = []
    original = run.bilevel.restart_weights
    monkeypatch.setattr(run.bilevel, "restart_weights", lambda: (forgets.append(len(optimizer.state)), original()))
    tune_epoch(run, 0, 4, moves_tau=False)
    assert forgets == [len(list(run.bilevel.bare.parameters()))]
    assert seen[0] == pytest.approx(0.05)
    tune_epoch(run, 1, 4, moves_tau=False)
    tune_epoch(run, 3, 4, moves_tau=False)
    assert len(forgets) == 1  # momentum is forgotten once, when tuning begins
    assert seen[4] == pytest.approx(cosine(0.05, 0.01, 0.25))
    assert seen[8] == pytest.approx(cosine(0.05, 0.01, 0.75))
    assert tuning_rate(0.005, 0.001, 1.0) == pytest.approx(0.0005)  # a tenth below lr_min stays what it is
    assert tuning_rate(0.005, 0.001, 0.0) == pytest.approx(0.0005)


def test_the_momentum_is_gone_when_tuning_begins() -> None:
    run = running()
    momenta = [s["momentum_buffer"] for s in run.bilevel.optimizer.state.values()]
    assert any(m.abs().max() > 0 for m in momenta)
    run.bilevel.restart_weights()
    assert len(run.bilevel.optimizer.state) == 0


def test_a_snapshot_brings_back_tau_and_its_optimizer() -> None:
    run = running()
    run.snapshot()
    randomness, ends = torch.get_rng_state(), []
    start = run.tau().clone()
    for _ in range(2):
        run.restore()
        assert torch.equal(run.tau(), start)
        torch.set_rng_state(randomness)
        tune_epoch(run, 0, 1, moves_tau=True)
        ends.append(run.tau().clone())
    assert not torch.equal(ends[0], start)
    assert torch.equal(*ends)


def test_removed_edges_are_gone_and_masked_ones_leave_a_gap() -> None:
    space = SearchSpace("three_in", ("rotate(10)", "identity"), nodes=3)
    tau = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    first, second, third = space.incoming(3)
    rows = mixing_matrix(tau, space, removed={first})
    whole = mixing_matrix(tau, space)
    assert rows[first].abs().sum() == 0
    torch.testing.assert_close(rows[[second, third]], whole[[second, third]] * 1.5)
    others = [edge for edge in range(6) if edge not in (first, second, third)]
    assert torch.equal(rows[others], whole[others])
    masked = mixing_matrix(tau, space, removed={first}, masked_edge=second)
    assert masked[second].abs().sum() == 0
    assert torch.equal(masked[third], rows[third])
    scaled = mixing_matrix(tau, space, removed={first}, masked_edge=second, renormalise=True)
    torch.testing.assert_close(scaled[third], rows[third] * 2)


class Scored:
    """A run whose accuracy is the sum of what its node's edges are worth; it keeps the order of the questions."""

    def __init__(self, worth: dict[int, float], spent_after: int = 99) -> None:
        self.space = SearchSpace("scored", ("rotate(10)", "identity"), nodes=4)
        self.config, self.state = config(), SearchState(decisions=Decisions())
        self.worth, self.asked, self.spent_after = worth, [], spent_after

    def tau(self) -> Tensor:
        return torch.zeros(len(self.space.edges), 2).index_fill(0, torch.tensor([8]), 0.0) + torch.tensor([0.0, 0.1])

    def spent(self) -> float:
        return float(len(self.asked) >= self.spent_after)

    def score(self, mixings: list[Tensor], first: int, stop: object = None) -> PairedScores:
        self.asked.append((first, len(mixings) - 1))
        open_edges = [[e for e in self.space.incoming(first) if m[e].abs().sum() > 0] for m in mixings]
        # Edges that are alike make up for each other: the pair (6, 7) is worth as much as one of them.
        share = [max(self.worth[e] for e in kept) if kept else 0.0 for kept in open_edges]
        extra = [sum(self.worth[e] for e in kept) / 10 for kept in open_edges]
        right = torch.zeros(len(mixings), 1000)
        for row, (most, more) in enumerate(zip(share, extra, strict=True)):
            right[row, : round(1000 * (most + more))] = 1
        return PairedScores.from_images(right, 1 - right)


def test_a_node_loses_its_least_useful_edge_again_and_again() -> None:
    incoming = SearchSpace("scored", ("rotate(10)", "identity"), nodes=4).incoming(4)
    worth = dict(zip(incoming, (0.5, 0.1, 0.4, 0.3), strict=True))
    run = Scored(worth)
    Perturbation().decide(Unit("node", 4), run)
    assert run.asked == [(4, 4), (4, 3), (4, 2)]
    (entry,) = run.state.nodes
    assert [found["removed"] for found in entry["rounds"]] == [incoming[1], incoming[3], incoming[2]]
    assert run.state.decisions.sources == {4: incoming[0]}
    assert (entry["chosen"], entry["rival"]) == (0, 2)
    assert entry["decided"]
    assert len(entry["masked_accuracy"]) == 4
    assert run.state.measured == 3


def test_an_edge_that_went_by_a_hair_leaves_the_node_undecided() -> None:
    incoming = SearchSpace("scored", ("rotate(10)", "identity"), nodes=4).incoming(4)
    run = Scored(dict(zip(incoming, (0.4, 0.4, 0.4, 0.4), strict=True)))
    Perturbation().decide(Unit("node", 4), run)
    (entry,) = run.state.nodes
    assert len(entry["rounds"]) == 3
    assert not entry["decided"]


def test_a_budget_that_ends_between_removals_leaves_the_rest_to_tau() -> None:
    incoming = SearchSpace("scored", ("rotate(10)", "identity"), nodes=4).incoming(4)
    run = Scored(dict(zip(incoming, (0.1, 0.5, 0.4, 0.3), strict=True)), spent_after=1)
    Perturbation().decide(Unit("node", 4), run)
    (entry,) = run.state.nodes
    assert entry["decided_by"] == "tau"
    assert not entry["decided"]
    assert [found["removed"] for found in entry["rounds"]] == [incoming[0]]
    assert run.state.decisions.sources[4] == incoming[entry["chosen"]] == incoming[1]  # the first of those left


def test_nodes_come_in_a_seeded_random_order() -> None:
    space = SearchSpace("many", ("rotate(10)", "identity"), nodes=5)
    orders = {seed: node_order(space, seed) for seed in range(6)}
    assert all(sorted(order) == [2, 3, 4, 5] for order in orders.values())
    assert orders[3] == node_order(space, 3)
    assert len({tuple(order) for order in orders.values()}) > 3
