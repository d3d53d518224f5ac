"""A plan whose clip begins inside of the network: fusion sites before it are left out, and it says what it costs."""

import dataclasses
import pickle

import pytest
import timm
import torch
from plan_cases import SIZE, Residual, conv, network
from torch import nn

from image2video.errors import InputError
from image2video.inject import clip_sites, inject_, plan

SIDE = (3, 64, 96)


def net() -> nn.Module:
    return network(*(Residual(nn.Sequential(conv(16, 16), nn.ReLU(), conv(16, 16))) for _ in range(3)))


@pytest.mark.parametrize("fusion", ["tsm", "gsf"])
def test_fusions_before_the_clip_are_left_out(fusion: str) -> None:
    whole = plan(net(), fusion=fusion, input_size=SIZE)
    made = plan(net(), fusion=fusion, input_size=SIZE, clip_at="1.1")
    assert made.sites == whole.sites[1:]
    (left_out,) = made.skipped
    assert left_out.name == whole.sites[0].name
    assert left_out.reason == "before the clip site '1.1': it sees one frame per image"
    assert made.outputs == whole.outputs
    assert made.clip_site in clip_sites(net(), input_size=SIZE)


def test_a_fusion_at_the_place_itself_sees_frames() -> None:
    plain = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 8))
    before = plan(plain, fusion="tsm", input_size=SIZE, clip_at="2")
    assert before.names == ("2", "4")
    after = plan(plain, fusion="gsf", input_size=SIZE, clip_at="3")
    assert (after.names, [place.name for place in after.skipped]) == (("4",), ["2"])


def test_convolutions_before_the_clip_are_left_out() -> None:
    made = plan(net(), fusion="conv3d", input_size=SIZE, clip_at="1.2")
    assert made.names == ("1.2.body.0", "1.2.body.2")
    assert len(made.skipped) == 5


def test_a_plan_for_the_image_is_the_plan_without_a_place() -> None:
    assert plan(net(), input_size=SIZE, clip_at="image") == plan(net(), input_size=SIZE)
    assert plan(net(), input_size=SIZE).clip_site is None


def test_a_clip_without_fusion() -> None:
    made = plan(net(), fusion="none", input_size=SIZE, clip_at="1.2")
    assert made.clip_site is not None
    assert (made.clip_site.name, made.sites, made.skipped) == ("1.2", (), ())


def test_sites_by_name_before_the_clip_are_refused() -> None:
    with pytest.raises(InputError, match=r"sites names 1.0.body.0, before the clip site '1.1'.*leave them out"):
        plan(net(), fusion="tsm", input_size=SIZE, clip_at="1.1", sites=["1.0.body.0", "1.2.body.0"])
    # The stem is no site of the rule, but a name may be any module.
    with pytest.raises(InputError, match=r"sites names 0, before the clip site"):
        plan(net(), fusion="gsf", input_size=SIZE, clip_at="1.1", sites=["0"])
    made = plan(net(), fusion="tsm", input_size=SIZE, clip_at="1.1", sites=["1.2.body.0"])
    assert (made.names, made.skipped) == (("1.2.body.0",), ())


def test_sites_by_pattern_before_the_clip_are_left_out() -> None:
    made = plan(net(), fusion="tsm", input_size=SIZE, clip_at="1.1", sites=r"1\.[01]\..*")
    assert (made.names, [place.name for place in made.skipped]) == (("1.1.body.0",), ["1.0.body.0"])
    with pytest.raises(InputError, match=r"no site is left .*before the clip site '1.1'"):
        plan(net(), fusion="tsm", input_size=SIZE, clip_at="1.1", sites=r"1\.0\..*")


def test_published_sites_behind_the_clip() -> None:
    resnet = timm.create_model("resnet18")
    whole = plan(resnet, fusion="gsf", sites="published", input_size=SIDE)
    made = plan(resnet, fusion="gsf", sites="published", input_size=SIDE, clip_at="layer3")
    assert made.sites == whole.sites[4:]
    assert [place.name for place in made.skipped] == [site.name for site in whole.sites[:4]]


def test_a_head_after_all_fusions_needs_none() -> None:
    with pytest.raises(InputError, match="no site is left"):
        plan(net(), fusion="tsm", input_size=SIZE, clip_at="2")


def test_the_table_says_where_the_clip_begins_and_what_it_costs() -> None:
    made = plan(net(), fusion="tsm", input_size=SIZE, clip_at="1.1")
    site = made.clip_site
    assert site is not None
    # A stem of 4×4 and two convolutions per block, on 6×10 places.
    stem, block = 60 * 16 * 3 * 16, 2 * 60 * 16 * 16 * 9
    assert (site.macs_before, site.macs_after) == (stem + block, 2 * block + 16 * 5)
    assert str(made).splitlines()[:6] == [
        "Sequential: 2 tsm sites at input 3×24×40",
        "",
        "clip begins at  1.1",
        "map             6×10, stride 4×4, 16 channels, (N, C, H, W)",
        "MACs per image  322 560 before it, 553 040 behind it",
        "cost            2.26 times the image for T = 3, 3.53 for T = 5",
    ]
    assert "clip" not in str(plan(net(), fusion="tsm", input_size=SIZE))


