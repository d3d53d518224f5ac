"""Selection by one-shot ranking: shared weights, the ranking, its budget, and scores of given chains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from search_cases import Arrays, blobs, tiny_network
from torch import Tensor, nn

from image2video import Colours, Genotype, Image2Video
from image2video.clip.options import ClipOptions
from image2video.errors import InputError
from image2video.runs.folders import read_json
from image2video.search import (
    SearchConfig,
    SearchResult,
    SearchSpace,
    candidate_chains,
    chain_score_by_perturbation,
    chain_score_by_tau,
    get_space,
    register_space,
    score_chains,
    search,
)
from image2video.search.rank.clip_candidate import ClipCandidate
from image2video.search.rank.halving import Halving, HalvingRules
from image2video.search.rank.pool import HeldOut
from image2video.search.rank.predictors import AtPlaces
from image2video.search.rank.ranking import Ranking
from image2video.search.rank.shared_weights import SharedWeights
from image2video.search.result import budget_warning
from image2video.search.score.network import FrameNetwork, build_network
from image2video.search.score.scores import PairedScores
from image2video.search.score.task import ClassificationTask, SegmentationTask

# Networks this small, trained this briefly, often find nothing better than the image.
pytestmark = pytest.mark.filterwarnings("ignore:.*chose the identity:UserWarning")
SMALL = register_space(SearchSpace("small_steps", ("translate_x(0.1)", "translate_x(-0.1)", "rotate(10)"), nodes=2))
FILES = ("genotype.json", "tau.json", "scores.json", "config.yaml")


def config(**options: object) -> SearchConfig:
    defaults: dict[str, object] = {"space": SMALL.name, "T": 3, "epochs": 2, "batch_size": 16, "candidates": 8}
    return SearchConfig(**{**defaults, "selection": "one_shot", "device": "cpu", **options})


def run(out: Path | None = None, resume: bool = False, progress: object = None, **options: object) -> SearchResult:
    return search(tiny_network(), blobs(120, 0), config(**options), out=out, resume=resume, progress=progress)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Path]:
    out = tmp_path_factory.mktemp("one_shot") / "run"
    return run(out), out


def test_the_result_holds_the_ranking(finished: tuple[SearchResult, Path]) -> None:
    result, out = finished
    ranking, scores = result.ranking, read_json(out / "scores.json")
    assert scores["ranking"] == ranking.to_dict()
    assert scores["genotype"] == str(result.genotype) == str(ranking.best)
    assert {entry.genotype for entry in ranking.entries} == set(candidate_chains(SMALL, 8, 0))
    assert ranking.images == 60
    assert ranking.identity.gain == 0
    assert ranking.best == ranking.entries[0].genotype
    keys = [(-entry.accuracy, entry.loss) for entry in ranking.entries[: ranking.finalists]]
    assert keys == sorted(keys)
    assert Genotype.load(out / "genotype.json") == result.genotype
    record = dict(result.genotype.provenance or {})
    assert (record["selection"], record["epochs"], record["candidates"]) == ("one_shot", 2, 8)
    assert record["score"] == ranking.best_entry.accuracy
    assert record["decided"] == ranking.decided
    assert [entry["epoch"] for entry in result.state.sampled] == [1, 2]
    assert result.summary() is None
    assert result.seconds == result.state.seconds > 0
    # 60 images train twice, 3 frames each; 8 chains (the finalists from the start) see the 60 held-out ones.
    assert result.frames == 2 * 60 * 3
    assert result.state.evaluated_frames == ranking.frames == 8 * 60 * 3
    assert ranking.sentence() in result.decided_sentence()
    assert "other finalists lie within two standard errors" in result.decided_sentence()
    assert any(path.name.startswith("events") for path in (out / "tensorboard").iterdir())


def test_the_ranking_survives_its_record(finished: tuple[SearchResult, Path]) -> None:
    ranking = finished[0].ranking
    again = Ranking.from_dict(ranking.to_dict())
    assert again.to_dict() == ranking.to_dict()
    assert again.entries == ranking.entries


def test_shared_weights_predict_the_clip_of_every_chain() -> None:
    network = build_network(tiny_network(), "gsf", residual=False, input_size=(1, 12, 16)).eval()
    data = blobs(9, 0)
    shared = SharedWeights(network, ClassificationTask())
    chains = [Genotype.parse(text) for text in ("identity", "translate_x(0.1) > rotate(-10)", "scale(1.2)")]
    with torch.no_grad():
        found = shared.predictions(data.images, [ClipCandidate.mixed(c, ClipOptions(3, "ramp")) for c in chains])
        for chain, logits in zip(chains, found, strict=True):
            clip = Image2Video(chain, T=3, schedule="ramp")(data.images)
            assert torch.allclose(logits, network(clip).view(9, 3, -1).mean(1), atol=1e-6)
        assert shared.frames == 3 * 9 * 3


def test_maps_of_clips_are_made_when_they_are_asked_for() -> None:
    """Those of all candidates together would fill the memory."""

    class Pixels(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, -x], dim=1)

    shared = SharedWeights(FrameNetwork(Pixels(), None), SegmentationTask(2))
    clips = [ClipCandidate.mixed(Genotype.parse(text), ClipOptions(3)) for text in ("flip_x", "rotate(5)")]
    predictor = AtPlaces({None: shared}, together=False)
    for found in (
        shared.predictions(torch.rand(4, 1, 8, 8), clips),
        predictor.predictions(torch.rand(4, 1, 8, 8), clips),
    ):
        before = shared.frames
        assert next(iter(found)).shape == (4, 2, 8, 8)
        assert shared.frames == before + 4 * 3


def test_maps_are_unwarped_before_they_are_averaged() -> None:
    class Pixels(nn.Module):
        """Logits of two classes per pixel: the pixel and its negative."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, -x], dim=1)

    images = torch.rand(4, 1, 20, 30) + 1
    shared = SharedWeights(FrameNetwork(Pixels(), None), SegmentationTask(2))
    chain = Genotype.parse("translate_x(0.1) > translate_y(-0.2)")
    (maps,) = shared.predictions(images, [ClipCandidate.mixed(chain, ClipOptions(3))])
    # Whole pixels (3 and 4): what is seen in any frame is the image itself, frame 0 sees all of it.
    assert torch.allclose(maps[:, :1], images, atol=1e-4)


