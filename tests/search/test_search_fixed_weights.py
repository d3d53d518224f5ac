"""Chains ranked for a model that stays as it is."""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from search_cases import Arrays, CentreWindow, Pixels, blobs, planted, tiny_network
from torch import Tensor, nn

from image2video import Genotype, Image2Video, VideoWrap
from image2video.clip.options import ClipOptions
from image2video.errors import InputError, InputTypeError, StateError
from image2video.search import Ranking, SearchConfig, SearchSpace, candidate_chains, get_space, rank_genotypes
from image2video.search.rank.averaging import AveragedFrames
from image2video.search.rank.candidates import frames_key
from image2video.search.rank.clip_candidate import ClipCandidate
from image2video.search.rank.halving import _rounds
from image2video.search.rank.ranking import is_decided, simplest_of_the_best
from image2video.search.score.scores import PairedScores
from image2video.search.score.task import SegmentationTask

CHAINS = [
    Genotype.parse(text) for text in ("identity", "translate_x(0.03)", "translate_x(0.06) > rotate(-5)", "scale(1.1)")
]


def clips_of(chains: Iterable[Genotype], options: ClipOptions, aggregate: str = "mean") -> list[ClipCandidate]:
    return [ClipCandidate.averaged(chain, options, aggregate) for chain in chains]


@pytest.mark.parametrize("schedule", ["from_zero", "ramp", "centred", "mirror"])
@pytest.mark.parametrize("batch_size", [3, 1000])
def test_the_logits_are_the_mean_over_the_frames_of_the_clip(schedule: str, batch_size: int) -> None:
    network, images = tiny_network().eval(), blobs(5, 0).images.sigmoid() * 2 - 1
    chains = [*CHAINS, *map(Genotype.parse, ("invert(0.5) > rotate(5)", "translate_x(0.1) > contrast(1.3)"))]
    options = ClipOptions(4, schedule, mean=0.5, std=0.5)
    with torch.no_grad():
        got = AveragedFrames(network, batch_size).predictions(images, clips_of(chains, options))
        for chain, logits in zip(chains, got, strict=True):
            clip = Image2Video.of(chain, options)(images)
            assert torch.allclose(logits, network(clip.flatten(0, 1)).view(5, 4, -1).mean(1), atol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "texts", "frames"),
    [
        # Shifts of 0, 3, 6, 9, 12, 18 and 27 hundredths.
        ("from_zero", ("identity", "translate_x(0.03)", "translate_x(0.06)", "translate_x(0.09)"), 7),
        # The identity's frames are the image itself, which "from_zero" has in every clip.
        ("from_zero", ("identity", "translate_x(0.1)", "invert(0.5) > rotate(5)"), 1 + 2 * 3),
        ("ramp", ("identity", "translate_x(0.1)", "invert(0.5) > rotate(5)"), 1 + 2 * 4),
    ],
)
def test_shared_frames_are_predicted_once(schedule: str, texts: tuple[str, ...], frames: int) -> None:
    averaged = AveragedFrames(tiny_network().eval(), 64)
    clips = clips_of(map(Genotype.parse, texts), ClipOptions(4, schedule, mean=0.5, std=0.5))
    averaged.predictions(blobs(5, 0).images.sigmoid() * 2 - 1, clips)
    assert averaged.frames == 5 * frames


def test_scores_are_those_of_the_frames_averaged_by_hand() -> None:
    network, data = tiny_network(seed=3).eval(), blobs(90, 1)
    how = {"T": 3, "schedule": "centred", "padding": "reflection"}
    ranking = rank_genotypes(network, data, candidates=CHAINS[1:], first_images=10, judge=0)
    assert {entry.genotype for entry in ranking.entries} == set(CHAINS)
    assert ranking.images == 90
    for entry in ranking.entries:
        clip = Image2Video(entry.genotype, **how)(data.images)
        with torch.no_grad():
            logits = network(clip.flatten(0, 1)).view(90, 3, -1).mean(1)
        assert entry.images == 90
        assert entry.accuracy == pytest.approx((logits.argmax(1) == data.labels).double().mean().item())
        assert entry.loss == pytest.approx(nn.functional.cross_entropy(logits, data.labels).item(), abs=1e-5)
    keys = [(-entry.accuracy, entry.loss) for entry in ranking.entries]
    assert keys == sorted(keys)
    assert ranking.identity.gain == 0


