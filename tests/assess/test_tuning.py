"""Fine-tuning beside an assessment: alone, averaged and fused at equal compute, on the images that choose."""

import dataclasses
import json

import pytest
import torch
from digit_networks import TRAINED_ON, digits, network
from torch import nn

from image2video import Image2Video, VideoWrap
from image2video.assess import Assessment, Finalist, Tuning, assess, tuning
from image2video.assess.page import page
from image2video.assess.scoring import Images, Network
from image2video.assess.tuning import clip_to_tune, fine_tuned
from image2video.cli.tables import assessment_table
from image2video.errors import InputError

CLIP = Finalist("chain", "the best chain", "rotate(-10)", T=3, schedule="from_zero", cost=3.0)


@pytest.fixture(scope="module")
def tilted():
    images, labels = digits()
    part = slice(TRAINED_ON, TRAINED_ON + 180)
    frames = Image2Video("rotate(20) |", padding="zeros")(images[part])[:, 0]
    return Images(frames, labels[part])


@pytest.fixture(scope="module")
def found(tilted):
    """The networks with what they were trained by."""
    net, seen = network(0), []
    before = {name: value.clone() for name, value in net.state_dict().items()}
    whole = Network(net, (1, 16, 16), 64, None)
    judging = tilted.part(120, 180)
    bare = whole.predicted(Finalist("bare", ""), judging)

    def watched(model, data, config, progress=None):
        seen.append((model, data.train, config))
        return train(model, data, config, progress=progress)

    train = tuning.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "train", watched)
        result = fine_tuned(whole, CLIP, bare, tilted.part(0, 120), judging, epochs=2, seed=0, progress=None)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    return result, seen, bare, judging


def test_all_networks_see_as_many_frames_of_the_same_images(found):
    result, seen, *_ = found
    assert [config.epochs * getattr(model, "T", 1) for model, _, config in seen] == [6, 6, 6]
    assert {data.num_images for _, data, _ in seen} == {result.images} == {96}
    assert [isinstance(model, VideoWrap) for model, *_ in seen] == [False, True, True]
    assert [len(model.plan.sites) > 0 for model, *_ in seen[1:]] == [False, True]


def test_no_image_that_judges_or_fits_temperatures_is_trained_on(found, tilted):
    result, seen, *_ = found
    trained = torch.cat([images for images, _ in seen[0][1].batches(50).epoch(0)])
    same = (trained[:, None] == tilted.images[None]).flatten(2).all(2).any(0)
    assert int(same[:120].sum()) == result.images
    assert not same[120:].any()
    assert result.rows[0].choosing.images == 120 - result.images


def test_the_figures_are_those_of_the_networks(found):
    result, seen, bare, judging = found
    with torch.no_grad():
        right = [(model(judging.images).argmax(1) == judging.labels).double() for model, *_ in seen]
    assert [row.judging.accuracy for row in result.rows] == [pytest.approx(one.mean().item()) for one in right]
    plain = (bare.argmax(1) == judging.labels).double()
    assert result.rows[2].gain.gain == pytest.approx((right[2] - plain).mean().item())
    assert result.against["tuned_fused"].gain == pytest.approx((right[2] - right[0]).mean().item())
    assert result.rows[1].gain.scaled_loss == pytest.approx(result.rows[1].judging.scaled_loss)
    assert result.rows[0].judging.accuracy > plain.mean() + 0.05  # it has learned from the tilted images


def test_it_is_told_recorded_and_shown(found):
    result, *_ = found
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    loader = [(torch.rand(60, 3, 8, 8), torch.arange(60) % 3)]
    bare = assess(net, loader, candidates=8, max_cost=1)
    told = dataclasses.replace(bare, tuning=result)
    assert Assessment.from_dict(json.loads(json.dumps(told.to_dict()))) == told
    old = {name: value for name, value in bare.to_dict().items() if name != "tuning"}
    assert Assessment.from_dict(old) == bare
    sentence = result.sentence()
    assert sentence.startswith(
        "Fine-tuned on 96 of the images that chose, at equal compute: the network, fine-tuned for 6"
    )
    assert all(row.finalist.title in page(told) for row in result.rows)
    assert "Fine-tuned beside it" not in page(bare)
    assert assessment_table(told).row_count == assessment_table(bare).row_count + 3


def test_assess_tunes_what_it_chose():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1))
    net = nn.Sequential(net, nn.Flatten(), nn.Linear(4, 3)).eval()
    loader = [(torch.rand(60, 3, 8, 8), torch.arange(60) % 3)]
    found = assess(net, loader, candidates=8, max_cost=2, finetune=1)
    assert isinstance(found.tuning, Tuning)
    assert [row.finalist.name for row in found.tuning.rows] == ["tuned", "tuned_averaged", "tuned_fused"]
    clip = found.tuning.rows[1].finalist
    assert clip.genotype == clip_to_tune(found.rows, found.choice).genotype
    assert not any(module.training for module in net.modules())
    with pytest.raises(InputError, match=r"max_cost must be at least 2, got 1\.5"):
        assess(net, loader, candidates=8, max_cost=1.5, finetune=1)
    with pytest.raises(InputError, match="finetune must be a number of epochs"):
        assess(net, loader, candidates=8, finetune=-1)


def test_images_without_the_last_class_and_frozen_networks():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = nn.Sequential(net, nn.Linear(4, 5)).eval()
    loader = [(torch.rand(60, 3, 8, 8), torch.arange(60) % 3)]
    assert assess(net, loader, candidates=8, max_cost=2, finetune=1).tuning is not None
    net.requires_grad_(False)
    with pytest.raises(InputError, match="got a model that is all frozen"):
        assess(net, loader, candidates=8, max_cost=2, finetune=1)
