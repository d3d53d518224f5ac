"""Whether a clip helps: the answer on trained networks whose deployments are known, and what is refused."""

import dataclasses
import json

import pytest
import torch
from digit_networks import TRAINED_ON, digits, network
from torch import nn
from torch.nn.functional import cross_entropy

from image2video import FrameSet, Genotype, Image2Video, VideoWrap
from image2video.assess import Assessment, Figures, Finalist, assess, driver, searches
from image2video.assess.choice import smallest_of_the_best
from image2video.assess.finalists import plain_finalists
from image2video.assess.page import gain_figure, page
from image2video.assess.places import phases_finalist, places_to_try
from image2video.assess.scoring import Images, Network
from image2video.assess.searches import Searches
from image2video.errors import InputError, InputTypeError, StateError
from image2video.search import greedy_frames, rank_genotypes
from image2video.search.rank.calibration import calibration_error

IMAGES = 300


def unseen():
    images, labels = digits()
    return images[TRAINED_ON : TRAINED_ON + IMAGES], labels[TRAINED_ON : TRAINED_ON + IMAGES]


def tilted(images, degrees=20):
    """What a camera that is tilted sees."""
    return Image2Video(f"rotate({degrees}) |", padding="zeros")(images)[:, 0]


@pytest.fixture(scope="module")
def tilt():
    """The assessment of a network whose camera is tilted, with what it looked at."""
    images, labels = unseen()
    net = network(0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = assess(net, [(tilted(images), labels)], candidates=12, about={"model": "cifar_resnet8"})
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    return found, net, tilted(images), labels


def test_a_tilted_camera_is_found_and_decided(tilt):
    found, *_ = tilt
    assert found.verdict == "better"
    assert found.chosen.gain.gain > 0.1
    clip = found.chosen.finalist.clip
    turns = [t for frame in (clip.frames if isinstance(clip, FrameSet) else [clip]) for t in frame.chain]
    assert any(t.op == "rotate" and t.magnitude < 0 for t in turns)
    done, out, then = found.sentences()
    assert "200 labelled images" in done
    assert "100 others" in done
    assert "decidedly right more often" in out
    assert then.startswith("Use it: VideoWrap(net, ")


def test_the_line_of_the_last_sentence_makes_the_figures(tilt):
    found, net, images, labels = tilt
    line = found.sentences()[2].removeprefix("Use it: ").removesuffix(".")
    model = eval(line, {"VideoWrap": VideoWrap, "net": net})
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0))[200:]
    try:
        with torch.no_grad():
            logits = model(images[order])
    finally:
        model.unwrap()
    judged = found.chosen.judging
    assert (logits.argmax(1) == labels[order]).double().mean().item() == pytest.approx(judged.accuracy)
    assert cross_entropy(logits.double(), labels[order]).item() == pytest.approx(judged.loss, abs=1e-5)
    with torch.no_grad():
        bare = net(images[order])
    gain = (logits.argmax(1) == labels[order]).double() - (bare.argmax(1) == labels[order]).double()
    assert gain.mean().item() == pytest.approx(found.chosen.gain.gain)
    assert judged.scaled_loss - found.bare.judging.scaled_loss == pytest.approx(found.chosen.gain.scaled_loss_gain)


def test_the_record_is_whole(tilt):
    found, *_ = tilt
    record = json.loads(json.dumps(found.to_dict()))
    assert Assessment.from_dict(record) == found
    assert record["verdict"] == "better"
    assert record["sentences"] == list(found.sentences())
    names = [row["finalist"]["name"] for row in record["rows"]]
    assert names[:5] == ["bare", "mirror", "zoom", "shifts", "mirror_zoom"]
    timed = [row for row in found.rows if row.single is not None]
    assert {row.finalist.name for row in timed} == {"bare", found.chosen.finalist.name}
    assert all(sorted(row.single_ms)[1] == row.single.ms_per_image for row in timed)
    del record["rows"][0]["single_ms"]  # as earlier versions wrote it
    assert Assessment.from_dict(record).bare.single == found.bare.single


