"""Two processes work on one table: both go on alike, whatever fails, and one of them writes."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch.distributed as dist
from reproduce_cases import TABLE, rows, table

ARMS = [
    *(arm for arm in TABLE["arms"] if arm["name"] != "moving"),
    {"name": "searched", "title": "searched", "genotype": "searched", "fusion": "tsm"},
    {"name": "policy", "title": "policy", "augment": "search:trivialaugment"},
    {"name": "learned", "title": "learned", "genotype": "learned", "fusion": "none", "learned": True},
]


def launch(argv, processes=2):
    """The command in several processes, as a launcher starts it; their output."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "image2video.cli", *argv]
    started = [
        subprocess.Popen(
            command,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    outputs = [process.communicate(timeout=300) for process in started]
    for process, (out, error) in zip(started, outputs, strict=True):
        assert process.returncode == 0, f"{out}\n{error}"
    return [out for out, _ in outputs]


def test_two_processes_share_a_table(tmp_path):
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this build of torch has no gloo")
    path = table(tmp_path, arms=ARMS, contrasts=[], rows=rows(seeds=1))
    argv = ["reproduce", str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    first, second = launch(argv)
    assert "bare network" in first
    assert second == ""
    records = [json.loads(file.read_text()) for file in (tmp_path / "out" / "runs").iterdir()]
    by_arm = {record["arm"]: record for record in records}
    assert set(by_arm) == {arm["name"] for arm in ARMS}
    assert len(records) == len(by_arm)
    assert by_arm.pop("policy")["error"].startswith("UnsupportedError: a search over policies runs in one process")
    assert all("error" not in record and record["images_seen"] in (45, 90, 0) for record in by_arm.values())
    assert not [run for run in (tmp_path / "out" / "training").iterdir() if "policy" not in run.name]
    assert not list((tmp_path / "out").rglob("*.part"))
