"""What chose a chain does not judge it: the gain of a winner is estimated on images that chose nothing."""

import json

import pytest
import torch
from search_cases import Arrays, blobs, tiny_network
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from image2video import Image2Video
from image2video.errors import InputError
from image2video.search import Ranking, rank_genotypes
from image2video.search.rank.calibration import fit_temperature
from image2video.search.rank.gain import GainEstimate
from image2video.search.rank.pool import HeldOut

CHAINS = ["translate_x(0.1)", "rotate(20)", "scale(1.2)", "flip_x"]


class Coin(nn.Module):
    """Two logits that say nothing of the label, though every frame gets its own."""

    def forward(self, x: Tensor) -> Tensor:
        # The last digits of a pixel are as good as random.
        noise = (x[:, 0, 3, 4] * 1e4) % 1
        return torch.stack([noise, 1 - noise], dim=1)


class LeftToRight(nn.Module):
    """Right where the left half is brighter than the right one."""

    def forward(self, x: Tensor) -> Tensor:
        lead = x[:, 0, :, :8].mean((1, 2)) - x[:, 0, :, 8:].mean((1, 2))
        return torch.stack([lead, -lead], dim=1)


def coins(seed: int, count: int = 300) -> Arrays:
    generator = torch.Generator().manual_seed(seed)
    return Arrays(torch.rand(count, 1, 8, 16, generator=generator), torch.randint(2, (count,), generator=generator))


