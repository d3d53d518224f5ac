"""The tables as data: every file, the controls in it, what is refused, and the keys that keep results apart."""

import dataclasses
import itertools
import re
from pathlib import Path

import pytest
import yaml
from reproduce_cases import TABLE, table

from image2video.cli import main
from image2video.errors import InputError
from image2video.reproduce import SCALES, Cell, Setting, Worker, experiments, load_experiment, parse_data, run_key
from image2video.reproduce.catalogue import starting_arms
from image2video.reproduce.data import Shelf, check_names, load
from image2video.reproduce.parse import experiment_from
from image2video.reproduce.places import FOLDERS, SOURCES

NAMES = experiments()


def test_the_tables_and_figures_are_there():
    assert {*(f"table{n}" for n in range(1, 9)), "figure5", "scramble", "schedules"} <= set(NAMES)
    with pytest.raises(
        InputError,
        match=r"unknown table 'table99'; did you mean table8\? There are camvid, .*table8, or a .yaml file",
    ):
        load_experiment("table99")
    with pytest.raises(InputError, match="unknown table"):
        load_experiment("scales")


@pytest.mark.parametrize("name", NAMES)
def test_every_table_has_every_control(name):
    experiment = load_experiment(name)
    if experiment.draws_networks:
        pytest.skip("its pictures are of some arms of a table, which has the controls")
    if name in ("deployments", "late"):
        pytest.skip("nothing is trained with clips: the two tests of poses say what they have")
    for scale in SCALES:
        for row in experiment.rows:
            if scale not in row.settings:
                continue
            arms = {arm.name: arm for arm in experiment.arms_at(scale, row)}
            assert {"bare", "bare_long", "averaged", "none", "replica", "learned"} <= set(arms)
            assert arms["bare"].fusion is arms["bare_long"].fusion is None
            assert arms["bare_long"].equal_compute
            assert (arms["averaged"].start, arms["averaged"].budget, arms["averaged"].fusion) == (
                "bare_long",
                "none",
                "none",
            )
            assert arms["none"].fusion == "none"
            assert (arms["replica"].genotype, arms["replica"].fusion) == ("identity", "gsf")
            assert arms["learned"].learned
            random = [arm for arm in arms.values() if arm.pool == "random"]
            assert len({arm.genotype for arm in random}) >= 3
            assert Worker.planned(experiment, scale)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_has_a_known_data_set_and_says_what_it_takes(name):
    for row in load_experiment(name).rows:
        for scale, setting in row.settings.items():
            assert setting.data in (SOURCES if setting.config is None else FOLDERS)
            for other in setting.elsewhere.values():
                assert other.get("data", setting.data) in {*SOURCES, *FOLDERS}
            if scale == "paper":
                assert setting.hours
                assert setting.machine
            if scale == "smoke":
                assert setting.data.startswith("digit")


def test_weights_are_kept_of_the_arms_that_others_start_from():
    assert starting_arms() == {"bare_long", "bare_augmented"}


def test_every_pose_has_every_remedy():
    arms = load_experiment("deployments").arms
    upright, augmented, ranked, default, mirror, *posed = arms
    assert (upright.name, augmented.augment, upright.pose, augmented.pose) == ("bare_long", "clips:pose", None, None)
    for arm in (ranked, default, mirror):
        assert (arm.start, arm.budget, arm.fusion, arm.pose) == ("bare_long", "none", "none", None)
    by_pose = {}
    for arm in posed:
        by_pose.setdefault(arm.pose, {})[arm.name.rpartition("_")[2]] = arm
    assert len(by_pose) == 4
    for remedies in by_pose.values():
        assert set(remedies) == {"bare", "ranked", "default", "mirror", "augmented"}
        assert {arm.budget for arm in remedies.values()} == {"none"}
        assert remedies["bare"].start == remedies["ranked"].start == "bare_long"
        assert remedies["augmented"].start == "bare_augmented"


