"""What the documentation site has beside the pages of docs/: a hook of MkDocs, named in mkdocs.yml.

README, CHANGELOG and CONTRIBUTING become pages; docs/api.md, the list of public names, becomes one page of reference a
module; files of the repository that pages link to (examples, results) are copied, so that links work without a host.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES_OF_ROOT = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the repository's root, and the pages that they become."""
COPIED = "repository/"
"""Where other files of the repository stand in the site."""

LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]*)((?:#[^)\s]*)?\))")
"""A relative link or picture: what stands before its target, the target, and its anchor."""
FENCE = re.compile(r"^```.*?^```", flags=re.S | re.M)
MODULE = re.compile(r"^## (image2video[\w.]*)\n(.*?)(?=^## |\Z)", flags=re.S | re.M)
NAME = re.compile(r"^\| `(\w+)", flags=re.M)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files that are not under docs/."""
    for source, page in PAGES_OF_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    for module, names in public_names().items():
        files.append(File.generated(config, f"reference/{module}.md", content=reference(module, names)))
    while missing := {path for path in linked_files(files) if files.get_file_from_path(COPIED + path) is None}:
        for path in sorted(missing):
            level = InclusionLevel.NOT_IN_NAV
            content: str | bytes = (ROOT / path).read_bytes()
            if path.endswith(".md"):
                content = content.decode("utf-8")
            files.append(File.generated(config, COPIED + path, content=content, inclusion=level))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page to where their targets stand in the site."""
    here = page.file.src_uri
    folder = source_folder(here)

    def moved(link: re.Match[str]) -> str:
        if not link[2]:
            return link[0]
        target = in_site(posixpath.normpath(posixpath.join(folder, link[2])))
        return link[1] + posixpath.relpath(target, posixpath.dirname(here) or ".") + link[3]

    return outside_of_code(markdown, moved)


def source_folder(page: str) -> str:
    """The folder of the repository in which the source of a page lies."""
    if page in PAGES_OF_ROOT.values():
        return "."
    if page.startswith(COPIED):
        return posixpath.dirname(page.removeprefix(COPIED))
    return posixpath.join("docs", posixpath.dirname(page))


def in_site(path: str) -> str:
    """Where a file of the repository stands in the site, both as paths from their roots."""
    if path in PAGES_OF_ROOT:
        return PAGES_OF_ROOT[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        path = posixpath.join(path, "README.md")
    if not (ROOT / path).is_file():
        raise PluginError(f"a page links to {path}, which is no file of the repository")
    return COPIED + path


def linked_files(files: Files) -> set[str]:
    """The files outside of docs/ that pages link to, as paths from the repository's root."""
    found: set[str] = set()
    for page in files.documentation_pages():
        folder = source_folder(page.src_uri)
        for _, target, _ in LINK.findall(FENCE.sub("", page.content_string)):
            if not target:
                continue
            where = in_site(posixpath.normpath(posixpath.join(folder, target)))
            if where.startswith(COPIED):
                found.add(where.removeprefix(COPIED))
    return found


def outside_of_code(markdown: str, moved: object) -> str:
    """Rewrite the links of a page, and leave its code blocks as they are."""
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(moved, markdown[end : fence.start()]), fence[0]]  # type: ignore[call-overload]
        end = fence.end()
    return "".join([*parts, LINK.sub(moved, markdown[end:])])  # type: ignore[call-overload]


def public_names() -> dict[str, list[str]]:
    """The public names of every module, as docs/api.md lists them; a test holds that page to the code."""
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    return {module: NAME.findall(table) for module, table in MODULE.findall(text)}


def reference(module: str, names: list[str]) -> str:
    """The page of one module: every public name with its whole docstring."""
    lines = [f"# {module}", "", "Every public name, from its docstring. In Python, `help(name)` shows the same.", ""]
    for name in names:
        if not name.startswith("__"):
            lines += [f"::: {home(name) or module}.{name}", ""]
    return "\n".join(lines)


def home(name: str) -> str | None:
    """The module of a function that bears the name of its file, which a reader of sources would take for the module."""
    for path in sorted((ROOT / "image2video").rglob(f"{name}.py")):
        if re.search(rf"^def {name}\b", path.read_text("utf-8"), flags=re.M):
            return ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return None
