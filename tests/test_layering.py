"""Imports point one way: core <- search <- data <- training, core <- receptive_field <- report, … <- app."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {  # package -> the packages of ours that it may import
    "core": {"core"},
    "search": {"core", "search"},
    "data": {"core", "search", "data"},  # search: the spaces that `clips:SPACE` names
    "training": {"core", "data", "training"},
    "receptive_field": {"core", "receptive_field"},
    "report": {"core", "receptive_field", "report"},
    "integrations": {"core", "search", "data", "training", "report", "integrations"},
    "demo": {"core", "search", "data", "training", "receptive_field", "report", "integrations", "demo"},
    "reproduce": {
        *("core", "search", "data", "training", "receptive_field", "report", "integrations", "demo", "reproduce"),
    },
    "cli": {
        *("core", "search", "data", "training", "receptive_field", "report", "integrations"),
        *("demo", "reproduce", "cli"),
    },
}
LIBRARIES = {  # package -> the libraries that it may import, late imports included, beside torch and Python's own
    "core": {"safetensors", "huggingface_hub", "numpy", "torchvision"},
    "search": {"accelerate", "yaml"},
    "data": {"numpy", "PIL", "sklearn", "torchvision"},
    "training": {"accelerate", "safetensors", "yaml"},
    "receptive_field": {"shapely"},
    "report": {"matplotlib", "numpy", "PIL", "rich", "shapely"},
    "integrations": {"timm", "mmseg", "mmcv", "mmengine", "numpy"},
    "demo": {"accelerate"},
    "reproduce": {"accelerate", "timm", "yaml", "mmseg", "mmcv", "mmengine", "numpy", "torchvision", "PIL", "shapely"},
    "cli": {"accelerate", "docstring_parser", "jsonargparse", "numpy", "rich", "yaml"},
}


def package_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "core"


def sources() -> list[tuple[Path, str]]:
    """Every source file with its module name."""
    found = []
    for path in sorted((ROOT / "image2video").rglob("*.py")):
        found.append((path, ".".join(path.relative_to(ROOT).with_suffix("").parts)))
    for folder, name in ((ROOT / "integrations", "integrations"), (ROOT / "examples" / "reproduce", "reproduce")):
        for path in sorted(folder.rglob("*.py")):
            found.append((path, ".".join(["image2video", name, *path.relative_to(folder).with_suffix("").parts])))
    return found


def imported(path: Path, module: str) -> list[tuple[int, str]]:
    """(line, absolute module name) of every import in a file, at any depth."""
    names = []
    is_package = path.name == "__init__.py"
    base = module.split(".")[:-1]  # a module's package; for __init__ the trailing name is "__init__" itself
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                stem = base[: len(base) - (node.level - 1)]
                head = ".".join([*stem, node.module] if node.module else stem)
            else:
                head = node.module or ""
            names += [(node.lineno, f"{head}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names.append((node.lineno, _stated(node.args[0])))
    assert not is_package or module.endswith("__init__")
    return names


def _stated(argument: ast.expr) -> str:
    """The module that a call imports by a string, as far as the source states it."""
    first = argument.values[0] if isinstance(argument, ast.JoinedStr) else argument
    assert isinstance(first, ast.Constant), f"an import of {ast.unparse(argument)}, which the source does not state"
    return str(first.value).rstrip(".")


@pytest.mark.parametrize(("path", "module"), sources(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_one_way(path: Path, module: str) -> None:
    package = package_of(module)
    for line, name in imported(path, module):
        top = name.split(".")[0]
        if top == "image2video":
            target = package_of(name)
            assert target in ALLOWED[package], f"{path}:{line}: {package} imports {name} of {target}"
        elif top != "torch" and top not in sys.stdlib_module_names:
            assert top in LIBRARIES[package], f"{path}:{line}: {package} imports {name}"


def test_every_source_is_listed() -> None:
    assert len(sources()) > 40
    assert {package_of(module) for _, module in sources()} == set(ALLOWED) == set(LIBRARIES)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def f():\n    from timm.models import resnet", ["timm.models.resnet"]),
        ("from . import cell", ["image2video.search.cell"]),
        ("from ..data import source", ["image2video.data.source"]),
        ("importlib.import_module(f'image2video.cli.{name}')", ["image2video.cli"]),
    ],
)
def test_every_form_of_import_is_seen(text: str, names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "space.py"
    path.write_text(text)
    assert [name for _, name in imported(path, "image2video.search.space")] == names
