"""Every code block of the README and of docs/ runs.

Python blocks of one page run in order in one namespace; a `text` block right after one is its exact output. In `bash`
blocks every `image2video` command runs, and one that a launcher starts is read with all its options; the other commands
must be among those that a user needs to set up.
"""

import ast
import contextlib
import io
import re
import runpy
import shlex
import sys
import types
from pathlib import Path

import pytest
import yaml
from few_digits import few_digits
from PIL import Image
from quick_costs import quick_costs
from quick_figures import quick_figures

from image2video.cli import main
from image2video.cli.app import build_parser
from image2video.clip.ops import registry as ops

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.S | re.M)
# Set-up commands, and those whose run is the subject of another test or of continuous integration itself.
SETUP = (
    "make ",
    "pip install",
    "git clone",
    "git worktree",
    "cd ",
    "python -m image2video.integrations.timm_launch",
    "pytest",
    "python benchmarks/",
    "python examples/serve.py",  # tests/test_examples.py
    "python $TOOLS/",  # mmsegmentation's own; their configs and options are tests/test_mmseg_configs.py's
    "torchrun --nproc_per_node=4 $TOOLS/",
    "export ",
    "sbatch ",
)
LAUNCHED = re.compile(r"(?:accelerate launch|torchrun|srun torchrun) .*-m image2video\.cli (.*)")
ELSEWHERE = {"mmsegmentation.md"}  # tests/test_mmseg_docs.py runs it, on a data set made for it
# The others: tests/reproduce/ has test_reproduce_run.py, test_reproduce_rehearsal.py and test_reproduce_check.py.
LONG = ("image2video demo", *(f"image2video reproduce table5 --scale {scale}" for scale in ("smoke", "paper --check")))
CUT = {
    "--train-images 300": "--train-images 60",
    "--train-images 200": "--train-images 60",
    "--train-images 120": "--train-images 40",
    "--data digits --model": "--data digits --train-images 60 --model",
    "--final-seeds 2": "--final-seeds 1",
    "--max-images 150": "--max-images 60",
    "--max-images 90": "--max-images 60",
    "--count 4": "--count 2",
    "--candidates 40": "--candidates 10",
    # The page's block above this command searches places by perturbation.
    "--tune-epochs 0 --clip-at": "--selection argmax --tune-epochs 0 --clip-at",
    # tests/test_examples.py searches from a command by perturbation.
    "--tune-epochs 0 --compare none": "--selection argmax --tune-epochs 0 --compare none",
}
"""Sizes in commands of the pages, and those with which they run here."""
CUT_PYTHON = {
    "train_images=200": "train_images=120",
    "count=40": "count=10",
    "randn(2, 3, 224, 224)": "randn(2, 3, 96, 96)",
}
"""The same for their Python."""
PARSED = re.compile(
    r" --task | --format (aoti|int8) | --data digit_scenes | reproduce .*--scale (cpu|converged|gpu)|"
    r"^image2video assess .* lite0\."
)
"""Commands that are parsed and not run."""
AGAIN = {
    "README.md": ("image2video rf ",),
    "command_line.md": ("image2video rf ", "image2video assess ", "image2video export "),
    "export.md": ("image2video export runs/wrapped --dtype bf16 --batch-size 1 ",),
    "quickstart.md": ("image2video assess --weights runs/bare ",),
}
"""Commands that the page names and that run for another, whose subject they are: receptive_field.md, assess.md,
export.md. Here they are parsed. Half precision and a fixed number of images are tests/export/test_export.py's."""
NEEDED = {
    "export.md": ("onnx", "onnxscript", "onnxruntime"),
    "from_tta.md": ("ttach",),
    "lightning.md": ("lightning",),
    "open_clip.md": ("open_clip",),
    "smp.md": ("segmentation_models_pytorch",),
    "transformers.md": ("transformers",),
}
"""Packages of extras, by the page that is about them."""
LANGUAGES = {"python", "text", "bash", "yaml", "json", "bibtex"}


quick = pytest.fixture(autouse=True, scope="module")(quick_costs)
undrawn = pytest.fixture(quick_figures)
few = pytest.fixture(few_digits)


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(match.group(1), match.group(2)) for match in BLOCK.finditer(page.read_text())]


