"""The parts that only the tables have: the scrambled layout, learned averaging, genotypes, policies, paired runs."""

import dataclasses

import pytest
import torch
from reproduce_cases import TINY
from torch import nn

from image2video import Genotype, VideoWrap
from image2video.clip.image_to_video import Image2Video, clip_to_frames
from image2video.data import load_data
from image2video.errors import InputError
from image2video.experiments.genotypes import Chosen, scaled
from image2video.reproduce import Cell, Setting, policies
from image2video.reproduce.classify import choose, fresh_network, run_classification, wrapped
from image2video.reproduce.genotypes import data_settings
from image2video.reproduce.learned import OPS, START, UNITS, WIDEST, LearnedAveraging, ranges_text
from image2video.reproduce.policies import choose_policy
from image2video.reproduce.scramble import ScrambledClips, scrambled
from image2video.search import rank_genotypes
from image2video.training import make_accelerator

SETTING = Setting(**TINY)


@pytest.fixture(scope="module")
def data():
    return load_data("digits", train_images=60, holdout=0.25, image_size=8)


@pytest.fixture(scope="module")
def accelerator():
    return make_accelerator("cpu")


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# The scrambled layout


def test_scrambled_is_a_missing_permutation():
    """The authors' code keeps a clip as (B, C, T, H, W) and reads it as B·T frames without a permutation."""
    clip = images(2, 5, 3, 4, 6)  # (B, T, C, H, W)
    theirs = clip.permute(0, 2, 1, 3, 4).contiguous().view(-1, 3, 4, 6)
    assert torch.equal(clip_to_frames(scrambled(clip)), theirs)
    three = clip[:, :3]
    for t in range(3):
        for c in range(3):
            assert torch.equal(scrambled(three)[:, t, c], three[:, c, t])
    grey = clip[:, :, :1]
    assert torch.equal(scrambled(grey), grey)


def test_a_network_sees_the_scrambled_clip():
    genotype, batch = "translate_x(0.25)", images(2, 3, 8, 8)
    clip = Image2Video(genotype, T=3)(batch)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        wanted = backbone(clip_to_frames(scrambled(clip))).unflatten(0, (2, 3)).mean(1)
        right = backbone(clip_to_frames(clip)).unflatten(0, (2, 3)).mean(1)
        model = VideoWrap(backbone, "none", frames=ScrambledClips(genotype, T=3), input_size=(3, 8, 8))
        found = model(batch)
    torch.testing.assert_close(found, wanted)
    assert (found - right).abs().max() > 1e-4


def test_scrambled_clips_say_what_they_are():
    source = ScrambledClips("rotate(3)", T=3, schedule="ramp")
    again = ScrambledClips.from_dict(source.to_dict())
    batch = images(2, 3, 8, 8)
    assert torch.equal(again(batch), source(batch))
    assert source.genotype is None


# Learned averaging


class Corner(nn.Module):
    """Two logits: a pixel off the centre, and a constant. What moves the image away from it costs."""

    def forward(self, x):
        return torch.stack([20 * x[:, 0, 2, 3], torch.ones(len(x))], dim=1)


def test_no_width_is_the_network_itself():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 7, 4))
    model = LearnedAveraging(net, T=3)
    with torch.no_grad():
        model.width.zero_()
    batch = images(4, 3, 5, 7)
    for mode in (True, False):
        model.train(mode)
        torch.testing.assert_close(model(batch), net(batch), atol=1e-5, rtol=1e-5)


