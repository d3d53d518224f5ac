"""What imports cost, in one fresh interpreter elsewhere than in the repository."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import image2video

# Parts of torch that `import torch` leaves for later.
LATE = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch.onnx", "torch.utils.tensorboard")


CODE = """
import importlib.util
import sys
import torch
before = set(sys.modules)
import image2video, image2video.fusion, image2video.functional
image2video.VideoWrap
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


HELP = """
import sys
from image2video.cli.app import main
try:
    main({words})
except SystemExit:
    pass
print(*sys.modules)
"""


@pytest.mark.parametrize("words", [["--help"], ["--version"], []])
def test_the_help_of_all_commands_needs_no_torch(words) -> None:
    run = subprocess.run([sys.executable, "-c", HELP.format(words=words)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    names = set(run.stdout.splitlines()[-1].split())
    assert "jsonargparse" in names
    assert not {"torch", "numpy", "timm", "image2video.wrap"} & names


def test_every_public_name_has_a_home() -> None:
    assert {*image2video._HOME_OF, "__version__"} == set(image2video.__all__)
    assert {*image2video.__all__, "clip", "wrap"} <= set(dir(image2video))
    for name, home in image2video._HOME_OF.items():
        assert getattr(image2video, name) is getattr(importlib.import_module(f"image2video.{home}"), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        image2video.nothing  # noqa: B018
    with pytest.raises(ImportError, match="nothing"):
        exec("from image2video import nothing")


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
