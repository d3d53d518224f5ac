"""What imports cost, in one fresh interpreter elsewhere than in the repository."""

import subprocess
import sys
from pathlib import Path

import pytest

# Parts of torch that `import torch` leaves for later.
LATE = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch.onnx", "torch.utils.tensorboard")


CODE = """
import importlib.util
import sys
import torch
before = set(sys.modules)
import image2video, image2video.fusion, image2video.functional
print(*(set(sys.modules) - before))
print(importlib.util.find_spec("image2video.integrations.timm_backbones").origin)
from image2video.cli.app import build_parser
build_parser(None)
print(*sys.modules)
import image2video.report
print(*sys.modules)
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("elsewhere")
    run = subprocess.run([sys.executable, "-c", CODE], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_import_brings_torch_and_nothing_heavier(printed) -> None:
    brought = printed[0].split()
    assert "image2video.wrap.video_wrap" in brought
    foreign = {name.split(".")[0] for name in brought} - sys.stdlib_module_names - {"image2video", "torch"}
    assert not foreign, f"import image2video also imports {foreign}"
    assert not [name for name in brought if name.startswith(LATE)]


def test_integrations_are_found_from_elsewhere(printed) -> None:
    found = Path(printed[1])
    assert found.name == "timm_backbones.py"
    assert found.exists()


def test_help_imports_no_command(printed) -> None:
    names = printed[2].split()
    assert "jsonargparse" in names
    assert not {"timm", "torchvision", "matplotlib", "accelerate", "sklearn"} & set(names)


def test_pyplot_is_never_imported(printed) -> None:
    names = printed[3].split()
    assert "image2video.report" in names
    assert "matplotlib" in names
    assert "matplotlib.pyplot" not in names
