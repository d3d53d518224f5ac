"""`image2video reproduce TABLE --rehearse`: two steps of every arm on generated miniatures, and nothing is kept."""

import dataclasses
import re
import sys

import pytest
from reproduce_cases import small_space

from image2video.cli import main
from image2video.reproduce import Cell, Setting, experiments, load_experiment
from image2video.reproduce.check import SHAPES, with_rows
from image2video.reproduce.data import load
from image2video.reproduce.miniatures import MINIATURES, make_imagenet
from image2video.reproduce.rehearsal import cut_down, rehearse
from image2video.reproduce.segment_small import small_options

pytestmark = [
    pytest.mark.filterwarnings("ignore:the search with selection"),
    pytest.mark.filterwarnings("ignore:model.video.genotype=scale"),  # a random clip that shows little of the image
]
READ = ("cifar10", "cifar100", "tiny", "imagenet")


def only(experiment, *arms, **setting):
    """A table with one row at the smoke scale and some of its arms; `setting` replaces fields of the row's."""
    row = next(row for row in experiment.rows if "smoke" in row.settings)
    changed = dataclasses.replace(row.settings["smoke"], **setting)
    rows = (dataclasses.replace(row, settings={"smoke": changed}),)
    chosen = tuple(arm for arm in experiment.arms if arm.name in arms)
    return dataclasses.replace(experiment, rows=rows, arms=chosen, contrasts=())


@pytest.mark.parametrize("name", READ)
def test_a_miniature_is_read_as_the_data_set_is(name, tmp_path):
    data = load(Setting(data=name, holdout=1 / 3), {name: MINIATURES[name](tmp_path / name)})
    assert (data.train.num_images, data.holdout.num_images, data.test.num_images) == (4, 2, 2)
    classes, channels, side = SHAPES[name]
    assert data.input_size == (channels, side, side)
    assert data.num_classes == 2 < classes


