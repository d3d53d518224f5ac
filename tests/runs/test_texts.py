"""Small hostile texts are refused before any work, in one line, by the one reader of texts, JSON and YAML."""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from image2video.errors import Image2VideoError, InputError, InputTypeError, MissingError
from image2video.runs.texts import MAX_DEPTH, MAX_RECORD_BYTES, memory_bound, parse_json, read_text, user_path
from image2video.runs.yaml_text import MAX_NODES, check_yaml, parse_yaml, read_yaml


def aliases(levels: int, each: int) -> str:
    """A text of `levels` lists, each `each` times the one before: `each ** levels` values from a few hundred bytes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * each)}]" for i in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int) -> str:
    """A text of mappings, each merged twice from the one before."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, levels)]
    return "\n".join(lines)


YAML = [
    (aliases(9, 9), "at most 20000 values, with aliases written out"),
    (merges(30), "at most 20000 values, with aliases written out"),
    ("a: &a 1\nb: [" + "*a," * 100_000 + "]", "at most 20000 values"),
    ("a: &a [*a]", r"the alias \*a stands inside of what it names"),
    ("[" * 500_000, "nest"),
    ("{a: " * 200_000, "nested too deeply"),
    ("".join(" " * i + "a:\n" for i in range(100)), "nested too deeply"),
    ("- a\n" * 250_000, "at most 20000 values"),
    (" " * 1_000_001, "at most 1000000 characters, got 1000001"),
    ("a: !!timestamp 2020-13-45", "line 1, column 4: the tag .*timestamp' is not read here"),
    ("a: !!python/name:os.system", "is not read here"),
    ('a: !!int ""', "is not read here"),
    ("a: " + "9" * 5000, "a number may have at most 100 characters, got 5000"),
    ("a: 1" + ":30" * 5000, "a number may have at most 100 characters"),
    ("a: 0b_", "is no YAML: invalid literal"),
    ("a: {b: {c: 1, c: 2}}", "line 1, column 15: the key 'c' stands there twice"),
    ("a: \0", "is no YAML"),
    ("{[1]: 2}", "found unhashable key"),
    ("a: 1\n---\nb: 2", "another document"),
    ("a: *b", "undefined alias"),
]


@pytest.mark.parametrize(("text", "message"), YAML)
def test_hostile_yaml_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"mine.*{message}") as caught:
        parse_yaml(text, "mine")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_aliases_within_the_limit_stand_for_their_values() -> None:
    text = "base: &base {x: 1, y: [1, 2]}\nother: {<<: *base, x: 3}\nsame: *base\nday: 2020-01-01\nno: off\nat: =\n"
    expected = {"base": {"x": 1, "y": [1, 2]}, "other": {"x": 3, "y": [1, 2]}, "same": {"x": 1, "y": [1, 2]}}
    assert parse_yaml(text, "mine") == {**expected, "day": "2020-01-01", False: False, "at": "="}
    assert parse_yaml("", "mine") is None
    full = "".join(f"- {i}\n" for i in range(MAX_NODES - 1))
    assert len(parse_yaml(full, "mine")) == MAX_NODES - 1
    with pytest.raises(InputError, match="at most 20000 values"):
        check_yaml(full + "- 1\n", "mine")
    deep = "[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1)
    assert parse_yaml(f"a: &a {deep}", "mine")
    with pytest.raises(InputError, match="nested too deeply"):
        parse_yaml(f"a: &a {deep}\nb: [*a]", "mine")


JSON = [
    ("[" * 7_000_000, "memory"),
    ("[" * 300_000, "nested too deeply"),
    ('"[" ' + "[" * 65 + "]" * 65, "nested too deeply"),
    ("[" + "[]," * 2_000_000 + "1]", "must need at most 80 MB of memory, got 6000003 characters"),
    ('"",' * 2_000_000, "memory"),
    ("{" + ",".join(f'"k{i}":1' for i in range(100_000)) + ',"k7":2}', "the key 'k7' stands twice"),
    ("9" * 5000, "no JSON that can be read: Exceeds the limit"),
    ("[NaN]", "NaN is no JSON number"),
    ("[-Infinity]", "-Infinity is no JSON number"),
    ('"' + '\\"' * 100_000, "Unterminated string"),
]


