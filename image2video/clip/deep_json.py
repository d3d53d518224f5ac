"""The JSON form of clips at several places of a network: version 4 of the files of genotypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from image2video.clip.genotype_json import (
    DEEP_VERSION,
    FrozenMapping,
    Items,
    chain_objects,
    check_list,
    check_object,
    decode_chains,
    decode_provenance,
    encode_record,
    read_record,
)
from image2video.errors import InputError, InputTypeError
from image2video.trace.places import MAX_PLACES

_KEYS = ("schema_version", "chain", "provenance")
"""The places stand where a genotype has its chain: readers of version 3 know the key, and refuse the version as newer
than they are."""


@dataclass(frozen=True)
class SiteRecord:
    """What a file holds of one place.

    Attributes:
        place: the name of a module, or `image`.
        chains: the chain there, or those of the frames.
        is_set: whether they are the frames of a set.
    """

    place: str
    chains: tuple[Items, ...]
    is_set: bool


def encode_sites(sites: Sequence[SiteRecord], provenance: Mapping[str, Any] | None) -> str:
    """Write places and their chains as JSON, with a final newline."""
    objects: list[dict[str, Any]] = []
    for site in sites:
        chains = [chain_objects(chain) for chain in site.chains]
        objects.append({"place": site.place, **({"frames": chains} if site.is_set else {"chain": chains[0]})})
    return encode_record({"schema_version": DEEP_VERSION, "chain": objects}, provenance)


def decode_sites(text: str, source: str) -> tuple[tuple[SiteRecord, ...], FrozenMapping | None]:
    """Read the JSON text of clips at several places, and their provenance; `source` names it in errors.

    Raises as `decode` does, and `InputError` for a file of another version, without a place, or with too many.
    """
    return read_record(text, source, _decode)


def _decode(record: Any) -> tuple[tuple[SiteRecord, ...], FrozenMapping | None]:
    """Check a parsed file."""
    check_object(record, "the top level", _KEYS, required=_KEYS[:2])
    version = record["schema_version"]
    if version != DEEP_VERSION or isinstance(version, bool):
        raise InputError(
            f"schema_version must be {DEEP_VERSION} for clips at several places, got {version!r:.80}; Genotype and "
            "FrameSet read the files of one clip"
        )
    items = check_list(record["chain"], "chain", "places", MAX_PLACES)
    if not items:
        raise InputError("chain must hold at least one place, got none; list each with its own chain or frames")
    return tuple(_decode_site(item, f"chain[{i}]") for i, item in enumerate(items)), decode_provenance(record)


def _decode_site(item: Any, path: str) -> SiteRecord:
    """Check one place; `path` names it in errors."""
    is_set = isinstance(item, dict) and "frames" in item
    keys = ("place", "frames" if is_set else "chain")
    check_object(item, path, keys, required=keys)
    if not isinstance(item["place"], str):
        raise InputTypeError(f"{path}.place must be a string, got {type(item['place']).__name__}")
    return SiteRecord(item["place"], decode_chains(item, f"{path}.", is_set=is_set, units=True), is_set)
