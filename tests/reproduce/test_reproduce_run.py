"""What a table's command does: what is missing, in order, once; what fails, what is killed, what is not there."""

import json
import shutil

import pytest
import torch
import yaml
from reproduce_cases import TABLE, pretended, rows, small_space, table, worked

from image2video.cli import main
from image2video.cli.app import build_parser
from image2video.errors import InputError
from image2video.reproduce import Worker, experiments, load_experiment, work
from image2video.reproduce.learned import START
from image2video.reproduce.names import FOLDER
from image2video.runs.folders import WriteError

__all__ = ["pretended"]  # a fixture

ORDER = [(arm["name"], seed) for seed in (0, 1) for arm in TABLE["arms"]]


def table_and(folder, *arms, **changes):
    return table(folder, arms=[*TABLE["arms"], *arms], **changes)


def test_all_runs_seed_by_seed_and_never_twice(tmp_path, pretended):
    path = table(tmp_path)
    left, book, runs = worked(path, tmp_path / "out")
    assert left == []
    assert pretended.asked == ORDER
    assert [book.read(run)["arm"] for run in runs] == [name for name, _ in ORDER]
    assert all(not book.training_path(run).exists() for run in runs)
    weights = [run for run in runs if book.weights_path(run).is_file()]
    assert {run.arm.name for run in weights} == {"bare_long"}
    worked(path, tmp_path / "out")
    assert pretended.asked == ORDER


def test_another_table_with_the_same_settings_shares_the_runs(tmp_path, pretended):
    worked(table(tmp_path), tmp_path / "out")
    again = table_and(tmp_path, {"name": "new", "title": "new", "augment": "trivialaugment"}, title="Another")
    worked(again, tmp_path / "out")
    assert pretended.asked == [*ORDER, ("new", 0), ("new", 1)]


def test_other_settings_and_more_seeds_are_kept_apart(tmp_path, pretended):
    _, book, runs = worked(table(tmp_path), tmp_path / "out")
    before = {run.stem: book.record_path(run).read_bytes() for run in runs}
    worked(table(tmp_path, rows=rows(seeds=3)), tmp_path / "out")
    assert pretended.asked[8:] == [(name, 2) for name, seed in ORDER if seed == 0]
    _, _, others = worked(table(tmp_path, rows=rows(lr=0.2)), tmp_path / "out")
    assert len(pretended.asked) == 12 + 8
    assert not {run.stem for run in others} & set(before)
    assert [book.others(run) for run in others] == [1] * 8
    assert all((book.runs / f"{stem}.json").read_bytes() == content for stem, content in before.items())


@pytest.mark.parametrize("at", range(8))
def test_killed_at_any_run_it_goes_on(tmp_path, pretended, at):
    path = table(tmp_path)
    pretended.stop_at = at
    with pytest.raises(KeyboardInterrupt):
        worked(path, tmp_path / "out")
    runs = Worker.planned(load_experiment(str(path)), "smoke")
    left_over = tmp_path / "out" / "training" / runs[at].stem
    assert left_over.is_dir()
    assert len(list((tmp_path / "out" / "runs").glob("*.json"))) == at
    pretended.stop_at = None
    _, book, _ = worked(path, tmp_path / "out")
    assert pretended.asked == ORDER
    assert not list((book.folder / "training").iterdir())


def test_a_folder_that_a_kill_left_behind_is_removed(tmp_path, pretended):
    path = table(tmp_path)
    _, book, runs = worked(path, tmp_path / "out")
    book.training_path(runs[0]).mkdir()
    worked(path, tmp_path / "out")
    assert not book.training_path(runs[0]).exists()


def test_weights_that_are_gone_are_made_again_only_where_a_run_needs_them(tmp_path, pretended):
    path = table(tmp_path)
    _, book, runs = worked(path, tmp_path / "out")
    shutil.rmtree(book.folder / "weights")
    worked(path, tmp_path / "out")
    assert pretended.asked == ORDER
    book.record_path(next(run for run in runs if (run.arm.name, run.seed) == ("averaged", 1))).unlink()
    worked(path, tmp_path / "out")
    assert pretended.asked == [*ORDER, ("bare_long", 1), ("averaged", 1)]


