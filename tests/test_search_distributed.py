"""A search over two processes: the same τ, scores and genotype on both, and a result that resumes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from accelerate import Accelerator
from search_cases import blobs, tiny_network
from image2video.search import SearchConfig, search

out, accelerator = sys.argv[1], Accelerator(cpu=True)
assert accelerator.num_processes == 2
config = SearchConfig(T=3, epochs=2, tune_epochs=1, batch_size=16, device="cpu", fusion="gsf")
for resume in (False, True):
    result = search(tiny_network(), blobs(62, 0), config, out=out, resume=resume, accelerator=accelerator)
record = [str(result.genotype), result.state.steps, result.state.edges, result.state.score, result.frames]
with open(f"{out}.{accelerator.process_index}", "w") as file:
    json.dump(record, file)
"""


@pytest.mark.slow
def test_two_processes_agree_on_everything(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    subprocess.run([*command, str(tmp_path / "run")], check=True, env=environment, timeout=300)
    first, second = ((tmp_path / f"run.{rank}").read_text() for rank in (0, 1))
    losses = [json.loads(text)[2].copy() for text in (first, second)]
    for entries in losses:
        for entry in entries:
            entry.pop("tuning_loss", None)  # each process's own share of the images
    assert losses[0] == losses[1]
    a, b = json.loads(first), json.loads(second)
    assert a[0] == b[0]
    assert a[1] == b[1]
    assert a[3:] == b[3:]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
