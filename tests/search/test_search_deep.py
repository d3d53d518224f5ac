"""Searches over several places of a network, from the settings to the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from deep_search_cases import SIZE, SPACE, stages
from search_cases import Arrays, KilledError, Killer, Pixels, blobs
from torch import Tensor, nn

from image2video import DeepClip, VideoWrap
from image2video.errors import InputError, UnsupportedError
from image2video.runs.folders import torch_load_last
from image2video.search import (
    ClassificationTask,
    DeepSpace,
    SearchConfig,
    SearchSpace,
    SegmentationTask,
    register_space,
    search,
)

register_space(SearchSpace("small", ("translate_x(0.1)", "rotate(10)", "identity"), nodes=2))
register_space(SPACE)
BASE = {"space": "small", "T": 3, "epochs": 2, "tune_epochs": 1, "batch_size": 8, "device": "cpu", "lr": 0.1}
FILES = ("genotype.json", "tau.json", "scores.json", "config.yaml")
quiet = pytest.mark.filterwarnings("ignore:.*chose the identity", "ignore:the budget .* was spent before")


def found(out: Path | None = None, data: Arrays | None = None, **options: object):
    return search(stages(), blobs(30, 0) if data is None else data, SearchConfig(**{**BASE, **options}), out=out)


@quiet
@pytest.mark.parametrize(
    ("selection", "clip_at"),
    # Where one place is alone is the space's matter, and the same for what chooses by scores as for what does not.
    [
        *((selection, ("image", "2")) for selection in ("perturbation", "argmax", "random", "frozen")),
        *((selection, "2") for selection in ("perturbation", "random")),
    ],
)
def test_every_selection_finds_a_chain_for_every_place(selection: str, clip_at, tmp_path: Path) -> None:
    result = found(tmp_path / "out", selection=selection, clip_at=clip_at, epochs=1, tune_epochs=0, seed=1)
    places = (clip_at,) if isinstance(clip_at, str) else clip_at
    assert isinstance(result.genotype, DeepClip)
    assert result.genotype.places == places
    assert result.genotype.provenance["selection"] == selection
    record = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert record["space"]["places"] == list(places)
    assert len(record["chosen"]) == 3 * len(places)
    if selection in ("perturbation", "frozen"):
        assert sorted(entry["edge"] for entry in record["edges"]) == list(range(3 * len(places)))
        assert len(record["nodes"]) == len(places)
    model = VideoWrap(stages(), "none", genotype=tmp_path / "out" / "genotype.json", input_size=SIZE)
    assert (model.T, model.plan.places) == (3, places)
    assert result.genotype.provenance["cost"] == model.plan.cost(3)
    assert model(torch.rand(2, *SIZE)).shape == (2, 3)


class Half(nn.Module):
    """Maps of half the size: every second pixel, whose neighbours no later layer sees."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2, ::2]


def planted(count: int, seed: int) -> Arrays:
    """24×32 noise with a patch of ±1 whose sign is the class, four cells of the map left of its centre."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 0.25 * torch.randn(count, 1, 24, 32, generator=generator)
    images[:, 0, 8:16, 4:12] += (2 * labels - 1).float().view(-1, 1, 1)
    return Arrays(images, labels)


class Window(nn.Module):
    """Logits of two classes from a window of 2×2 cells at the map's centre."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x[:, 0, 5:7, 7:9].mean(dim=(1, 2))
        return torch.stack([-mean, mean], dim=1)


@pytest.mark.parametrize("relaxation", ["mixture", "single_path"])
def test_a_best_op_that_is_planted_at_an_inner_place_is_found(relaxation: str) -> None:
    net = nn.Sequential(Half(), nn.Conv2d(1, 1, 1, bias=False), Window())
    nn.init.ones_(net[1].weight)
    # A shift by a quarter of the map brings the patch of the map into the window; no other candidate does.
    register_space(SearchSpace("planted there", ("translate_x(0.25)", "translate_y(0.25)", "identity"), nodes=1))
    config = SearchConfig(
        space="planted there",
        clip_at="1",
        T=2,
        fusion="none",
        epochs=2,
        tune_epochs=0,
        batch_size=16,
        lr=0.0,
        lr_min=0.0,
        tau_lr=0.3,
        criterion="loss",
        relaxation=relaxation,
        device="cpu",
    )
    result = search(net.requires_grad_(False), planted(96, 0), config)
    assert str(result.genotype) == "1: translate_x(0.25)"
    assert result.state.edges[0]["decided"]
    weights = result.state.epochs[-1]["weights"][0]
    assert weights[0] == max(weights)
    assert result.front[0]["gain"] > 0.3
    assert result.front[0]["cost"] == 2