def test_the_table_of_late_clips_has_every_place_and_number_of_frames():
    experiment = load_experiment("late")
    setting = experiment.rows[0].settings["converged"]
    upright, *posed = experiment.arms
    assert (upright.name, upright.pose) == ("bare_long", None)
    by_pose = {}
    for arm in posed:
        assert (arm.start, arm.budget) == ("bare_long", "none")
        by_pose.setdefault(arm.pose, []).append((arm.clip_at, arm.frames(setting) if arm.fusion else None))
    assert set(by_pose) == {"rotate(20)", "scale(0.75)"}
    for found in by_pose.values():
        places = itertools.product((None, "layer1", "layer2", "layer3"), (2, 3, 5))
        assert sorted(found, key=str) == sorted([(None, None), *places], key=str)


def test_late_clips_are_tested_on_the_networks_of_the_deployments():
    """So that the two tables speak of the same networks and, at the image, of equally ranked clips."""
    keys = []
    for name, clip in (("late", "tilt_image_3"), ("deployments", "tilt_ranked")):
        experiment = load_experiment(name)
        setting = experiment.rows[0].settings["converged"]
        arms = {arm.name: arm for arm in experiment.arms_at("converged", experiment.rows[0])}
        start = run_key(setting, arms["bare_long"])
        keys.append((start, run_key(setting, arms[clip], start)))
    assert keys[0] == keys[1]


def changed(**changes):
    return {**TABLE, **changes}


def arm(**changes):
    return changed(arms=[*TABLE["arms"], {"name": "new", "title": "new", **changes}])


