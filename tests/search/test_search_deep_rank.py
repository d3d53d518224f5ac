"""Rankings of clips at several places of a network: for trained weights, and under those of a one-shot network."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
import torch
from deep_search_cases import SIZE, SPACE, stages
from search_cases import Arrays, KilledError, Killer, Pixels, blobs, launch
from torch import Tensor, nn

from image2video import DeepClip, VideoWrap
from image2video.errors import InputError
from image2video.inject import Plan
from image2video.search import (
    DeepSpace,
    Ranking,
    SearchConfig,
    SearchSpace,
    SegmentationTask,
    rank_genotypes,
    register_space,
    search,
)
from image2video.search.rank.candidates import candidate_deep_clips, drawn_clips

register_space(SearchSpace("few steps", ("translate_x(0.1)", "rotate(10)", "identity"), nodes=2))
register_space(SPACE)
PLACES = ("image", "2", "4")
HOW = {"space": SPACE, "T": 3, "padding": "border", "judge": 0.0, "seed": 1}
BASE = {"space": "few steps", "T": 3, "epochs": 2, "batch_size": 8, "candidates": 6, "device": "cpu", "lr": 0.1}
FILES = ("genotype.json", "tau.json", "scores.json", "config.yaml")
quiet = pytest.mark.filterwarnings("ignore:.*chose the identity")


def logits_of(entry: object, images: Tensor) -> Tensor:
    with torch.no_grad():
        return VideoWrap(stages(), "none", **entry.wrap_options(), input_size=SIZE).eval()(images)


@pytest.mark.parametrize("clip_at", [[PLACES], "image | 2 | 4", ["4", list(PLACES)]])
@pytest.mark.parametrize("aggregate", ["mean", "mean_prob"])
def test_entries_have_the_scores_and_the_cost_of_the_wrapper(clip_at: object, aggregate: str) -> None:
    data = blobs(40, 0)
    ranking = rank_genotypes(stages(), data, clip_at=clip_at, count=6, aggregate=aggregate, **HOW)
    deep = [entry for entry in ranking.entries if isinstance(entry.genotype, DeepClip)]
    assert len(deep) >= 4
    assert {entry.genotype.places for entry in deep} == {PLACES}
    assert len({entry.cost for entry in deep}) > 1
    for entry in deep:
        logits = logits_of(entry, data.images)
        assert entry.accuracy == (logits.argmax(1) == data.labels).double().mean()
        loss = nn.functional.cross_entropy(logits, data.labels).item()
        assert entry.loss == pytest.approx(loss, abs=1e-5)
        model = VideoWrap(stages(), "none", **entry.wrap_options(), input_size=SIZE).eval()
        assert entry.cost == pytest.approx(model.cost())
        assert entry.macs == pytest.approx(entry.cost * ranking.identity.macs)
        assert entry.place is None
    assert any(entry.place == "4" for entry in ranking.entries) == (clip_at == ["4", list(PLACES)])
    record = json.loads(json.dumps(ranking.to_dict()))
    assert Ranking.from_dict(record).to_dict() == record


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2, ::2]


class Window(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        mean = x[:, 0, 5:7, 7:9].mean(dim=(1, 2))
        return torch.stack([-mean, mean], dim=1)


def planted(count: int, seed: int) -> tuple[nn.Module, Arrays]:
    """A patch whose sign is the class, which two shifts by an eighth of the width bring into the window."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 0.25 * torch.randn(count, 1, 24, 32, generator=generator)
    images[:, 0, 10:14, 6:10] += (2 * labels - 1).float().view(-1, 1, 1)
    net = nn.Sequential(Half(), nn.Conv2d(1, 1, 1, bias=False), Window())
    nn.init.ones_(net[1].weight)
    return net.requires_grad_(False), Arrays(images, labels)


SHIFTS = SearchSpace("eighths", ("translate_x(0.125)", "translate_y(0.25)", "identity"), nodes=1)