def test_the_model_stays_as_it_is() -> None:
    network = tiny_network()
    network[1].eval()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rank_genotypes(network, blobs(40, 0), count=5, T=3)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("chains", [5, 8, 20, 64])
@pytest.mark.parametrize("total", [1, 100, 128, 500, 2000])
def test_rounds_halve_the_chains_and_end_with_all_images(chains: int, total: int) -> None:
    rounds = _rounds(chains, 128, total)
    assert sum(images for _, images in rounds) == total
    assert all(images > 0 for _, images in rounds)
    assert rounds[0][0] == chains
    for (keep, _), (next_keep, _) in pairwise(rounds):
        assert next_keep == max(keep // 2, 8)


def test_halving_keeps_the_identity_and_reports_who_left_when() -> None:
    class HatesTheImageItself(nn.Module):
        """Right for every frame that is not the image (which has no black column), wrong for the image."""

        def forward(self, x: Tensor) -> Tensor:
            moved = (x[:, 0, :, 0].abs().sum(1) < 1e-6).float() * 2 - 1
            return torch.stack([moved, -moved], dim=1)

    data = Arrays(torch.rand(300, 1, 8, 50) + 1, torch.zeros(300, dtype=torch.long))
    chains = ["identity", *(f"translate_x({0.05 + i / 100})" for i in range(30))]
    how = {"candidates": chains, "T": 2, "schedule": "ramp", "padding": "zeros", "first_images": 50, "judge": 0}
    ranking = rank_genotypes(HatesTheImageItself(), data, **how)
    assert len(ranking.entries) == 31
    assert ranking.entries[0].accuracy == 1
    assert ranking.identity.images == 300
    assert ranking.identity.accuracy == 0
    finalists = ranking.entries[: ranking.finalists]
    assert len(finalists) == 9
    assert ranking.identity in finalists
    assert all(entry.images == 300 for entry in finalists)
    assert {entry.images for entry in ranking.entries[ranking.finalists :]} <= {50, 100, 200}
    assert ranking.decided
    assert "better than the image itself: +100.00" in ranking.sentence()


def test_equal_runs_rank_equally_and_provenance_says_how() -> None:
    network, data = tiny_network(), blobs(60, 0)
    first, second = (
        rank_genotypes(network, data, T=3, seed=4, count=12, provenance={"dataset": "blobs"}) for _ in range(2)
    )
    assert first.to_dict() == second.to_dict()
    assert first.best.to_json() == second.best.to_json()
    record = dict(first.best.provenance)
    assert record["dataset"] == "blobs"
    assert (record["selection"], record["seed"], record["T"], record["candidates"]) == ("fixed_weights", 4, 3, 12)
    assert record["score"] == first.best_entry.accuracy
    assert rank_genotypes(network, data, T=3, seed=5, count=12).to_dict() != first.to_dict()


def test_a_tie_is_the_identity_and_no_gain_is_claimed() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[1.0, 0.0, 0.0]]).expand(x.shape[0], 3)

    ranking = rank_genotypes(Constant(), blobs(60, 0), count=20, T=3)
    assert ranking.best == Genotype.identity()
    assert not ranking.decided
    assert "the identity is kept" in ranking.sentence()


def paired(rows: list[list[int]], losses: list[float]) -> PairedScores:
    correct = torch.tensor(rows).float().repeat(1, 20)
    noise = torch.linspace(-0.1, 0.1, correct.shape[1])
    loss = torch.stack([x + noise * (1 + v) for v, x in enumerate(losses)])
    return PairedScores.from_images(correct, loss)


def test_the_simplest_of_the_best_is_chosen() -> None:
    texts = ("identity", "rotate(1)", "rotate(1) > scale(1.1)")
    chains = clips_of(map(Genotype.parse, texts), ClipOptions(3))
    same = [1, 1, 1, 0]
    assert simplest_of_the_best(chains, paired([same, same, same], [1.0, 1.0, 1.0])) == 0
    # Equal accuracy, decidedly lower loss: the loss breaks the tie, and the shorter of two alike is taken.
    assert simplest_of_the_best(chains, paired([same, same, same], [1.0, 0.5, 0.5])) == 1
    assert simplest_of_the_best(chains, paired([same, same, same], [1.0, 0.5, 0.4])) == 2
    # Decidedly higher accuracy outweighs a higher loss.
    scores = paired([same, [1, 1, 1, 1], same], [1.0, 1.5, 1.0])
    assert simplest_of_the_best(chains, scores) == 1
    assert is_decided(scores, 1, 0)
    assert not is_decided(scores, 0, 0)
    assert not is_decided(scores, 2, 0)


