"""Fills the tables of docs/ from the result files: python benchmarks/pages.py

A page names a result between `<!-- result: NAME.json column column … -->` (or `NAME.json:list`, for another list of
rows than `results`) and `<!-- end -->`; what stands between is replaced by a table of these columns, and a line with
the date, commit and hardware.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MARK = re.compile(r"(<!-- result: (\S+?\.json)(?::(\w+))? ([^>]*?) ?-->\n).*?(<!-- end -->)", flags=re.S)


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value == int(value) and abs(value) >= 1000):
        return f"{value:,.0f}".replace(",", " ")
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    if isinstance(value, list):
        return "; ".join(f"`{item}`".replace("|", "\\|") for item in dict.fromkeys(value)) or "–"
    return str(value).replace("|", "\\|")


def table(document: dict[str, Any], rows: str, columns: list[str]) -> str:
    """Markdown of a result: a row per result, and where the figures come from. `a=b` shows column a as b."""
    names = [column.partition("=") for column in columns]
    lines = ["| " + " | ".join((label or key).replace("_", " ") for key, _, label in names) + " |"]
    lines.append("|" + "---|" * len(names))
    for result in document[rows]:
        lines.append("| " + " | ".join(cell(result.get(key)) for key, _, _ in names) + " |")
    # A file whose lists were measured at different times says so of each.
    document = {**document, **document.get("parts", {}).get(rows, {})}
    hardware = document["hardware"]
    machine = f"{hardware['processor']}, {hardware['threads']} of {hardware['cores']} cores"
    if "accelerator" in hardware:
        machine = hardware["accelerator"]
    versions = document["versions"]
    origin = f"{document['date'][:10]}, commit {document['commit']}, {machine}, torch {versions['torch']}"
    return "\n".join([*lines, "", f"*{origin}*", ""])


def filled(text: str) -> str:
    """A page with its tables made anew."""

    def replace(match: re.Match[str]) -> str:
        mark, name, rows, columns, end = match.groups()
        document = json.loads((RESULTS / name).read_text(encoding="utf-8"))
        return f"{mark}\n{table(document, rows or 'results', columns.split())}\n{end}"

    return MARK.sub(replace, text)


def main() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            page.write_text(filled(text), encoding="utf-8")
            print(f"filled {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
