"""The JSON form, files and presets: round trips and everything that is refused with its path."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from image2video.clip import named
from image2video.clip.genotype import Genotype
from image2video.clip.genotype_json import MAX_FILE_BYTES
from image2video.errors import ExistsError, Image2VideoError, InputError, InputTypeError, MissingError

TEXT = "translate_x(0.06) > rotate(10) > scale(1.1)"


def record(**changes: Any) -> dict[str, Any]:
    base = {"schema_version": 1, "chain": [{"op": "rotate", "magnitude": 10}, {"op": "scale", "magnitude": 1.1}]}
    return {**base, **changes}


def item(**changes: Any) -> dict[str, Any]:
    return record(chain=[{"op": "rotate", "magnitude": 10}, {"op": "scale", "magnitude": 1.1, **changes}])


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([], InputTypeError, "the top level must be an object"),
        ({}, InputError, "the top level needs the key 'schema_version'"),
        ({"schema_version": 1}, InputError, "needs the key 'chain'"),
        (
            record(schema_version=5),
            InputError,
            "schema_version must be 1 … 4 .* got 5; a newer image2video wrote the file",
        ),
        (record(schema_version=0), InputError, "schema_version must be 1 .* 3 .* or 4 .*, got 0$"),
        (record(schema_version=True), InputTypeError, "schema_version must be an integer, got True"),
        (record(schema_version=1.0), InputTypeError, "schema_version must be an integer"),
        (record(genotype=1), InputError, "unknown key 'genotype'; known keys: schema_version, chain, provenance"),
        (record(chain={}), InputTypeError, "chain must be a list, got dict"),
        (record(chain=["rotate(10)"]), InputTypeError, r"chain\[0\] must be an object"),
        (record(chain=[{"op": "rotate", "magnitude": 1}] * 65), InputError, "chain has 65 ops; at most 64"),
        (item(op="scal"), InputError, r"chain\[1\]\.op: unknown op 'scal'; did you mean 'scale'"),
        (item(op=None), InputTypeError, r"chain\[1\]\.op: an op is named by a string"),
        (item(magnitude=True), InputTypeError, r"chain\[1\]\.magnitude: .* must be a number, got True"),
        (item(magnitude="1.1"), InputTypeError, r"chain\[1\]\.magnitude: .* must be a number"),
        (item(magnitude=None), InputTypeError, r"chain\[1\]\.magnitude"),
        (item(magnitude=9), InputError, r"chain\[1\]\.magnitude: .* must lie in 0\.25 … 4"),
        (item(magnitude=math.nan), InputError, "NaN is no JSON number"),
        (item(magnitude=-math.inf), InputError, "-Infinity is no JSON number"),
        (item(magnitude=10**400), InputError, r"chain\[1\]\.magnitude: .* must be finite"),
        (item(steps=3), InputError, r"chain\[1\] has the unknown key 'steps'"),
        (record(chain=[{"op": "rotate"}]), InputError, r"chain\[0\] needs the key 'magnitude'"),
        (record(provenance=[]), InputTypeError, "provenance must be an object, got list"),
        (record(provenance={"a": nested(40)}), InputError, r"provenance\.a.*at most 32 levels"),
    ],
)
def test_bad_json_is_refused_with_its_path(value: Any, error: type[Image2VideoError], message: str) -> None:
    with pytest.raises(error, match=message):
        Genotype.from_json(json.dumps(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the genotype's JSON, line 1, column 1"),
        ('{"schema_version": 1,\n "chain": [}', "line 2, column 12"),
        ('{"schema_version": 1, "schema_version": 1, "chain": []}', "'schema_version' stands twice"),
        ('{"chain": [{"op": "rotate", "magnitude": 1, "magnitude": 2}]}', "'magnitude' stands twice"),
        ('{"schema_version": 1, "chain": [{"op": "rotate", "magnitude": 1e999}]}', "must be finite, got inf"),
        ('{"schema_version": ' + "1" * 10_000 + "}", "no JSON that can be read"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        (
            '{"schema_version": 1, "chain": [], "provenance": {"a": ' + "[" * 40 + "]" * 40 + "}}",
            "at most 32 levels",
        ),
        (" " * (MAX_FILE_BYTES + 1), f"at most {MAX_FILE_BYTES}"),
    ],
)
def test_bad_json_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Genotype.from_json(text)


def test_json_is_as_documented() -> None:
    g = Genotype.parse("rotate(10)").with_provenance({"seed": 1})
    expected = {"schema_version": 1, "chain": [{"op": "rotate", "magnitude": 10.0}], "provenance": {"seed": 1}}
    assert json.loads(g.to_json()) == expected
    assert "provenance" not in json.loads(Genotype.identity().to_json())
    with pytest.raises(InputTypeError, match="must be a string, got bytes"):
        Genotype.from_json(b"{}")


@pytest.mark.parametrize(
    ("provenance", "error", "message"),
    [
        ({"a": {"b": [1, math.nan]}}, InputError, r"provenance\.a\.b\[1\]: JSON has no nan"),
        ({"a": object()}, InputTypeError, r"provenance\.a: object is no JSON value"),
        ({"a": {1: 2}}, InputTypeError, r"provenance\.a: keys must be strings, got 1"),
        ({"path": Path("x")}, InputTypeError, r"provenance\.path: .*Path is no JSON value"),
        ({"t": torch.ones(1)}, InputTypeError, r"provenance\.t: Tensor is no JSON value"),
    ],
)
def test_provenance_holds_json_values_only(provenance: Any, error: type[Image2VideoError], message: str) -> None:
    with pytest.raises(error, match=message):
        Genotype.parse(TEXT).with_provenance(provenance)


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    g = Genotype.parse(TEXT).with_provenance({"dataset": "digits", "π": [1, 2.5]})
    g.save(path)
    g.save(str(path))
    for again in (Genotype.load(path), Genotype.load(str(path))):
        assert again == g
        assert again.provenance == g.provenance
    assert [p.name for p in tmp_path.iterdir()] == ["g.json"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    Genotype.parse(TEXT).save(path)
    with pytest.raises(InputError, match="more than the 1000000 that load reads; shorten its provenance"):
        Genotype.identity().with_provenance({"a": "x" * 1_000_001}).save(path)
    assert Genotype.load(path) == Genotype.parse(TEXT)
    with pytest.raises(ExistsError, match="is a folder"):
        Genotype.parse(TEXT).save(tmp_path)


def test_bad_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingError, match=r"no genotype file '.*none\.json'"):
        Genotype.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="is not a file"):
        Genotype.load(tmp_path)
    path = tmp_path / "bad.json"
    path.write_bytes(b'{"schema_version": 1, "chain": [\xff]}')
    with pytest.raises(InputError, match=r"bad\.json must be UTF-8 text, got 0xff at byte 32"):
        Genotype.load(path)
    path.write_text(json.dumps(item(magnitude=9)))
    with pytest.raises(InputError, match=r"bad\.json': chain\[1\]\.magnitude"):
        Genotype.load(path)
    path.write_bytes(b"[" * 10_000_000)
    monkeypatch.setattr(Path, "open", lambda self, mode: pytest.fail("the file was read"))
    with pytest.raises(InputError, match="must have at most 1000000 bytes to be read here, got 10000000"):
        Genotype.load(path)


def test_presets_are_files_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Genotype.presets():
        assert Genotype.preset(name).chain
    Genotype.parse(TEXT).with_provenance({"seed": 1}).save(tmp_path / "gentle.json")
    Genotype.identity().save(tmp_path / "a.json")
    (tmp_path / "__init__.py").touch()
    monkeypatch.setattr(named, "_folder", lambda: tmp_path)
    assert Genotype.presets() == ("a", "gentle")
    assert Genotype.preset("gentle") == Genotype.parse(TEXT)
    assert Genotype.preset("gentle").provenance == {"seed": 1}
    for name in ("gentl", "../gentle", ""):
        with pytest.raises(MissingError, match="known presets: a, gentle"):
            Genotype.preset(name)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match="preset 'a': the top level needs"):
        Genotype.preset("a")


def test_coerce_takes_what_users_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    g = Genotype.parse(TEXT)
    path = tmp_path / "g.json"
    g.save(path)
    monkeypatch.setattr(named, "_folder", lambda: tmp_path)
    assert Genotype.coerce(g) is g
    assert Genotype.coerce(TEXT) == Genotype.coerce(path) == Genotype.coerce(str(path)) == g
    assert Genotype.coerce("preset:g") == g
    with pytest.raises(MissingError, match="unknown preset 'h'; known presets: g"):
        Genotype.coerce("preset:h")
    with pytest.raises(MissingError, match="no genotype file"):
        Genotype.coerce("missing.json")
    with pytest.raises(InputTypeError, match=r"or 'preset:NAME'; got 3 of type int"):
        Genotype.coerce(3)