def test_the_clip_that_is_planted_at_two_places_comes_first() -> None:
    net, data = planted(64, 0)
    clip_at = ["image", "1", ["image", "1"]]
    ranking = rank_genotypes(net, data, space=SHIFTS, clip_at=clip_at, count=9, T=2, seed=0, padding="border")
    assert str(ranking.best) == "image: translate_x(0.125) | 1: translate_x(0.125)"
    assert ranking.decided
    assert "image: translate_x(0.125) | 1: translate_x(0.125) is better" in ranking.sentence()
    model = VideoWrap(net, "none", genotype=ranking.best, input_size=(1, 24, 32))
    assert (model.T, model.to_video.padding) == (2, "border")


def test_the_same_clips_by_their_texts() -> None:
    data = blobs(40, 0)
    texts = ["image: identity | 2: rotate(12) > scale(1.1)", "2: translate_x(0.125) | 4: translate_x(0.125)", "flip_x"]
    how = {"T": 3, "padding": "border", "judge": 0.0}
    ranking = rank_genotypes(stages(), data, candidates=[*texts, DeepClip.parse(texts[0])], **how)
    assert {str(entry.genotype) for entry in ranking.entries} == {"identity", *texts}
    later = next(entry for entry in ranking.entries if str(entry.genotype) == texts[1])
    assert 1 < later.cost < 3
    bare = rank_genotypes(stages(), data, candidates=["flip_x"], **how)
    same = {str(entry.genotype): entry for entry in ranking.entries}
    for entry in bare.entries:
        for (
            key,
            value,
        ) in entry.to_dict().items():  # batches of other sizes: the last bit is the kernel's
            found = same[str(entry.genotype)].to_dict()[key]
            assert found == (pytest.approx(value, rel=1e-5, abs=1e-7) if isinstance(value, float) else value), key


def test_what_costs_too_much_is_left_out() -> None:
    how = {**HOW, "T": (2, 3)}
    ranking = rank_genotypes(stages(), blobs(40, 0), clip_at=[PLACES], count=12, max_cost=2.5, **how)
    assert all(entry.cost <= 2.5 for entry in ranking.entries)
    assert {entry.T for entry in ranking.entries if not entry.is_still} == {2, 3}  # 3 where nothing moves at the image
    assert ranking.left_out_sentence() == (
        "Left out for their cost (multiples of the bare network): image | 2 | 4 with T = 3 (3)."
    )
    with pytest.raises(
        InputError, match=r"leaves no clip of T = \(2, 3\) at 1 places or lists of places; the cheapest"
    ):
        rank_genotypes(stages(), blobs(40, 0), clip_at=[("image", "4")], count=6, max_cost=1.01, **how)


@pytest.mark.parametrize(
    "asked",
    [
        {"clip_at": [["image", "4"]], "count": 1},
        {"clip_at": ["4"], "count": 1},
        {"candidates": ["image: identity | 4: identity"]},
    ],
)
def test_where_nothing_moves_the_image_is_ranked_alone(asked: dict[str, object]) -> None:
    ranking = rank_genotypes(stages(), blobs(40, 0), **asked, **HOW)
    assert [str(entry.genotype) for entry in ranking.entries] == ["identity"]
    assert (ranking.best_entry.cost, ranking.best_entry.gain) == (1, 0)


def test_plans_of_rankings_that_are_over_are_not_kept() -> None:
    def plans() -> set[int]:
        gc.collect()
        return {id(one) for one in gc.get_objects() if isinstance(one, Plan) and one.places == PLACES}

    before = plans()
    ranking = rank_genotypes(stages(), blobs(40, 0), clip_at=[PLACES], count=3, **HOW)
    assert any(isinstance(entry.genotype, DeepClip) for entry in ranking.entries)
    assert plans() <= before, "a cache of the module holds them"


def test_maps_of_segmentors_are_brought_back_from_all_places() -> None:
    data = blobs(24, 0, size=(16, 16), classes=2)
    pixels = Arrays(data.images, (data.images[:, 0] > 0.5).long())
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 1), Pixels()).eval()
    ranking = rank_genotypes(net, pixels, clip_at=[("image", "2")], count=5, task=SegmentationTask(2), **HOW)
    entry = next(entry for entry in ranking.entries if not entry.is_still)
    net.output_fmt = "NCHW"
    with torch.no_grad():
        maps = VideoWrap(net, "none", **entry.wrap_options(), input_size=(1, 16, 16)).eval()(pixels.images)
    loss = nn.functional.cross_entropy(maps, pixels.labels).item()
    assert entry.loss == pytest.approx(loss, abs=1e-5)


