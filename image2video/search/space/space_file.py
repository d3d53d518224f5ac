"""Search spaces as files: YAML or JSON read with limits, and the two ways to write candidates down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from image2video.clip.genotype import Genotype, Transform
from image2video.clip.genotype_text import IDENTITY_TEXT
from image2video.clip.ops.registry import get_op
from image2video.errors import InputError, InputTypeError
from image2video.runs.texts import parse_json, read_text
from image2video.runs.yaml_text import parse_yaml

SUFFIXES: tuple[str, ...] = (".yaml", ".yml", ".json")
MAX_CANDIDATES = 1000
MAX_TRANSFORMS = 2000
"""Of all candidates of a file together: each is checked, which takes time."""


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
    if not is_space_file(path):
        raise InputError(f"{os.fspath(path)}: a search space is read from a file that ends in {', '.join(SUFFIXES)}")
    text = read_text(path, "search space file")
    parse = parse_json if Path(path).suffix.lower() == ".json" else parse_yaml
    record = parse(text, os.fspath(path))
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
    count = _count(value)
    if count > MAX_CANDIDATES:
        raise InputError(f"{given[0]}: a search space has at most {MAX_CANDIDATES} candidates, got {count}")
    if given[0] == "candidates":
        return _from_texts(value)
    if isinstance(value, Mapping):
        return tuple(candidate for name, magnitudes in value.items() for candidate in _of_op(name, magnitudes))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(candidate for name in value for candidate in _of_op(name, None))
    raise InputTypeError(f"ops: needs a mapping of ops to magnitudes, or a list of ops, got {_shown(value)}")


def _count(value: object) -> int:
    """How many candidates a record has, counted before any is made."""
    if isinstance(value, str) or not isinstance(value, Mapping | Sequence):
        return 0
    if not isinstance(value, Mapping):
        return len(value)
    return sum(len(m) if isinstance(m, Sequence) and not isinstance(m, str) else 1 for m in value.values())


def _from_texts(value: object) -> tuple[Genotype, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputTypeError(f"candidates: needs a list of texts such as 'rotate(10)', got {_shown(value)}")
    transforms = sum(text.count(">") + 1 for text in value if isinstance(text, str))
    if transforms > MAX_TRANSFORMS:
        raise InputError(f"candidates: a search space has at most {MAX_TRANSFORMS} transforms, got {transforms}")
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
    key = f"ops.{name:.80}" if isinstance(name, str) else "ops"
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


def _shown(value: object) -> str:
    return "nothing" if value is None else f"{value!r:.60} of type {type(value).__name__}"