def test_candidates_are_the_identity_single_steps_and_random_chains() -> None:
    space = get_space("gentle")
    chains = candidate_chains(space, 64, seed=0)
    assert len(chains) == 64
    assert chains[0] == Genotype.identity()
    assert {c for c in space.candidates if c.chain} <= set(chains)
    assert {len(chain.chain) for chain in chains} == {0, 1, 2, 3, 4}
    assert len({frames_key(chain) for chain in chains}) == 64
    assert candidate_chains(space, 64, seed=0) == chains
    assert candidate_chains(space, 64, seed=1) != chains
    few = candidate_chains(space, 10, seed=0)
    assert len(few) == 10
    assert sum(len(chain.chain) == 1 for chain in few) >= 5
    two = SearchSpace("two", ("rotate(5)", "identity"), nodes=2)
    assert [str(c) for c in candidate_chains(two, 100, seed=0)] == ["identity", "rotate(5)", "rotate(5) > rotate(5)"]
    with pytest.raises(InputError, match="at least 1"):
        candidate_chains(space, 0, seed=0)


def test_any_loader_will_do() -> None:
    network, data = tiny_network(), blobs(70, 0)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data.images, data.labels), batch_size=16)
    how = {"candidates": CHAINS, "T": 3, "judge": 0}
    ranking = rank_genotypes(network, loader, **how)
    whole = rank_genotypes(network, data, **how)
    assert [e.to_dict()["genotype"] for e in ranking.entries] == [e.to_dict()["genotype"] for e in whole.entries]
    assert ranking.images == 70
    assert rank_genotypes(network, loader, max_images=20, **how).images == 20
    lists = [(x, y.tolist()) for x, y in loader]
    assert rank_genotypes(network, lists, **how).images == 70
    assert rank_genotypes(network, data.batches(16), **how).images == 70


