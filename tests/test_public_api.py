"""The public names: importable, documented in their docstrings and in docs/api.md."""

import importlib
import inspect
import runpy
import typing
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PUBLIC = [
    "image2video",
    "image2video.fusion",
    "image2video.search",
    "image2video.data",
    "image2video.training",
    "image2video.report",
]
NAMES = [(module, name) for module in PUBLIC for name in importlib.import_module(module).__all__]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_public_name_has_a_docstring(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) or inspect.isroutine(value):
        doc = inspect.getdoc(value) or ""
        assert len(doc.split()) >= 5, f"{module}.{name} says too little: {doc!r}"
        assert not doc.startswith(f"{name}("), f"{module}.{name} has only the docstring that dataclass makes"


def test_the_reference_page_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["page"]()
    assert page == (ROOT / "docs" / "api.md").read_text(), "run: python docs/make_api.py"
    assert all(f"`{name}" in page for _, name in NAMES)


@pytest.mark.parametrize(("module", "name"), [pair for pair in NAMES if pair[0] == "image2video"])
def test_public_callables_are_typed(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    function = value.__init__ if inspect.isclass(value) else value
    if inspect.isfunction(function):
        missing = [
            p.name
            for p in inspect.signature(function).parameters.values()
            if p.annotation is p.empty and p.name not in ("self", "cls")
        ]
        assert not missing, f"{module}.{name}: no type for {missing}"
        assert typing.get_type_hints(function) is not None