def test_a_width_moves_by_its_unit_and_no_further():
    """Content right of the centre, moved to the right by at most a width of 1: a tenth of the side."""
    seen = []

    class Look(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.flatten(1)

    model = LearnedAveraging(Look(), T=6).train()
    with torch.no_grad():
        model.width.copy_(torch.tensor([1.0, 0, 0, 0, 0]))
    batch = torch.zeros(200, 1, 10, 30)
    batch[:, 0, :, 14] = 1
    torch.manual_seed(0)
    model(batch)
    (frames,) = seen
    assert frames.shape == (1200, 1, 10, 30)
    place = (frames[:, 0, 5] * torch.arange(30)).sum(-1) / frames[:, 0, 5].sum(-1) - 14
    assert place.abs().max() <= 0.1 * 30 + 1e-3
    assert place.abs().max() > 2.9
    assert place.mean().abs() < 0.2
    assert len(place.round(decimals=4).unique()) > 1000  # every copy of every image has its own draw


def test_widths_get_the_gradient_of_the_loss_and_a_bonus():
    batch, labels = images(3, 1, 6, 8).double(), torch.tensor([0, 1, 0])
    model = LearnedAveraging(Corner().double(), T=2, widen=0.5).double().train()
    with torch.no_grad():
        model.width.copy_(torch.tensor([0.8, 0.5, 0.7, 0.9, 0.6]))

    def loss():
        torch.manual_seed(1)
        return nn.functional.cross_entropy(model(batch), labels)

    loss().backward()
    for index in range(5):
        with torch.no_grad():
            model.width[index] += 1e-4
            high = loss()
            model.width[index] -= 2e-4
            low = loss()
            model.width[index] += 1e-4
        assert float(model.width.grad[index]) == pytest.approx(float(high - low) / 2e-4 - 0.5, abs=2e-3)


def fitted(net, steps=200, **options):
    model = LearnedAveraging(net, T=3, **options).train()
    optimizer = torch.optim.SGD([model.width], lr=0.1, momentum=0.9)
    batch = torch.zeros(6, 1, 6, 8)
    batch[:3, 0, 2, 3] = 1
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    torch.manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch), labels).backward()
        optimizer.step()
    return model.width.detach()


class Blind(nn.Module):
    """A network that no motion changes."""

    def forward(self, x):
        return torch.stack([0 * x.sum((1, 2, 3)), torch.ones(len(x))], dim=1)


def test_widths_grow_where_motion_is_free_and_stay_where_it_costs():
    free, dear = fitted(Blind(), widen=0.02), fitted(Corner(), widen=0.02)
    assert ((free >= WIDEST) & (free < WIDEST + 1)).all()  # the bonus ends there; momentum carries it a little on
    assert dear[:2].abs().max() < 0.5 * free.min()
    assert torch.allclose(fitted(Blind(), steps=5, widen=0.0), torch.full((5,), START))


def test_evaluation_is_deterministic_and_training_draws_from_the_global_generator():
    model = LearnedAveraging(nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 7, 4)), T=3)
    with torch.no_grad():
        model.width.fill_(1.0)
    batch = images(4, 3, 5, 7)
    model.eval()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = model(batch)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model(batch), first)
    torch.testing.assert_close(model(batch[:1]), first[:1])  # an image's prediction depends on it alone
    model.train()
    one = model(batch)
    assert not torch.equal(model(batch), one)
    torch.set_rng_state(state)
    assert torch.equal(model(batch), one)


def test_widths_are_in_the_state_dict():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    model = LearnedAveraging(net, T=3)
    assert set(model.state_dict()) == {"width", "backbone.1.weight", "backbone.1.bias"}
    assert len(OPS) == len(UNITS) == len(model.width)
    assert ranges_text([1.0, -0.5, 2.0, 0.0, 0.1]) == "±10.0% x, ±5.0% y, ±30.0°, scale ×1.00, shear ±1.0°"


# Genotypes


def test_scaled_multiplies_every_step():
    genotype = Genotype.parse("translate_x(0.03) > rotate(-4) > scale(1.1) > shear_y(5)")
    assert scaled(genotype, 1) is genotype
    twice, half = scaled(genotype, 2), scaled(genotype, 0.5)
    assert [t.magnitude for t in twice.chain] == pytest.approx([0.06, -8, 1.21, 10])
    assert [t.magnitude for t in half.chain] == pytest.approx([0.015, -2, 1.1**0.5, 2.5])
    assert scaled(Genotype.identity(), 3) == Genotype.identity()
    size = torch.tensor([[1.0]])
    again = scaled(Genotype.parse("scale(0.9)"), 2).matrix(1, 10, 10)[0, 0]
    torch.testing.assert_close(again.float().view(1, 1), 0.81 * size)


