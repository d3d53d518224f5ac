"""Processes of their own that start at once: forks of a server that has imported the heavy libraries.

A fresh interpreter spends two to six seconds on importing torch, timm and mmsegmentation. A test that needs processes
(several that work together, or one that is killed), and not the imports, starts them here. The server starts with the
first of them, and ends with the tests.
"""

from __future__ import annotations

import gc
import os
import runpy
import socket
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, get_context
from pathlib import Path

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(
    [  # what cannot be imported is left out
        *("torch._dynamo", "torch.distributed", "timm", "accelerate", "mmseg.apis"),
        "transformers.trainer",
        *("image2video.search", "image2video.cli.train", "image2video.cli.reproduce"),
        "image2video.integrations.openmmlab",
    ]
)


@dataclass(frozen=True)
class Ended:
    """How a process ended (as `subprocess` has it: -9 for one that was killed), and what it wrote."""

    code: int
    out: str
    error: str


def together(
    folder: Path,
    work: Callable[..., object],
    *arguments: object,
    processes: int = 1,
    threads: int = 1,
    timeout: float = 300,
    **environment: str,
) -> list[Ended]:
    """Do `work(*arguments)` in processes that a launcher would start: torch's variables tell each its rank.

    Each runs in `folder`, where its output is kept. The first that fails ends the others.
    """
    if processes > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        environment |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    written = [folder / f"process{rank}" for rank in range(processes)]
    started = []
    for rank, at in enumerate(written):
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        if processes > 1:
            variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        started.append(FORKS.Process(target=_begin, args=(str(at), variables, threads, work, arguments)))
    for process in started:
        process.start()
    try:
        _wait(started, timeout)
    finally:
        for process in started:
            process.kill()
            process.join()
    said = [[Path(f"{at}.{stream}").read_text() for stream in ("out", "error")] for at in written]
    return [Ended(process.exitcode, *texts) for process, texts in zip(started, said, strict=True)]


def _wait(started: list, timeout: float) -> None:
    """Return when all have ended, or one of them with an error."""
    until = time.monotonic() + timeout
    while (left := [process for process in started if process.is_alive()]) and not any(p.exitcode for p in started):
        ready = connection.wait([process.sentinel for process in left], max(0, until - time.monotonic()))
        assert ready, f"{len(left)} of {len(started)} processes did not end within {timeout} s"


def _begin(
    written: str, environment: dict[str, str], threads: int, work: Callable[..., object], arguments: tuple
) -> None:
    """In the new process: its own output, environment and folder, then the work."""
    for stream, name in ((1, "out"), (2, "error")):
        with open(f"{written}.{name}", "w") as file:
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(Path(written).parent)
    sys.path.insert(0, os.getcwd())
    warnings.simplefilter("ignore")
    gc.freeze()
    import torch

    torch.set_num_threads(threads)
    work(*arguments)


def script(path: Path, *arguments: object) -> None:
    """Run a script as `python PATH ARGUMENTS` does."""
    sys.argv = [str(path), *map(str, arguments)]
    sys.path.insert(0, str(Path(path).parent))
    runpy.run_path(str(path), run_name="__main__")


def module(name: str, *arguments: object) -> None:
    """Run a module as `python -m NAME ARGUMENTS` does."""
    sys.argv = [name, *map(str, arguments)]
    runpy.run_module(name, run_name="__main__", alter_sys=False)


def command_line(*words: str) -> None:
    """Run `image2video WORDS`, with its exit code."""
    from image2video.cli import main

    sys.exit(main(list(words)))
