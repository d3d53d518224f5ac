"""Memory that is freed stays with the process of a command."""

import os
import platform
import subprocess
import sys

import pytest

from image2video.cli import app

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is another one")

# Blocks of 16 MB, one after the other, as a network's forward asks for them: how many pages the system had to clear.
FAULTS = """
import ctypes
import resource
import sys
from image2video.cli.allocator import keep_memory

told = keep_memory() if sys.argv[1] == "keep" else None
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]


def use():
    kept = [libc.malloc(2**24) for _ in range(3)]
    for block in kept:
        ctypes.memset(block, 1, 2**24)
    for block in kept:
        libc.free(block)


use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, "torch" in sys.modules)
"""


def faults(how, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run(
        [sys.executable, "-c", FAULTS, how], env=clean | environment, capture_output=True, text=True, check=True
    )
    told, count, torch = run.stdout.split()
    assert torch == "False"  # the command line tells the allocator before torch has asked for anything
    return told, int(count)


def test_pages_are_cleared_once():
    told, count = faults("keep")
    assert told == "True"
    assert count < 500
    assert faults("give back")[1] > 5000


def test_who_set_the_allocator_keeps_the_say():
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"


def test_commands_start_with_it(monkeypatch, capsys):
    told = []
    monkeypatch.setattr(app, "keep_memory", lambda: told.append("yes"))
    assert app.main(["presets"]) == 0
    assert told == ["yes"]
