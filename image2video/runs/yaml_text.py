"""The one reader of YAML: plain values only, and limits on size, nodes, nesting and aliases before any is made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from image2video.errors import InputError
from image2video.runs.texts import MAX_DEPTH, MAX_TEXT_BYTES, read_text

MAX_NODES = 20_000
"""Scalars, lists and mappings of a text, with what its aliases stand for counted every time."""
MAX_NUMBER = 100
"""Characters of a number."""

_NUMBER = re.compile(r"[-+]?(?:0x[0-9a-fA-F_]*|[0-9._:]+(?:[eE][-+]?[0-9]*)?)")
_TAGS = "tag:yaml.org,2002:"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader without dates, which nothing here takes, and without keys that stand twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as PyYAML declares it)
        first: [(tag, pattern) for tag, pattern in rules if tag not in (f"{_TAGS}timestamp", f"{_TAGS}value")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        """Refuse a key that stands twice: YAML itself keeps the last one."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.tag != f"{_TAGS}merge":
                problem = f"the key {key.value!r:.80} stands there twice in one mapping"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_constructor(f"{_TAGS}map", _Loader.construct_yaml_map)


def read_yaml(path: str | os.PathLike[str], what: str = "file", *, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """Read a YAML file.

    Raises:
        MissingError: there is no such file.
        InputError: what `read_text` and `parse_yaml` refuse; the message names the file.

    """
    return parse_yaml(read_text(path, what, max_bytes=max_bytes), str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Parse one YAML document of plain values.

    Args:
        text: the YAML.
        source: what messages call it: a path, or words.

    Returns:
        Its value: dicts, lists, texts, numbers, bools and None. What looks like a date is a text.

    Raises:
        InputError: no YAML, a key that stands twice in one mapping, a tag such as `!!timestamp`, a number of more than
            100 characters, nesting beyond `MAX_DEPTH`, or more than `MAX_NODES` values, those of aliases counted every
            time; the message has line and column where there are any.
    """
    check_yaml(text, source)
    with _located(source):
        return yaml.load(text, Loader=_Loader)


def check_yaml(text: str, source: str) -> None:
    """Refuse, before any value is made, what `parse_yaml` refuses by its limits and tags."""
    if len(text) > MAX_TEXT_BYTES:
        raise InputError(f"{source} must have at most {MAX_TEXT_BYTES} characters, got {len(text)}")
    with _located(source):
        _Count(source).events(yaml.parse(text, Loader=_Loader))


@dataclass
class _Open:
    """A list or mapping that the events are in: its anchor, and the nodes and the nesting inside of it so far."""

    anchor: str | None
    nodes: int = 1
    depth: int = 1


class _Count:
    """Counts nodes and nesting as if every alias were written out."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._open: list[_Open] = []
        self._known: dict[str, _Open] = {}
        self._sum = 0  # of the nodes of everything that is open

    def events(self, events: Iterator[yaml.Event]) -> None:
        """Go through the events of a text, and stop at the first limit."""
        for event in events:
            if isinstance(event, yaml.CollectionStartEvent):
                self._refuse_tag(event)
                self._open.append(_Open(event.anchor))
                self._add(_Open(None, 1, 0), event)
            elif isinstance(event, yaml.CollectionEndEvent):
                closed = self._open.pop()
                if closed.anchor is not None:
                    self._known[closed.anchor] = closed
                if self._open:
                    self._open[-1].nodes += closed.nodes
                    self._open[-1].depth = max(self._open[-1].depth, closed.depth + 1)
            elif isinstance(event, yaml.ScalarEvent):
                self._refuse_tag(event)
                self._refuse_number(event)
                scalar = _Open(event.anchor, 1, 0)
                if event.anchor is not None:
                    self._known[event.anchor] = scalar
                self._inside(scalar, event)
            elif isinstance(event, yaml.AliasEvent):
                if any(event.anchor == node.anchor for node in self._open):
                    raise self._error(event, f"the alias *{event.anchor} stands inside of what it names; write it out")
                self._inside(self._known.get(event.anchor, _Open(None)), event)

    def _inside(self, node: _Open, event: yaml.Event) -> None:
        """Count a scalar, or what an alias stands for, as a part of what is open."""
        self._add(node, event)
        if self._open:
            self._open[-1].nodes += node.nodes
            self._open[-1].depth = max(self._open[-1].depth, node.depth + 1)

    def _add(self, node: _Open, event: yaml.Event) -> None:
        self._sum += node.nodes
        if self._sum > MAX_NODES:
            raise self._error(event, f"a text may hold at most {MAX_NODES} values, with aliases written out")
        if len(self._open) + node.depth > MAX_DEPTH:
            raise self._error(event, f"nested too deeply; lists and mappings may be nested {MAX_DEPTH} deep")

    def _refuse_tag(self, event: yaml.Event) -> None:
        if event.tag is not None:
            raise self._error(event, f"the tag {event.tag!r:.80} is not read here; expected plain values, leave it out")

    def _refuse_number(self, event: yaml.ScalarEvent) -> None:
        if event.implicit[0] and len(event.value) > MAX_NUMBER and _NUMBER.fullmatch(event.value):
            raise self._error(event, f"a number may have at most {MAX_NUMBER} characters, got {len(event.value)}")

    def _error(self, event: yaml.Event, problem: str) -> InputError:
        mark = event.start_mark
        return InputError(f"{self._source}, line {mark.line + 1}, column {mark.column + 1}: {problem}")


@contextmanager
def _located(source: str) -> Iterator[None]:
    """Turn the errors of PyYAML into ours, with the text's name, line and column."""
    try:
        yield
    except InputError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise InputError(f"{source}{where}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: digits that are none, as in 0b_
        raise InputError(f"{source} is no YAML: {' '.join(str(error).split())}") from error
