"""The sweep over timm: its page is the one of its results, and it goes on where it stopped."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest

pytest.importorskip("timm")

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "zoo.json"


def test_the_page_is_made_of_the_results(load):
    page = load("zoo").TimmZoo().page(json.loads(RESULTS.read_text()))
    assert (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8") == page


def test_the_smallest_architecture_of_a_module_is_found(load):
    chosen = json.loads((ROOT / "benchmarks" / "zoo_architectures.json").read_text())["modules"]
    assert load("zoo").TimmZoo().smallest("resnest") == chosen["resnest"]


@pytest.mark.filterwarnings("ignore:the checkpoint is of a bare")
def test_a_small_architecture_passes_every_check(load):
    record = load("zoo_check").check("test_resnet", 2)
    for fusion in ("tsm", "gsf"):
        assert record[fusion].get("error") is None, record[fusion]
        assert record[fusion]["sites"] >= 4
        assert record[fusion]["mixed"] > 0
        assert record[fusion]["leaked"] == 0


def test_a_sweep_goes_on_where_it_stopped_and_a_crash_is_a_result(load, tmp_path, monkeypatch):
    zoo, driver = load("zoo"), load("zoo_driver")
    catalogue = zoo.TimmZoo()
    # The process ends at once, and says what it was asked for; what the real one ends with is said below.
    (tmp_path / "zoo.py").write_text("import sys; sys.exit(' '.join(sys.argv[1:]))")
    monkeypatch.setattr(driver, "HERE", tmp_path)
    chosen = {"one": {"architecture": "no_such_network", "parameters": 1}}
    out = tmp_path / "zoo.json"
    options = Namespace(out=out, again=False, jobs=1, frames=2, timeout=300, short=False)
    driver.sweep(catalogue, chosen, options)
    (record,) = json.loads(out.read_text())["results"]
    assert (record["module"], record["tsm"]["error"]) == ("one", "crash")
    asked = driver.parser(catalogue, "", timeout=1).parse_args(record["gsf"]["reason"].split())
    assert (asked.check, asked.frames) == ("no_such_network", 2)
    with pytest.raises(RuntimeError, match="no_such_network"):
        driver.prepare(catalogue, Namespace(**vars(asked), short=False))
    monkeypatch.setattr(driver, "in_own_process", None)  # what is done is not run again
    driver.sweep(catalogue, chosen, options)
    assert "no_such_network" in catalogue.page(json.loads(out.read_text()))


def test_an_unknown_family_is_named(load, monkeypatch):
    zoo, driver = load("zoo"), load("zoo_driver")
    monkeypatch.setattr(sys, "argv", ["zoo.py", "--modules", "resnet", "resnot"])
    catalogue = zoo.TimmZoo()
    with pytest.raises(SystemExit, match=r"timm \S+ has no module resnot"):
        driver.prepare(catalogue, driver.parser(catalogue, "", timeout=1).parse_args())