def test_the_page_opens_with_the_sentences_and_shows_every_clip(tilt):
    from html import escape

    found, *_ = tilt
    html = page(found)
    places = [html.index(escape(sentence)) for sentence in found.sentences()]
    assert places == sorted(places)
    assert places[-1] < html.index("<h2>")
    assert all(escape(row.finalist.title) in html for row in found.rows)
    assert "cifar_resnet8" in html
    labels = [text.get_text() for text in gain_figure(found).axes[0].get_yticklabels()]
    assert sorted(labels) == sorted(f"{row.finalist.title}, {row.finalist.cost:.3g}×" for row in found.rows)
    costs = [float(label.removesuffix("×").rpartition(" ")[2]) for label in labels]
    assert costs == sorted(costs)


def test_upright_digits_are_left_alone():
    images, labels = unseen()
    found = assess(network(0), [(images[:150], labels[:150])], candidates=8)
    assert found.advised is found.bare
    assert "Keep your model as it is" in found.sentences()[2]
    assert found.wrap_options()["T"] == 1


def test_images_on_which_nothing_is_left_to_gain_are_said():
    net, (images, _) = random_net(), batch()
    with torch.no_grad():
        net[2].bias -= net(images).mean(0)
        labels = net(images).argmax(1)
    assert len(labels.unique()) > 1
    with pytest.warns(UserWarning, match="right on 100.0 % of the images: there is nothing left to gain"):
        assess(net, [(images, labels)], candidates=8)


def test_a_cost_of_one_leaves_single_frames():
    images, labels = unseen()
    found = assess(network(1), [(tilted(images), labels)], candidates=16, max_cost=1)
    assert {row.finalist.cost for row in found.rows} == {1}
    assert found.verdict == "better"
    assert found.chosen.finalist.clip.frames[0].chain[0].op == "rotate"


def test_minutes_leave_candidates_out(monkeypatch):
    images, labels = batch()
    whole = assess(random_net(), [(images, labels)], candidates=40)
    monkeypatch.setattr(driver, "_affordable", lambda *about: 400)
    few = assess(random_net(), [(images, labels)], candidates=40, minutes=1)
    assert few.candidates < whole.candidates <= 40
    monkeypatch.undo()
    with pytest.raises(InputError, match="minutes=1e-07 is too little for these images; give at least"):
        assess(random_net(), [(images, labels)], minutes=1e-7)


def test_a_ranked_clip_says_how_it_is_averaged():
    ranking = rank_genotypes(random_net(), [batch()], candidates=["flip_x"], T=2, judge=0.0)
    entry = next(entry for entry in ranking.entries if entry.genotype.chain)
    assert Finalist.found("chain", "the best chain", entry.wrap_options(), 2).aggregate == "mean"


def test_few_frames_are_not_spent_on_options():
    def frames_of(allowed):
        net, seen = random_net(), []
        net.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
        search = Searches(Network(net, (3, 8, 8), 32, None), Images(*batch(90)), "pose", 0, 3, 30, allowed, None)
        search.chain()
        return sum(seen)

    # A third of all frames is for this search; a ranking tells what it has spent after a whole batch of images.
    assert frames_of(6000) <= 2000 + 90
    assert frames_of(60000) > 3000


def test_places_are_those_before_the_maps_shrink():
    images, _ = unseen()
    places = places_to_try(network(0), images[:1])
    assert [(place.name, place.map_size) for place in places] == [("layer2", (16, 16)), ("layer3", (8, 8))]
    assert places_to_try(random_net(), torch.rand(1, 3, 8, 8)) == []


