"""Budgets: counted exactly, and honoured within one validation pass."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import search_cases
import torch
from accelerate import Accelerator
from search_cases import blobs, tiny_network

from image2video import Genotype
from image2video.clip.colours import Colours
from image2video.clip.image_to_video import Image2Video
from image2video.errors import StateError
from image2video.search import SearchSpace, register_space, search, work
from image2video.search.epochs import one_shot_epoch, search_epoch, tune_epoch
from image2video.search.optimise.schedule import cosine
from image2video.search.run import SearchRun
from image2video.search.score.network import build_network
from image2video.search.select.selection import get_selection
from image2video.search.setup import Setup
from image2video.search.state import budget

SPACE = register_space(SearchSpace("budgeted", ("translate_x(0.1)", "rotate(10)", "scale(1.2)"), nodes=2))
pytestmark = pytest.mark.filterwarnings("ignore:the budget .* was spent before")
config = partial(search_cases.config, space=SPACE.name, epochs=3, batch_size=10)


def running(space: SearchSpace = SPACE, **options: object) -> SearchRun:
    network = build_network(tiny_network(), "none", residual=True, input_size=(1, 12, 16))
    data = blobs(60, 0)
    return SearchRun(network, Setup(config(**options), space, Accelerator(cpu=True), colours=Colours()), data, data)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that a test moves on."""
    clock = SimpleNamespace(now=100.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(budget, "time", clock)
    return clock


def test_without_a_budget_nothing_is_spent() -> None:
    run = running()
    search_epoch(run, 0, moves_tau=True)
    assert run.spent() == 0
    assert run.state.frames == 3 * 120


def test_the_search_stage_ends_at_six_tenths_in_the_middle_of_an_epoch() -> None:
    run = running(max_images=150, epochs=4)
    rates = []
    run.bilevel.network.register_forward_pre_hook(lambda *_: rates.append(run.bilevel.optimizer.param_groups[0]["lr"]))
    for epoch in range(2):
        search_epoch(run, epoch, moves_tau=True)
    # 20 images a step: after 5 steps 100 of 150, of which the stage may use 90.
    assert run.state.frames == 3 * 100
    assert run.spent() == pytest.approx(100 / 150)
    assert [record["epoch"] for record in run.state.epochs] == [0, 1]
    assert run.state.epochs[1]["steps"] == 5
    # The rate falls with the budget, which ends the stage before its epochs do.
    expected = [cosine(0.025, 0.001, int(20 * step / 90 * 4) / 4) for step in range(5)]
    assert rates[::2] == pytest.approx(expected)
    assert len(set(expected)) == 4


def test_minutes_stop_a_stage_and_are_kept(clock: SimpleNamespace) -> None:
    run = running(max_minutes=1.0)
    run.bilevel.network.register_forward_pre_hook(lambda *_: setattr(clock, "now", clock.now + 4))
    search_epoch(run, 0, moves_tau=True)
    # 8 seconds a step (two passes): after 5 steps 40 seconds, of which the stage may use 36.
    assert run.state.seconds == 40
    assert run.state.epochs[-1]["steps"] == 5
    assert run.spent() == pytest.approx(40 / 60)
    search_epoch(run, 1, moves_tau=True)
    assert run.state.seconds == 40
    assert len(run.state.epochs) == 2
    clock.now += 30
    run.tick()
    assert run.spent() == pytest.approx(70 / 60)


def test_epochs_that_the_budget_leaves_out_write_no_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    saved: list[int] = []
    monkeypatch.setattr(work, "save_run", lambda run, path: saved.append(run.state.done))
    settings = config(max_images=100, epochs=40, tune_epochs=20)
    search(tiny_network(), blobs(60, 0), settings, out=tmp_path / "out")
    units = get_selection("perturbation").units(SPACE, settings)
    trained = [number for number in saved if units[number - 1].kind in ("search", "tune")]
    assert 1 <= len(trained) <= 3  # an epoch is 60 images
    assert len(saved) - len(trained) == sum(unit.kind not in ("search", "tune") for unit in units)
    assert saved[-1] == len(units)


def test_tuning_ends_at_nine_tenths() -> None:
    run = running(max_images=100, warmup_epochs=3)
    search_epoch(run, 0, moves_tau=True)
    assert run.state.frames == 3 * 60
    run.state.edges.append({"edge": 0})
    run.state.decisions.ops[0] = 0
    tune_epoch(run, 0, 3, moves_tau=False)
    assert run.state.frames == 3 * 90
    assert len(run.state.edges[0]["tuning_loss"]) == 1
    tune_epoch(run, 1, 3, moves_tau=False)
    assert run.state.frames == 3 * 90
    assert len(run.state.edges[0]["tuning_loss"]) == 1


def test_every_batch_goes_through_a_chain_of_its_own_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[int, list[str]] = {}
    original = SearchRun.video

    def video(self: SearchRun, chain: Genotype) -> Image2Video:
        drawn[self.config.seed].append(str(chain))
        made = original(self, chain)
        assert made.colours == self.colours
        return made

    monkeypatch.setattr(SearchRun, "video", video)
    space = SearchSpace("mixed", ("translate_x(0.1)", "rotate(10)", "invert(0.5)"), nodes=2)
    for seed in (0, 1):
        drawn[seed] = []
        run = running(space, seed=seed, crop_flip=False)
        before = {name: value.clone() for name, value in run.bilevel.bare.named_parameters()}
        for epoch in (0, 1, 0):
            one_shot_epoch(run, epoch)
        assert any(not torch.equal(before[name], value) for name, value in run.bilevel.bare.named_parameters())
        assert torch.equal(run.tau(), run.cell.tau.detach())
    assert drawn[0] != drawn[1]
    assert drawn[0][:6] == drawn[0][12:]  # (seed, epoch, step) alone decide
    assert drawn[0][:6] != drawn[0][6:12]
    assert len(set(drawn[0] + drawn[1])) > 6
    assert any("invert" in chain for chain in drawn[0])


@pytest.mark.parametrize("selection", ["perturbation", "one_shot"])
@pytest.mark.parametrize("images", [40, 250, 700])
def test_a_search_overruns_by_one_validation_pass_at_most(selection: str, images: int) -> None:
    settings = config(max_images=images, selection=selection, candidates=6, first_images=10)
    result = search(tiny_network(), blobs(60, 0), settings)
    used = (result.frames + result.state.evaluated_frames) / 3
    # One pass: 30 held-out images under the cell and its three masked forms, or under six chains.
    assert used <= images + 30 * (4 if selection == "perturbation" else 6)


def test_a_snapshot_brings_back_weights_and_momentum() -> None:
    run = running()
    with pytest.raises(StateError, match="no snapshot of the network"):
        run.restore()
    search_epoch(run, 0, moves_tau=True)
    run.snapshot()
    state = torch.get_rng_state()
    one_shot_epoch(run, 1)
    ends = {name: value.clone() for name, value in run.bilevel.bare.state_dict().items()}
    for _ in range(2):
        run.restore()
        torch.set_rng_state(state)
        one_shot_epoch(run, 1)
        assert all(torch.equal(ends[name], value) for name, value in run.bilevel.bare.state_dict().items())
