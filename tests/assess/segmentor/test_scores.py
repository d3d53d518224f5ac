"""What predictions of pixels are worth: counts per image, temperatures of a sample, intervals over images."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from image2video.assess.choice import cheapest_of_the_best, smallest_of_the_best
from image2video.assess.segmentor.scores import choosing_scores, gain_of, score_pixels
from image2video.errors import InputError
from image2video.search.rank.calibration import calibration_error
from image2video.search.score.segmentation import SegmentationScores
from image2video.segmentation import mean_iou, overlaps

K = 4


@dataclass
class Image:
    logits: Tensor
    answers: Tensor
    labels: Tensor


def images(count=40, *, noise=2.0, seed=0, sharp=1.0):
    """Labelled pixels of images of different sizes; a noisier network is wrong more often."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        labels = torch.randint(K, (60 + 7 * (number % 5),), generator=torch.Generator().manual_seed(number))
        hard = 1 + number % 3  # images differ: that is what an interval is about
        logits = 3 * torch.nn.functional.one_hot(labels, K) + hard * noise * torch.randn(
            len(labels), K, generator=generator
        )
        found.append(Image(sharp * logits, logits.argmax(1), labels))
    return found


def scored(found, **options):
    return score_pixels(iter(found), len(found), K, **options)


def test_figures_are_those_of_all_pixels_together():
    found = images()
    scores, temperature = scored(found, temperature=2.0)
    figures = scores.figures(temperature)
    logits, labels = torch.cat([one.logits for one in found]), torch.cat([one.labels for one in found])
    counts = overlaps(logits.T[None, :, None], labels[None, None], K)[0]
    assert figures.accuracy == pytest.approx(mean_iou(counts).item())
    assert figures.pixel_accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert figures.loss == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)
    assert figures.scaled_loss == pytest.approx(cross_entropy(logits / 2, labels).item(), rel=1e-5)
    assert figures.calibration_error == pytest.approx(calibration_error(logits, labels), abs=1e-6)
    assert figures.scaled_calibration_error == pytest.approx(calibration_error(logits / 2, labels), abs=1e-6)
    assert scores.labelled.tolist() == torch.bincount(labels, minlength=K).tolist()
    assert figures.images == 40


def test_the_sample_fits_the_temperature_of_a_network_that_is_too_sure():
    plain, sure = (scored(images(sharp=sharp))[1] for sharp in (1.0, 3.0))
    assert sure == pytest.approx(3 * plain, rel=0.01)


def test_scaled_losses_of_images_are_those_of_their_sample():
    found = images()
    scores, temperature = scored(found)  # images are smaller than a sample: it is all of them
    exact, _ = scored(found, temperature=temperature)
    torch.testing.assert_close(scores.scaled_losses, exact.scaled_losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        torch.tensor(scores.figures(temperature).scaled_calibration_error),
        torch.tensor(exact.figures(temperature).scaled_calibration_error),
    )


def test_the_sample_of_large_images_is_a_part_and_is_the_same_for_all_clips():
    large = [Image(one.logits.repeat(60, 1), one.answers.repeat(60), one.labels.repeat(60)) for one in images(3)]
    first, second = scored(large)[0], scored(large)[0]
    assert torch.bincount(first.sample.images).tolist() == [2048] * 3
    assert torch.equal(first.sample.labels, second.sample.labels)
    assert not torch.equal(scored(large, seed=1)[0].sample.labels, first.sample.labels)


def test_errors_of_a_gain_are_those_of_the_jackknife():
    bare, clip = (scored(images(200, noise=noise, seed=seed), temperature=1.5)[0] for noise, seed in ((2, 0), (1.8, 1)))
    gain = gain_of(bare, clip)
    both = SegmentationScores(torch.stack([bare.counts, clip.counts]).int(), torch.stack([bare.losses, clip.losses]))
    expected, error = both.accuracy_gap(1, 0)
    assert gain.gain == pytest.approx(expected)
    assert gain.gain_error == pytest.approx(error, rel=0.1)
    expected, error = both.loss_gap(1, 0)
    assert gain.loss_gain == pytest.approx(expected)
    assert gain.loss_gain_error == pytest.approx(error, rel=0.1)
    assert gain.images == 200
    assert gain.accuracy - gain.bare_accuracy == pytest.approx(gain.gain)
    assert gain.scaled_loss_gain < 0


