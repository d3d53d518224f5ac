"""Command-line options from dataclasses: names, types, defaults and help come from one place."""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import docstring_parser
import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter, Namespace

from image2video.files import atomic_write_text

T = TypeVar("T")


class HelpFormatter(DefaultHelpFormatter):
    """Help with the example's lines as they are written."""

    def _expand_help(self, action: argparse.Action) -> str:
        """A default that the help puts in words, in place of the value None."""
        text = super()._expand_help(action)
        words = re.search(r" \(default: ([^()]*)\)(?= \(type: )", text)
        return text if words is None else text.replace(words[0], "").replace("default: null", f"default: {words[1]}")

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example:"):
            return text
        return super()._fill_text(text, width, indent)


def add_common(parser: ArgumentParser) -> None:
    """The options of every command."""
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with options, such as a run's config.yaml")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_options(
    parser: ArgumentParser,
    source: type,
    *,
    rename: Mapping[str, str] | None = None,
    skip: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """One option per field of the dataclass `source`; help is the field's line in its docstring.

    rename: field → option, so that one thing has one name in all commands; skip: fields without an option; defaults:
    other defaults, by field. A field that is False by default becomes a flag.
    """
    rename, defaults = rename or {}, defaults or {}
    types = typing.get_type_hints(source)
    texts = {p.arg_name: p.description for p in docstring_parser.parse(source.__doc__ or "").params}
    for field in dataclasses.fields(source):
        if field.name in skip:
            continue
        name = "--" + rename.get(field.name, field.name).replace("_", "-")
        text = " ".join((texts.get(field.name) or "").split()).rstrip(".;")
        default = defaults.get(field.name, _default(field))
        if default is False and types[field.name] is bool:
            parser.add_argument(name, action="store_true", help=text)
        else:
            parser.add_argument(name, type=types[field.name], default=default, help=text)


def collect(source: type[T], options: Namespace, *, rename: Mapping[str, str] | None = None, **fixed: Any) -> T:
    """The dataclass `source` with the options that `add_options` made for it; fields without one keep their default."""
    rename = rename or {}
    values = {}
    for field in dataclasses.fields(source):  # type: ignore[arg-type]
        name = rename.get(field.name, field.name)
        if name in options:
            values[field.name] = options[name]
    return source(**{**values, **fixed})


def write_command(folder: Path, options: Namespace) -> None:
    """Writes the options into `command.yaml`; given to `--config` they repeat the run."""
    place = ("config", "debug", "out", "resume", "overwrite")
    record = {name: value for name, value in vars(options.as_flat()).items() if name not in place}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in record.items()}
    atomic_write_text(folder / "command.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None
