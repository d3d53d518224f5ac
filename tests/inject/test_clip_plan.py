"""A plan whose clip begins inside of the network: fusion sites before it are left out, and it says what it costs."""

import dataclasses
import pickle

import pytest
import timm
from plan_cases import SIZE, Residual, conv, network
from torch import nn

from image2video.errors import InputError
from image2video.inject import clip_sites, plan

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
