"""Imports point one way: core <- search <- data <- training, core <- receptive_field <- report, … <- app."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOOSE = {"errors", "late", "protocols", "version", "segmentation", "functional", "moved"}
LEAVES = {"errors", "protocols", "version", "segmentation"}
CORE = LEAVES | {"trace", "runs", "clip", "fusion", "inject", "wrap"}
LIBRARY = CORE | {"settings", "receptive_field", "search", "data", "training", "report", "integrations"}
ALLOWED = {  # room -> the rooms of ours that it may import, beside itself
    "errors": set(),
    "late": set(),
    "protocols": set(),
    "version": set(),
    "segmentation": {"errors"},
    "trace": {"errors"},
    "runs": {"errors", "version"},
    "clip": {"errors", "late", "protocols", "runs", "trace"},
    "fusion": {"errors", "late", "trace"},
    "inject": {"errors", "trace", "fusion"},
    "wrap": {"errors", "protocols", "version", "trace", "runs", "clip", "fusion", "inject"},
    "functional": CORE,
    "settings": {"errors", "clip"},
    "moved": set(),
    "image2video": {*CORE, "moved"},
    "receptive_field": CORE,
    "export": CORE,
    "search": {*CORE, "settings"},
    "data": {*LEAVES, "clip", "runs", "search"},  # search: the spaces that `clips:SPACE` names
    "training": {*LEAVES, "clip", "runs", "wrap", "data", "settings"},
    "report": {*LEAVES, "clip", "runs", "receptive_field"},
    "integrations": {*CORE, "functional", "settings", "search", "data", "training", "report"},
    "assess": {*LIBRARY, "image2video"},
    "experiments": {*LIBRARY, "late", "image2video"},
    "reproduce": {*LIBRARY, "late", "image2video", "experiments"},
    "cli": {*LIBRARY, "image2video", "export", "assess", "experiments", "reproduce"},
}
LIBRARIES = {  # room -> the libraries that it may import, late imports included, beside torch and Python's own
    "clip": {"huggingface_hub", "torchvision"},
    "runs": {"filelock", "numpy", "safetensors", "tensorboard", "yaml"},
    "wrap": {"safetensors"},
    "export": {"onnx", "onnxruntime", "safetensors", "torchao"},
    "search": {"accelerate", "yaml"},
    "data": {"numpy", "PIL", "sklearn", "torchvision"},
    "training": {"accelerate", "safetensors", "yaml"},
    "receptive_field": {"shapely"},
    "report": {"matplotlib", "numpy", "PIL", "rich", "scipy", "shapely"},
    "integrations": {
        *("timm", "mmseg", "mmcv", "mmengine", "numpy", "torchvision", "transformers"),
        *("lightning", "pytorch_lightning"),
    },
    "assess": {"matplotlib", "mmengine"},  # mmengine for types alone
    "experiments": {"accelerate"},
    "reproduce": {"accelerate", "timm", "yaml", "mmseg", "mmcv", "mmengine", "numpy", "torchvision", "PIL", "shapely"},
    "cli": {"accelerate", "docstring_parser", "jsonargparse", "numpy", "rich", "yaml"},
}


SEARCH = {  # room of the search -> the rooms of the search that it may import, beside itself
    "space": set(),
    "cell": {"space"},
    "score": set(),
    "state": {"space", "cell", "score"},
    "optimise": {"space", "cell", "score", "state"},
    "rank": {"space", "cell", "score", "state"},
    "select": {"space", "cell", "score", "state", "rank"},
}


def room_of(module: str) -> str:
    """The room of a module's dotted name; `image2video` for the package and for names that it gives out itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "image2video"


def sources() -> list[tuple[Path, str]]:
    """Every source file with its module name."""
    found = []
    for path in sorted((ROOT / "image2video").rglob("*.py")):
        found.append((path, ".".join(path.relative_to(ROOT).with_suffix("").parts)))
    folder = ROOT / "integrations"
    for path in sorted(folder.rglob("*.py")):
        found.append((path, ".".join(["image2video", "integrations", *path.relative_to(folder).with_suffix("").parts])))
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
            if module in ("image2video.moved", "image2video.late", "image2video.__init__"):
                continue  # what they import stands in tables, which test_moved.py and test_import.py hold
            names.append((node.lineno, _stated(node.args[0])))
    assert not is_package or module.endswith("__init__")
    return names