def test_the_default_space_has_magnitudes_to_choose_from() -> None:
    assert SearchConfig(selection="one_shot").space_name == "gentle"
    assert SearchConfig(selection="one_shot", space="affine5").space_name == "affine5"
    assert len({t.magnitude for c in get_space("gentle").candidates for t in c.chain if t.op == "rotate"}) > 2


def test_the_loss_may_order_the_ranking() -> None:
    ranking = run(criterion="loss").ranking
    losses = [entry.loss for entry in ranking.entries[: ranking.finalists]]
    assert losses == sorted(losses)


def test_identity_in_the_first_place_is_kept_with_a_warning() -> None:
    class Blind(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[1.0, 0.0, 0.0]]).repeat(x.shape[0], 1) + 0 * x.mean()

    with pytest.warns(
        UserWarning, match=r"chose the identity: .*of 8 chains it came first on 60 held-out images, and 7"
    ):
        result = search(Blind(), blobs(120, 0), config(epochs=0, fusion="none"))
    assert result.genotype == Genotype.identity()
    assert not result.ranking.decided
    assert result.ranking.tied == 7


@pytest.mark.filterwarnings("ignore:the budget .* was spent before the ranking")
@pytest.mark.parametrize("max_images", [100, 700])
def test_a_budget_cuts_the_sampling_and_the_ranking(max_images: int) -> None:
    options = {"max_images": max_images, "candidates": 12, "first_images": 10, "epochs": 8, "batch_size": 10}
    first, second = run(**options), run(**options)
    assert first.scores_record() == second.scores_record()
    trained, ranked = first.frames // 3, first.state.evaluated_frames // 3
    assert 0.6 * max_images <= trained < 0.6 * max_images + 10
    # The first round is whole; after it a batch of every chain may begin before the budget is spent.
    assert trained + ranked < max(trained + 11 * 10, max_images) + 11 * 10
    assert (first.ranking.images == 10) == (max_images == 100)
    assert first.ranking.images < 60
    assert len(first.ranking.entries) == 11  # all that the space has
    if max_images == 100:
        with pytest.warns(UserWarning, match=r"max_images=100\) was spent before the ranking.* took 170 images"):
            run(**options)
    else:
        assert budget_warning(first) is None


