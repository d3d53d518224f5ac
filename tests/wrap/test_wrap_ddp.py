"""Two gloo processes train a wrapped model as one process does, steps at T = 1 included."""

import subprocess
import sys
from pathlib import Path

WORKER = Path(__file__).parents[1] / "helpers" / "ddp_worker.py"


def test_two_processes_train_as_one(tmp_path):
    command = [sys.executable, str(WORKER)]
    workers = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(said)
