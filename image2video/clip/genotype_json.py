"""The JSON form of genotypes and frame sets: `schema_version`, the chain or chains, and an optional provenance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from image2video.clip.genotype_text import MAX_CHAIN, MAX_FRAMES, NO_DEEP, Item
from image2video.clip.ops.op import CELL
from image2video.clip.ops.registry import get_op
from image2video.errors import Image2VideoError, InputError, InputTypeError
from image2video.runs.texts import MAX_TEXT_BYTES, parse_json

SCHEMA_VERSION = 1
SET_VERSION = 2
"""Of a frame set: readers of version 1 alone refuse it as newer than they are."""
CELL_VERSION = 3
"""Of a chain or a frame set with magnitudes in cells: readers of versions 1 and 2 refuse it as newer than they are."""
DEEP_VERSION = 4
"""Of clips at several places of a network, with or without cells: earlier readers refuse it as newer than they are."""
MAX_FILE_BYTES = MAX_TEXT_BYTES
MAX_DEPTH = 32

_CHAIN_KEYS = ("schema_version", "chain", "provenance")
_SET_KEYS = ("schema_version", "frames", "provenance")
_VERSIONS = (SCHEMA_VERSION, SET_VERSION, CELL_VERSION, DEEP_VERSION)

Found = TypeVar("Found")
Items = tuple[Item, ...]
"""A chain as its ops, with magnitudes and units."""


@dataclass(frozen=True)
class Record:
    """What a file holds.

    Attributes:
        chains: the chain of a genotype, or those of a frame set's frames.
        is_set: whether it is a frame set.
        provenance: how it was found.
    """

    chains: tuple[Items, ...]
    is_set: bool
    provenance: FrozenMapping | None


class FrozenMapping(Mapping[str, Any]):
    """A read-only mapping of JSON values; lists inside are tuples, objects inside are read-only too."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"FrozenMapping({self._items!r})"

    def __reduce__(self) -> tuple[type[FrozenMapping], tuple[dict[str, Any]]]:
        return FrozenMapping, (self._items,)