def test_halving_over_two_shares_scores_what_one_does() -> None:
    """Each of two processes takes every other image of each batch; the scores add up to those of one process."""

    class Share:
        num_processes = 2

        def __init__(self, rank: int) -> None:
            self.process_index = rank

    network, data = FrameNetwork(tiny_network(), None).eval(), blobs(50, 0)
    clips = tuple(ClipCandidate.mixed(chain, ClipOptions(3)) for chain in candidate_chains(SMALL, 6, 0))

    def halving(accelerator: object) -> tuple[Halving, SharedWeights]:
        shared = SharedWeights(network, ClassificationTask())
        held_out = HeldOut(data, None, batch_size=16, seed=3, device=torch.device("cpu"))
        ranked = Halving(clips, shared, held_out, HalvingRules(ClassificationTask(), 20, accelerator=accelerator))
        return ranked, shared

    with torch.no_grad():
        whole = halving(None)[0].run().scores
        labels = []
        for rank in (0, 1):
            ranked, _ = halving(Share(rank))
            labels.append([y for _, y in ranked._next(50, whole=True)])
    pairs = [torch.stack([a[: len(b)], b], 1).flatten() for a, b in zip(*labels, strict=True)]
    assert sum(len(a) + len(b) for a, b in zip(*labels, strict=True)) == 50
    assert isinstance(whole, PairedScores)
    stream = HeldOut(data, None, batch_size=16, seed=3, device=torch.device("cpu")).stream()
    assert torch.equal(torch.cat(pairs), torch.cat([y for _, y in stream]))


def test_chains_are_scored_under_given_weights() -> None:
    network, data = FrameNetwork(tiny_network(), None), blobs(60, 0)
    assert network.training
    chains = ["identity", "translate_x(0.1)", "rotate(10) > scale(1.1)"]
    scores = score_chains(network, data.batches(16).epoch(0), chains, T=3)
    assert network.training
    assert (scores.n, scores.variants) == (60, 3)
    network.eval()
    for variant, chain in enumerate(chains):
        with torch.no_grad():
            logits = network(Image2Video(chain, T=3)(data.images)).view(60, 3, -1).mean(1)
        assert scores.mean_loss(variant) == pytest.approx(nn.functional.cross_entropy(logits, data.labels).item())
    with pytest.raises(InputError, match="no chain to score"):
        score_chains(network, data.batches(16).epoch(0), [])
    coloured = Arrays(data.images.sigmoid(), data.labels).batches(16)
    with pytest.raises(InputError, match="say how the images are normalised"):
        score_chains(network, coloured.epoch(0), ["invert(1)"], T=3)
    assert score_chains(network, coloured.epoch(0), ["invert(1)"], T=3, colours=Colours()).n == 60


def test_the_score_of_a_chain_by_tau_is_that_of_its_best_path() -> None:
    space = SearchSpace("two_ops", ("rotate(10)", "scale(1.1)", "identity"), nodes=2)
    # Edges: input → 1, input → 2, 1 → 2.
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.6, 0.1, 0.3]])
    tau = weights.log() + torch.tensor([[1.0], [2.0], [3.0]])

    def expected(*parts: float) -> float:
        return float(torch.tensor(parts).log().mean())

    for chain, parts in {
        "identity": (0.7,),  # straight, not (0.2, 0.3)
        "rotate(10)": (0.5, 0.3),  # not (0.2, 0.6), identity first
        "scale(1.1)": (0.3, 0.3),
        "rotate(10) > scale(1.1)": (0.5, 0.1),
        "scale(1.1) > rotate(10)": (0.3, 0.6),
    }.items():
        assert chain_score_by_tau(tau, space, chain) == pytest.approx(expected(*parts), abs=1e-6)
    with pytest.raises(InputError, match="no path through the cell of 'two_ops' gives the chain shear_x"):
        chain_score_by_tau(tau, space, "shear_x(5)")
    with pytest.raises(InputError, match="2 nodes"):
        chain_score_by_tau(tau, space, "rotate(10) > rotate(10) > rotate(10)")