def nothing(*args, **more):
    raise AssertionError("not needed")


def chosen(arm, data, accelerator, **more):
    return choose(arm, SETTING, data, None, accelerator, load=nothing, **more)


def cell(genotype, fusion="gsf", **more):
    return Cell("arm", "arm", genotype, fusion, **more)


def test_draws_differ_and_repeat(data, accelerator):
    found = [chosen(cell(f"random:{n}"), data, accelerator).genotype for n in range(1, 6)]
    assert len(set(found)) == 5
    assert Genotype.identity() not in found
    assert chosen(cell("random"), data, accelerator).genotype == found[0]
    assert [chosen(cell(f"random:{n}"), data, accelerator).genotype for n in range(1, 6)] == found


def test_stated_genotypes_and_none(data, accelerator):
    assert chosen(cell("none", None), data, accelerator) is None
    assert chosen(cell("learned", "none", learned=True), data, accelerator) is None
    assert chosen(cell("identity"), data, accelerator).genotype == Genotype.identity()
    moved = chosen(cell("translate_x(0.1)", magnitude=0.5), data, accelerator)
    assert (str(moved.genotype), moved.seconds) == ("translate_x(0.05)", 0)


def test_a_ranking_needs_held_out_images_and_looks_at_no_others(data, accelerator):
    arm = cell("fixed_weights", "none", budget="none", start="bare")
    model = fresh_network(arm, SETTING, data, 0)
    blind = dataclasses.replace(data, train=None, test=None)
    assert chosen(arm, blind, accelerator, model=model).origin == "ranked on 15 held-out images"
    with pytest.raises(InputError, match=r"'arm' ranks genotypes on held-out images, and there are none"):
        chosen(arm, dataclasses.replace(data, holdout=None), accelerator, model=model)
    with pytest.raises(InputError, match="it needs start"):
        chosen(arm, data, accelerator)


def test_a_ranking_is_made_for_the_frames_and_the_place_of_its_arm(tmp_path, data, accelerator, monkeypatch):
    asked = []

    def rank(model, images, **how):
        asked.append((how["T"], how["clip_at"]))
        return rank_genotypes(model, images, **{**how, "count": 3})

    monkeypatch.setattr("image2video.experiments.genotypes.rank_genotypes", rank)
    asks = ({}, {"T": 3, "clip_at": "layer2"})
    arms = [cell("fixed_weights", "none", budget="none", start="bare", **own) for own in asks]
    model = fresh_network(arms[0], SETTING, data, 0)
    for _ in range(2):  # the second time they are read
        for arm in arms:
            choose(arm, SETTING, data, tmp_path, accelerator, load=nothing, model=model, weights="w")
    assert asked == [(SETTING.T, None), (3, "layer2")]


def test_a_search_elsewhere_has_the_same_network_for_the_images_there(tmp_path, accelerator, monkeypatch):
    setting = dataclasses.replace(SETTING, data="cifar10", image_size=None, model="cifar_resnet14")
    arm = cell("searched@digits")
    assert [one.data for one in data_settings(arm, setting)] == ["cifar10", "digits"]
    seen = []

    def search(backbone, train, config, *, validation, **more):
        seen.append((backbone, train.num_images, validation.num_images))
        return type("Result", (), {"genotype": Genotype.parse("rotate(3)"), "seconds": 6.0})

    monkeypatch.setattr("image2video.experiments.genotypes.search", search)

    def load(one):
        assert (one.data, one.train_images) == ("digits", None)
        return load_data("digits", holdout=one.holdout, image_size=one.image_size)

    for _ in range(2):
        found = choose(arm, setting, None, tmp_path, accelerator, load=load)
        assert (str(found.genotype), found.origin, found.seconds) == ("rotate(3)", "searched on digits", 6.0)
    ((backbone, train, holdout),) = seen  # once
    first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    assert (first.in_channels, train + holdout) == (1, 1198)
    other = dataclasses.replace(setting, T=3)
    choose(arm, other, None, tmp_path, accelerator, load=load)
    assert len(seen) == 2