def test_a_plan_with_a_place_is_frozen_and_can_be_kept() -> None:
    made = plan(net(), input_size=SIZE, clip_at="1.1")
    assert pickle.loads(pickle.dumps(made)) == made
    assert made != dataclasses.replace(made, clip_site=None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.clip_site = None  # type: ignore[misc]


def test_a_plan_of_several_places_lists_them_all() -> None:
    made = plan(net(), fusion="tsm", input_size=SIZE, clip_at=["1.1", "1.2"])
    alone = plan(net(), fusion="tsm", input_size=SIZE, clip_at="1.1")
    assert (made.sites, made.skipped, made.clip_site) == (alone.sites, alone.skipped, alone.clip_site)
    assert [site.name for site in made.clip_sites] == ["1.1", "1.2"]
    assert made.later_sites == made.clip_sites[1:]
    assert (made.places, alone.places) == (("1.1", "1.2"), ("1.1",))
    assert (made.shared, alone.shared) == (0, 0), "a fusion stands between"
    assert made.cost(3) == alone.cost(3) == made.clip_sites[0].cost(3)
    first, second = (site.share_after for site in made.clip_sites)
    assert made.cost(3, (1, 2, 3)) == pytest.approx((1 - first) + 2 * (first - second) + 3 * second)
    assert pickle.loads(pickle.dumps(made)) == made
    image = plan(net(), fusion="tsm", input_size=SIZE, clip_at=("image", "1.2"))
    assert (image.clip_site, image.places, image.cost(3)) == (None, ("image", "1.2"), 3)
    assert image.sites == plan(net(), fusion="tsm", input_size=SIZE).sites
    assert plan(net(), fusion="none", input_size=SIZE, clip_at=["image", "1.1", "1.2"]).shared == 2


def test_the_table_of_several_places() -> None:
    made = plan(net(), fusion="none", input_size=SIZE, clip_at=["image", "1.1"])
    assert str(made).splitlines()[2:6] == [
        "place  map    stride  channels  layout        MACs behind it  there",
        "image  24×40  1×1     3         (N, C, H, W)  875 600         the clip begins",
        "1.1    6×10   4×4     16        (N, C, H, W)  553 040         its frames move",
        "cost: 3.00 times the image for T = 3, 5.00 for T = 5; less where frames are the same up to a place",
    ]


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (["1.2", "1.1"], r"names '1\.1' after '1\.2', and the network passes '1\.1' first"),
        (["1.1", "1.1"], r"names one place twice, '1\.1' and '1\.1'"),
        (["1.1", "image"], r"names 'image' after '1\.1'; the image comes before the network"),
        ([], r"must name 1 … 64 places, got 0"),
        (["1.1"] * 65, r"must name 1 … 64 places, got 65"),
        (["image", "1.1.body.2"], r"inside of a residual branch of '1\.1'"),
        (["image", "nowhere"], r"'nowhere' must name a module that runs once; it is not there"),
        (["1.1", "x" * 1001], r"at most 1000 characters, got 1001"),
    ],
)
def test_places_that_cannot_be_together(places: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan(net(), fusion="none", input_size=SIZE, clip_at=places)


def test_places_on_two_paths_are_refused() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.left, self.right = conv(3, 4), conv(4, 4), conv(4, 4)
            self.first, self.second = conv(4, 4), conv(4, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.stem(x)
            return self.first(self.left(x)), self.second(self.right(x))

    with pytest.raises(InputError, match=r"names 'second' after 'first', and nothing that comes from 'first' reaches"):
        plan(TwoHeads(), fusion="none", input_size=SIZE, clip_at=["first", "second"])


def test_a_plan_whose_later_place_is_gone_is_refused() -> None:
    made = plan(net(), fusion="none", input_size=SIZE, clip_at=["image", "1.1"])
    with pytest.raises(InputError, match=r"moves maps at '1\.1', which is not there in this Sequential"):
        inject_(nn.Sequential(conv(3, 3)), made)


def test_a_fusion_without_a_site_behind_the_clip_says_what_to_do():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1))
    said = r"no site is left for fusion 'gsf' .*before the clip site '3'.*take fusion='none', .* an earlier place"
    for places in ("3", ("3", "4")):
        with pytest.raises(InputError, match=said):
            plan(net, fusion="gsf", clip_at=places, input_size=(3, 16, 24))
    assert plan(net, fusion="none", clip_at="3", input_size=(3, 16, 24)).clip_site.name == "3"
