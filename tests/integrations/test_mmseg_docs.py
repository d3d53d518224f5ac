"""Every block of docs/mmsegmentation.md runs, on a miniature data set and with small networks.

A Python block that begins with `# NAME.py` is a config: it is written to a file, and commands that name it get a small
twin of it. Commands of the stock tools run in this process; those of a launcher are tests/test_mmseg_distributed.py's.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from mmseg_tools_cases import EXAMPLE, EXAMPLES, forget_runs, run_tool, small_config
from PIL import Image

from image2video.cli.app import build_parser
from image2video.reproduce.miniatures import make_cityscapes
from test_docs import BLOCK, ROOT, commands

PAGE = ROOT / "docs" / "mmsegmentation.md"
NAME = re.compile(r"# (\w+\.py)\n")
# What a small twin does not take over: sizes of Cityscapes, the length of a run, a genotype that a search would give.
SMALLER = {
    "model.test_cfg.crop_size=[512,1024]": "model.test_cfg.crop_size=[32,48]",
    "model.test_cfg.stride=[341,683]": "model.test_cfg.stride=[16,32]",
    "model.video.genotype=runs/search/genotype.json": "model.video.genotype=identity",
    "work_dirs/pspnet_r18_video/iter_80000.pth": "work_dirs/pspnet_r18_video/iter_2.pth",
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:The draw is False"),
    pytest.mark.filterwarnings("ignore:Failed to add .*LocalVisBackend"),
    pytest.mark.filterwarnings("ignore:The shape of value will convert"),
]


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_cityscapes(tmp_path / "data", val=1)
    Image.linear_gradient("L").resize((120, 80)).convert("RGB").save("photo.jpg")
    (tmp_path / "pages").mkdir()
    namespace: dict[str, object] = {}
    printed, ran = "", 0
    for match in BLOCK.finditer(PAGE.read_text()):
        language, text = match.groups()
        if config := NAME.match(text):
            (tmp_path / "pages" / config[1]).write_text(text)
            written = small_config(tmp_path, data, base=tmp_path / "pages" / config[1], wrapped="VideoWrap" in text)
            written.rename(tmp_path / config[1])
        elif language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(shorter(text), PAGE.name, "exec"), namespace)
            printed = out.getvalue().splitlines()[-1]
        elif language == "text":
            assert printed == text.strip()
        else:
            assert language == "bash"
            ran += sum(run(command, monkeypatch) for command in commands(text))
    forget_runs()
    assert ran >= 6


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a command of a stock tool, read one of ours; True for the first."""
    words = shlex.split(shorter(command))
    tool = re.fullmatch(r"\$TOOLS/(train|test)\.py", words[1]) if words[0] == "python" else None
    if tool:
        run_tool(monkeypatch, tool[1], *words[2:])
    elif words[0] == "torchrun":
        assert words[2] == "$TOOLS/train.py"
        assert Path(words[3]).exists()
    elif words[0] == "image2video":
        assert build_parser(words[1]).parse_args(words[1:]).command == words[1]
    else:
        assert command.startswith(("pip install ", "export TOOLS=")), command
    return tool is not None


def shorter(text: str) -> str:
    for long, short in SMALLER.items():
        text = text.replace(long, short)
    return text


def test_the_example_is_the_config_of_the_page() -> None:
    (config,) = [text for _, text in BLOCK.findall(PAGE.read_text()) if text.startswith("# pspnet_r18_video.py")]
    assert config.split("\n", 1)[1] == EXAMPLE.read_text().split("\n", 1)[1]
    assert EXAMPLE.read_text().split("\n", 1)[1] in (ROOT / "README.md").read_text()
    assert EXAMPLE.name in (EXAMPLES / "README.md").read_text()
    assert [path.name for path in EXAMPLES.glob("*.py")] == [EXAMPLE.name]
