"""`image2video reproduce TABLE --check`: every arm built and called without data; hours stated first."""

import dataclasses
import re
import sys

import pytest
from rich.console import Console

from image2video.cli import main
from image2video.cli.reproduce_check import print_check, print_hours
from image2video.data import load_data
from image2video.errors import InputError
from image2video.reproduce import Cell, Setting, experiments, load_experiment
from image2video.reproduce.check import SHAPES, check, stand_in, with_rows

VARIANTS = ("bare", "dilated", "kernel5", "searched")


def test_the_shapes_of_data_sets_are_those_that_are_loaded():
    digits = load_data("digits")
    assert SHAPES["digits"] == (digits.num_classes, digits.input_size[0], digits.input_size[1])
    assert stand_in(Setting(data="imagenet", image_size=299)).input_size == (3, 299, 299)
    with pytest.raises(InputError, match="'stl10' are not known; known are digits, cifar10"):
        stand_in(Setting(data="stl10"))


def test_every_network_of_tables_1_and_4_can_be_built_at_full_size():
    tiny, lines = "Tiny-ImageNet, ResNet-101", []
    for table, names in (
        (
            "table4",
            ("CIFAR-10, ResNet-18", "CIFAR-100, WRN-28-10", "Tiny-ImageNet, ResNet-101"),
        ),
        ("table1", ("ImageNet, BN-Inception", "ImageNet, Inception-v3", "ImageNet, ResNet-50")),
    ):
        experiment = load_experiment(table)
        rows = tuple(row for row in experiment.rows if row.name in names)
        assert len(rows) == len(names)
        for row in rows:
            # The slow test below builds all arms of all of them; test_reproduce_networks.py wraps these networks.
            wanted = (*VARIANTS, "none", "learned") if row.name == tiny else ("bare",)
            arms = tuple(arm for arm in experiment.arms if arm.name in wanted)
            found = check(dataclasses.replace(experiment, rows=(row,), arms=arms, contrasts=()))
            assert len(found) == len(arms)
            lines += found
    assert [line.problem for line in lines if line.problem] == []
    found = {(line.row, line.arm.name): line.network for line in lines}
    bare, wide, large, searched = (found[tiny, arm] for arm in VARIANTS)
    assert (bare.input_size, bare.classes, bare.sites, searched.sites) == ((3, 64, 64), 200, 0, 33)
    assert (wide.parameters, wide.macs) == (bare.parameters, bare.macs)
    assert large.parameters > 1.5 * bare.parameters
    assert 5 * bare.macs < searched.macs < 5.2 * bare.macs
    assert found[tiny, "none"].macs == found[tiny, "learned"].macs == 5 * bare.macs
    assert found["ImageNet, ResNet-50", "bare"].parameters == 25_557_032
    assert found["ImageNet, Inception-v3", "bare"].input_size == (3, 299, 299)
    assert found["CIFAR-100, WRN-28-10", "bare"].parameters == 36_479_194 + 90 * 641


@pytest.mark.filterwarnings("ignore:model.video.genotype=scale")  # a random clip that shows little of the image
def test_segmentors_of_the_paper_are_built_and_called_on_the_meta_device():
    pytest.importorskip("mmseg")
    table = with_rows(load_experiment("table2"), "paper", "PSPNet")
    wanted = ("bare", "bare_long", "averaged", "none", "learned", "searched")  # the slow test below builds all arms
    lines = check(dataclasses.replace(table, arms=tuple(arm for arm in table.arms if arm.name in wanted), contrasts=()))
    assert [line.problem for line in lines if line.problem] == []
    found = {line.arm.name: line.network for line in lines}
    assert len(found) == len(wanted)
    bare, searched = found["bare"], found["searched"]
    # The plain network of docs/mmseg_configs.md, 48.98 M; the fusions are those of the paper's Table 6, 0.11 M.
    assert (bare.input_size, bare.classes, bare.sites, bare.parameters) == ((3, 512, 512), 21, 0, 48_977_034)
    assert (searched.sites, round((searched.parameters - bare.parameters) / 1e6, 2)) == (16, 0.11)
    assert 178e9 < bare.macs < 179e9
    assert found["averaged"].macs == found["none"].macs == found["learned"].macs == 5 * bare.macs < searched.macs
    assert searched.macs < 1.01 * 5 * bare.macs
    assert found["learned"].parameters == bare.parameters + 5
    steps = {name: network.steps for name, network in found.items()}
    assert (steps["bare"], steps["bare_long"], steps["averaged"], steps["searched"]) == (40_000, 200_000, 0, 40_000)


def test_a_segmentor_s_policy_is_part_of_its_check():
    pytest.importorskip("mmseg")
    experiment = with_rows(load_experiment("table7"), "smoke", "VOC")
    arms = (*experiment.arms[:1], Cell("deformed", "deformed", variant="dilated"), Cell("p", "p", augment="nothing"))
    good, *bad = check(dataclasses.replace(experiment, arms=arms, contrasts=()), "smoke")
    assert (good.problem, good.network.steps) == (None, 6)
    assert "variant='dilated', which rows of segmentation do not know" in bad[0].problem
    assert "unknown augmentation 'nothing'" in bad[1].problem