def test_a_clip_inside_of_the_network_is_predicted_and_named(tilt):
    found, net, images, labels = tilt
    clip = Finalist("inside", "inside", "flip_x", 2, clip_at="layer3", cost=1.3)
    part = Images(images[:8], labels[:8])
    logits = Network(net, (1, 16, 16), 4, None).predicted(clip, part)
    model = VideoWrap(
        net, "none", genotype="flip_x", T=2, schedule="from_zero", clip_at="layer3", input_size=(1, 16, 16)
    )
    try:
        with torch.no_grad():
            assert torch.allclose(model(images[:8]), logits, atol=1e-5)
    finally:
        model.unwrap()
    row = dataclasses.replace(found.chosen, finalist=clip)
    inside = dataclasses.replace(found, rows=(found.bare, row), choice=1)
    _, out, then = inside.sentences()
    assert out.startswith("flip_x at layer3 (T = 2, from_zero, mean) costs 1.3 times the image")
    assert "clip_at='layer3'" in then
    assert "at layer3" in page(inside)
    assert Assessment.from_dict(json.loads(json.dumps(inside.to_dict()))) == inside


def test_phases_of_the_strides_are_compared_as_far_as_the_cost_allows(tilt):
    found, net, images, labels = tilt
    row = next(row for row in found.rows if row.finalist.name == "phases")
    clip = row.finalist
    assert (clip.genotype, clip.T, clip.clip_at) == ("preset:phases", 3, None)
    assert 1.5 < clip.cost < 2  # all of its frames begin inside of this network
    assert phases_finalist(net, images[:1], 1.8).T == 2
    assert phases_finalist(net, images[:1], 1.05) is None
    predicted = Network(net, (1, 16, 16), 24, None).predicted(clip, Images(images[:8], labels[:8]))
    model = VideoWrap(net, "none", **clip.wrap_options(), input_size=(1, 16, 16))
    try:
        with torch.no_grad():
            outputs = model(images[:8])
            assert torch.equal(outputs, predicted)
    finally:
        model.unwrap()
    with torch.no_grad():
        assert not torch.allclose(outputs, net(images[:8]), atol=1e-3)
    chosen = dataclasses.replace(found, rows=(found.bare, row), choice=1)
    assert chosen.sentences()[1].startswith("preset:phases (T = 3, mean) costs 1.9")
    assert "preset:phases, T = 3<" in page(chosen)
    assert Assessment.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen


def test_a_network_without_places_that_can_be_found_is_said(monkeypatch):
    def refuse(*about):
        raise InputError("it cannot be traced")

    monkeypatch.setattr(searches, "places_to_try", refuse)
    found = assess(random_net(), [batch()], candidates=8)
    assert found.notes == ("Clips inside of the network were not looked at: it cannot be traced",)
    assert found.notes[0] in page(found)


def random_net(outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, outputs))


def batch(n=60, classes=3):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(n) % classes


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"data": [batch(20)]}, "at least 30 labelled images, got 20"),
        ({"data": [batch(60, 1)]}, "two classes or more, got 60 of class 0"),
        ({"data": [batch(60, 4)]}, r"labels must be 0 … 2, .* got 0 … 3"),
        ({"max_cost": 0.5}, "max_cost must be at least 1"),
        ({"max_cost": float("nan")}, "max_cost must be at least 1"),
        ({"minutes": 0}, "minutes must be above 0"),
        ({"judge": 0}, "judge must be above 0"),
        ({"judge": 1.5}, "judge must be a share"),
        ({"candidates": 3}, "candidates must be at least 8"),
        ({"model": nn.Conv2d(3, 4, 1)}, r"logits \(B, K\)"),
        ({"model": nn.Sequential(random_net(), nn.Threshold(9, float("nan")))}, "must be finite"),
    ],
)
def test_what_cannot_be_assessed_is_refused(change, match):
    given = {"model": random_net(), "data": [batch()], "candidates": 8, **change}
    with pytest.raises(InputError, match=match):
        assess(given.pop("model"), given.pop("data"), **given)


def test_labels_and_a_bare_network_are_needed():
    images, labels = batch()
    with pytest.raises(InputTypeError, match=r"\(images, labels\)"):
        assess(random_net(), [images])
    with pytest.raises(StateError, match="unwrap"):
        assess(VideoWrap(random_net(), "none"), [(images, labels)])


