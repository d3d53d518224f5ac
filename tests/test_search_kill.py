"""SIGKILL at any moment: the folder can be resumed and ends as it would have."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from image2video.files import torch_load_last

SCRIPT = """
import sys
import torch
from search_cases import blobs, tiny_network
from image2video.search import SearchConfig, search

torch.set_num_threads(1)
config = SearchConfig(T=3, epochs=3, tune_epochs=1, batch_size=16, device="cpu")
print("begin", flush=True)
search(tiny_network(), blobs(60, 0), config, out=sys.argv[1], resume=True)
"""
FILES = ("genotype.json", "tau.json", "scores.json", "config.yaml")


def start(script: Path, out: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen([sys.executable, str(script), str(out)], env=environment, stdout=subprocess.PIPE)


@pytest.mark.slow
def test_a_search_killed_again_and_again_ends_as_one_that_was_not(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with start(script, tmp_path / "whole") as whole:
        assert whole.stdout is not None
        assert whole.stdout.readline() == b"begin\n"
        begun = time.perf_counter()
    assert whole.returncode == 0
    seconds = time.perf_counter() - begun
    out, kills = tmp_path / "killed", 0
    for share in (0.2, 0.35, 0.5, 0.3):
        with start(script, out) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begin\n"
            time.sleep(share * seconds)
            process.kill()
        kills += process.returncode != 0
        checkpoint = out / "checkpoint" / "last.pt"
        if checkpoint.exists():
            assert torch_load_last(checkpoint)["state"]["done"] > 0
    assert kills > 0
    with start(script, out) as last:
        assert last.stdout is not None
        last.stdout.read()
    assert last.returncode == 0
    for name in FILES:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
