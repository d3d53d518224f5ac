"""The result file of many runs: arms and questions by table, what failed, what the front page takes."""

import importlib
import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from measured_cases import measured_rows
from reproduce_cases import TABLE, pretended, table, worked  # noqa: F401 (a fixture)

from image2video.errors import MissingError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
summary = importlib.import_module("reproduce_summary")
sys.path.pop(0)


def asked(out: Path, tables: str) -> Namespace:
    return Namespace(runs=str(out), scale="smoke", tables=tables)


def test_arms_and_questions_are_those_of_the_records(tmp_path, pretended):  # noqa: F811
    pretended.failing = {"averaged"}
    path = table(tmp_path)
    worked(path, tmp_path / "out")
    found = summary.finished(asked(tmp_path / "out", str(path)))
    payload = summary.summary({"own": found[str(path)]}, "smoke")
    lines = {line["arm"]: line for line in payload["own"]}
    assert list(lines) == ["bare", "bare_long", "moving"], "what failed has no score"
    assert lines["bare"]["paper"] == 90.0
    assert lines["bare"]["by_seed"] == {"0": 54.0, "1": 55.0}
    assert (lines["bare"]["score"], lines["bare"]["n"]) == (54.5, 2)
    assert lines["bare"]["half_width_95"] == pytest.approx(12.706 * 0.5**0.5 / 2**0.5, abs=0.01)
    assert lines["moving"]["frames"] == 2 * lines["bare"]["frames"] == lines["bare_long"]["frames"]
    assert payload["gaps"]["own"]["missing"] == 0
    assert len(payload["gaps"]["own"]["errors"]) == 2
    assert "no luck with averaged" in payload["gaps"]["own"]["errors"][0]
    (question,) = payload["own_questions"]
    assert (question["difference"], question["n"]) == (-3.0, "2")
    assert question["a_is"] == "undecided", "the same difference in each seed has no interval"
    assert json.dumps(payload)


def test_one_seed_has_no_interval(tmp_path, pretended):  # noqa: F811
    (row,) = TABLE["rows"]
    one = {**row, "scales": {"smoke": {**row["scales"]["smoke"], "seeds": 1}}}
    path = table(tmp_path, rows=[one])
    worked(path, tmp_path / "out")
    payload = summary.summary(summary.finished(asked(tmp_path / "out", str(path))), "smoke")
    assert {line["half_width_95"] for line in payload["results"]} == {None}
    (question,) = payload[f"{path}_questions"]
    assert (question["a_is"], question["half_width_95"]) == ("one seed", None)
    assert payload["gaps"] == {}


@pytest.mark.parametrize("chosen", [*summary.FRONT.values(), summary.FRONT_ELSEWHERE])
def test_the_front_page_takes_five_arms_of_a_table(chosen):
    table, arms = chosen
    assert set(arms) <= {arm.name for arm in summary.load_experiment(table).arms}
    assert len(arms) == 5


def test_a_scale_without_runs_has_no_summary(tmp_path):
    with pytest.raises(MissingError, match="no finished run at scale 'smoke'"):
        summary.finished(asked(tmp_path, ""))


def test_measured_rows_have_calibration_and_gaps_over_seeds_and_images(tmp_path, pretended, monkeypatch):  # noqa: F811
    _, rows = measured_rows(tmp_path, pretended, monkeypatch)
    payload = summary.summary({"own": rows}, "smoke")
    lines = {line["arm"]: line for line in payload["own"]}
    assert (lines["bare"]["name"], lines["bare"]["scaled_loss"]) == ("bare", 0.9)
    assert (lines["bare"]["scaled_ece"], lines["bare"]["stays_2"]) == (1.23, 95.0)
    (question,) = payload["own_questions"]
    assert (question["reading"], question["seeds"], question["images"]) == ("undecided", 2, 400)
    assert [(gain["title"], gain["points"]) for gain in payload["gains"]] == [
        ("translation, TSM", 20.0),
        ("averaged at test time", 0.0),
        ("bare network", -10.0),
    ]
    assert payload["gains"][0]["times_macs"] == 2
    low, high = (float(end.replace("−", "-")) for end in question["over_both"].split(" … "))
    assert low < 20 < high
    assert json.dumps(payload)


def test_the_figure_of_measured_rows_is_that_of_gains(tmp_path, pretended, monkeypatch):  # noqa: F811
    measured_rows(tmp_path, pretended, monkeypatch)
    argv = ["reproduce_summary.py", "--runs", str(tmp_path / "out"), "--scale", "smoke"]
    monkeypatch.setattr("sys.argv", [*argv, "--tables", str(tmp_path / "own.yaml"), "--figures", str(tmp_path)])
    seen = []
    monkeypatch.setattr(summary, "row_gains", lambda row: seen.append(row.row.name))
    monkeypatch.setattr(summary, "save_figure", lambda figure, stem, dpi: (stem,))
    summary.main()
    assert seen == ["digits"]
