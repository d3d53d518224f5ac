"""`image2video reproduce TABLE --check`: every arm built and called without data; hours stated first."""

import dataclasses
import re

import pytest
from rich.console import Console

from image2video.cli import main
from image2video.cli.reproduce_check import print_check, print_hours
from image2video.data import load_data
from image2video.errors import InputError
from image2video.reproduce import Cell, Setting, experiments, load_experiment
from image2video.reproduce.check import SHAPES, check, stand_in


def test_the_shapes_of_data_sets_are_those_that_are_loaded():
    digits = load_data("digits")
    assert SHAPES["digits"] == (digits.num_classes, digits.input_size[0], digits.input_size[1])
    assert stand_in(Setting(data="imagenet", image_size=299)).input_size == (3, 299, 299)
    with pytest.raises(InputError, match="'stl10' are not known; known are digits, cifar10"):
        stand_in(Setting(data="stl10"))


def test_every_network_of_tables_1_and_4_can_be_built_at_full_size():
    lines = []
    for table, names in (
        (
            "table4",
            ("CIFAR-10, ResNet-18", "CIFAR-100, WRN-28-10", "Tiny-ImageNet, ResNet-101", "ImageNet, ResNet-152"),
        ),
        ("table1", ("ImageNet, BN-Inception", "ImageNet, Inception-v3", "ImageNet, ResNet-50")),
    ):
        experiment = load_experiment(table)
        rows = tuple(row for row in experiment.rows if row.name in names)
        assert len(rows) == len(names)
        lines += check(dataclasses.replace(experiment, rows=rows))
        assert len(lines) >= len(rows) * len(experiment.arms)
    assert [line.problem for line in lines if line.problem] == []
    found = {(line.row, line.arm.name): line.network for line in lines}
    tiny = "Tiny-ImageNet, ResNet-101"
    bare, wide, large, searched = (found[tiny, arm] for arm in ("bare", "dilated", "kernel5", "searched"))
    assert (bare.input_size, bare.classes, bare.sites, searched.sites) == ((3, 64, 64), 200, 0, 33)
    assert (wide.parameters, wide.macs) == (bare.parameters, bare.macs)
    assert large.parameters > 1.5 * bare.parameters
    assert 5 * bare.macs < searched.macs < 5.2 * bare.macs
    assert found[tiny, "none"].macs == found[tiny, "learned"].macs == 5 * bare.macs
    assert found["ImageNet, ResNet-50", "bare"].parameters == 25_557_032
    assert found["ImageNet, Inception-v3", "bare"].input_size == (3, 299, 299)
    assert found["CIFAR-100, WRN-28-10", "bare"].parameters == 36_479_194 + 90 * 641


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments())
def test_every_arm_of_every_table_can_be_built_at_full_size(name):
    experiment = load_experiment(name)
    if not any("paper" in row.settings and row.settings["paper"].config is None for row in experiment.rows):
        pytest.skip(f"{name} has no row of classification at full size")
    lines = [line for line in check(experiment) if line.setting.config is None]
    assert [(line.row, line.arm.name, line.problem) for line in lines if line.problem] == []


def broken(experiment):
    """The experiment with two more arms: one that cannot be built, one whose policy does not exist."""
    arms = (
        Cell("deformed", "deformed", variant="deformed"),
        Cell("policy", "policy", augment="search:nothing"),
        Cell("steep", "steep", genotype="scale(3.9)", fusion="none", T=40),
    )
    return dataclasses.replace(experiment, arms=(experiment.arms[0], *arms), contrasts=())


def test_an_arm_that_cannot_be_built_says_why_and_the_others_are_checked():
    good, *bad = check(broken(load_experiment("table5")), "smoke")
    assert good.problem is None
    assert good.network.parameters > 0
    assert [line.network for line in bad] == [None] * 3
    assert "unknown variant 'deformed'" in bad[0].problem
    assert "nothing" in bad[1].problem
    assert "scale" in bad[2].problem
    with pytest.raises(InputError, match="unknown scale 'huge'; the scales are smoke"):
        check(load_experiment("table5"), "huge")


def test_the_command_checks_without_running(capsys, tmp_path):
    assert main(["reproduce", "table5", "--scale", "smoke", "--check", "--out", str(tmp_path / "none")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"searched +cifar_resnet8, gsf at 3 sites, 2 frames of 1×16×16, 10 classes, 1 epoch: ", printed)
    assert "arms of table5 can be built at scale 'smoke'" in printed
    assert not (tmp_path / "none").exists()


def test_the_command_names_arms_that_cannot_be_built(capsys):
    with pytest.raises(InputError, match="3 of 4 arms of table5 cannot be built at scale 'smoke'"):
        print_check(Console(), broken(load_experiment("table5")), "smoke")
    assert re.search(r"deformed +failed: InputError: unknown variant", capsys.readouterr().out)


def test_the_hours_of_a_table_come_first(capsys):
    print_hours(Console(), load_experiment("table4"), "paper")
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 13
    assert printed[0] == "CIFAR-10, ResNet-18: about 60 hours on one H100-class GPU"
    total = sum(row.settings["paper"].hours for row in load_experiment("table4").rows)
    assert printed[-1] == f"table4 at scale 'paper': about {total:,g} hours in all"
    print_hours(Console(), load_experiment("table4"), "smoke")
    assert capsys.readouterr().out == ""