def test_a_loader_sorted_by_class_warns_where_images_are_left_out() -> None:
    data = blobs(60, 0)
    order = data.labels.argsort(stable=True)
    loader = [(data.images[rows], data.labels[rows]) for rows in order.split(10)]
    with pytest.warns(UserWarning, match="first 25 images are sorted by class"):
        rank_genotypes(tiny_network(), loader, candidates=CHAINS, T=3, max_images=25)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rank_genotypes(tiny_network(), loader, candidates=CHAINS, T=3)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([], InputError, "needs held-out images"),
        ([(torch.zeros(2, 1, 12, 16, dtype=torch.uint8), [0, 1])], InputTypeError, r"float .*got torch\.uint8"),
        ([(torch.zeros(2, 1, 12, 16), [0, 1, 2])], InputError, "one class index per image"),
        ([torch.zeros(2, 1, 12, 16)], InputTypeError, r"must be \(images, labels\), got Tensor"),
        (7, InputTypeError, "got int"),
        ([(torch.full((2, 1, 12, 16), torch.nan), [0, 1])], InputError, "held-out loss of variant 0 of 4 is nan"),
    ],
)
def test_bad_data_is_refused(data: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rank_genotypes(tiny_network(), data, candidates=CHAINS, T=3)


def test_a_wrapped_model_is_refused() -> None:
    wrapped = VideoWrap(tiny_network(), fusion="none", T=3)
    with pytest.raises(StateError, match=r"pass the bare model \(model\.unwrap\(\)\)"):
        rank_genotypes(wrapped, blobs(10, 0))
    with pytest.raises(InputError, match="candidates is empty"):
        rank_genotypes(tiny_network(), blobs(10, 0), candidates=[])


def test_a_limit_of_time_or_frames_ends_with_the_ranking_so_far() -> None:
    def ranked(**limit: float) -> Ranking:
        return rank_genotypes(tiny_network(), blobs(600, 0), count=30, T=3, first_images=20, judge=0, **limit)

    whole, first, timed = ranked(), ranked(max_frames=1), ranked(max_seconds=0.0)
    assert whole.images == 600
    assert first.images == timed.images == 20
    assert len(timed.entries) == 30
    assert first.frames < ranked(max_frames=first.frames + 1).frames < whole.frames
    assert ranked(max_frames=whole.frames).to_dict() == whole.to_dict()


def test_chains_that_change_colours_are_told_apart() -> None:
    texts = ("invert(1)", "invert(0.5)", "invert(1) > rotate(5)", "rotate(5) > invert(1)", "rotate(5)", "identity")
    assert len({frames_key(Genotype.parse(text)) for text in texts}) == 6
    assert frames_key(Genotype.parse("rotate(5) > rotate(-5)")) == frames_key(Genotype.identity())
    space = get_space("autoaugment13")
    assert len(candidate_chains(space, 40, seed=0)) == 40


def test_maps_are_ranked_by_what_they_are_in_the_image() -> None:
    """Without the way back, moved frames would blur the maps; with it, all chains of whole pixels agree."""
    images = torch.randn(30, 1, 20, 40, generator=torch.Generator().manual_seed(0))
    data = Arrays(images, (images[:, 0] < 0).long())
    chains = ["translate_x(0.1)", "translate_y(-0.1) > translate_x(0.05)"]
    for source in (data, list(data.batches(8).epoch(0))):
        ranking = rank_genotypes(Pixels(), source, candidates=chains, T=3, judge=0, task=SegmentationTask(2))
        assert ranking.metric == "mIoU"
        assert ranking.images == 30
        assert len(ranking.entries) == 3
        assert all(entry.accuracy > 0.999 for entry in ranking.entries)
        assert ranking.best == Genotype.identity()
    # 30 images, 2 chains of 3 frames, and the image itself: nothing is shared.
    assert ranking.frames == 30 * (2 * 3 + 1)
    with pytest.raises(InputError, match="one label per image, got shape"):
        rank_genotypes(Pixels(), [(images, data.labels[:7])], candidates=chains, T=3, task=SegmentationTask(2))


def test_progress_counts_to_its_total() -> None:
    calls: list[tuple[str, int, int]] = []
    rank_genotypes(
        tiny_network(),
        blobs(300, 0),
        count=20,
        T=2,
        first_images=50,
        progress=lambda stage, done, total, **figures: calls.append((stage, done, total)),
    )
    assert {stage for stage, _, _ in calls} == {"rank"}
    assert len({total for _, _, total in calls}) == 1
    assert [done for _, done, _ in calls] == sorted({done for _, done, _ in calls})
    assert calls[-1][1] == calls[-1][2]


OTHERS = [text for text in get_space("affine5").labels if not text.startswith("translate_x")]


@pytest.mark.parametrize("text", OTHERS)
def test_the_planted_need_is_met_by_no_other_op_alone(text: str) -> None:
    """The backbone sees a window that holds no trace of the class: 400 images leave 2.5 % by chance."""
    ranking = rank_genotypes(CentreWindow(), planted(400, seed=9), candidates=[text], T=5)
    entry = next(entry for entry in ranking.entries if str(entry.genotype) == text)
    assert abs(entry.accuracy - 0.5) < 0.08
    assert entry.loss > 0.68


def test_one_ranking_chooses_chain_frames_schedule_padding_and_average() -> None:
    network, data = tiny_network(seed=3).eval(), blobs(60, 1)
    ranking = rank_genotypes(
        network,
        data,
        candidates=["translate_x(0.1)", "flip_x"],
        T=(2, 3),
        schedule=("from_zero", "centred"),
        padding=("zeros", "reflection"),
        aggregate=("mean", "mean_prob"),
        judge=0,
    )
    # The image itself; 2 T × 2 schedules × 2 paddings × 2 averages of the shift; mirror images know no padding, and at
    # T = 2 both schedules hold the image and its mirror image.
    assert len(ranking.entries) == 1 + 16 + 2 * 3
    assert (ranking.identity.cost, ranking.identity.gain) == (1, 0)
    # Frames: the image, its mirror image, and shifts by -1, 1 and 2 steps with either padding.
    assert ranking.frames == 60 * (2 + 3 * 2)
    for entry in ranking.entries:
        model = VideoWrap(network, "none", **entry.wrap_options(), input_size=(1, 12, 16))
        with torch.no_grad():
            logits = model(data.images)
        model.unwrap()
        assert entry.accuracy == pytest.approx((logits.argmax(1) == data.labels).double().mean().item())
        assert entry.loss == pytest.approx(nn.functional.cross_entropy(logits, data.labels).item(), abs=1e-5)
    assert Ranking.from_dict(ranking.to_dict(), ranking.seconds) == replace(
        ranking, best=ranking.best.with_provenance(None)
    )


def test_cost_limits_the_choice_and_the_front_shows_gain_against_it() -> None:
    network, data = tiny_network(seed=3).eval(), blobs(60, 1)
    how = {"candidates": ["translate_x(0.1)", "scale(1.2)"], "T": (2, 3, 5)}
    ranking = rank_genotypes(network, data, **how)
    assert [entry.cost for entry in ranking.front] == [1, 2, 3, 5]
    best = {cost: next(e for e in ranking.entries[: ranking.finalists] if e.cost == cost) for cost in (1, 2, 3, 5)}
    assert [*ranking.front] == [*best.values()]
    cheap = rank_genotypes(network, data, max_cost=3, **how)
    assert {entry.cost for entry in cheap.entries} == {1, 2, 3}
    with pytest.raises(InputError, match=r"max_cost=1 frames leaves no clip of T = .*give a smaller T"):
        rank_genotypes(network, data, max_cost=1, **how)


def test_candidates_carry_their_multiply_accumulates() -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3))
    data = [(torch.rand(9, 1, 8, 8), torch.arange(9) % 3)]
    ranking = rank_genotypes(net, data, candidates=["identity", "translate_x(0.1)"], T=(2, 5), judge=0)
    assert {(entry.cost, entry.macs) for entry in ranking.entries} == {(1, 12.0), (2, 24.0), (5, 60.0)}
    assert Ranking.from_dict(ranking.to_dict()).entries == ranking.entries