def test_what_fails_is_recorded_and_the_rest_goes_on(tmp_path, pretended):
    pretended.failing = {"bare_long"}
    path = table(tmp_path)
    left, book, runs = worked(path, tmp_path / "out")
    assert left == []
    records = {(run.arm.name, run.seed): book.read(run) for run in runs}
    assert {name for (name, _), record in records.items() if "error" in record} == {"bare_long", "averaged"}
    assert records["bare_long", 0]["error"].startswith("RuntimeError: no luck with bare_long <b>& (reproduce_cases.py:")
    reason = "it starts from 'bare_long', seed 1, which has no weights: RuntimeError: no luck with bare_long"
    assert reason in records["averaged", 1]["error"]
    done = len(pretended.asked)
    worked(path, tmp_path / "out")
    assert len(pretended.asked) == done
    failed = next(run for run in runs if run.arm.name == "bare_long")
    assert book.training_path(failed).is_dir()  # it may have been the machine's fault: the run goes on from there
    pretended.failing = set()
    worked(path, tmp_path / "out", retry=True)
    assert pretended.asked[done:] == [(n, s) for s in (0, 1) for n in ("bare_long", "averaged")]
    assert all("error" not in book.read(run) for run in runs)


def test_a_full_disk_stops_everything(tmp_path, pretended, monkeypatch):
    def full(*args, **more):
        raise WriteError("no space left on the disk")

    monkeypatch.setattr(work, "run_classification", full)
    with pytest.raises(WriteError, match="no space"):
        worked(table(tmp_path), tmp_path / "out")
    assert not list((tmp_path / "out").glob("runs/*"))


def test_after_its_minutes_no_run_begins(tmp_path, pretended, monkeypatch):
    clock = iter([0.0, 10.0, 20.0, 70.0])
    monkeypatch.setattr(work.time, "monotonic", lambda: next(clock, 100.0))
    left, _, runs = worked(table(tmp_path), tmp_path / "out", max_minutes=1)
    assert 0 < len(pretended.asked) < len(runs)
    assert left == runs[len(pretended.asked) :]


def test_a_damaged_record_is_refused(tmp_path, pretended):
    path = table(tmp_path)
    _, book, runs = worked(path, tmp_path / "out")
    for content in ("{}", "[1]", '{"schema": 1, "key": "of another", "score": 5}'):
        book.record_path(runs[0]).write_text(content)
        with pytest.raises(InputError, match=r"is no record of this run; move it away|must hold a JSON object"):
            worked(path, tmp_path / "out")


def test_rows_without_data_are_left_out_and_the_others_run(tmp_path, pretended, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {"name": "here", "title": "found on digits", "genotype": "searched@digits", "fusion": "tsm"}
    away = {"name": "away", "title": "found elsewhere", "genotype": "searched@cifar100", "fusion": "tsm"}
    other = {"name": "CIFAR-10", "scales": {"smoke": {**TABLE["rows"][0]["scales"]["smoke"], "data": "cifar10"}}}
    path = table_and(tmp_path, found, away, rows=[*TABLE["rows"], other])
    argv = ["reproduce", str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(argv) == 2
    assert pretended.asked == [*ORDER[:4], ("here", 0), *ORDER[4:], ("here", 1)]
    printed = capsys.readouterr()
    error = " ".join(printed.err.split())
    assert "left out: data set 'cifar10' could not be read from 'torchvision:CIFAR10@data'" in error
    assert "left out: data set 'cifar100' could not be read" in error
    assert "how to get it: torchvision.datasets.CIFAR100('data', download=True)" in error
    assert "14 runs are left out for want of data" in error  # 12 of the row, 2 of the arm
    assert "not run" in printed.out
    assert (tmp_path / "out" / "own-smoke.md").is_file()
    assert not list((tmp_path / "out" / "runs").glob("*away*"))
    records = len(list((tmp_path / "out" / "runs").glob("*.json")))
    assert records == len(pretended.asked)
    assert main([*argv, "--report-only"]) == 0


def test_without_any_data_nothing_runs(tmp_path, pretended, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="how to get it"):
        worked(table(tmp_path, rows=rows(data="cifar10")), tmp_path / "out")
    assert pretended.asked == []


def test_the_command_prints_eighty_columns_and_renders_what_there_is(tmp_path, pretended, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    pretended.failing = {"moving"}
    argv = ["reproduce", str(table(tmp_path)), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*argv, "--report-only"]) == 0
    assert "not run" in capsys.readouterr().out
    assert pretended.asked == []
    assert main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, (line for line in lines if not line.startswith("results: ")))) <= 80
    text = " ".join(" ".join(lines).split())
    for part in ("54.50 ± 6.35", "failed", "translation, TSM, seed 0: RuntimeError: no luck with moving", "--retry"):
        assert part in text
    assert str(tmp_path / "out" / "own-smoke.html") in text
    assert main([*argv, "--report-only"]) == 0
    assert len(pretended.asked) == 8