def test_draws_give_different_frames_and_none_that_a_place_alone_gives() -> None:
    space = DeepSpace(SPACE, ("image", "2"))
    clips = candidate_deep_clips(space, 30, 0)
    assert len(clips) == len(set(clips)) == 9  # three candidates at each of two places
    assert str(clips[0]) == "image: identity | 2: identity"
    assert clips == candidate_deep_clips(space, 30, 0)
    both = [clip for clip in drawn_clips(SPACE, ("image", ("image", "2")), 30, 0) if isinstance(clip, DeepClip)]
    assert len(both) == 6  # without identities, and without the two steps at the image alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_at": [("image", "2")], "candidates": ["flip_x"]}, "draws clips at several places, and candidates are"),
        ({"clip_at": [("2", "image")]}, "the place 'image' is before the network"),
        ({"clip_at": [("4", "2")]}, "the network passes '2' first"),
        ({"clip_at": [("2", "2")]}, "the places of one clip are different names"),
        ({"clip_at": ["all", ("image", "9")]}, "must name a module that runs once"),
        ({"clip_at": [("image", "2")], "T": 1}, "has 2 frames or more"),
        ({"candidates": ["image: identity | 4: translate_x(9 cells)"]}, "9 cells"),
        ({"candidates": ["image: [identity | flip_x] | 2: [flip_y | identity]"]}, "got frame sets at places"),
        ({"clip_at": [("image", "2")], "space": "autoaugment13", "mean": 0.5, "std": 0.5}, "cannot change colours"),
    ],
)
def test_what_cannot_be_is_refused(options: dict, message: str) -> None:
    how = {**HOW, "count": 4, **options}
    if "candidates" in options:
        del how["space"]
    with pytest.raises(InputError, match=message):
        rank_genotypes(stages(), blobs(20, 0), **how)


def found(out: Path | None = None, data: Arrays | None = None, **options: object):
    data = blobs(30, 0) if data is None else data
    return search(stages(), data, SearchConfig(**{**BASE, **options}), out=out, resume=out is not None)


@quiet
def test_a_search_for_fixed_weights_ranks_places_alone_and_together(tmp_path: Path) -> None:
    options = {"selection": "fixed_weights", "clip_at": ["4", ["image", "2"]], "padding": "border", "max_cost": 2.6}
    result = found(tmp_path, **options)
    assert result.config.clip_at == ("4", "image | 2")
    texts = [str(entry.genotype) for entry in result.ranking.entries]
    assert any(text.startswith("image: identity | 2:") for text in texts)
    assert any(entry.place == "4" for entry in result.ranking.entries)
    assert all(entry.cost <= 2.6 for entry in result.ranking.entries)
    assert result.ranking.front[0].cost == 1
    assert json.loads((tmp_path / "scores.json").read_text())["ranking"] == result.ranking.to_dict()
    again = found(clip_at="4, image | 2", **{name: options[name] for name in options if name != "clip_at"})
    assert again.ranking.to_dict() == result.ranking.to_dict()


@quiet
@pytest.mark.parametrize("clip_at", [("image", "2"), ("2", "4"), "2", "image | 2"])
def test_one_shot_ranks_chains_at_all_places(clip_at: object, tmp_path: Path) -> None:
    result = found(tmp_path, selection="one_shot", clip_at=clip_at, fusion="tsm", epochs=1)
    places = ("image", "2") if clip_at == "image | 2" else (clip_at,) if isinstance(clip_at, str) else clip_at
    assert isinstance(result.genotype, DeepClip)
    assert result.genotype.places == places
    assert result.ranking.best == result.genotype
    assert len(result.ranking.entries) == 6
    assert str(result.ranking.identity.genotype) == " | ".join(f"{place}: identity" for place in places)
    model = VideoWrap(stages(), "none", genotype=tmp_path / "genotype.json", input_size=SIZE)
    assert result.genotype.provenance["cost"] == model.plan.cost(3) == result.ranking.best_entry.cost
    assert [entry["place"] for entry in result.front] == [*places, None]
    assert result.front[0]["accuracy"] == result.ranking.best_entry.accuracy
    assert result.front[0]["loss"] == pytest.approx(result.ranking.best_entry.loss)
    assert result.front[-1]["loss"] == pytest.approx(result.ranking.identity.loss)
    assert "by where the clip begins" in result.front_sentence()