# Policies


def test_policies_are_searched_once_per_setting(tmp_path, data, accelerator, monkeypatch):
    asked = []

    def find_policy(family, setting, told, folder, accelerator, **more):
        asked.append(str(told))
        return f"{family}:found", 9.0

    monkeypatch.setattr(policies, "find_policy", find_policy)

    def policy(arm, setting=SETTING):
        return choose_policy(arm, setting, data, tmp_path, accelerator, nothing)

    arm = Cell("a", "a", augment="search:uniformaugment")
    for one in (arm, dataclasses.replace(arm, equal_compute=True)):
        found = policy(one)
        assert (found.text, found.seconds) == ("uniformaugment:found", 9.0)
    assert len(set(asked)) == 1
    for other in ({"lr": 0.3}, {"train_images": 50}, {"augment_minutes": 1.0}, {"seed": 1}, {"epochs": 6}):
        policy(arm, dataclasses.replace(SETTING, **other))
    assert len(set(asked)) == 6


# Runs


def test_arms_of_a_seed_start_from_equal_weights(data):
    arms = [
        Cell("bare", "bare"),
        Cell("dilated", "dilated", variant="dilated"),
        cell("rotate(3)"),
        cell("rotate(3)", layout="scrambled"),
        cell("learned", "none", learned=True),
    ]
    states = []
    for arm in arms:
        torch.rand(3)  # whatever was drawn before
        model = wrapped(
            fresh_network(arm, SETTING, data, 3), arm, SETTING, data, 3, Chosen(Genotype.parse("rotate(3)"), "")
        )
        states.append(getattr(model, "backbone", model).state_dict())
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[key], states[0][key]) for key in state)
    other = fresh_network(arms[0], SETTING, data, 4).state_dict()
    assert any(not torch.equal(other[key], states[0][key]) for key in other)


def ran(arm, tmp_path, accelerator, seed=0, setting=SETTING, **more):
    def load(one):
        return load_data("digits", train_images=one.train_images, holdout=one.holdout, image_size=one.image_size)

    folders = {"searches": tmp_path / "searches", "training": tmp_path / f"{arm.name}-{seed}"}
    return run_classification(arm, setting, seed, accelerator=accelerator, load=load, **folders, **more)


def test_a_run_is_the_networks_own_training_and_its_record_says_so(tmp_path, accelerator):
    record, weights = ran(Cell("bare", "bare"), tmp_path, accelerator)
    assert (record["T"], record["epochs"], record["images_seen"], record["frames"]) == (1, 1, 45, 45)
    again, others = ran(Cell("again", "again"), tmp_path, accelerator)
    assert (again["score"], again["loss"]) == (record["score"], record["loss"])
    assert all(torch.equal(weights[key], others[key]) for key in weights)
    long, _ = ran(Cell("long", "long", equal_compute=True), tmp_path, accelerator)
    assert (long["epochs"], long["frames"], long["macs"]) == (2, 90, record["macs"])
    augmented, moved = ran(Cell("policy", "policy", augment="uniformaugment:ops=2"), tmp_path, accelerator)
    assert augmented["policy"] == "uniformaugment:ops=2"
    assert any(not torch.equal(weights[key], moved[key]) for key in weights)

    path = tmp_path / "weights.pt"
    torch.save(weights, path)
    arm = cell("fixed_weights", "none", budget="none", start="bare", T=2)
    averaged, same = ran(dataclasses.replace(arm, name="averaged"), tmp_path, accelerator, start=path)
    assert averaged["origin"] == "ranked on 15 held-out images"
    assert (averaged["epochs"], averaged["training_seconds"]) == (0, 0)
    assert averaged["macs"] == 2 * record["macs"]
    assert all(torch.equal(same[f"backbone.{key}"], value) for key, value in weights.items())
    blind = dataclasses.replace(arm, name="blind", genotype="identity")
    level, _ = ran(blind, tmp_path, accelerator, start=path)
    assert level["score"] == record["score"]
    assert level["loss"] == pytest.approx(record["loss"], rel=1e-5)
