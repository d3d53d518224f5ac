"""The count of places where a clip may begin: over all modules of timm, with a reason where there is none."""

import json
from pathlib import Path

import pytest

pytest.importorskip("timm")
pytest.importorskip("torchvision")

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "clip_zoo.json").read_text())["results"]


def test_every_module_of_timm_was_counted(load):
    modules = json.loads((ROOT / "benchmarks" / "zoo_architectures.json").read_text())["modules"]
    timm = [result for result in RESULTS if result["family"] != "torchvision"]
    assert [result["family"] for result in timm] == [f"timm {module}" for module in modules]
    assert len(RESULTS) - len(timm) == len(load("clip_zoo").TORCHVISION.split())


def test_a_network_has_places_or_a_reason():
    for result in RESULTS:
        assert (result["sites"] == 0) == ("none" in result) == ("half" not in result), result["network"]


def test_the_page_has_the_counts(load):
    page = (ROOT / "docs" / "clip_sites.md").read_text(encoding="utf-8")
    assert load("pages").filled(page) == page


@pytest.mark.parametrize(("name", "why"), [("test_vit", None), ("crossvit_tiny_240", "streams")])
def test_the_count_of_a_network_is_the_published_one(load, name, why):
    zoo = load("clip_zoo")
    (published,) = (result for result in RESULTS if result["network"] == name)
    ((build, size),) = ((build, size) for _, other, build, size in zoo.networks() if other == name)
    made = zoo.described(build(), size)
    assert made | {"seconds": 0} == {key: published[key] for key in made} | {"seconds": 0}
    assert made.get("none") == why


def test_a_number_of_images_that_is_read_early_is_a_reason(load):
    from torch import nn

    class Early(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            rows = x.shape[0]
            return self.head(self.stem(x)).reshape(rows, -1)

    assert load("clip_zoo").described(Early(), (3, 16, 24))["none"] == "rows"