def test_of_equal_clips_the_cheapest_is_chosen() -> None:
    class SameEverywhere(nn.Module):
        """Right for every frame but the image itself."""

        def forward(self, x: Tensor) -> Tensor:
            moved = (x[:, 0, :, 0].abs().sum(1) < 1e-6).float() * 2 - 1
            return torch.stack([moved, -moved], dim=1)

    data = Arrays(torch.rand(60, 1, 8, 50) + 1, torch.zeros(60, dtype=torch.long))
    chains = ["translate_x(0.1)", "translate_x(0.1) > translate_x(0.05)"]
    ranking = rank_genotypes(SameEverywhere(), data, candidates=chains, T=(5, 2, 3), schedule="ramp", padding="zeros")
    assert (str(ranking.best), ranking.best_entry.T) == ("translate_x(0.1)", 2)
    assert ranking.best.provenance["T"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregate": "first"}, "unknown aggregate 'first'; choose one of mean, mean_prob"),
        ({"T": ()}, "T must be one value or several different ones"),
        ({"padding": ("zeros", "zeros")}, "padding must be one value or several different ones"),
        ({"aggregate": "mean_prob", "task": SegmentationTask(2)}, "for segmentation it must be 'mean'"),
    ],
)
def test_choices_that_cannot_be_made_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rank_genotypes(tiny_network(), blobs(10, 0), candidates=CHAINS, **{"T": 2, **options})


def test_labels_beyond_the_classes_and_single_logits_are_refused() -> None:
    images = torch.rand(20, 1, 12, 16)
    with pytest.raises(InputError, match=r"labels .*3"):
        rank_genotypes(tiny_network(), Arrays(images, torch.full((20,), 3)), candidates=CHAINS)
    one = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    with pytest.raises(InputError, match=r"returned 1 logit per frame; .*put \(0, logit\) in its place"):
        rank_genotypes(one, Arrays(images, torch.zeros(20, dtype=torch.long)), candidates=CHAINS)


def test_the_selection_that_people_call_darts_is_named() -> None:
    with pytest.raises(InputError, match=r"unknown selection 'darts'; what DARTS does is 'argmax'; choose one of"):
        SearchConfig(selection="darts")