@pytest.mark.parametrize(("text", "message"), JSON)
def test_hostile_json_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^mine.*{message}") as caught:
        parse_json(text, "mine")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text",
    [
        "[" + "[]," * 20_000 + "1]",
        "[" + '{"a":1},' * 12_000 + "1]",
        "[" + '{"a":{},"b":[1.5]},' * 5_000 + "1]",
        "[" + "1.2345678901234," * 40_000 + "1]",
        '["😀",' + '"aaaaaaaaaaaa",' * 15_000 + "1]",
        "{" + ",".join(f'"k{i}":{i}' for i in range(20_000)) + "}",
    ],
)
def test_what_is_read_needs_no_more_memory_than_was_reckoned(text: str) -> None:
    """The bound of the reader is above what Python takes, where there are many values of each kind."""
    try:
        tracemalloc.start()
        assert parse_json(text, "mine")
        assert tracemalloc.get_traced_memory()[1] < memory_bound(text)
    finally:
        tracemalloc.stop()


def test_json_that_the_library_writes_is_read() -> None:
    value = {"a": [1, 2.5, None, True, "τ"], "b": {"c": []}, "d": '[[["{'}
    assert parse_json(json.dumps(value), "mine") == value
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "mine")
    brackets = json.dumps(["[" * 1000, '\\"[' * 100])
    assert parse_json(brackets, "mine") == json.loads(brackets)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match="is not a file; expected a regular file to read the genotype file from"):
            read_text(path, "genotype file")
    with pytest.raises(MissingError, match=r"there is no labels file '.*none'; check the path"):
        read_text(tmp_path / "none", "labels file")
    (tmp_path / "a").write_text("x")
    with pytest.raises(MissingError, match="there is no file"):
        read_text(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("a\0b", InputError, "NUL"),
        ("a" * 5000, InputError, "cannot read the file .*File name too long"),
        ("~nobody-of-that-name/x", InputError, "cannot be used"),
        ("caf\udce9.txt", MissingError, "there is no file"),
        (5, InputTypeError, "a path must be a text, got 5"),
    ],
)
def test_paths_that_are_none(path: Any, error: type[Image2VideoError], message: str) -> None:
    with pytest.raises(error, match=message):
        read_text(path)


def test_home_folders_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/x") == Path("/home/me/x")


@pytest.mark.parametrize("read", [read_text, read_yaml])
def test_no_more_is_read_than_the_limit(read: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "big"
    with path.open("wb") as handle:
        handle.truncate(10**12)  # a file with holes, a terabyte by its size
    with pytest.raises(InputError, match="must have at most 1000000 bytes to be read here, got 1000000000000"):
        read(path)
    path.write_bytes(b"abc\xff")
    with pytest.raises(InputError, match="must be UTF-8 text, got 0xff at byte 3"):
        read(path)


def test_a_file_of_the_kernel_says_that_it_is_empty_and_is_read_to_the_limit() -> None:
    path = Path("/proc/self/maps")
    if not path.exists():
        pytest.skip("a system without /proc")
    assert path.stat().st_size == 0
    with pytest.raises(InputError, match=r"must have at most 100 bytes to be read here, got 101"):
        read_text(path, max_bytes=100)


def test_records_have_room_for_the_longest_runs() -> None:
    """A search of 1 500 epochs over 14 edges and 13 candidates, as its record holds it."""
    record = {"weights": [[[0.12345678901234567] * 13] * 14] * 1500}
    text = json.dumps(record)
    assert len(text) < MAX_RECORD_BYTES
    assert parse_json(text, "mine") == record
