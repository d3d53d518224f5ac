"""Rankings of clips that begin inside of a network, place and chain together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from search_cases import Arrays, blobs
from torch import Tensor, nn

from image2video import Genotype, VideoWrap
from image2video.clip.options import ClipOptions
from image2video.errors import InputError, InputTypeError, StateError
from image2video.inject import clip_sites
from image2video.search import Ranking, rank_genotypes
from image2video.search.rank.clip_candidate import ClipCandidate
from image2video.search.rank.map_frames import MapFrames
from image2video.search.rank.places import find_places
from image2video.search.score.task import ClassificationTask, SegmentationTask

CHAINS = ["translate_x(0.1)", "translate_x(1 cell)", "scale(1.2) > rotate(5)", "flip_x"]
SIZE = (1, 12, 16)


def network(seed: int = 0) -> nn.Sequential:
    """Maps of 12×16 and 6×8, with a norm and an activation that cost nothing between the weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 3),
        )
    return net.eval()


def dense(seed: int = 0) -> nn.Sequential:
    """Logits of two classes for every second pixel."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, stride=2, padding=1))
    return net.eval()


def scores(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    right, losses = ClassificationTask().per_image(logits, labels)
    return right.double().mean().item(), losses.double().mean().item()


@pytest.mark.parametrize(("batch_size", "count"), [(5, 4), (1000, 2)])
def test_every_entry_is_what_the_wrapper_predicts_at_its_place(batch_size: int, count: int) -> None:
    net, data = network(), blobs(30, 0)
    how = {"T": (2, 3), "padding": "zeros", "aggregate": ("mean", "mean_prob"), "judge": 0}
    chains = CHAINS[:count]
    ranking = rank_genotypes(net, data, candidates=chains, clip_at=["image", "3"], batch_size=batch_size, **how)
    assert {entry.place for entry in ranking.entries} == {None, "3"}
    sites = {site.name: site for site in clip_sites(net, input_size=SIZE)}
    for entry in ranking.entries:
        options = entry.wrap_options()
        assert options.get("clip_at") == entry.place
        model = VideoWrap(net, "none", **options, input_size=SIZE)
        with torch.no_grad():
            expected = scores(model(data.images), data.labels)
        model.unwrap()
        T = options["T"]
        assert (entry.accuracy, entry.loss) == pytest.approx(expected, abs=1e-5)
        assert entry.cost == (T if entry.place is None else sites[entry.place].cost(T))
        assert entry.macs == pytest.approx(entry.cost * ranking.identity.macs)
    assert Ranking.from_dict(ranking.to_dict(), ranking.seconds) == replace(
        ranking, best=ranking.best.with_provenance(None)
    )


def test_at_the_image_places_change_nothing() -> None:
    net, data = network(), blobs(40, 1)
    bare = rank_genotypes(net, data, candidates=CHAINS)
    assert rank_genotypes(net, data, candidates=CHAINS, clip_at="image").to_dict() == bare.to_dict()
    assert "place" not in str(bare.to_dict()) + str(bare.best.provenance)
    # By default other batches go through it where clips begin inside, and a last bit may differ.
    bare = rank_genotypes(net, data, candidates=CHAINS, batch_size=32)
    both = rank_genotypes(net, data, candidates=CHAINS, clip_at=("image", "3"), batch_size=32)
    assert {e for e in both.entries if e.place is None} == set(bare.entries)


def test_what_lies_before_a_place_runs_once_and_shared_frames_once() -> None:
    net, images = network(), blobs(6, 0).images
    rows: dict[str, int] = {"0": 0, "4": 0}
    for name in rows:
        net[int(name)].register_forward_pre_hook(
            lambda _, args, name=name: rows.update({name: rows[name] + len(args[0])})
        )
    (site,) = find_places(net, ["3"], images[:1])
    rows |= {"0": 0, "4": 0}
    clips = [
        ClipCandidate.averaged(Genotype.parse(text), ClipOptions(T=3, schedule="from_zero"), "mean", site)
        for text in ("translate_x(0.1)", "translate_x(0.2)", "translate_x(1 cell)", "flip_x")
    ]
    maps = MapFrames(net, site, 64)
    with torch.no_grad():
        maps.predictions(images, clips)
    # Shifts of 0, 1, 2 and 4 tenths, 1 and 2 cells, and the mirror image.
    assert rows == {"0": 6, "4": 6 * 7}
    assert maps.frames == 6 * 7


def test_of_places_with_no_weights_between_them_all_has_the_last() -> None:
    net = network()
    assert [site.name for site in clip_sites(net, input_size=SIZE)] == ["1", "2", "3", "4", "5", "6"]
    example = torch.zeros(1, *SIZE)
    assert [place and place.name for place in find_places(net, ["all"], example)] == [None, "3", "5", "6"]
    assert [place and place.name for place in find_places(net, ["5", "image", "3"], example)] == [None, "3", "5"]


def test_a_clip_that_gives_the_same_frames_at_several_places_counts_at_the_last() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1), nn.ReLU()),
            *(nn.Conv2d(4, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
        ).eval()
    data, how = blobs(30, 0), {"T": 2, "schedule": "from_zero", "clip_at": ["1", "3", "4", "5"], "judge": 0}
    chains = ["scale(1.2)", "translate_x(1 cell)", "flip_x"]

    def places(padding: str) -> dict[str, set[str | None]]:
        found: dict[str, set[str | None]] = {chain: set() for chain in chains}
        for entry in rank_genotypes(net, data, candidates=chains, padding=padding, **how).entries:
            found.get(str(entry.genotype), set()).add(entry.place)
        return found

    # 1×1 convolutions and norms before "4", an activation behind it, which slices alone pass.
    assert places("reflection") == {"scale(1.2)": {"4", "5"}, "translate_x(1 cell)": {"5"}, "flip_x": {"5"}}
    everywhere = {"1", "3", "4", "5"}
    assert places("zeros") == {"scale(1.2)": everywhere, "translate_x(1 cell)": everywhere, "flip_x": {"5"}}

    def logits(chain: str, place: str) -> Tensor:
        model = VideoWrap(net, "none", genotype=chain, T=2, schedule="from_zero", clip_at=place, input_size=SIZE)
        with torch.no_grad():
            found = model(data.images)
        model.unwrap()
        return found

    for chain, alike in (("scale(1.2)", ("1", "3", "4")), ("flip_x", ("1", "4", "5"))):
        for place in alike[:-1]:
            torch.testing.assert_close(logits(chain, place), logits(chain, alike[-1]), atol=1e-5, rtol=1e-5)
    assert (logits("scale(1.2)", "4") - logits("scale(1.2)", "5")).abs().max() > 1e-4


def test_what_costs_too_much_is_left_out_and_listed() -> None:
    net, data = network(), blobs(40, 1)
    how = {"candidates": CHAINS, "T": (2, 3), "clip_at": "all"}
    sites = {site.name: site for site in clip_sites(net, input_size=SIZE)}
    ranking = rank_genotypes(net, data, max_cost=2, **how)
    places = {(entry.place, entry.T) for entry in ranking.entries if entry.genotype.chain}
    within = {(name, T) for name in ("3", "5", "6") for T in (2, 3) if sites[name].cost(T) <= 2}
    assert places == {(None, 2), *within}
    assert 1 < len(within) < 6
    assert {(clip.place, clip.T) for clip in ranking.left_out} == {
        ("image", 3),
        *((name, T) for name in ("3", "5", "6") for T in (2, 3) if (name, T) not in within),
    }
    assert "image with T = 3 (3)" in ranking.left_out_sentence()
    assert Ranking.from_dict(ranking.to_dict()).left_out == ranking.left_out
    assert rank_genotypes(net, data, **how).left_out_sentence() == ""
    with pytest.raises(InputError, match=r"max_cost=1 leaves no clip of T = 3 at 2 places; the cheapest is 3 with"):
        rank_genotypes(net, data, candidates=CHAINS, clip_at=["image", "3"], max_cost=1)


def test_a_place_that_is_planted_is_found() -> None:
    class Evenly(nn.Module):
        """A convolution whose stride throws the odd columns away, summed."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1, stride=2, bias=False)
            nn.init.ones_(self.conv.weight)

        def forward(self, maps: Tensor) -> Tensor:
            total = self.conv(maps).sum((1, 2, 3))
            return torch.stack([total, -total], dim=1)

    labels = torch.arange(60) % 2
    images = torch.zeros(60, 1, 8, 16)
    # The class stands in the odd columns of the map, which every second pixel pair is.
    images[..., 2::4] = images[..., 3::4] = (1.0 - 2 * labels)[:, None, None, None]
    ranking = rank_genotypes(
        nn.Sequential(nn.AvgPool2d(2), Evenly()),
        Arrays(images, labels),
        candidates=["translate_x(1 cell)"],
        clip_at=["image", "1"],
        padding="border",
    )
    assert (ranking.best_entry.place, ranking.best_entry.accuracy) == ("1", 1)
    assert ranking.identity.accuracy < 0.6
    assert ranking.best.provenance["clip_at"] == "1"
    assert ranking.sentence().startswith("translate_x(1 cell) at 1 is better than the image itself")


