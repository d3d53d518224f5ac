"""Two gloo processes train a wrapped model as one process does: with steps at T = 1, and with a clip inside of it."""

import ddp_worker
from forked import together


def test_two_processes_train_as_one(tmp_path):
    ended = together(tmp_path, ddp_worker.main, processes=2)
    assert [process.code for process in ended] == [0, 0], "\n".join(process.error for process in ended)