def test_the_cheapest_as_good_as_the_best_is_chosen():
    labels = torch.arange(2).repeat(50)
    good = torch.nn.functional.one_hot(labels, 2) * 4.0
    noise = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    bare, better, same = good + 3 * noise, good + 0.5 * noise, good + 0.5 * noise + 1e-4
    ones = [1.0, 1.0, 1.0]
    assert smallest_of_the_best([bare, better, same], labels, ones, [1, 3, 2]) == 2  # as good, and cheaper
    assert smallest_of_the_best([bare, bare.clone()], labels, ones[:2], [1, 2]) == 0
    assert smallest_of_the_best([bare, better], labels, ones[:2], [1, 2]) == 1
    # A temperature that spoils the better one.
    assert smallest_of_the_best([bare, better], labels, [1.0, 1000.0], [1, 2]) == 0


def test_calibration_error_of_known_predictions():
    logits = torch.tensor([[0.8, 0.2]] * 10).log()
    labels = torch.tensor([0] * 8 + [1] * 2)
    assert calibration_error(logits, labels) == pytest.approx(0, abs=1e-6)  # right as often as it says
    assert calibration_error(logits, torch.zeros(10, dtype=torch.long)) == pytest.approx(0.2)
    assert calibration_error(logits, torch.ones(10, dtype=torch.long)) == pytest.approx(0.8)
    # Too sure in one bin and too modest in another do not cancel.
    both = torch.cat([logits, torch.tensor([[0.6, 0.4]] * 10).log()])
    answers = torch.tensor([0] * 7 + [1] * 3 + [0] * 7 + [1] * 3)
    assert calibration_error(both, answers) == pytest.approx(0.1)


def test_scaling_changes_the_loss_and_no_answer():
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 4), torch.randint(4, (50,))
    plain, scaled = Figures.of(logits, labels, 1.0), Figures.of(logits, labels, 3.0)
    assert plain.loss == plain.scaled_loss == pytest.approx(cross_entropy(logits, labels).item(), abs=1e-6)
    assert scaled.scaled_loss == pytest.approx(cross_entropy(logits / 3, labels).item(), abs=1e-6)
    assert scaled.accuracy == plain.accuracy


def test_plain_averages_keep_to_the_cost():
    assert [finalist.name for finalist in plain_finalists(2.9)] == ["mirror", "zoom"]
    assert plain_finalists(1) == []


def test_sets_with_the_same_frames_are_one():
    one = Finalist("a", "", "identity | flip_x", 2)
    assert one.frames == dataclasses.replace(one, genotype="flip_x | identity").frames
    assert one.frames != dataclasses.replace(one, aggregate="mean_prob").frames
    assert not Finalist("b", "", "flip_x |").is_bare
    assert Finalist("c", "", "identity |").is_bare
    assert Finalist("d", "").clip == Genotype.identity()


def test_searches_see_all_images_that_choose(monkeypatch):
    # By itself a search reads the first 2000 images of an iterable.
    images = torch.rand(3300, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    seen = []

    def watched(model, data, **how):
        seen.append(how["max_images"])
        return greedy_frames(model, data, **how)

    monkeypatch.setattr(searches, "greedy_frames", watched)
    found = assess(random_net(), [(images, torch.arange(3300) % 3)], candidates=8, max_cost=1, max_images=3300)
    assert found.bare.choosing.images == 2200
    assert seen == [2200]


@pytest.mark.parametrize(
    ("gain", "gain_error", "verdict"),
    [(-0.005, 0.01, "likelihood"), (0.005, 0.01, "likelihood"), (0.1, 0.01, "better"), (-0.1, 0.01, "keep")],
)
def test_better_probabilities_are_worth_it_unless_accuracy_is_decidedly_lower(tilt, gain, gain_error, verdict):
    found, *_ = tilt
    estimate = dataclasses.replace(
        found.chosen.gain, gain=gain, gain_error=gain_error, scaled_loss_gain=-0.05, scaled_loss_gain_error=0.01
    )
    row = dataclasses.replace(found.chosen, gain=estimate)
    assert dataclasses.replace(found, rows=(found.bare, row), choice=1).verdict == verdict
