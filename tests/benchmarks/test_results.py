"""Every committed result can be made again: by a script of benchmarks/, or from the commit that a page names."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
SCRIPTS = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
PAGES = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]


def written_by_a_script(path: Path) -> bool:
    """Whether a script of benchmarks/ has the name that the file holds, or writes results under it."""
    name = json.loads(path.read_text(encoding="utf-8")).get("benchmark")
    is_named = (ROOT / "benchmarks" / f"{name}.py").is_file()
    return is_named or re.search(rf'write_result\(\s*[\w.]+,\s*"{name}"', SCRIPTS) is not None


def commits_on_its_page(path: Path) -> list[str]:
    """The commits that the pages which name the file say to check out, or to have made it with."""
    made = rf"{re.escape(path.name)}` \(commit (\w+)\)"
    found = []
    for page in PAGES:
        if path.name in page:
            found += re.findall(rf"git worktree add \S+ (\w+)|{made}", page)
    return ["".join(groups) for groups in found]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_can_be_made_again(path: Path) -> None:
    assert written_by_a_script(path) or commits_on_its_page(path)


def test_studies_that_left_the_tree_are_found_by_their_commit() -> None:
    gone = {path.stem: commits_on_its_page(path) for path in RESULTS if not written_by_a_script(path)}
    assert set(gone) == {"camvid_cpu", "camvid_deeplabv3_cpu", "cifar10_cpu", "figure1_cpu", "ranking"}
    for stem, commits in gone.items():
        assert ("750ebaf" if stem == "figure1_cpu" else "49f09ce") in commits