def _stated(argument: ast.expr) -> str:
    """The module that a call imports by a string, as far as the source states it; it ends with a dot if not whole."""
    first = argument.values[0] if isinstance(argument, ast.JoinedStr) else argument
    assert isinstance(first, ast.Constant), f"an import of {ast.unparse(argument)}, which the source does not state"
    return str(first.value)


@pytest.mark.parametrize(("path", "module"), sources(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_one_way(path: Path, module: str) -> None:
    room = room_of(module)
    for line, name in imported(path, module):
        top = name.split(".")[0]
        if top == "image2video":
            target = room_of(name)
            assert target in ALLOWED[room] | {room}, f"{path}:{line}: {room} imports {name} of {target}"
        elif top != "torch" and top not in sys.stdlib_module_names:
            assert top in LIBRARIES.get(room, set()), f"{path}:{line}: {room} imports {name}"


def test_every_source_is_in_a_room() -> None:
    assert len(sources()) > 40
    assert {room_of(module) for _, module in sources()} == set(ALLOWED)
    assert set(LIBRARIES) <= set(ALLOWED)


def test_the_page_says_what_a_room_may_import() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert len(page.splitlines()) <= 150
    table = page.partition("<!-- rooms -->")[2].partition("<!-- end -->")[0]
    stated: dict[str, set[str]] = {}
    for line in table.strip().splitlines()[2:]:
        rooms, may_import = (re.findall(r"`(\w+)`", cell) for cell in line.strip("|").split("|"))
        stated |= {room: set(may_import) for room in rooms}
    assert len(stated) > 10
    assert stated == {room: ALLOWED[room] for room in stated}
    assert set(ALLOWED) - set(stated) == {
        "integrations",
        "assess",
        "experiments",
        "reproduce",
        "cli",
        "moved",
        "image2video",
    }


def test_few_files_are_loose() -> None:
    loose = {path.stem for path in (ROOT / "image2video").glob("*.py")}
    assert loose - {"__init__"} == LOOSE
    assert len(loose) <= 8


def test_rooms_stand_on_each_other() -> None:
    """What a room may import never leads back to it."""
    assert not cycles({room: others - {room} for room, others in ALLOWED.items()})


def test_rooms_of_the_search_stand_on_each_other() -> None:
    assert not cycles(SEARCH)
    for path, module in sources():
        parts = module.split(".")
        if parts[1] != "search" or parts[2] not in SEARCH:
            continue  # the driver and its parts join all rooms
        for line, name in imported(path, module):
            target = name.split(".")
            if target[:2] == ["image2video", "search"]:
                assert target[2] in SEARCH[parts[2]] | {parts[2]}, f"{path}:{line}: {parts[2]} imports {name}"


def test_no_module_leads_back_to_itself() -> None:
    """No circle of imports, within rooms too, late imports and those for type checkers included."""
    paths = {module.removesuffix(".__init__"): (path, module) for path, module in sources()}
    graph = {}
    for name, (path, module) in paths.items():
        targets = set()
        for _, wanted in imported(path, module):
            if wanted.endswith("."):  # a module that is named at run time: any of the package
                targets |= {other for other in paths if other.startswith(wanted) and not other.endswith("__main__")}
                continue
            # `from package import module` is that module; any other name is one that the package itself gives out.
            targets.add(wanted if wanted in paths else wanted.rpartition(".")[0])
        graph[name] = {target for target in targets if target in paths and target != name}
    assert sum(map(len, graph.values())) > 500
    found = [{name.removeprefix("image2video.") for name in circle} for circle in cycles(graph)]
    assert not found


def cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The groups of nodes that lead to each other."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        todo = list(graph[start])
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo += graph[node]
        reach[start] = seen
    groups = {frozenset(b for b in reach[a] if a in reach[b]) for a in graph if a in reach[a]}
    return [set(group) for group in sorted(groups, key=min)]


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, [{"a", "b", "c"}]),
    ],
)
def test_a_circle_is_found(graph: dict[str, set[str]], expected: list[set[str]]) -> None:
    assert cycles(graph) == expected


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def f():\n    from timm.models import resnet", ["timm.models.resnet"]),
        ("from . import cell", ["image2video.search.space.cell"]),
        ("from ...data import source", ["image2video.data.source"]),
        ("importlib.import_module(f'image2video.cli.{name}')", ["image2video.cli."]),
    ],
)
def test_every_form_of_import_is_seen(text: str, names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "space.py"
    path.write_text(text)
    assert [name for _, name in imported(path, "image2video.search.space.space")] == names
