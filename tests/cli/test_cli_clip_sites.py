"""`image2video sites --clip-sites` and `--clip-at`: where a clip may begin, and the plan from there."""

import pytest

from image2video.cli import main
from image2video.inject import clip_sites
from image2video.wrap.builders import Builder


def test_every_place_is_printed_with_its_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", "cifar_resnet8", "--clip-sites"]) == 0
    head, columns, *rows = capsys.readouterr().out.splitlines()
    sites = clip_sites(Builder("timm:cifar_resnet8").build())
    assert head.startswith(f"cifar_resnet8: {len(sites)} places where a clip may begin")
    assert columns.split("  ")[0].strip() == "clip_at"
    assert [row.split()[0] for row in rows] == [site.name for site in sites]
    (layer3,) = (row for row in rows if row.startswith("layer3 "))
    (site,) = (site for site in sites if site.name == "layer3")
    for text in ("16×16", "2×2", "32", f"{100 * site.share_after:.1f} %", f"{site.cost(3):.2f}", f"{site.cost(5):.2f}"):
        assert f" {text} " in f"{layer3} "


def test_a_network_without_a_place_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    # Two sizes of patches, in two streams.
    assert main(["sites", "crossvit_tiny_240", "--clip-sites"]) == 0
    assert capsys.readouterr().out.startswith("crossvit_tiny_240: no clip can begin inside of it")


def test_a_plan_from_a_place_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", "cifar_resnet8", "--clip-at", "layer2", "--fusion", "tsm"]) == 0
    out = capsys.readouterr().out
    assert "clip begins at  layer2" in out
    assert "before the clip site 'layer2': it sees one frame per image" in out


def test_a_plan_of_several_places(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", "cifar_resnet8", "--clip-at", "layer2, layer3", "--fusion", "tsm"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["place", "layer2", "layer3"]
    assert lines[3].endswith("the clip begins")
    assert lines[4].endswith("its frames move")
    assert lines[5].startswith("cost: 2.17 times the image for T = 3")
    assert main(["sites", "cifar_resnet8", "--clip-at", "image,layer3"]) == 0
    assert "cost: 3.00 times the image for T = 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--clip-at", "layer3,layer2"], "the network passes 'layer2' first; list the places in the order"),
        (["--clip-at", "layer2,image"], "names 'image' after 'layer2'"),
        (["--clip-at", "layer2,layer2.0"], "names one place twice"),
        (["--clip-at", "layer9"], "choose one of layer3, layer2, layer1"),
        (["--clip-at", "layer2.0.conv2"], "inside of a residual branch of 'layer2.0'"),
        (["--clip-sites", "--clip-at", "layer2"], "--clip-at has no effect on it"),
        (["--clip-sites", "--sites", "layer2"], "--sites has no effect on it"),
    ],
)
def test_what_is_refused(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", "cifar_resnet8", *options]) == 2
    assert said in capsys.readouterr().err