def smoke(**changes):
    return changed(rows=[{**TABLE["rows"][0], "scales": {"smoke": changes}}])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], r"own: must be a mapping, got \[\]"),
        ({"title": "t"}, "own: 'source' is missing"),
        (changed(colour=1), "own: unknown key 'colour'; the keys are arms, contrasts"),
        (changed(title=5), "own: title: must be text, got 5 of type int"),
        (changed(rows=[]), "own: rows must be a list of at least one entry"),
        (changed(rows=[{"name": "x"}]), r"own: rows\[0\]: 'scales' is missing"),
        (
            changed(rows=[{"name": "x", "scales": {"huge": {}}}]),
            r"rows\[0\].scales: unknown scale 'huge'; .*smoke, cpu",
        ),
        (changed(rows=[{"name": "x", "scales": {"cpu": 5}}]), r"rows\[0\].scales.cpu: must be a mapping, got 5"),
        (
            changed(rows=[{**TABLE["rows"][0], "paper": {"b": 1}}]),
            r"rows\[0\].paper: 'b' is no arm; the arms are bare,",
        ),
        (
            changed(rows=[{**TABLE["rows"][0], "paper": {"bare": "x"}}]),
            r"rows\[0\].paper.bare: must be a number, got 'x'",
        ),
        (
            changed(rows=[{"name": "a", "scales": {"smoke": {}}, "without": ["nobody"]}]),
            r"rows\[0\].without: 'nobody' is no arm",
        ),
        (changed(rows=[{"name": "a", "scales": {"smoke": {}}, "without": [1]}]), r"without\[0\]: must be text, got 1"),
        (smoke(epoch=3), r"rows\[0\].scales.smoke: unknown key 'epoch'"),
        (smoke(epochs="3"), r"rows\[0\].scales.smoke.epochs: must be a whole number, got '3'"),
        (smoke(train_images=True), "train_images: must be a whole number or null, got True"),
        (smoke(epochs=0), "epochs: 0 takes a network as its published weights are, .* or set epochs to at least 1"),
        (smoke(steps=0), "steps must be at least 1, got 0"),
        (smoke(holdout=1), "holdout must be at least 0 and below 1, got 1"),
        (smoke(T=0), "must be at least 1, got 0"),
        (smoke(schedule="slow"), "unknown schedule 'slow'; choose one of from_zero, ramp"),
        (smoke(space="nowhere"), "nowhere"),
        (smoke(device="tpu"), "device: must be one of auto, cpu, cuda, mps, got 'tpu'"),
        (smoke(recipe={"label_smoothin": 0.1}), "label_smoothin"),
        (smoke(search={"epoch": 1}), "epoch"),
        (arm(genotype="rotat(10)", fusion="tsm"), r"own: arms\[4\]: .*rotat"),
        (arm(genotype="random:0", fusion="tsm"), "the draws are random:1, random:2"),
        (arm(genotype="searched@", fusion="tsm"), "searched@"),
        (arm(genotype="identity", fusion="glue"), "glue"),
        (arm(genotype="identity"), "a wrapped one has both"),
        (arm(layout="upside_down"), "unknown layout 'upside_down'; choose one of right, scrambled"),
        (arm(layout="scrambled"), "the bare network has none"),
        (arm(variant="striped"), "unknown variant 'striped'"),
        (arm(schedule="slow"), "unknown schedule 'slow'"),
        (arm(scales=["huge"]), "unknown scale 'huge'"),
        (arm(scales="gpu"), "scales: must be a list, got 'gpu'"),
        (arm(augment="randaugmint"), "did you mean 'randaugment'"),
        (arm(augment="search:magic"), "unknown family of augmentations 'magic'"),
        (arm(learned=True), "learned: true goes with genotype: learned and fusion: none"),
        (arm(genotype="learned", fusion="none"), "learned: true goes with"),
        (arm(genotype="identity", fusion="tsm", equal_compute=True), "equal_compute: true is for the bare network"),
        (arm(magnitude=0), "a factor above 0"),
        (arm(budget="lavish"), "budget: must be one of scratch, finetune, none"),
        (arm(name="a/b"), "letters, digits"),
        (arm(name="bare"), "two arms are called 'bare'"),
        (arm(start="later", budget="finetune"), "starts from 'later'; that must be a bare arm listed before it"),
        (changed(contrasts=[{"name": "c", "lead": "l", "a": "bare", "b": "x"}]), "contrast 'c' names the arm 'x'"),
        (changed(contrasts=[{"name": "c", "lead": "l", "a": "bare"}]), r"own: contrasts\[0\]: 'b' is missing"),
        (changed(rows=TABLE["rows"] * 2), "own: two rows are called 'digits'"),
        (changed(figure="pie"), "unknown figure 'pie'; choose one of depth"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_file_and_key(record, message, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(record))
    with pytest.raises(InputError, match=message) as caught:
        load_experiment(str(path))
    assert str(caught.value).startswith("own: ")


def test_what_is_no_yaml(tmp_path):
    for content, message in ((b"a: [", "line 2, column 1: did not find"), (b"\xff\xfe\xfd", "must be UTF-8 text")):
        path = tmp_path / "own.yaml"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"own.yaml.* {message}"):
            load_experiment(str(path))


CPU = Setting(
    **{"data": "cifar10", "model": "cifar_resnet8", "train_images": 5000, "T": 3, "epochs": 5, "seeds": 3},
    search={"epochs": 4, "tune_epochs": 1, "lr": 0.05, "tau_lr": 0.003},
    augment_minutes=5,
)


def test_keys_are_those_of_results_that_exist():
    """Whoever changes a key parts users from their results: this must be on purpose."""
    assert run_key(CPU, Cell("bare", "bare network")) == "d49937bbcd7b"
    long = Cell("bare_long", "bare network, T times the epochs", equal_compute=True)
    assert run_key(CPU, long) == "9c25b3842b2f"
    assert load_experiment("table5").rows[0].settings["cpu"] == CPU