def judged_images(data: Arrays, seed: int, choosing: int) -> tuple[Tensor, Tensor]:
    held_out = HeldOut(data, None, batch_size=64, seed=seed, device=torch.device("cpu"))
    images, labels = zip(*held_out.part(choosing, held_out.num_images), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_the_estimate_is_that_of_the_images_that_chose_nothing() -> None:
    network, data = tiny_network(seed=3).eval(), blobs(90, 1)
    ranking = rank_genotypes(network, data, candidates=CHAINS, first_images=10, seed=5)
    assert ranking.images == 60
    estimate = ranking.estimate
    assert estimate.images == 30
    chosen = HeldOut(data, None, batch_size=64, seed=5, device=torch.device("cpu"))
    first = torch.cat([x for x, _ in chosen.part(0, 60)])
    images, labels = judged_images(data, 5, 60)
    # No image is in both parts.
    assert not (first.flatten(1)[:, None] == images.flatten(1)[None]).all(2).any()
    with torch.no_grad():
        bare = network(images)
        clip = network(Image2Video(ranking.best)(images).flatten(0, 1)).view(30, 3, -1).mean(1)
    rights = [(z.argmax(1) == labels).double() for z in (bare, clip)]
    losses = [cross_entropy(z, labels, reduction="none").double() for z in (bare, clip)]
    assert estimate.bare_accuracy == pytest.approx(rights[0].mean().item())
    assert estimate.gain == pytest.approx((rights[1] - rights[0]).mean().item())
    assert estimate.loss_gain == pytest.approx((losses[1] - losses[0]).mean().item(), abs=1e-5)
    spread = (losses[1] - losses[0]).std(correction=0).item() / 30**0.5
    assert estimate.loss_gain_error == pytest.approx(spread, abs=1e-5)


def test_a_winner_by_chance_gains_nothing_on_other_images() -> None:
    """The images that chose it flatter it, by several standard errors of the best of many."""
    texts = [f"translate_x({i / 40})" for i in range(1, 30)]
    flattered, honest = [], []
    for seed in range(6):
        ranking = rank_genotypes(Coin(), coins(seed), candidates=texts, seed=seed, first_images=200)
        best = ranking.entries[0].genotype
        again = rank_genotypes(Coin(), coins(seed), candidates=[best], seed=seed, first_images=200)
        flattered.append(ranking.entries[0].gain)
        images, labels = judged_images(coins(seed), seed, again.images)
        frames = Image2Video(best, T=3, schedule="centred", padding="reflection")(images)
        clip = Coin()(frames.flatten(0, 1)).view(len(labels), 3, 2).mean(1)
        rights = [(z.argmax(1) == labels).double().mean().item() for z in (clip, Coin()(images))]
        honest.append(rights[0] - rights[1])
        assert not ranking.decided
    mean = [sum(values) / len(values) for values in (flattered, honest)]
    assert mean[0] > 0.05
    assert abs(mean[1]) < 0.04


def test_a_real_gain_is_decided_and_said_with_its_interval() -> None:
    class RightWhereMoved(nn.Module):
        """Sure of the first class where a black column has moved in, and of the second one elsewhere."""

        def forward(self, x: Tensor) -> Tensor:
            moved = (x[:, 0, :, 0].abs().sum(1) < 1e-6).float() * 2 - 1
            return torch.stack([moved, -moved], dim=1)

    data = Arrays(torch.rand(240, 1, 8, 16) + 1, torch.zeros(240, dtype=torch.long))
    ranking = rank_genotypes(
        RightWhereMoved(), data, candidates=["translate_x(0.25)"], T=2, schedule="ramp", padding="zeros"
    )
    assert str(ranking.best) == "translate_x(0.25)"
    assert ranking.decided
    assert ranking.estimate.interval[0] > 0
    sentence = ranking.sentence()
    assert "on 80 held-out images that chose nothing" in sentence
    assert "95 % interval" in sentence
    assert "temperature-scaled" in sentence


def test_records_keep_the_estimate_and_old_ones_load() -> None:
    ranking = rank_genotypes(tiny_network(), blobs(90, 1), candidates=CHAINS, T=2)
    record = json.loads(json.dumps(ranking.to_dict()))
    again = Ranking.from_dict(record, ranking.seconds)
    assert again.estimate == ranking.estimate
    assert again.sentence() == ranking.sentence()
    assert ranking.best.provenance["estimate"]["images"] == 30
    del record["estimate"]
    assert Ranking.from_dict(record).estimate is None


def test_without_judges_the_sentence_says_what_chose() -> None:
    images = torch.rand(60, 1, 8, 16, generator=torch.Generator().manual_seed(0))
    data = Arrays(
        images, (images.flip(-1)[:, 0, :, :8].mean((1, 2)) < images.flip(-1)[:, 0, :, 8:].mean((1, 2))).long()
    )
    ranking = rank_genotypes(LeftToRight(), data, candidates=["flip_x"], T=2, schedule="ramp", judge=0)
    assert ranking.estimate is None
    assert "estimate" not in ranking.best.provenance
    with pytest.raises(InputError, match=r"judge must be a share of the images, 0 … 0.9, got 1"):
        rank_genotypes(LeftToRight(), data, judge=1)


def test_a_few_images_without_a_change_decide_nothing() -> None:
    one = GainEstimate(1, 1.0, 0.0, 1.0, 1.0, 0.1, 0.2, -0.1, 0.0)
    assert not one.decided
    images = torch.rand(6, 1, 8, 16, generator=torch.Generator().manual_seed(0))
    ranking = rank_genotypes(LeftToRight(), Arrays(images, torch.zeros(6, dtype=torch.long)), candidates=CHAINS, T=2)
    assert ranking.estimate.images == 2
    assert ranking.estimate.gain_error >= 0.5
    assert ranking.estimate.scaled_loss is None
    assert not ranking.decided


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_is_that_of_the_logits(true: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 5, generator=generator, dtype=torch.float64) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(logits * true, labels) == pytest.approx(true, rel=0.05)


def test_an_overconfident_network_gains_nothing_that_scaling_would_not_give() -> None:
    """Averaging softens logits; beside a bare network with a temperature, that is no gain."""
    images = torch.rand(400, 1, 8, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(2, (400,), generator=torch.Generator().manual_seed(1))

    class Loud(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 50 * LeftToRight()(x)

    ranking = rank_genotypes(Loud(), Arrays(images, labels), candidates=["flip_x"], T=2, judge=0.5)
    estimate = ranking.estimate
    pair = estimate if str(ranking.best) == "flip_x" else None
    assert pair is not None
    assert pair.loss_gain < -0.3
    assert abs(pair.scaled_loss_gain) < 0.02