def test_one_shot_finds_the_clip_that_is_planted_at_two_places() -> None:
    net, data = planted(96, 0)
    register_space(SHIFTS)
    how = {**BASE, "space": "eighths", "T": 2, "lr": 0.0, "lr_min": 0.0, "fusion": "none", "candidates": 9, "epochs": 1}
    config = SearchConfig(**how, selection="one_shot", clip_at=("image", "1"), criterion="loss", padding="border")
    result = search(net, data, config)
    assert str(result.genotype) == "image: translate_x(0.125) | 1: translate_x(0.125)"
    gains = [entry["loss_gain"] for entry in result.front]
    assert gains[0] < min(gains[1:])
    assert gains[2] == 0


@quiet
def test_a_one_shot_search_that_is_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    options = {"selection": "one_shot", "clip_at": ("image", "2"), "fusion": "tsm", "accumulate": 2}

    def run(out: Path, at: int) -> int:
        killer = Killer(at)
        config = SearchConfig(**{**BASE, **options})
        search(stages(), blobs(30, 0), config, out=out, resume=True, progress=killer)
        return len(killer.stages)

    whole, out = tmp_path / "whole", tmp_path / "stopped"
    steps = run(whole, -1)
    for at in (1, 3, steps // 2):
        with pytest.raises(KilledError):
            run(out, at)
    run(out, -1)
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


@quiet
def test_one_shot_segmentation_over_places() -> None:
    data = blobs(24, 0, size=(16, 16), classes=2)
    pixels = Arrays(data.images, (data.images[:, 0] > 0.5).long())
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 1), Pixels())
    config = SearchConfig(**{**BASE, "selection": "one_shot", "fusion": "none", "clip_at": ("image", "2")})
    result = search(net, pixels, config, task=SegmentationTask(2))
    assert result.genotype.places == ("image", "2")
    assert result.front[0]["accuracy"] == result.ranking.best_entry.accuracy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": "one_shot", "clip_at": ["image", ["image", "2"]]}, "searches over all places at once"),
        (
            {"selection": "one_shot", "clip_at": ("image", "2"), "max_cost": 2},
            "max_cost=2 is less than what",
        ),
        ({"selection": "fixed_weights", "clip_at": "image | nowhere"}, "must name a module that runs once"),
        ({"selection": "fixed_weights", "clip_at": [["2", "image"]]}, "the image comes before the network"),
    ],
)
def test_a_search_refuses_before_the_folder(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        found(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_frames_are_chosen_at_the_image_alone() -> None:
    with pytest.warns(UserWarning, match=r"does not use clip_at=\('image \| 2',\)"):
        result = found(selection="greedy_frames", clip_at="image | 2", candidates=4, space="few steps")
    assert not isinstance(result.genotype, DeepClip)


ONE_SHOT = """
import gc, json, sys
import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from deep_search_cases import SPACE, stages
from search_cases import blobs
from image2video.search import SearchConfig, register_space, search

torch.set_num_threads(1)
register_space(SPACE)
accelerator = Accelerator(cpu=True)

def main():
    config = SearchConfig(
        selection="one_shot", space="one edge", clip_at=("image", "2"), T=3, fusion="tsm", epochs=1, batch_size=8,
        candidates=6, crop_flip=False, device="cpu",
    )
    result = search(stages(), blobs(32, 0), config, accelerator=accelerator)
    record = {"ranking": result.ranking.to_dict(), "front": result.front, "genotype": str(result.genotype)}
    with open(f"{sys.argv[1]}.{accelerator.process_index}", "w") as file:
        json.dump(record, file)

main()
gc.collect()
if accelerator.num_processes > 1:
    PartialState().destroy_process_group()
"""


def test_two_processes_rank_places_as_one_does(tmp_path: Path) -> None:
    found = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        assert launch(tmp_path / "script.py", ONE_SHOT, out, processes=processes) == 0
        found += [json.loads(Path(f"{out}.{rank}").read_text()) for rank in range(processes)]
    one, first, second = found
    assert first == second
    for alone, shared in zip(one["front"], first["front"], strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-3)
    assert one["ranking"]["images"] == first["ranking"]["images"]