def test_fields_that_are_not_set_do_not_change_a_key():
    bare = Cell("bare", "bare network")
    assert run_key(dataclasses.replace(CPU, steps=200), bare) != run_key(CPU, bare)
    elsewhere = dataclasses.replace(CPU, elsewhere={"cifar100": {"batch_size": 128}})
    assert run_key(elsewhere, bare) == run_key(CPU, bare)  # only arms that search there differ
    moved = [Cell("moved", "moved", genotype=f"searched@{data}", fusion="gsf") for data in ("cifar100", "digits")]
    assert [run_key(elsewhere, arm) == run_key(CPU, arm) for arm in moved] == [False, True]


def test_an_arm_can_have_more_seeds_than_the_others():
    arms = [
        {"name": "one", "title": "1"},
        {"name": "two", "title": "2", "start": "one", "budget": "none", "genotype": "identity", "fusion": "none"},
    ]
    record = {"title": "t", "source": "s", "rows": [{"name": "a", "scales": {"smoke": {}}}], "arms": arms}
    more = {"smoke": {"seeds": 1, "seed": 3, "more_seeds": {"one": 2}}}
    planned = Worker.planned(experiment_from(record, "own", more), "smoke")
    assert [(run.arm.name, run.seed) for run in planned] == [("one", 3), ("two", 3), ("one", 4)]
    assert len({run.key for run in planned}) == 2
    without = Worker.planned(experiment_from(record, "own", {"smoke": {"seeds": 1, "seed": 3}}), "smoke")
    assert {run.key for run in without} == {run.key for run in planned}, "how many seeds there are parts no results"
    with pytest.raises(InputError, match="'two' needs as many seeds of 'one', from which it starts"):
        Worker.planned(experiment_from(record, "own", {"smoke": {"more_seeds": {"two": 2}}}), "smoke")
    for wrong, text in (
        ({"nobody": 2}, "'nobody' is no arm"),
        ({"one": "2"}, "more_seeds.one: must be a whole number"),
    ):
        with pytest.raises(InputError, match=text):
            experiment_from(record, "own", {"smoke": {"more_seeds": wrong}})


def test_a_row_can_do_without_an_arm():
    record = {
        "title": "t",
        "source": "s",
        "rows": [{"name": "a", "scales": {"smoke": {}}, "without": ["two"]}, {"name": "b", "scales": {"smoke": {}}}],
        "arms": [{"name": "one", "title": "1"}, {"name": "two", "title": "2"}],
    }
    planned = Worker.planned(experiment_from(record, "own", {"smoke": {"seeds": 1}}), "smoke")
    assert [(run.row, run.arm.name) for run in planned] == [("a", "one"), ("b", "one"), ("b", "two")]


def test_keys_tell_apart_what_differs_and_nothing_else():
    bare = Cell("bare", "bare network")
    key = run_key(CPU, bare)
    for change in ({"seeds": 9}, {"device": "cuda"}, {"hours": 5.0}, {"machine": "a"}):
        assert run_key(dataclasses.replace(CPU, **change), bare) == key
    for change in ({"title": "x"}, {"name": "x"}, {"group": "x"}, {"pool": "x"}, {"scales": ("cpu",)}):
        assert run_key(CPU, dataclasses.replace(bare, **change)) == key
    same = ("seeds", "device", "hours", "machine")
    other = {"epochs": 6, "recipe": {"ema": 0.9}, "options": {"a": 1}, "config": "c", "data": "tiny", "image_size": 8}
    others = [dataclasses.replace(CPU, **{name: value}) for name, value in other.items()]
    for field in dataclasses.fields(Setting):
        value = getattr(CPU, field.name)
        if field.name not in (*same, *other) and isinstance(value, int | float):
            others.append(dataclasses.replace(CPU, **{field.name: value + 1}))
    keys = [run_key(setting, bare) for setting in others]
    keys += [run_key(CPU, bare, start="a"), run_key(CPU, bare, start="b"), run_key(CPU, bare, version="0.0.0")]
    keys += [
        run_key(CPU, dataclasses.replace(bare, **change))
        for change in ({"T": 3}, {"equal_compute": True}, {"variant": "dilated"}, {"augment": "trivialaugment"})
    ]
    assert len(keys) > 15
    assert len({key, *keys}) == len(keys) + 1