def test_equal_seeds_write_equal_miniatures(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_imagenet(tmp_path / name, size=(12, 16), seed=seed)
    files = [path.relative_to(tmp_path / "a") for path in sorted((tmp_path / "a").rglob("*.JPEG"))]
    assert len(files) == 8
    first, same, other = ([(tmp_path / x / file).read_bytes() for file in files] for x in "abc")
    assert first == same
    assert not set(first) & set(other)


def test_a_setting_is_cut_down_and_nothing_else_is_changed():
    search = {"epochs": 50, "tune_epochs": 5, "batch_size": 64, "lr": 0.025, "tau_lr": 3e-4}
    there = {"cifar100": {"model": "cifar_resnet18", "batch_size": 128}}
    setting = Setting("imagenet", "resnet50", 224, epochs=90, batch_size=256, search=search, elsewhere=there)
    small = cut_down(setting, ("cifar100",))
    told = {key for key in vars(setting) if getattr(setting, key) != getattr(small, key)}
    assert told == {
        *("train_images", "holdout", "epochs", "finetune_epochs", "batch_size", "search", "augment_minutes"),
        "elsewhere",
    }
    assert (small.train_images, small.epochs, small.batch_size, small.seeds) == (6, 1, 2, 1)
    assert small.search == {"epochs": 1, "tune_epochs": 0, "lr": 0.025, "tau_lr": 3e-4}
    assert small.elsewhere["cifar100"]["model"] == "cifar_resnet18"
    assert small.elsewhere["cifar100"]["batch_size"] == 2
    assert cut_down(dataclasses.replace(setting, recipe={"compile": True, "ema": 0.9})).recipe == {"ema": 0.9}


def test_every_arm_trains_for_two_steps_and_is_tested(tmp_path):
    arms = ("bare", "bare_long", "averaged", "digits", "learned", "searched")
    table = only(load_experiment("table8"), *arms, space=small_space(tmp_path))
    ((*lines,),) = rehearse(table, "smoke", tmp_path, device="cpu")
    assert [line.problem for line in lines] == [None] * 6
    assert {line.arm.name: line.steps for line in lines} == {
        **{"bare": 2, "bare_long": 4, "averaged": 0, "digits": 2, "learned": 2, "searched": 2},
    }


@pytest.mark.parametrize("name", READ)
def test_rows_of_every_data_set_run_through_its_reader(name, tmp_path):
    table = only(load_experiment("table5"), "bare", "replica", data=name, image_size=32)
    ((*lines,),) = rehearse(table, "smoke", tmp_path, device="cpu")
    assert [(line.arm.name, line.steps, line.problem) for line in lines] == [("bare", 2, None), ("replica", 2, None)]
    assert (tmp_path / "data" / name).is_dir()


def test_an_arm_that_fails_says_why_and_the_others_run(tmp_path):
    table = only(load_experiment("table5"), "bare")
    table = dataclasses.replace(table, arms=(*table.arms, Cell("deformed", "deformed", variant="deformed")))
    ((good, bad),) = rehearse(table, "smoke", tmp_path, device="cpu")
    assert (good.problem, good.steps) == (None, 2)
    assert "unknown variant 'deformed'" in bad.problem
    unknown = only(load_experiment("table5"), "bare", data="plankton")
    ((line,),) = rehearse(unknown, "smoke", tmp_path, device="cpu")
    assert "data set 'plankton' is not known" in line.problem


def test_without_mmsegmentation_its_arms_say_so_and_the_others_run(tmp_path, monkeypatch):
    for module in ("segment_reading", "segment_config", "segment_data", "segment_split", "segment"):
        monkeypatch.setitem(sys.modules, f"image2video.reproduce.{module}", None)
    there = {"digit_scenes": {"config": "digit_scenes/fcn_small_1xb8_digit_scenes-48x48.py"}}
    table = only(load_experiment("table5"), "bare", elsewhere=there)
    arm = Cell("away", "away", genotype="searched@digit_scenes", fusion="gsf")
    table = dataclasses.replace(table, arms=(*table.arms, arm))
    ((bare, away),) = rehearse(table, "smoke", tmp_path, device="cpu")
    assert (bare.problem, bare.steps) == (None, 2)
    assert "needs mmsegmentation, which cannot be imported here" in away.problem


def test_the_command_rehearses_and_keeps_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("image2video.cli.reproduce.load_experiment", lambda name: only(load_experiment(name), "bare"))
    assert main(["reproduce", "table5", "--scale", "smoke", "--rehearse", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^  bare  2 steps, tested, [\d.]+ s$", printed, flags=re.M)
    assert "all 1 arms of table5 ran at scale 'smoke'" in printed
    assert list(tmp_path.iterdir()) == []


def test_the_command_names_arms_that_failed(capsys, monkeypatch):
    def broken(name):
        return only(load_experiment(name), "bare", data="plankton")

    monkeypatch.setattr("image2video.cli.reproduce.load_experiment", broken)
    assert main(["reproduce", "table5", "--scale", "smoke", "--rehearse", "--device", "cpu"]) == 2
    captured = capsys.readouterr()
    assert "bare  failed: MissingError: data set 'plankton' is not known" in " ".join(captured.out.split("\n"))
    assert "1 of 1 arms of table5 failed their rehearsal at scale 'smoke'" in captured.err


def segmentation(experiment, *arms, **setting):
    """Its row of digit scenes, a tiny segmentor, and some of its arms."""
    chosen = with_rows(experiment, "smoke", "VOC|PSPNet")
    return only(chosen, *arms, **setting)


def test_segmentors_train_for_two_steps_and_are_tested(tmp_path):
    pytest.importorskip("mmseg")
    # A clip that was found on digits is a search of the classifier above.
    small = {"space": small_space(tmp_path)}
    table = segmentation(load_experiment("table8"), "bare", "bare_long", "averaged", "learned", "searched", **small)
    ((*lines,),) = rehearse(table, "smoke", tmp_path, device="cpu")
    assert [line.problem for line in lines] == [None] * 5
    steps = {"bare": 2, "bare_long": 4, "averaged": 0, "learned": 2, "searched": 2}
    assert {line.arm.name: line.steps for line in lines} == steps


@pytest.mark.parametrize(
    ("config", "factor", "size"),
    [
        ("pspnet/pspnet_r50-d8_4xb4-40k_voc12aug-512x512.py", 8, (64, 64)),
        ("deeplabv3/deeplabv3_xception65-d16_4xb2-80k_cityscapes-512x1024.py", 8, (64, 128)),
        ("camvid/pspnet_r18-d8_1xb8-20k_camvid-480x360.py + camvid/_base_/scale_cpu.py", 1, (96, 128)),
    ],
)
def test_a_config_is_made_small_but_not_its_network(config, factor, size):
    pytest.importorskip("mmseg")
    from image2video.reproduce.segment_reading import read_config

    plain = Setting(config=config, data="any")
    before = read_config(plain)
    after = read_config(dataclasses.replace(plain, options=small_options(before.to_dict(), batch_size=2)))
    assert tuple(after.model.data_preprocessor.size) == size
    assert after.train_dataloader.batch_size == 2
    for part in ("backbone", "decode_head"):
        changed = {key for key in before.model[part] if before.model[part][key] != after.model[part].get(key)}
        assert changed <= {"pretrained"}
    assert not after.model.get("pretrained")
    assert not after.model.backbone.get("pretrained")
    leaf = after.train_dataloader.dataset
    then = before.train_dataloader.dataset
    leaf, then = (one.datasets[0] if "datasets" in one else one for one in (leaf, then))
    crop, resize = (next(s for s in leaf.pipeline if s.type == kind) for kind in ("RandomCrop", "RandomResize"))
    large = next(s for s in then.pipeline if s.type == "RandomResize")
    assert tuple(crop.crop_size) == size
    assert tuple(resize.scale) == tuple(side // factor for side in large.scale)
    assert resize.ratio_range == large.ratio_range


def rows_at_full_size():
    tables = {name: load_experiment(name) for name in experiments()}
    return [(name, row.name) for name, table in tables.items() for row in table.rows if "paper" in row.settings]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), rows_at_full_size())
def test_every_row_of_the_paper_is_rehearsed(name, row, tmp_path):
    pytest.importorskip("mmseg")
    found = list(rehearse(with_rows(load_experiment(name), "paper", f"^{re.escape(row)}$"), "paper", tmp_path))
    assert len(found) == 1
    assert [(line.arm.name, line.problem) for line in found[0] if line.problem] == []
