"""What imports cost, in one fresh interpreter elsewhere than in the repository."""

import ast
import importlib
import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import image2video
from image2video import RandomClips, VideoWrap
from image2video.cli.app import COMMANDS
from image2video.fusion.built_in import BUILT_IN
from image2video.search import SearchConfig

# Parts of torch that `import torch` leaves for later.
LATE_HOME = "image2video.late"
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


BARE_ROOMS = """
import sys
import image2video.data, image2video.search, image2video.training
print(*sys.modules)
"""

SELECTIONS = """
from image2video.settings.search import DEFAULT_SPACES
literal = dict(DEFAULT_SPACES)
DEFAULT_SPACES.clear()
import image2video.search
assert literal == DEFAULT_SPACES, (literal, DEFAULT_SPACES)
print("equal")
"""

FRESH = """
import pickle
import sys

import image2video
from image2video.settings.search import SearchConfig

settings, folder = pickle.loads(bytes.fromhex(sys.argv[1])), sys.argv[2]
assert settings.space_name == SearchConfig().space_name == "affine5", settings.space_name
for module in ("fusion.testing", "fusion.gsf", "clip.genotype", "clip.ops.registry"):
    part = image2video
    for name in module.split("."):
        part = getattr(part, name)
    assert part.__name__ == f"image2video.{module}", part
assert not hasattr(image2video.fusion, "nothing")

from torch import nn
from image2video import VideoWrap

net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
print(type(VideoWrap.from_pretrained(folder, net).to_video))
"""

# Forks that have imported torch, and nothing of the library: four interpreters would import torch four times.
FORKS = """
import os
import sys
import traceback
import torch

settings, folder, *codes = sys.argv[1:]
sys.argv[1:] = settings, folder
for number, code in enumerate(codes):
    if os.fork() == 0:
        for handle, kind in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{number}.{kind}", os.O_CREAT | os.O_WRONLY), handle)
        failed = 0
        try:
            exec(code, {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            failed = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(failed)
    with open(f"{number}.code", "w") as file:
        file.write(str(os.waitstatus_to_exitcode(os.wait()[1])))
"""
CODES = {"imports": CODE, "rooms": BARE_ROOMS, "selections": SELECTIONS, "fresh": FRESH}


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> Callable[[str], str]:
    """What one of `CODES` prints in a process of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    VideoWrap(net, "none", frames=RandomClips(["rotate(5)"], T=3)).save_pretrained(folder / "saved")
    told = [pickle.dumps(SearchConfig()).hex(), str(folder / "saved"), *CODES.values()]
    run = subprocess.run([sys.executable, "-c", FORKS, *told], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr

    def found(name: str) -> str:
        number = list(CODES).index(name)
        code, out, error = ((folder / f"{number}.{kind}").read_text() for kind in ("code", "out", "err"))
        assert code == "0", error
        return out

    return found


@pytest.fixture(scope="module")
def printed(said) -> list[str]:
    return said("imports").splitlines()


def test_import_brings_torch_and_nothing_heavier(printed) -> None:
    brought = printed[0].split()
    assert "image2video.wrap.video_wrap" in brought
    foreign = {name.split(".")[0] for name in brought} - sys.stdlib_module_names - {"image2video", "torch"}
    assert not foreign, f"import image2video also imports {foreign}"
    assert not [name for name in brought if name.startswith(LATE)]


HELP = """
import contextlib, io, sys
heavy = ("torch", "torchvision", "timm", "numpy", "matplotlib", "accelerate", "PIL", "sklearn")
sys.modules |= dict.fromkeys(heavy)  # an import of one of them is an ImportError
from image2video.cli.app import COMMANDS, main
helps = [[name, "--help"] for name in COMMANDS]
for words in ([], ["--help"], ["--version"], ["presets"], ["presets", "cifar10"], *helps):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    print(*words, code, len(shown.getvalue()), sep="|")
"""


def test_no_help_needs_torch() -> None:
    run = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = [line.split("|") for line in run.stdout.splitlines()]
    assert [line[:-2] for line in lines] == [
        *([], ["--help"], ["--version"], ["presets"], ["presets", "cifar10"]),
        *([name, "--help"] for name in COMMANDS),
    ]
    assert {line[-2] for line in lines} == {"0"}
    assert all(int(line[-1]) > 300 for line in lines if line[-3:-2] == ["--help"])


def test_images_in_memory_need_no_torchvision(said) -> None:
    names = set(said("rooms").split())
    assert "image2video.training.loop" in names
    assert not {"torchvision", "timm", "torch._dynamo"} & names


@pytest.mark.parametrize("package", ["clip", "experiments", "fusion", "reproduce"])
def test_every_name_of_a_late_package_has_a_home(package: str) -> None:
    """Names come late, and are those that type checkers see; none is that of a module, which would take its place."""
    module = importlib.import_module(f"image2video.{package}")
    names = {entry.name for entry in pkgutil.iter_modules(module.__path__)}
    assert not names & set(module.__all__)
    assert set(module.__all__) <= set(dir(module))
    stated = {}
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and str(node.module).startswith("image2video.")
            and node.module != LATE_HOME
        ):
            stated |= {alias.name: node.module for alias in node.names}
    assert set(stated) == set(module.__all__)
    for name, home in stated.items():
        assert getattr(module, name) is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match=f"module 'image2video.{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_the_fusions_that_help_lists_are_those_of_the_registry() -> None:
    from image2video.fusion.registry import _BUILT_IN

    assert [config.name for config in _BUILT_IN.values()] == list(_BUILT_IN) == list(BUILT_IN)


def test_the_selections_that_settings_know_are_those_of_the_library(said) -> None:
    assert said("selections") == "equal\n"


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


def test_what_was_saved_is_read_by_a_process_that_imported_nothing_of_it(said) -> None:
    """Settings of a search, a model whose frames are drawn, and modules by their dotted names."""
    assert "RandomClips" in said("fresh")
