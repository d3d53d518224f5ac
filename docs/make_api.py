"""Writes docs/api.md, the list of public names with their first sentences: python docs/make_api.py"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

MODULES = [
    "image2video",
    "image2video.fusion",
    "image2video.search",
    "image2video.receptive_field",
    "image2video.data",
    "image2video.training",
    "image2video.assess",
    "image2video.export",
    "image2video.report",
]


def signature(value: object) -> str:
    """The parameters of a callable, without annotations, or nothing."""
    if not callable(value):
        return ""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return ""
    shown, keyword_only = [], False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
                shown.append("*")
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = parameter.default
        # A default that is an object would print its address, or a page; help() shows it.
        plain = default is None or isinstance(default, bool | int | float | str)
        shown.append(star + parameter.name + ("" if default is parameter.empty else f"={default!r}" if plain else "=…"))
    return "(" + ", ".join(shown) + ")"


def first_sentence(value: object) -> str:
    """The first paragraph of a docstring on one line; for constants, their value."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return f"`{value}`" if isinstance(value, str) else f"{type(value).__name__}: `{value}`"
    text = inspect.getdoc(value) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def page() -> str:
    """The whole page."""
    lines = [
        "# Public names",
        "",
        "After this page you know which names you may rely on. It is written by `python docs/make_api.py` from the",
        "docstrings; `help(name)` in Python shows them whole, with shapes, units, what is raised, and sources.",
    ]
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        lines += ["", f"## {module_name}", "", "| name | what it is |", "|---|---|"]
        for name in sorted(module.__all__, key=str.lower):
            value = getattr(module, name)
            call = signature(value) if inspect.isroutine(value) else ""
            lines.append(f"| `{name}{call}` | {first_sentence(value)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "api.md").write_text(page(), encoding="utf-8")
