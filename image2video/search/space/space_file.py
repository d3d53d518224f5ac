"""Search spaces as files: YAML or JSON read with limits, and the two ways to write candidates down."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from image2video.clip.genotype import Genotype, Transform
from image2video.clip.genotype_text import IDENTITY_TEXT
from image2video.clip.ops.registry import get_op
from image2video.errors import InputError, InputTypeError, MissingError

SUFFIXES: tuple[str, ...] = (".yaml", ".yml", ".json")
MAX_SPACE_BYTES = 1_000_000


def is_space_file(name: str | os.PathLike[str]) -> bool:
    """Whether `name` is meant as the path of a space's file: it ends in .yaml, .yml or .json."""
    return Path(name).suffix.lower() in SUFFIXES


def read_space_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a .yaml, .yml or .json file; YAML is read by its safe loader, which makes plain values only.

    Raises:
        MissingError: there is no such file.
        InputError: another ending, more than 1 000 000 bytes, not UTF-8, not YAML or JSON, or no mapping with texts as
            keys; the message names the file, and line and column where there are any.
    """
    path = Path(path)
    if not is_space_file(path):
        raise InputError(f"{path}: a search space is read from a file that ends in {', '.join(SUFFIXES)}")
    if not path.exists():
        raise MissingError(f"there is no search space file {str(path)!r}; give the path of a .yaml or .json file")
    if not path.is_file():
        raise InputError(f"{str(path)!r} is not a file; a search space is read from a YAML or JSON file")
    size = path.stat().st_size
    if size > MAX_SPACE_BYTES:
        raise InputError(f"{path} must have at most {MAX_SPACE_BYTES} bytes, got {size}")
    try:
        text = path.read_bytes().decode("utf-8")
        record = _from_json(text, path) if path.suffix.lower() == ".json" else _from_yaml(text, path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8 text, got another byte at {error.start}") from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply; a search space needs a mapping of lists at most") from error
    if not isinstance(record, Mapping):
        raise InputError(
            f"{path} must hold a mapping with the keys of a search space, such as {{name: shifts, ops: {{translate_x: "
            f"[0.03, -0.03], identity: null}}}}; got {_shown(record)}"
        )
    odd = [key for key in record if not isinstance(key, str)]
    if odd:
        raise InputError(f"{path}: the keys of a search space are texts, got {odd[0]!r:.80}; put it into quotes")
    return dict(record)


def record_candidates(record: Mapping[str, Any]) -> tuple[Genotype, ...]:
    """The candidates of a space's record, from its `candidates` (texts) or its `ops`.

    `ops` maps names of ops to one magnitude, a list of magnitudes, or nothing for the op's default; a list of names
    means their defaults; `identity` takes nothing. Raises `InputError` or `InputTypeError` that names the key.
    """
    given = [key for key in ("candidates", "ops") if key in record]
    if len(given) != 1:
        got = "has both" if given else "has neither"
        raise InputError(f"a search space needs the key 'candidates' (texts) or the key 'ops', one of them; this {got}")
    value = record[given[0]]
    if given[0] == "candidates":
        return _from_texts(value)
    if isinstance(value, Mapping):
        return tuple(candidate for name, magnitudes in value.items() for candidate in _of_op(name, magnitudes))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(candidate for name in value for candidate in _of_op(name, None))
    raise InputTypeError(f"ops: needs a mapping of ops to magnitudes, or a list of ops, got {_shown(value)}")


def _from_texts(value: object) -> tuple[Genotype, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputTypeError(f"candidates: needs a list of texts such as 'rotate(10)', got {_shown(value)}")
    candidates = []
    for index, text in enumerate(value):
        if isinstance(text, Genotype):
            candidates.append(text)
            continue
        try:
            candidates.append(Genotype.parse(text))
        except (InputError, InputTypeError) as error:
            raise type(error)(f"candidates[{index}]: {error}") from None
    return tuple(candidates)


def _of_op(name: object, magnitudes: object) -> list[Genotype]:
    """The candidates of one op: its default magnitude, or those that are given."""
    key = f"ops.{name}" if isinstance(name, str) else "ops"
    many = isinstance(magnitudes, Sequence) and not isinstance(magnitudes, str)
    try:
        op = get_op(name)  # type: ignore[arg-type]  # refuses what is no text
        if name == IDENTITY_TEXT:
            if magnitudes is not None:
                raise InputError(f"the identity takes no magnitude, got {_shown(magnitudes)}")
            return [Genotype.identity()]
        if many and not magnitudes:
            raise InputError(f"the list of magnitudes is empty; leave it out for the default {op.default:g}")
        values: Sequence[Any] = magnitudes if many else [op.default if magnitudes is None else magnitudes]  # type: ignore[assignment]
        return [Genotype((Transform(op.name, op.check(value)),)) for value in values]
    except (InputError, InputTypeError) as error:
        raise type(error)(f"{key}: {error}") from None


def _from_json(text: str, path: Path) -> object:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        for key, _ in pairs if len(record) < len(pairs) else ():
            if sum(key == other for other, _ in pairs) > 1:
                raise InputError(f"{path}: the key {key!r} stands there twice in one mapping")
        return record

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}") from error


def _from_yaml(text: str, path: Path) -> object:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if isinstance(root, yaml.MappingNode):
            for mapping in (root, *(value for _, value in root.value)):
                _check_once(mapping, path)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise InputError(f"{path}{where}: {error.problem or error.context}") from error
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, a number of too many digits
        raise InputError(f"{path} is no YAML: {str(error).splitlines()[0]}") from error


def _check_once(node: yaml.Node, path: Path) -> None:
    """Refuse a key that stands twice in a mapping: YAML itself keeps the last one."""
    seen = set()
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            mark = key.start_mark
            where = f"line {mark.line + 1}, column {mark.column + 1}"
            raise InputError(f"{path}, {where}: the key {key.value!r} stands there twice in one mapping")
        seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))


def _shown(value: object) -> str:
    return "nothing" if value is None else f"{value!r:.60} of type {type(value).__name__}"