KINDS = {
    "first order": {"clip_at": ("image", "2", "4"), "epochs": 1, "space": "one edge"},
    "one place, learned": {"clip_at": "2", "space": "one edge", "second_order": True, "learn_magnitudes": True},
    "single path": {
        "clip_at": ("2", "4"),
        "relaxation": "single_path",
        "accumulate": 2,
        "checkpoint_activations": True,
        "space": "one edge",
    },
}


@quiet
@pytest.mark.parametrize("kind", KINDS)
def test_a_search_that_is_stopped_ends_as_one_that_was_not(tmp_path: Path, kind: str) -> None:
    options = {**BASE, **KINDS[kind]}

    def run(out: Path, at: int) -> list[str]:
        killer = Killer(at)
        search(stages(), blobs(30, 0), SearchConfig(**options), out=out, resume=True, progress=killer)
        return killer.stages

    whole, out = tmp_path / "whole", tmp_path / "stopped"
    steps = len(run(whole, -1))
    for at in (2, steps // 2):
        with pytest.raises(KilledError):
            run(out, at)
    run(out, -1)
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


@quiet
def test_a_checkpoint_says_its_places_and_goes_on_with_no_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = found(out, clip_at=("image", "2"), epochs=1, selection="argmax")
    saved = torch_load_last(out / "checkpoint" / "last.pt")
    assert saved["format"] == 4
    assert saved["space"]["places"] == ["image", "2"]
    assert saved["cell"]["tau"].shape == (6, 3)
    other = SearchConfig(**{**BASE, "clip_at": ("image", "4"), "epochs": 1, "selection": "argmax"})
    with pytest.raises(InputError, match="other settings"):
        search(stages(), blobs(30, 0), other, out=out, resume=True)
    assert result.state.front[-1]["place"] is None


@quiet
def test_a_checkpoint_of_the_format_before_goes_on(tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    config = SearchConfig(**{**BASE, "selection": "argmax"})
    search(stages(), blobs(30, 0), config, out=whole)
    with pytest.raises(KilledError):
        search(stages(), blobs(30, 0), config, out=out, progress=Killer(3))
    path = out / "checkpoint" / "last.pt"
    saved = torch_load_last(path)
    del saved["state"]["front"]
    torch.save({**saved, "format": 3}, path)
    search(stages(), blobs(30, 0), config, out=out, resume=True)
    assert (out / "genotype.json").read_bytes() == (whole / "genotype.json").read_bytes()


@quiet
def test_segmentation_over_places() -> None:
    data = blobs(24, 0, size=(16, 16), classes=2)
    pixels = Arrays(data.images, (data.images[:, 0] > 0.5).long())
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 1), Pixels())
    config = SearchConfig(**{**BASE, "space": "one edge", "fusion": "none", "clip_at": ("image", "2"), "epochs": 1})
    result = search(net, pixels, config, task=SegmentationTask(2))
    assert result.genotype.places == ("image", "2")
    assert 0 < result.state.score["accuracy"] <= 1


@quiet
def test_the_front_is_what_the_found_clip_and_its_later_places_give() -> None:
    result = found(clip_at=("image", "2", "4"), epochs=1, selection="argmax", space="one edge")
    places, costs = zip(*[(entry["place"], entry["cost"]) for entry in result.front], strict=True)
    assert places == ("image", "2", "4", None)
    assert costs[0] == 3
    assert costs[1] > costs[2] > 1
    assert result.front[0]["macs"] == 3 * round(result.front[1]["macs"] / costs[1])
    assert result.front[0]["accuracy"] == result.state.score["accuracy"]
    assert result.front[-1]["gain"] == result.front[-1]["loss_gain"] == 0
    assert (
        "2 (2.43 times the image)" in result.front_sentence() or f"2 ({costs[1]:.2f} times" in result.front_sentence()
    )


