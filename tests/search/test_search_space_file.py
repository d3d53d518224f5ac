"""Search spaces in YAML and JSON files, and what is said of bad ones."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image2video.clip.genotype import Genotype
from image2video.errors import Image2VideoError, InputError, InputTypeError, MissingError
from image2video.search import SearchSpace, get_space, register_space, space_names


def written(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_maps_ops_to_magnitudes(tmp_path: Path) -> None:
    text = """
    name: shifts
    ops:
      translate_x: [0.03, -0.03]
      rotate: 5
      scale:
      color: null
      identity:
    nodes: 2
    inputs: 2
    reduce: sum
    schedule: centred
    """
    space = get_space(written(tmp_path, text))
    assert space == SearchSpace(
        "shifts",
        ("translate_x(0.03)", "translate_x(-0.03)", "rotate(5)", "scale(1.1)", "color(1.2)", "identity"),
        inputs=2,
        nodes=2,
        reduce="sum",
        schedule="centred",
    )
    assert get_space(str(tmp_path / "mine.yaml")) == space


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json", ".JSON"])
def test_both_formats_hold_the_same(suffix: str, tmp_path: Path) -> None:
    record = {"ops": ["translate_x", "rotate", "identity"], "nodes": 3}
    space = SearchSpace.load(written(tmp_path, json.dumps(record), "turns" + suffix))
    assert space.labels == ("translate_x(0.06)", "rotate(10)", "identity")
    assert space.name == "turns"
    assert space.nodes == 3


@pytest.mark.parametrize("space", [get_space("autoaugment13"), SearchSpace("s", ("rotate(3)",), reduce="sum")])
def test_a_space_survives_a_file(space: SearchSpace, tmp_path: Path) -> None:
    assert SearchSpace.load(written(tmp_path, json.dumps(space.to_dict()))) == space


def test_candidates_may_be_texts(tmp_path: Path) -> None:
    path = written(tmp_path, "candidates:\n  - translate_x(0.1) > translate_y(0.1)\n  - identity\nname: pairs\n")
    assert SearchSpace.load(path).labels == ("translate_x(0.1) > translate_y(0.1)", "identity")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ops: {rotat: 5}", r"mine\.yaml: ops\.rotat: unknown op 'rotat'; did you mean 'rotate'\?"),
        ("ops: {rotate: 500}", r"mine\.yaml: ops\.rotate: .* must lie in -180 … 180 degrees, got 500"),
        ("ops: {rotate: [5, x]}", r"mine\.yaml: ops\.rotate: .* must be a number, got 'x'"),
        ("ops: {rotate: 5e1}", r"mine\.yaml: ops\.rotate: .* must be a number, got '5e1'"),
        ("ops: {rotate: .nan}", r"mine\.yaml: ops\.rotate: .* must be finite"),
        ("ops: {rotate: true}", r"mine\.yaml: ops\.rotate: .* must be a number, got True"),
        ("ops: {rotate: []}", r"mine\.yaml: ops\.rotate: the list of magnitudes is empty.* default 10"),
        ("ops: {rotate: {a: 1}}", r"mine\.yaml: ops\.rotate: .* must be a number"),
        ("ops: {identity: 3}", r"mine\.yaml: ops\.identity: the identity takes no magnitude, got 3"),
        ("ops: {5: 3}", r"mine\.yaml: ops: an op is named by a string, got 5"),
        ("ops: rotate", r"mine\.yaml: ops: needs a mapping of ops to magnitudes, or a list of ops, got 'rotate'"),
        ("ops:", r"mine\.yaml: ops: needs a mapping .*, got nothing"),
        ("ops: [rotate, rotate]", r"lists rotate\(10\) more than once"),
        ("candidates: [rotate(5), 'rotate(']", r"mine\.yaml: candidates\[1\]: .*\n.*at position 7"),
        ("candidates: [3]", r"mine\.yaml: candidates\[0\]: a genotype's text is a string, got 3"),
        ("candidates: rotate(5)", r"mine\.yaml: candidates: needs a list of texts"),
        ("{ops: [rotate], candidates: [identity]}", r"mine\.yaml: .* one of them; this has both"),
        ("nodes: 3", r"mine\.yaml: .* one of them; this has neither"),
        ("{ops: [rotate], node: 3}", r"mine\.yaml: a search space has no key 'node'; its keys are candidates, inputs"),
        ("{ops: [rotate], nodes: 2.5}", r"mine\.yaml: nodes must be an integer of at least 1, got 2.5"),
        ("{ops: [rotate], nodes: 1000000000}", r"mine\.yaml: inputs and nodes are 1000000001 together; the most is 64"),
        ("{ops: [rotate], reduce: max}", r"mine\.yaml: unknown node reduction 'max'"),
        ("{ops: [rotate], schedule: [up]}", r"mine\.yaml: unknown schedule \['up'\]"),
        ("{ops: [rotate], name: 7}", r"mine\.yaml: name: a search space is named by a text, got 7"),
        ("{ops: [rotate], 3: 4}", r"mine\.yaml: the keys of a search space are texts, got 3"),
        ("[1, 2]", r"must hold a mapping .*; got \[1, 2\] of type list"),
        ("", r"must hold a mapping .*; got nothing"),
        ("ops: {rotate: 5", r"mine\.yaml, line 2, column 1: did not find expected"),
        (
            "ops: !!python/object/apply:os.system ['true']",
            r"mine\.yaml, line 1, column 6: the tag .*os\.system' is not read here",
        ),
        ("a: 2024-99-99", r"mine\.yaml: a search space has no key 'a'"),
        ("ops: {rotate: 5, rotate: -5}", r"mine\.yaml, line 1, column 18: the key 'rotate' stands there twice"),
        ("nodes: 2\nops: [rotate]\nnodes: 3", r"mine\.yaml, line 3, column 1: the key 'nodes' stands there twice"),
        ("[" * 5000, r"mine\.yaml.* nest"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises((InputError, InputTypeError), match=message):
        get_space(written(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"there is no search space file .*none\.yaml"):
        get_space(tmp_path / "none.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(InputError, match=r"folder\.yaml' is not a file"):
        get_space(tmp_path / "folder.yaml")
    with pytest.raises(InputError, match=r"ends in \.yaml, \.yml, \.json"):
        SearchSpace.load(written(tmp_path, "ops: [rotate]", "mine.txt"))
    for name in ("big.yaml", "big.json"):
        with pytest.raises(InputError, match=rf"{name} must have at most 1000000 bytes to be read here, got 1000001"):
            get_space(written(tmp_path, " " * 1_000_001, name))
        (tmp_path / name).write_bytes(b"name: \xff")
        with pytest.raises(InputError, match=rf"{name} must be UTF-8 text, got 0xff at byte 6"):
            get_space(tmp_path / name)
    with pytest.raises(InputError, match=r"mine\.json, line 1, column 2"):
        get_space(written(tmp_path, "{ops", "mine.json"))
    with pytest.raises(InputError, match=r"mine\.json: the key 'rotate' stands twice in one object"):
        get_space(written(tmp_path, '{"ops": {"rotate": 5, "rotate": -5}}', "mine.json"))


def test_names_and_files_are_kept_apart() -> None:
    with pytest.raises(InputError, match=r"unknown search space 'affine'; .*affine5, autoaugment13, .*\.yaml"):
        get_space("affine")
    with pytest.raises(InputTypeError, match="named by a text or a path, got 5"):
        get_space(5)
    with pytest.raises(InputError, match=r"cannot be registered as 'a\.yaml'"):
        register_space(SearchSpace("a.yaml", ("identity",)))
    assert "a.yaml" not in space_names()


@pytest.mark.parametrize("key", ["ops", "candidates"])
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_candidates_are_counted_before_any_is_made(
    key: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Genotype, "__post_init__", lambda self: pytest.fail("a candidate was made"))
    values = [round(0.01 * i, 2) for i in range(1, 9000)]
    record = {"ops": {"rotate": values, "scale": None}} if key == "ops" else {key: [f"rotate({v})" for v in values]}
    path = written(tmp_path, json.dumps(record), "mine" + suffix)
    with pytest.raises(InputError, match=rf"mine.*{key}: a search space has at most 1000 candidates, got (8999|9000)"):
        SearchSpace.load(path)


def test_transforms_are_counted_before_any_is_made(tmp_path: Path) -> None:
    chain = " > ".join(["rotate(1)"] * 63)
    path = written(tmp_path, json.dumps({"candidates": [f"{chain} > rotate({i})" for i in range(2, 100)]}), "mine.json")
    with pytest.raises(InputError, match=r"mine\.json: candidates: .* at most 2000 transforms, got 6272"):
        SearchSpace.load(path)


def test_nested_aliases_are_no_space(tmp_path: Path) -> None:
    lines = ["ops: &a0 [rotate, rotate, rotate, rotate, rotate, rotate, rotate, rotate, rotate]"]
    lines += [f"x{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(InputError, match=r"mine\.yaml, line 5, .*at most 20000 values, with aliases written out"):
        SearchSpace.load(written(tmp_path, "\n".join(lines)))


KEYS = ("ops", "candidates", "nodes", "inputs", "name", "reduce", "schedule", "rotate", "identity", "x")
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
RECORDS = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(record=RECORDS)
def test_no_record_breaks_the_reader(record: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    message = ""
    try:
        assert SearchSpace.load(path).size >= 1
    except Image2VideoError as error:
        message = str(error)
    assert not message or "any.json" in message