def commands(block: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", " ", block)
    return [line.split("  #")[0].strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the pages speak of: a photo."""
    monkeypatch.chdir(tmp_path)
    picture = Image.linear_gradient("L").resize((120, 80))
    Image.merge("RGB", [picture, picture.rotate(180), picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]).save(
        "photo.jpg"
    )
    return tmp_path


@pytest.mark.filterwarnings("ignore:the search with selection")  # on a few images the identity may come first
@pytest.mark.filterwarnings("ignore:model.video.genotype=scale")  # a random clip that shows little of the image
@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ELSEWHERE], ids=lambda page: page.name)
def test_code_blocks_run(
    page: Path, folder: Path, few: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if page.name != "README.md":  # whose figures are drawn
        request.getfixturevalue("undrawn")
    # The receptive fields take half of the time of a training on 16 pixels.
    monkeypatch.setattr("image2video.cli.train_fields.CHEAP", 0)
    run(page, monkeypatch, CUT, CUT_PYTHON, AGAIN.get(page.name, ()))


@pytest.mark.slow  # the same commands run above, on fewer images
def test_the_readme_runs_as_it_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(PAGES[0], monkeypatch, {}, {})


def run(
    page: Path,
    monkeypatch: pytest.MonkeyPatch,
    cut: dict[str, str],
    cut_python: dict[str, str],
    again: tuple[str, ...] = (),
) -> None:
    """Run the blocks of a page, with other sizes; commands that begin as one of `again` are parsed."""
    for package in NEEDED.get(page.name, ()):
        pytest.importorskip(package)
    module = types.ModuleType(f"page_{page.stem.lower()}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # a class that a page defines can be pickled
    monkeypatch.setattr(ops, "_REGISTRY", dict(ops._REGISTRY))  # an op that a page registers is gone after it
    printed: str | None = None
    for language, text in blocks(page):
        assert language in LANGUAGES, f"{page.name}: a block of unknown language {language!r}"
        if language == "python":
            for written, smaller in cut_python.items():
                text = text.replace(written, smaller)
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(text, f"{page.name}", "exec"), module.__dict__)
            printed = out.getvalue()
        elif language == "text" and printed is not None:
            assert printed.strip() == text.strip(), f"{page.name}: printed\n{printed}\nwritten\n{text}"
            printed = None
        elif language == "bash":
            for command in commands(text):
                for written, smaller in cut.items():
                    command = command.replace(written, smaller)
                if launched := LAUNCHED.fullmatch(command):
                    words = shlex.split(launched[1])
                    assert build_parser(words[0]).parse_args(words).command == words[0]
                elif PARSED.search(command) or command.startswith(again):
                    # They need data, weights, or time: test_mmseg_search_run.py, test_cli_search.py,
                    # test_reproduce_run.py, test_cli_assess.py
                    words = shlex.split(command)[1:]
                    assert build_parser(words[0]).parse_args(words).command == words[0]
                elif command.startswith("image2video ") and not command.startswith(LONG):
                    assert main(shlex.split(command)[1:]) in (0, None), command
                else:
                    assert command.startswith((*SETUP, *LONG)), f"{page.name}: {command!r} is run by no test"


def test_make_targets_of_the_pages_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = {
        name for page in PAGES for _, text in blocks(page) for name in re.findall(r"^make (\w+)", text, flags=re.M)
    }
    assert {"demo", "test"} <= named <= targets


def test_links_between_pages_resolve() -> None:
    checked = 0
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
            checked += 1
    assert checked > 5


def test_every_page_stands_in_the_contents_of_the_site() -> None:
    """`make docs` would refuse it too; this is there for who runs the tests alone."""
    contents = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    named = [page for part in contents for pages in part.values() for page in pages]
    assert len(named) == len(set(named)) > 30
    assert {str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]} <= set(named)


GENERATED = {"zoo.md", "mmseg_zoo.md", "gallery.md", "examples.md"}  # lists, whose first sentence says what they list


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if page.name not in GENERATED], ids=lambda page: page.name)
def test_a_page_begins_with_what_its_reader_can_do_after_it(page: Path) -> None:
    title, _, first = page.read_text().split("\n")[:3]
    assert title.startswith("# ")
    assert first.startswith("After this page you ")


def test_named_tests_exist() -> None:
    """A page that says which test holds a claim names one that there is, and slow or data ones as such."""
    checked = 0
    for page in PAGES:
        for line in page.read_text().splitlines():
            for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line):
                found = _tests_of(ROOT / path)
                assert name in found, f"{page.name}: {path} has no test {name}"
                by_hand = found[name] - {"gpu"}
                assert all(f"*{mark}*" in line for mark in by_hand), f"{page.name}: {path}::{name} is {by_hand}"
                checked += 1
    assert checked > 100


def _tests_of(path: Path) -> dict[str, set[str]]:
    """The tests of a file, with those of their marks that take them out of the default run."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            marks = {ast.unparse(decorator) for decorator in node.decorator_list}
            found[node.name] = {mark for mark in ("slow", "data", "gpu") if f"pytest.mark.{mark}" in marks}
    return found


def test_tables_are_those_of_the_result_files() -> None:
    pages = runpy.run_path(str(ROOT / "benchmarks" / "pages.py"))
    marked = [page for page in PAGES if pages["MARK"].search(page.read_text())]
    assert marked
    for page in marked:
        assert pages["filled"](page.read_text()) == page.read_text(), f"{page.name}: run python benchmarks/pages.py"