def test_the_score_of_a_chain_by_perturbation_sums_its_drops() -> None:
    space = SearchSpace("two_more_ops", ("rotate(10)", "scale(1.1)", "identity"), nodes=2)
    drops = [[0.05, 0.03, 0.0], [0.01, 0.02, 0.07], [0.06, 0.01, -0.01]]
    records = [{"edge": e, "accuracy": 0.8, "masked_accuracy": [0.8 - d for d in row]} for e, row in enumerate(drops)]
    for chain, expected in {
        "identity": 0.07,
        "rotate(10)": 0.06,
        "scale(1.1)": 0.02,
        "rotate(10) > scale(1.1)": 0.06,
        "scale(1.1) > rotate(10)": 0.09,
    }.items():
        assert chain_score_by_perturbation(reversed(records), space, chain) == pytest.approx(expected)
    left = [*records[:2], {"edge": 2, "accuracy": None, "masked_accuracy": None}]
    with pytest.raises(InputError, match=r"1 of 3 edges were not measured, the first is \(1, 2\)"):
        chain_score_by_perturbation(left, space, "identity")


SCRIPT = """
import gc, json, sys
from accelerate import Accelerator
from search_cases import CentreWindow, blobs, planted, tiny_network
from image2video.search import SearchConfig, search

accelerator = Accelerator(cpu=True)

def main():
    options = {"T": 3, "epochs": 1, "batch_size": 16, "device": "cpu", "candidates": 20, "first_images": 40}
    fixed = SearchConfig(selection="one_shot", space="affine5", fusion="none", **options)
    found = [search(CentreWindow(), planted(160, 0), fixed, accelerator=accelerator).ranking.to_dict()]
    trained = SearchConfig(selection="one_shot", space="affine5", max_images=900, **options)
    result = search(tiny_network(), blobs(160, 0), trained, accelerator=accelerator, out=sys.argv[1])
    found += [result.ranking.to_dict(), str(result.genotype), result.frames, result.state.evaluated_frames]
    orders = SearchConfig(T=3, epochs=1, batch_size=16, device="cpu", orders=2, stop_early=3.0)
    result = search(tiny_network(), blobs(62, 0), orders, accelerator=accelerator)
    for entry in [e for records in (*result.state.orders, result.state.edges) for e in records]:
        entry.pop("tuning_loss", None)  # each process's own share of the images
    found += [result.state.orders, result.state.edges, str(result.genotype)]
    with open(f"{sys.argv[1]}.{accelerator.process_index}", "w") as file:
        json.dump(found, file)

main()
gc.collect()  # what is left of DDP holds the process group, whose threads must end before the interpreter
accelerator.end_training()
"""


@pytest.mark.slow
def test_two_processes_rank_alike_and_as_one_does(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1] / "helpers")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for start, name in ((launch, "two"), ([], "one")):
        command = [sys.executable, "-W", "ignore", *start, str(script), str(tmp_path / name)]
        subprocess.run(command, check=True, env=environment, timeout=300)
    first, second, alone = (json.loads((tmp_path / name).read_text()) for name in ("two.0", "two.1", "one.0"))
    assert first == second
    for entry, other in zip(first[0].pop("entries"), alone[0].pop("entries"), strict=True):
        assert entry.pop("genotype") == other.pop("genotype")
        assert entry == pytest.approx(other, abs=1e-12)
    assert first[0] == alone[0]
