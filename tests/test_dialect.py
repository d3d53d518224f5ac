"""One dialect: error messages end and speak alike, and public docstrings are Google's style with all their sections.

A message says what came (`got …`), what was needed, and what to do; its parts are joined by `; ` and it ends without a
full stop. A public function or class documents every argument, what it returns, and what it raises itself.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from image2video.errors import Image2VideoError

ROOT = Path(__file__).parent.parent
OURS = {error.__name__ for error in Image2VideoError.__subclasses__()} | {"WriteError"}
PACKAGES = [
    "image2video",
    "image2video.clip",
    "image2video.wrap",
    "image2video.inject",
    "image2video.fusion",
    "image2video.search",
    "image2video.receptive_field",
    "image2video.data",
    "image2video.training",
    "image2video.report",
    "image2video.export",
]
FOREIGN_WORDS = ("received", "was given", "were given", "were needed", "was needed", "instead of")
"""Other words for what came and what was needed; ours are `got` and `must`, `needs` or `expected`."""
ASKS = re.compile(r"\bgot\b|\bmust\b|\bneeds?\b|\bexpected\b|;|:|\bcannot\b|\bknown\b")


def rooms() -> dict[str, list[Path]]:
    """The source files by room."""
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / "image2video").rglob("*.py")):
        parts = path.relative_to(ROOT / "image2video").parts
        found.setdefault(parts[0] if len(parts) > 1 else "loose files", []).append(path)
    found["integrations"] = sorted((ROOT / "integrations").rglob("*.py"))
    return found


def messages(path: Path) -> Iterator[tuple[str, str]]:
    """`file:line` and message of every error of ours that a file raises; `{}` stands for what is filled in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and node.args and ast.unparse(node.func).rpartition(".")[2] in OURS):
            continue
        message = node.args[0]
        parts = message.values if isinstance(message, ast.JoinedStr) else [message]
        if all(isinstance(part, ast.Constant | ast.FormattedValue) for part in parts):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
            yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def faults_of(message: str) -> list[str]:
    """What is not of our dialect in a message."""
    faults = []
    if message.rstrip() != message or message.endswith((".", "!", ",", ";", ":")):
        faults.append("ends with a mark: it ends without a full stop")
    if re.search(r"[.!?] [A-Z]", message):
        faults.append("has several sentences: join its parts by '; '")
    if "{}" not in message and not re.search(r"[;:]", message):
        faults.append("names nothing that came and nothing to do")
    if not ASKS.search(message):
        faults.append("says neither what was needed nor what to do")
    faults += [
        f"says {word!r}: write 'got', 'must', 'needs' or 'expected'" for word in FOREIGN_WORDS if word in message
    ]
    return faults


@pytest.mark.parametrize("room", rooms())
def test_messages_speak_alike(room: str) -> None:
    faults = [
        f"{where}: {fault}: {text}"
        for path in rooms()[room]
        for where, text in messages(path)
        for fault in faults_of(text)
    ]
    assert not faults, "\n".join(faults)


def test_messages_are_found() -> None:
    assert sum(1 for paths in rooms().values() for path in paths for _ in messages(path)) > 500


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("T must be at least 1, got {}", None),
        ("{} has no sites; name some with sites=[…]", None),
        ("T must be at least 1, got {}.", "full stop"),
        ("{} rows came. Frames are (B·T, …)", "several sentences"),
        ("this does not work", "nothing that came"),
        ("{} is bad", "neither"),
        ("received {}; an integer is needed", "received"),
    ],
)
def test_what_counts_as_a_fault(message: str, fault: str | None) -> None:
    found = faults_of(message)
    assert not found if fault is None else fault in "; ".join(found)


def public_callables(package: str) -> Iterator[tuple[str, Any, list[str]]]:
    """Name, object and argument names of every public function, class and public method of a package.

    A method that overrides one of ours is documented by that one.
    """
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value):
            yield name, value, arguments(value)
        elif inspect.isclass(value) and not issubclass(value, Exception) and not getattr(value, "_is_protocol", False):
            yield name, value, arguments(value.__init__) if inspect.isfunction(value.__init__) else []
            for key, member in vars(value).items():
                function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
                overrides = any(
                    key in vars(base) for base in value.__mro__[1:] if base.__module__.startswith("image2video")
                )
                if not key.startswith("_") and inspect.isfunction(function) and not overrides:
                    yield f"{name}.{key}", function, arguments(function)


def arguments(function: Any) -> list[str]:
    """The arguments of a function that a caller gives."""
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def section(doc: str, *titles: str) -> str | None:
    """The text of a section of a docstring, None where it has none."""
    match = re.search(rf"^(?:{'|'.join(titles)}):\n((?:[ \t]+.*\n?|\n)*)", doc, flags=re.M)
    return match.group(1) if match else None


def docstring_faults(value: Any, names: list[str]) -> list[str]:
    """What the docstring of a public function or class leaves out."""
    doc, faults = inspect.getdoc(value) or "", []
    if names:
        told = section(doc, "Args", "Attributes") or ""
        missing = [name for name in names if not re.search(rf"^\s*\*{{0,2}}{name}\b[^\n]*:", told, flags=re.M)]
        faults += [f"Args: does not name {', '.join(missing)}"] if missing else []
    if inspect.isfunction(value):
        returned = inspect.signature(value).return_annotation
        silent = returned in (None, "None", inspect.Signature.empty, "NoReturn")
        if not silent and section(doc, "Returns", "Yields") is None:
            faults.append("has no Returns:")
        source = inspect.getsource(value)
        if re.search(rf"\braise (?:{'|'.join(OURS)})\b", source) and section(doc, "Raises") is None:
            faults.append("has no Raises:")
    return faults


@pytest.mark.parametrize("package", PACKAGES)
def test_public_docstrings_have_all_their_sections(package: str) -> None:
    checked = [(name, docstring_faults(value, names)) for name, value, names in public_callables(package)]
    assert len(checked) >= 2
    faults = [f"{package}.{name}: {fault}" for name, found in checked for fault in found]
    assert not faults, "\n".join(faults)
