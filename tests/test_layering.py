"""Imports point one way: core <- search, data, training, report <- integrations <- app."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {  # package -> the packages of ours that it may import
    "core": {"core"},
    "search": {"core", "search"},
    "data": {"core", "data"},
    "training": {"core", "data", "training"},
    "report": {"core", "report"},
    "integrations": {"core", "search", "data", "training", "report", "integrations"},
    "demo": {"core", "search", "data", "training", "report", "integrations", "demo"},
    "cli": {"core", "search", "data", "training", "report", "integrations", "demo", "cli"},
}
FOREIGN = {  # a library -> the only packages that may import it, late imports included
    "timm": {"integrations"},
    "mmseg": {"integrations"},
    "mmcv": {"integrations"},
    "mmengine": {"integrations"},
    "torchvision": {"data", "integrations"},
    "sklearn": {"data"},
    "matplotlib": {"report"},
    "accelerate": {"search", "training", "demo", "cli"},
    "rich": {"report", "demo", "cli"},
    "jsonargparse": {"cli"},
    "safetensors": {"core", "training", "data", "integrations", "cli"},
    "huggingface_hub": {"core", "integrations"},
}


def package_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "core"


def sources() -> list[tuple[Path, str]]:
    """Every source file with its module name."""
    found = []
    for path in sorted((ROOT / "image2video").rglob("*.py")):
        found.append((path, ".".join(path.relative_to(ROOT).with_suffix("").parts)))
    for path in sorted((ROOT / "integrations").rglob("*.py")):
        found.append((path, "image2video." + ".".join(path.relative_to(ROOT).with_suffix("").parts)))
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
    assert not is_package or module.endswith("__init__")
    return names


@pytest.mark.parametrize(("path", "module"), sources(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_one_way(path: Path, module: str) -> None:
    package = package_of(module)
    for line, name in imported(path, module):
        top = name.split(".")[0]
        if top == "image2video":
            target = package_of(name)
            assert target in ALLOWED[package], f"{path}:{line}: {package} imports {name} of {target}"
        elif top in FOREIGN:
            assert package in FOREIGN[top], f"{path}:{line}: {package} imports {name}"


def test_every_source_is_listed() -> None:
    assert len(sources()) > 40
    assert {package_of(module) for _, module in sources()} == set(ALLOWED)
