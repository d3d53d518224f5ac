"""Two processes work on one table: both go on alike, whatever fails, and one of them writes."""

import json

import pytest
import torch.distributed as dist
from forked import command_line, together
from reproduce_cases import TABLE, rows, table

ARMS = [
    *(arm for arm in TABLE["arms"] if arm["name"] != "moving"),
    {"name": "searched", "title": "searched", "genotype": "searched", "fusion": "tsm"},
    {"name": "policy", "title": "policy", "augment": "search:trivialaugment"},
    {"name": "learned", "title": "learned", "genotype": "learned", "fusion": "none", "learned": True},
]


def test_two_processes_share_a_table(tmp_path):
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this build of torch has no gloo")
    path = table(tmp_path, arms=ARMS, contrasts=[], rows=rows(seeds=1))
    argv = ["reproduce", str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    first, second = together(tmp_path, command_line, *argv, processes=2)
    assert (first.code, second.code) == (0, 0), first.error + second.error
    assert "bare network" in first.out
    assert second.out == ""
    records = [json.loads(file.read_text()) for file in (tmp_path / "out" / "runs").iterdir()]
    by_arm = {record["arm"]: record for record in records}
    assert set(by_arm) == {arm["name"] for arm in ARMS}
    assert len(records) == len(by_arm)
    assert by_arm.pop("policy")["error"].startswith("UnsupportedError: a search over policies runs in one process")
    assert all("error" not in record and record["images_seen"] in (45, 90, 0) for record in by_arm.values())
    assert not [run for run in (tmp_path / "out" / "training").iterdir() if "policy" not in run.name]
    assert not list((tmp_path / "out").rglob("*.part"))