def test_progress_has_short_names(tmp_path, pretended):
    seen = []
    worker = Worker(
        tmp_path, device="cpu", progress=lambda stage, done, total, **figures: seen.append((stage, done, total))
    )
    experiment = load_experiment(str(table(tmp_path)))
    worker.run(experiment, "smoke")
    assert seen == [("own", done, 8) for done in range(9)]
    (run, *_) = worker.planned(experiment, "smoke")
    worker._named(run, "")("train", 1, 2)
    worker._named(run, "")("test", 1, 2)
    worker._named(run, "searching a clip")("select", 1, 2)
    assert seen[9:] == [("bare, seed 0", 1, 2), ("searching a clip (select)", 1, 2)]


@pytest.mark.filterwarnings("ignore:the search with selection")
def test_a_whole_table_from_data_to_page(tmp_path, capsys):
    """Table 5 at the smoke scale, as anyone would run it; its row of segmentation is another test's."""
    whole = yaml.safe_load((FOLDER / "table5.yaml").read_text())
    path, row = tmp_path / "table5.yaml", whole["rows"][0]
    # Several seeds are the subject of the pretended runs above, the paper's spaces that of tests/search/.
    row["scales"]["smoke"] = {"seeds": 1, "image_size": 8, "space": small_space(tmp_path)}
    path.write_text(yaml.safe_dump({**whole, "rows": [row]}))
    argv = ["reproduce", str(path), "--scale", "smoke", "--out", str(tmp_path), "--device", "cpu"]
    assert build_parser("reproduce").parse_args(argv).command == "reproduce"
    assert main(argv) == 0
    record = json.loads((tmp_path / "table5-smoke.json").read_text())
    (row,) = record["rows"]
    arms = {arm["arm"]: arm for arm in row["arms"]}
    assert set(arms) == {arm.name for arm in load_experiment("table5").arms}
    for arm in arms.values():
        assert (arm["score"]["n"], arm["errors"], arm["missing"]) == (1, [], 0)
        assert 0 <= arm["score"]["mean"] <= 100
        assert arm["ms"] > 0
    assert arms["bare"]["paper"] == 94.12
    assert [arms[name]["epochs"] for name in ("bare", "bare_long", "averaged", "searched")] == [1, 2, 2, 1]
    assert [arms[name]["frames"] for name in ("bare", "bare_long", "averaged", "searched")] == [90, 180, 180, 180]
    assert 1.9 < arms["searched"]["macs"] / arms["bare"]["macs"] < 2.2
    assert arms["learned"]["macs"] == 2 * arms["bare"]["macs"] == arms["averaged"]["macs"]
    assert arms["replica"]["genotypes"] == ["identity"]
    assert arms["searched"]["genotypes"] == arms["none"]["genotypes"]
    assert arms["searched"]["search_minutes"] > 0
    assert len({*arms["random1"]["genotypes"], *arms["random2"]["genotypes"], *arms["random3"]["genotypes"]}) == 3
    assert len(arms["learned"]["widths"]) == 5
    assert "nan" not in (tmp_path / "table5-smoke.json").read_text().lower()
    for suffix in ("md", "html", "png", "svg"):
        assert (tmp_path / f"table5-smoke.{suffix}").stat().st_size > 1000
    assert not list((tmp_path / "training").iterdir())
    assert not list((tmp_path / "searches").rglob("checkpoint"))
    printed = capsys.readouterr().out
    assert "bare network" in printed
    before = {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    assert main(argv) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()} == before