def test_tables_share_their_runs():
    for scale, start in (("cpu", "cifar10-"), ("gpu", "camvid-"), ("paper", "voc-pspnet-")):
        runs = [Worker.planned(load_experiment(name), scale) for name in ("table5", "table8")]
        shared = {run.stem for run in runs[0]} & {run.stem for run in runs[1]}
        arms = {run.arm.name for run in runs[0] if run.stem in shared and run.stem.startswith(start)}
        assert {"bare", "bare_long", "averaged", "learned", "searched"} <= arms


def test_where_data_are():
    assert parse_data(None) == {}
    assert parse_data("cifar10=npz:a.npz, tiny=folder:b") == {"cifar10": "npz:a.npz", "tiny": "folder:b"}
    for text, message in (
        ("cifar10", "needed NAME=SOURCE"),
        ("=npz:a", "needed NAME=SOURCE"),
        ("a=b,", "--data ''"),
        ("a=b,a=c", "names 'a' twice"),
    ):
        with pytest.raises(InputError, match=message):
            parse_data(text)
    check_names({"cifar10": "x", "mine": "y"}, ["mine"])
    with pytest.raises(InputError, match=r"'cifra10' is, which nothing here reads; known are .*cifar10"):
        check_names({"cifra10": "x"}, ["digits"])


def test_missing_data_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, (_, how) in SOURCES.items():
        if not name.startswith("digit"):
            with pytest.raises(FileNotFoundError, match=f"--data {name}=SOURCE") as caught:
                load(Setting(data=name), {})
            assert how in str(caught.value)
    with pytest.raises(FileNotFoundError, match="'mine' is not known; give --data mine=SOURCE"):
        load(Setting(data="mine"), {})


def test_other_images_under_the_same_name_are_refused(tmp_path):
    setting = Setting(data="digits", train_images=60)
    shelf = Shelf({}, tmp_path / "data")
    data = shelf(setting)
    assert shelf(setting) is data
    assert Shelf({}, tmp_path / "data")(setting).describe() == data.describe()
    with pytest.raises(InputError, match=r"results of another data set called 'digits' \(.*then, .* now\)"):
        Shelf({"digits": "digit_scenes"}, tmp_path / "data")(setting)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "TABLE must be one of camvid, deployments, figure1, "),
        (["table9"], "unknown table 'table9'; did you mean table8? There are camvid"),
        (["table5", "--scale", "huge"], "unknown scale 'huge'; the scales are smoke, cpu, converged, gpu, paper"),
        (["schedules", "--scale", "paper"], "schedules has no row at scale 'paper'; it has rows at smoke, cpu, gpu"),
        (["table5", "--data", "cifar10"], "--data 'cifar10': needed NAME=SOURCE"),
        (["table5", "--data", "cifra10=npz:a.npz"], "--data says where 'cifra10' is, which nothing here reads"),
        (["table5", "--max-minutes", "0"], "--max-minutes 0: it must be above 0"),
        (["table5", "--scale", "cpu"], "could not be read from 'torchvision:CIFAR10@data'"),
    ],
)
def test_what_the_command_refuses(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *argv, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert message in " ".join(error.split())
    assert "Traceback" not in error
    assert not list(tmp_path.rglob("*.md"))


def test_the_page_names_every_table_and_what_the_results_are_looked_for_as():
    page = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) >= set(NAMES) | set(SCALES)
    for name, (spec, _) in {**SOURCES, **FOLDERS}.items():
        if not name.startswith("digit"):
            assert f"`{name}`" in page
            assert f"`{spec}`" in page


def test_a_table_of_ones_own(tmp_path):
    experiment = load_experiment(str(table(tmp_path)))
    assert experiment.name == "own"
    setting = experiment.rows[0].settings["smoke"]
    assert (setting.search, setting.epochs) == (load_experiment("table5").rows[0].settings["smoke"].search, 1)
