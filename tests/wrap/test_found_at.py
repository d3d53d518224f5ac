"""Genotypes that were found at a place inside of a network: wrappers begin there, unless another place is named."""

import pytest
import torch
from wrap_helpers import backbone, images

from image2video import Genotype, plan
from image2video.errors import InputError
from image2video.wrap.video_wrap import VideoWrap

SIZE = (3, 32, 48)
FOUND = Genotype.parse("rotate(9)").with_provenance({"T": 4, "clip_at": "layer2"})


def wrapped(genotype=FOUND, **options):
    return VideoWrap(backbone(), "none", genotype=genotype, input_size=SIZE, **options)


@torch.no_grad()
def test_a_genotype_begins_where_it_was_found(tmp_path):
    model = wrapped()
    assert (model.clip_at, model.T) == ("layer2", 4)
    expected = wrapped("rotate(9)", T=4, clip_at="layer2")(images(size=SIZE))
    assert torch.equal(model(images(size=SIZE)), expected)
    FOUND.save(tmp_path / "found.json")
    assert wrapped(tmp_path / "found.json").clip_at == "layer2"
    assert wrapped(FOUND.with_provenance({"clip_at": "image"})).clip_at is None
    assert wrapped(FOUND.with_provenance({"clip_at": None})).clip_at is None


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["none", "tsm"])
def test_a_place_that_is_named_counts_and_is_saved(tmp_path, fusion):
    for number, (place, there) in enumerate((("image", None), ("layer3", "layer3"))):
        model = VideoWrap(backbone(), fusion, genotype=FOUND, clip_at=place, input_size=SIZE).eval()
        assert model.clip_at == there
        model.save_pretrained(tmp_path / str(number))
        loaded = VideoWrap.from_pretrained(tmp_path / str(number), backbone())
        assert loaded.clip_at == there
        assert torch.equal(loaded(images(size=SIZE)), model(images(size=SIZE)))


@pytest.mark.parametrize("place", ["image", "layer3"])
def test_a_plan_of_another_place_is_refused_unless_it_is_named(place, tmp_path):
    FOUND.save(tmp_path / "found.json")
    elsewhere = plan(backbone(), fusion="none", input_size=SIZE, clip_at=place)
    there = plan(backbone(), fusion="none", input_size=SIZE, clip_at="layer2")
    for genotype in (FOUND, tmp_path / "found.json"):
        with pytest.raises(InputError, match=rf"plan has clip_at='{place}', and the genotype was found at 'layer2'"):
            VideoWrap(backbone(), "none", genotype=genotype, sites=elsewhere)
        named = VideoWrap(backbone(), "none", genotype=genotype, sites=elsewhere, clip_at=place)
        assert named.clip_at == (None if place == "image" else place)
        assert VideoWrap(backbone(), "none", genotype=genotype, sites=there).clip_at == "layer2"


def test_a_plan_of_other_places_than_a_deep_clip_names_is_refused():
    elsewhere = plan(backbone(), fusion="none", input_size=SIZE, clip_at=["image", "layer3"])
    with pytest.raises(
        InputError, match=r"the plan has clip_at=\('image', 'layer3'\), got clip_at=\('image', 'layer2'"
    ):
        VideoWrap(backbone(), "none", genotype="image: flip_x | layer2: rotate(9)", sites=elsewhere)


def test_a_network_without_the_place_is_told_of_it():
    elsewhere = FOUND.with_provenance({"clip_at": "blocks.3"})
    with pytest.raises(InputError, match=r"clip_at='blocks.3' .*found there.*clip_at='image' lets the clip begin at"):
        wrapped(elsewhere)
    with pytest.raises(InputError, match=r"clip_at='blocks.4' must name") as refused:
        wrapped(elsewhere, clip_at="blocks.4")
    assert "found there" not in str(refused.value)
