"""There is one reader of texts, JSON files, YAML, npz and safetensors: its limits hold for every file."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
READERS = {  # what reads files by itself -> where it may stand, with the reason
    ".read_text": [
        "image2video/clip/named.py",  # the genotypes that come with the library
        "image2video/clip/memory.py",  # what the kernel says of the container
        "image2video/runs/mounts.py",  # what the kernel says of mounts
    ],
    ".read_bytes": [],
    "safe_load": [],
    "yaml.compose": [],
    "yaml.load": ["image2video/runs/yaml_text.py"],
    "json.load": [],
    "np.load": [],
    "load_file": ["image2video/runs/weights.py"],
    "torch.load": [
        "image2video/runs/atomic.py",
        "image2video/fusion/testing.py",  # what it has just written
        "image2video/reproduce/segment_runner.py",  # mmengine's own checkpoints hold more than tensors
    ],
}


@functools.cache
def called(path: Path) -> frozenset[str]:
    """The names of what a file calls."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


def calls(path: Path, reader: str) -> bool:
    """Whether a file calls a reader; `.read_text` is the method of a path, not our own function."""
    return any(name == reader or name.endswith(f".{reader.removeprefix('.')}") for name in called(path))


@pytest.mark.parametrize("reader", READERS)
def test_nothing_else_reads_files(reader: str) -> None:
    files = [*(ROOT / "image2video").rglob("*.py"), *(ROOT / "integrations").rglob("*.py")]
    assert len(files) > 200
    found = sorted(path.relative_to(ROOT).as_posix() for path in files if calls(path, reader))
    assert found == sorted(READERS[reader]), (
        f"{reader} reads a file without the limits of image2video.runs.texts; call read_text, read_json, read_record, "
        "read_yaml, read_safetensors, torch_load or NpzArrays"
    )
