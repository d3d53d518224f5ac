"""Whatever a text holds, it is read or refused in under a second and 100 MB: the largest that limits let through."""

import contextlib
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from image2video.clip.genotype import Genotype
from image2video.data.sources import load_data
from image2video.errors import Image2VideoError
from image2video.runs.texts import MAX_RECORD_BYTES, MAX_TEXT_BYTES, parse_json
from image2video.runs.yaml_text import MAX_NODES, parse_yaml
from image2video.search.space.space import SearchSpace


def json_text(text: str) -> Callable[[Path], object]:
    return lambda folder: parse_json(text, "mine")


def yaml_text(text: str) -> Callable[[Path], object]:
    return lambda folder: parse_yaml(text, "mine")


def space(text: str, suffix: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        path = folder / f"space{suffix}"
        path.write_text(text)
        return SearchSpace.load(path)

    return read


def filled(text: str, size: int) -> str:
    return text * (size // len(text))


LARGEST = {
    "json: small numbers": json_text("[" + filled("1,", 1_000_000) + "1]"),
    "json: lists": json_text("[" + filled("[],", 800_000) + "1]"),
    "json: objects": json_text("[" + filled('{"a":1},', 1_000_000) + "1]"),
    "json: keys": json_text("{" + ",".join(f'"k{i}":{i}' for i in range(100_000)) + "}"),
    "json: one string": json_text('"' + "a" * MAX_RECORD_BYTES + '"'),
    "json: escapes": json_text('"' + filled("\\u0041", MAX_RECORD_BYTES) + '"'),
    "json: brackets in a string": json_text('"' + "[{" * (MAX_RECORD_BYTES // 600) + '"'),
    "json: open strings": json_text('"\\' * (MAX_TEXT_BYTES // 2)),
    "json: digits": json_text("9" * MAX_TEXT_BYTES),
    "json: spaces": json_text(" " * MAX_RECORD_BYTES),
    "yaml: as many values as may be": yaml_text("[" + "1," * (MAX_NODES - 2) + "1]"),
    "yaml: as many keys as may be": yaml_text("\n".join(f"k{i}: {i}" for i in range(MAX_NODES // 2 - 1))),
    "yaml: too many values": yaml_text(filled("- a\n", MAX_TEXT_BYTES)),
    "yaml: comments": yaml_text(filled("# a\n", MAX_TEXT_BYTES)),
    "yaml: one plain scalar": yaml_text("a" * MAX_TEXT_BYTES),
    "yaml: a scalar of many lines": yaml_text(filled("a\n", MAX_TEXT_BYTES)),
    "yaml: one quoted scalar": yaml_text('"' + filled("\\x41", MAX_TEXT_BYTES - 4) + '"'),
    "yaml: brackets": yaml_text("[" * MAX_TEXT_BYTES),
    "yaml: question marks": yaml_text("? " * (MAX_TEXT_BYTES // 2)),
    "yaml: anchors": yaml_text("".join(f"- &a{i} x\n" for i in range(MAX_NODES - 2))),
    "space: magnitudes": space(
        '{"ops": {"rotate": [' + ",".join(f"{0.001 * i:.3f}" for i in range(40_000)) + "]}}", ".json"
    ),
    "space: candidates": space("candidates:\n" + "".join(f"- rotate({0.01 * i:.2f})\n" for i in range(9_000)), ".yaml"),
    "genotype: a long chain": lambda folder: Genotype.parse(filled("rotate(1) > ", MAX_TEXT_BYTES) + "rotate(1)"),
    "genotype: brackets": lambda folder: Genotype.parse("(" * MAX_TEXT_BYTES),
    "data: a long text": lambda folder: load_data("digits:" + filled("a=1,", MAX_TEXT_BYTES)),
}


def read(name: str, folder: Path) -> None:
    with contextlib.suppress(Image2VideoError):
        LARGEST[name](folder)


@pytest.mark.slow  # run by hand on a quiet machine: what a second is for depends on the machine and on its load
@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_texts_take_less_than_a_second(name: str, tmp_path: Path) -> None:
    start = time.process_time()
    read(name, tmp_path)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("name", ["json: one string", "json: lists", "yaml: too many values", "space: magnitudes"])
def test_the_largest_texts_take_less_than_100_megabytes(name: str, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        read(name, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