def test_a_killed_run_ends_as_one_that_was_not(tmp_path, monkeypatch):
    """Learned averaging draws anew in every step, from the generator that checkpoints keep."""
    arm = {"name": "learned", "title": "learned", "genotype": "learned", "fusion": "none", "learned": True}
    lone = [{**row, "paper": {}} for row in rows(seeds=1, epochs=3)]
    path = table(tmp_path, arms=[arm], contrasts=[], rows=lone)
    experiment = load_experiment(str(path))
    (run,) = Worker.planned(experiment, "smoke")
    whole = Worker(tmp_path / "whole", device="cpu")
    whole.run(experiment, "smoke")

    def killer(stage, done, total, **figures):
        if stage == "learned, seed 0" and done == 5:  # in the third epoch of two steps each
            raise KeyboardInterrupt

    cut = Worker(tmp_path / "cut", device="cpu", progress=killer)
    with pytest.raises(KeyboardInterrupt):
        cut.run(experiment, "smoke")
    assert cut.book.read(run) is None
    assert (cut.book.training_path(run) / "checkpoint.pt").is_file()
    torch.rand(7)  # whatever else happens to the generator
    cut = Worker(tmp_path / "cut", device="cpu")
    cut.run(experiment, "smoke")
    first, second = whole.book.read(run), cut.book.read(run)
    for key in ("score", "loss", "widths", "frames"):
        assert first[key] == second[key]
    assert first["widths"] != [pytest.approx(START)] * 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the search with selection")
@pytest.mark.parametrize("name", [name for name in experiments() if name != "table5"])
def test_every_table_at_the_smoke_scale(name, tmp_path, capsys):
    experiment = load_experiment(name)
    if not any("smoke" in row.settings for row in experiment.rows):
        pytest.skip("no row at this scale")
    assert main(["reproduce", name, "--scale", "smoke", "--out", str(tmp_path), "--device", "cpu"]) == 0
    seeds = {row.name: row.settings["smoke"].seeds for row in experiment.rows if "smoke" in row.settings}
    for row in json.loads((tmp_path / f"{name}-smoke.json").read_text())["rows"]:
        for arm in row["arms"]:
            assert (arm["errors"], arm["missing"], arm["score"]["n"]) == ([], 0, seeds[row["name"]]), arm


def test_only_the_arms_that_are_asked_for_and_what_they_need(tmp_path, pretended):
    path = table(tmp_path)
    left, book, runs = worked(path, tmp_path / "out", arms=["averaged"])
    assert left == []
    assert pretended.asked == [("bare_long", 0), ("averaged", 0), ("bare_long", 1), ("averaged", 1)]
    assert sum(book.read(run) is not None for run in runs) == 4
    worked(path, tmp_path / "out")
    assert sorted(pretended.asked) == sorted(ORDER)
    with pytest.raises(InputError, match="unknown arm 'averagd'; the arms are bare, bare_long"):
        worked(path, tmp_path / "out", arms=["averagd"])
    argv = ["reproduce", str(path), "--out", str(tmp_path / "other"), "--device", "cpu", "--arms", "bare,moving"]
    assert main(argv) == 0
    assert pretended.asked[8:] == [("bare", 0), ("moving", 0), ("bare", 1), ("moving", 1)]


def test_weights_are_made_again_only_for_arms_that_are_asked_for(tmp_path, pretended):
    path = table_and(tmp_path, TABLE["arms"][2] | {"name": "also"})
    _, book, _ = worked(path, tmp_path / "out", arms=["averaged"])
    shutil.rmtree(book.folder / "weights")  # as where records alone were copied
    asked = len(pretended.asked)
    worked(path, tmp_path / "out", arms=["averaged"])
    assert pretended.asked[asked:] == []
    worked(path, tmp_path / "out")  # another arm starts from the same weights
    assert ("bare_long", 0) in pretended.asked[asked:]