def freeze(value: object, path: str, depth: int = 0) -> Any:
    """Return a read-only copy of a JSON value; raise with the path of what is no JSON value."""
    if depth > MAX_DEPTH:
        raise InputError(f"{path[:80]}: a value must be nested at most {MAX_DEPTH} levels deep")
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{path}: JSON has no {value}")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputTypeError(f"{path}: keys must be strings, got {key!r:.80}")
        return FrozenMapping({key: freeze(item, f"{path}.{key:.40}", depth + 1) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(freeze(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value))
    raise InputTypeError(f"{path}: {type(value).__name__} is no JSON value; use numbers, strings, lists and mappings")


def thaw(value: Any) -> Any:
    """Return the plain dicts and lists of a frozen JSON value."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [thaw(item) for item in value]
    return value


def encode(chain: Items, provenance: Mapping[str, Any] | None) -> str:
    """Write a genotype's chain as JSON, with a final newline."""
    version = _version((chain,), SCHEMA_VERSION)
    return encode_record({"schema_version": version, "chain": chain_objects(chain)}, provenance)


def encode_frames(chains: Sequence[Items], provenance: Mapping[str, Any] | None) -> str:
    """Write a frame set's chains as JSON, with a final newline."""
    version = _version(chains, SET_VERSION)
    return encode_record({"schema_version": version, "frames": [chain_objects(chain) for chain in chains]}, provenance)


def _version(chains: Sequence[Items], plain: int) -> int:
    """Return the version that a file needs: `plain`, unless a magnitude has a unit of its own."""
    return CELL_VERSION if any(unit for chain in chains for _, _, unit in chain) else plain


def encode_record(record: dict[str, Any], provenance: Mapping[str, Any] | None) -> str:
    """Write a record and its provenance as JSON, with a final newline."""
    if provenance is not None:
        record["provenance"] = thaw(provenance)
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def chain_objects(chain: Items) -> list[dict[str, Any]]:
    """Return a chain as JSON values."""
    objects: list[dict[str, Any]] = []
    for op, magnitude, unit in chain:
        objects.append({"op": op, "magnitude": magnitude})
        if unit:
            objects[-1]["unit"] = unit
    return objects


def decode(text: str, source: str = "the genotype's JSON") -> Record:
    """Read the JSON text of a genotype or a frame set; `source` names it in errors.

    Raises `InputError` or `InputTypeError` with the JSON path of what is wrong (`chain[1].magnitude`): text that is no
    JSON, duplicate or unknown keys, wrong types, bools, NaN, magnitudes out of range, unknown ops, another
    schema version, more than 1 000 000 bytes, or nesting deeper than 32 levels.
    """
    return read_record(text, source, _decode_record)


def read_record(text: str, source: str, check: Callable[[Any], Found]) -> Found:
    """Parse the JSON text of a clip and check it; `source` names it in errors, which `check` raises without it."""
    if not isinstance(text, str):
        raise InputTypeError(f"{source} must be a string, got {type(text).__name__}")
    if len(text) > MAX_FILE_BYTES:
        raise InputError(f"{source} has {len(text)} characters; at most {MAX_FILE_BYTES} are read")
    record = parse_json(text, source)
    try:
        return check(record)
    except InputTypeError as error:
        raise InputTypeError(f"{source}: {error}") from None
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def is_deep(record: Any) -> bool:
    """Whether a parsed file says of itself that it holds clips at several places."""
    version = record.get("schema_version") if isinstance(record, dict) else None
    return version == DEEP_VERSION and not isinstance(version, bool)


def _is_newer(version: Any) -> bool:
    """Whether a file says that it has a later version than all that are known here; its keys may be others."""
    return isinstance(version, int) and not isinstance(version, bool) and version > DEEP_VERSION


def _decode_record(record: Any) -> Record:
    """Check a parsed file."""
    found = record.get("schema_version") if isinstance(record, dict) else None
    if is_deep(record):
        raise InputError(NO_DEEP)
    is_set = found == SET_VERSION or (found == CELL_VERSION and "frames" in record)
    keys = _SET_KEYS if is_set else _CHAIN_KEYS
    if _is_newer(found):
        raise InputError(
            f"schema_version must be {SCHEMA_VERSION} … {DEEP_VERSION} for this image2video, got {found}; a newer "
            "image2video wrote the file and reads it"
        )
    check_object(record, "the top level", keys, required=keys[:2])
    version = record["schema_version"]
    if isinstance(version, bool) or not isinstance(version, int):
        raise InputTypeError(f"schema_version must be an integer, got {version!r:.80}")
    if version not in _VERSIONS:
        raise InputError(
            f"schema_version must be {SCHEMA_VERSION} (a chain), {SET_VERSION} (a frame set), {CELL_VERSION} (either, "
            f"with magnitudes in cells) or {DEEP_VERSION} (clips at several places), got {version}"
        )
    chains = decode_chains(record, "", is_set=is_set, units=version == CELL_VERSION)
    return Record(chains, is_set, decode_provenance(record))


def decode_provenance(record: Mapping[str, Any]) -> FrozenMapping | None:
    """Check the provenance of a parsed file; None where it has none."""
    provenance = record.get("provenance")
    if provenance is not None and not isinstance(provenance, dict):
        raise InputTypeError(f"provenance must be an object, got {type(provenance).__name__}")
    return None if provenance is None else freeze(provenance, "provenance")


def decode_chains(record: Mapping[str, Any], path: str, *, is_set: bool, units: bool) -> tuple[Items, ...]:
    """Check the chain of an object, or the chains of its frames.

    Args:
        record: has the key `chain`, or `frames` of a set.
        path: of the object, for errors.
        is_set: which of the two it has.
        units: whether magnitudes may have a unit of their own.
    """
    if not is_set:
        return (_decode_chain(record["chain"], f"{path}chain", units=units),)
    items = check_list(record["frames"], f"{path}frames", "frames", MAX_FRAMES)
    if not items:
        raise InputError(f"{path}frames must hold at least one chain, got none; list one for each frame")
    return tuple(_decode_chain(item, f"{path}frames[{i}]", units=units) for i, item in enumerate(items))


def _decode_chain(value: Any, path: str, *, units: bool) -> Items:
    """Check a chain; `path` names it in errors, and `units` says whether magnitudes may have one."""
    items = check_list(value, path, "ops", MAX_CHAIN)
    return tuple(_decode_transform(item, f"{path}[{i}]", units=units) for i, item in enumerate(items))


def check_list(value: Any, path: str, what: str, most: int) -> list[Any]:
    """Return a list of at most so many items, or raise."""
    if not isinstance(value, list):
        raise InputTypeError(f"{path} must be a list, got {type(value).__name__}")
    if len(value) > most:
        raise InputError(f"{path} has {len(value)} {what}; at most {most} are allowed")
    return value


def _decode_transform(item: Any, path: str, *, units: bool) -> Item:
    """Check one item of the chain; `path` names it in errors, and `units` says whether it may have a unit."""
    required = ("op", "magnitude")
    check_object(item, path, (*required, "unit") if units else required, required=required)
    if "unit" in item and item["unit"] != CELL:
        raise InputError(f"{path}.unit must be {CELL!r}, got {item['unit']!r:.80}; leave it out for the op's own unit")
    unit = item.get("unit", "")
    try:
        op = get_op(item["op"])
    except Image2VideoError as error:
        raise type(error)(f"{path}.op: {error}") from None
    try:
        return op.name, op.check(item["magnitude"], unit), unit
    except Image2VideoError as error:
        raise type(error)(f"{path}.magnitude: {error}") from None


def check_object(value: Any, path: str, keys: tuple[str, ...], *, required: tuple[str, ...]) -> None:
    """Raise unless a value is an object with these keys, of which the required ones are there."""
    if not isinstance(value, dict):
        raise InputTypeError(f"{path} must be an object with the keys {', '.join(keys)}, got {type(value).__name__}")
    for key in value:
        if key not in keys:
            raise InputError(f"{path} has the unknown key {key!r:.80}; known keys: {', '.join(keys)}")
    for key in required:
        if key not in value:
            raise InputError(f"{path} needs the key {key!r}")