def test_copies_of_images_are_no_pixels_more():
    """Ten times the pixels of the same images leave the interval as it is: images are drawn, not pixels."""
    few, many = ([], [])
    for noise, seed in ((2, 0), (1.8, 1)):
        found = images(60, noise=noise, seed=seed)
        few.append(scored(found, temperature=1.0)[0])
        repeated = [Image(i.logits.repeat(10, 1), i.answers.repeat(10), i.labels.repeat(10)) for i in found]
        many.append(scored(repeated, temperature=1.0)[0])
    assert gain_of(*many).gain_error == pytest.approx(gain_of(*few).gain_error)


def test_a_clip_gains_nothing_over_itself():
    scores, _ = scored(images(), temperature=1.0)
    gain = gain_of(scores, scores)
    assert (gain.gain, gain.gain_error, gain.scaled_loss_gain_error) == (0, 0, 0)
    assert not gain.decided


def test_the_cheapest_of_those_that_are_as_good_as_the_best():
    bare, same, better = (scored(images(80, noise=noise))[0] for noise in (2.0, 2.0, 1.0))
    assert cheapest_of_the_best(choosing_scores([bare, same, better]), [1, 2, 3]) == 2
    assert cheapest_of_the_best(choosing_scores([bare, same]), [1, 2]) == 0
    assert cheapest_of_the_best(choosing_scores([bare, better, better]), [1, 3, 2]) == 2


def test_images_without_labels_are_not_drawn():
    """Of 3 images with labels among 33, a draw of 33 of all has none of the three once in twenty times."""
    blank = [Image(torch.zeros(0, K), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))] * 30
    few = images(3)
    bare, alone = (scored(found, temperature=1.0)[0] for found in ([*blank, *few], few))
    clip, clip_alone = (
        scored(found, temperature=1.0)[0] for found in ([*blank, *images(3, noise=1)], images(3, noise=1))
    )
    gain = gain_of(bare, clip)
    assert gain == gain_of(alone, clip_alone)
    assert gain.gain_error > 0
    assert gain.images == 3
    with pytest.raises(InputError, match="at least 2 images with labelled pixels, got 0"):
        gain_of(*[scored(blank, temperature=1.0)[0]] * 2)


def test_of_equally_cheap_ones_the_bare_network_stays():
    found = []
    for number in (0, 1):  # each is right everywhere in an image of its own
        mine = images(80)
        logits = 9.0 * torch.nn.functional.one_hot(mine[number].labels, K)
        mine[number] = Image(logits, mine[number].labels, mine[number].labels)
        found.append(scored(mine)[0])
    bare, other = found
    both = choosing_scores([bare, other])
    best = int(both.accuracy(1) > both.accuracy(0))
    pair = [other, bare] if best == 0 else [bare, other]  # the second is ahead, by less than one standard error
    behind, error = choosing_scores(pair).accuracy_gap(1, 0)
    assert 0 < behind < error
    assert cheapest_of_the_best(choosing_scores(pair), [1, 1]) == 0
    logits, labels = torch.zeros(40, 2), torch.arange(40) % 2
    logits[:, 0] = torch.linspace(-1, 1, 40)
    slightly = logits.clone()  # surer of a right answer, and a little less sure of another
    slightly[0, 0], slightly[1, 1] = slightly[0, 0] + 0.02, slightly[1, 1] - 0.01
    assert smallest_of_the_best([logits, slightly], labels, [1.0, 1.0], [1, 1]) == 0
    assert smallest_of_the_best([logits, slightly], labels, [1.0, 1.0], [2, 1]) == 1