def test_arms_of_segmentation_have_the_missing_library_as_their_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "image2video.reproduce.segment_check", None)
    lines = check(with_rows(load_experiment("table5"), "smoke", "CIFAR|VOC"), "smoke")
    problems = {line.row: line.problem for line in lines}
    assert problems["CIFAR-10, ResNet-18"] is None
    assert "needs mmsegmentation, which cannot be imported here" in problems["PASCAL VOC, PSPNet"]
    assert "pip install '.[mmseg]' in a clone of image2video" in problems["PASCAL VOC, PSPNet"]


def test_a_clip_that_is_found_elsewhere_needs_a_network_there():
    (row,) = with_rows(load_experiment("table8"), "smoke", "CIFAR").rows
    setting = dataclasses.replace(row.settings["smoke"], elsewhere={"digits": {"model": "cifar_resnet9"}})
    experiment = load_experiment("table8")
    arms = tuple(arm for arm in experiment.arms if arm.name in ("bare", "digits"))
    rows = (dataclasses.replace(row, settings={"smoke": setting}),)
    bare, there = check(dataclasses.replace(experiment, rows=rows, arms=arms, contrasts=()), "smoke")
    assert bare.problem is None
    assert "cifar_resnet9" in there.problem


@pytest.mark.filterwarnings("ignore:model.video.genotype=scale")  # a random clip that shows little of the image
@pytest.mark.slow
@pytest.mark.parametrize("name", experiments())
def test_every_arm_of_every_table_can_be_built_at_full_size(name):
    experiment = load_experiment(name)
    if not any("paper" in row.settings for row in experiment.rows):
        pytest.skip(f"{name} trains nothing at full size")
    pytest.importorskip("mmseg")
    lines = check(experiment)
    assert lines
    assert [(line.row, line.arm.name, line.problem) for line in lines if line.problem] == []


def test_rows_are_chosen_by_their_names():
    table = load_experiment("table4")
    assert [row.name for row in with_rows(table, "paper", "^CIFAR-10,.*(18|50)").rows] == [
        "CIFAR-10, ResNet-18",
        "CIFAR-10, ResNet-50",
    ]
    with pytest.raises(InputError, match=r"no row of table4 at scale 'smoke' fits 'ImageNet'; they are CIFAR-10"):
        with_rows(table, "smoke", "ImageNet")
    with pytest.raises(InputError, match="is no regular expression"):
        with_rows(table, "paper", "(")
    with pytest.raises(InputError, match=r"figure4 has no rows at scale 'smoke', .*'CIFAR' .*; leave --rows out$"):
        with_rows(load_experiment("figure4"), "smoke", "CIFAR")


def test_a_report_shows_all_rows(capsys, tmp_path):
    argv = ["reproduce", "table4", "--rows", "CIFAR", "--report-only", "--out", str(tmp_path / "none")]
    assert main(argv) == 2
    assert "--rows CIFAR: no effect with --report-only" in capsys.readouterr().err


def classification():
    """Table 5 without its row of segmentation."""
    return with_rows(load_experiment("table5"), "smoke", "CIFAR")


def broken(experiment):
    """The experiment with two more arms: one that cannot be built, one whose policy does not exist."""
    arms = (
        Cell("deformed", "deformed", variant="deformed"),
        Cell("policy", "policy", augment="search:nothing"),
        Cell("steep", "steep", genotype="scale(3.9)", fusion="none", T=40),
    )
    return dataclasses.replace(experiment, arms=(experiment.arms[0], *arms), contrasts=())


def test_an_arm_that_cannot_be_built_says_why_and_the_others_are_checked():
    good, *bad = check(broken(classification()), "smoke")
    assert good.problem is None
    assert good.network.parameters > 0
    assert [line.network for line in bad] == [None] * 3
    assert "unknown variant 'deformed'" in bad[0].problem
    assert "nothing" in bad[1].problem
    assert "scale" in bad[2].problem
    with pytest.raises(InputError, match="unknown scale 'huge'; the scales are smoke"):
        check(load_experiment("table5"), "huge")


def test_the_command_checks_without_running(capsys, tmp_path):
    assert (
        main(["reproduce", "table5", "--scale", "smoke", "--rows", "CIFAR", "--check", "--out", str(tmp_path / "none")])
        == 0
    )
    printed = capsys.readouterr().out
    assert re.search(r"searched +cifar_resnet8, gsf at 3 sites, 2 frames of 1×16×16, 10 classes, 1 epoch: ", printed)
    assert "arms of table5 can be built at scale 'smoke'" in printed
    assert not (tmp_path / "none").exists()


def test_the_command_names_arms_that_cannot_be_built(capsys):
    with pytest.raises(InputError, match="3 of 4 arms of table5 cannot be built at scale 'smoke'"):
        print_check(Console(), broken(classification()), "smoke")
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