@quiet
def test_every_place_has_a_cell_to_draw() -> None:
    result = found(clip_at=("image", "2"), epochs=1, tune_epochs=0, seed=1)
    assert result.summary() is None
    cells = dict(result.place_summaries())
    assert list(cells) == ["image", "2"]
    for number, (place, cell) in enumerate(cells.items()):
        rows = slice(3 * number, 3 * number + 3)
        assert cell["edges"] == [list(edge) for edge in result.space.cell.edges]
        assert cell["weights"][-1] == result.state.epochs[-1]["weights"][rows]
        assert cell["chosen"] == [result.state.decisions.ops[edge] for edge in range(3 * number, 3 * number + 3)]
        chain = " > ".join(cell["ops"][cell["chosen"][edge]] for edge in cell["path"])
        assert DeepClip.parse(f"{place}: {chain}").clips[0] == dict(result.genotype.sites)[place]
        assert cell["genotype"] == str(dict(result.genotype.sites)[place])
        assert [len(row) for row in cell["drops"]] == [3, 3, 3]
    assert found(selection="argmax", epochs=1).place_summaries() == []


class OwnPlan(ClassificationTask):
    """A task that plans its network itself."""

    def plan(self, network, fusion, input_size):
        return super().plan(network, fusion, input_size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_at": ("image", "2"), "max_cost": 2}, r"max_cost=2 is less than .* image \(3\), 2 \(.*lower T"),
        ({"clip_at": ("2", "4"), "max_cost": 2}, r"2 \(.*\), 4 \(.*\); name '4' alone, or lower T"),
        ({"max_cost": 2}, "less than what a clip of T = 3 costs at the image, 3 times"),
        ({"clip_at": "all"}, "clip_at='all' is for rankings .*name them"),
        ({"clip_at": ("2", "image")}, "the image comes before the network"),
        ({"clip_at": ("4", "2")}, "the network passes '2' first"),
        ({"clip_at": "nowhere"}, "must name a module that runs once"),
        ({"clip_at": ("image", "2"), "space": "autoaugment13"}, "cannot change colours"),
        ({"clip_at": ("image", "image | 2")}, "searches over all places at once"),
    ],
)
def test_what_cannot_be_is_refused_before_the_folder(options: dict, message: str, tmp_path: Path) -> None:
    data = blobs(20, 0)
    config = SearchConfig(**{**BASE, **options})
    with pytest.raises(InputError, match=message):
        search(stages(), data, config, out=tmp_path / "out", mean=0.5, std=0.5)
    assert not (tmp_path / "out").exists()


def test_a_task_that_plans_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="OwnPlan plans its network itself and knows no places"):
        search(stages(), blobs(20, 0), SearchConfig(**{**BASE, "clip_at": "2"}), task=OwnPlan(), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@quiet
def test_a_budget_that_fits_and_the_image_named_alone_change_nothing() -> None:
    plain = found(epochs=1, selection="argmax")
    assert found(epochs=1, selection="argmax", clip_at="image", max_cost=3).state.epochs == plain.state.epochs
    assert not isinstance(plain.space, DeepSpace)
    assert plain.front == []


@quiet
def test_tokens_of_a_checkpointed_transformer_are_moved_on_their_grid() -> None:
    data = blobs(12, 0, size=(32, 48))
    images = Arrays(data.images.repeat(1, 3, 1, 1), data.labels)
    net = timm.create_model("test_vit", num_classes=3, img_size=(32, 48))
    how = {"selection": "argmax", "clip_at": ("image", "blocks.1"), "epochs": 1, "batch_size": 6, "space": "one edge"}
    plain = search(net, images, SearchConfig(**{**BASE, **how}))
    again = search(net, images, SearchConfig(**{**BASE, **how, "checkpoint_activations": True}))
    assert plain.genotype.places == ("image", "blocks.1")
    for one, two in zip(plain.state.steps, again.state.steps, strict=True):
        torch.testing.assert_close(torch.tensor(one["tau"]), torch.tensor(two["tau"]))
    assert plain.state.steps[0]["tau"] != plain.state.steps[-1]["tau"]