def test_maps_of_a_segmentor_come_back_from_their_place() -> None:
    net, data = dense(), blobs(12, 0)
    labels = (data.images[:, 0] > 0.5).long()
    options = {"candidates": ["translate_x(0.1)", "translate_y(1 cell)"], "T": 2, "judge": 0, "clip_at": "2"}
    task = SegmentationTask(2)
    ranking = rank_genotypes(net, Arrays(data.images, labels), task=task, **options)
    inside = [entry for entry in ranking.entries if entry.genotype.chain]
    assert [entry.place for entry in inside] == ["2", "2"]
    for entry in inside:
        model = VideoWrap(net, "none", **entry.wrap_options(), input_size=SIZE)
        with torch.no_grad():
            loss = task.loss(model(data.images), labels).item()
        model.unwrap()
        assert entry.loss == pytest.approx(loss, abs=1e-5)


def test_the_network_is_bare_again_whatever_happens() -> None:
    net, data = network(), blobs(20, 0)
    before = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()]
    rank_genotypes(net, data, candidates=CHAINS, clip_at="3")
    wrong = Arrays(
        torch.cat([data.images, torch.full((1, *SIZE), torch.nan)]), torch.cat([data.labels, torch.ones(1)]).long()
    )
    with pytest.raises(InputError, match="NaN"):
        rank_genotypes(net, wrong, candidates=CHAINS, clip_at="3", judge=0)
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()] == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_at": "9"}, r"clip_at='9' must name a module that runs once; it is not there"),
        ({"clip_at": ["3", "3"]}, "one name or several different ones"),
        ({"clip_at": []}, "one name or several different ones"),
        ({"clip_at": ["all", "3"]}, "'all' alone"),
        ({"clip_at": "3", "T": (1, 2)}, "a clip inside of the network .* has 2 frames or more, got T=1"),
        ({"clip_at": "3", "candidates": ["invert(0.5)"], "mean": 0.5, "std": 0.5}, "cannot change colours"),
        ({"clip_at": "5", "candidates": ["translate_x(9 cells)"]}, "9 cells"),
    ],
)
def test_places_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rank_genotypes(network(), blobs(10, 0), **{"candidates": CHAINS, **options})
    with pytest.raises(InputTypeError, match="clip_at must be the path of a module"):
        rank_genotypes(network(), blobs(10, 0), clip_at=3)


def test_chains_with_colours_begin_at_the_image_alone() -> None:
    options = {"candidates": ["invert(0.5)", "flip_x"], "mean": 0.5, "std": 0.5, "judge": 0, "T": 2}
    ranking = rank_genotypes(network(), blobs(20, 0), clip_at=["image", "3"], **options)
    found = {(str(entry.genotype), entry.place) for entry in ranking.entries}
    assert found == {("identity", None), ("invert(0.5)", None), ("flip_x", None), ("flip_x", "3")}


def test_wrapped_networks_are_refused() -> None:
    wrapped = VideoWrap(network(), "none", T=2, input_size=SIZE)
    with pytest.raises(StateError, match="pass the bare model"):
        rank_genotypes(wrapped, blobs(10, 0), clip_at="3")
