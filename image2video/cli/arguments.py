"""Command-line options from dataclasses: names, types, defaults and help come from one place."""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from collections.abc import Collection, Mapping
from typing import Any, NoReturn, TypeVar

import docstring_parser
import yaml
from jsonargparse import (
    ActionConfigFile,
    ArgumentParser,
    DefaultHelpFormatter,
    Namespace,
    get_loader,
    set_loader,
)

from image2video.errors import Image2VideoError, InputError
from image2video.fusion.built_in import BUILT_IN
from image2video.runs.yaml_text import check_yaml, read_yaml

T = TypeVar("T")


_MODE = "image2video"
_LONGEST = 500  # characters of a message


def _load_value(text: str) -> Any:
    """A value of the command line or of a config file, as jsonargparse reads it, within the limits of YAML here."""
    check_yaml(text, "the value")
    try:
        return get_loader("yaml")(text)
    except ValueError as error:  # digits that are none, as in 0b_
        raise InputError(f"the value is no YAML: {error}") from error


set_loader(_MODE, _load_value, (InputError, yaml.YAMLError))


class ConfigFile(ActionConfigFile):
    """`--config`: a file within the limits of texts, of which a problem is named with its line."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Check the file, and hand it to jsonargparse."""
        try:
            record = read_yaml(values, "config file")
            if not isinstance(record, dict):
                raise InputError(f"{values} must hold options as NAME: VALUE, got a {type(record).__name__}")
            odd = [key for key in record if not isinstance(key, str)]
            if odd:
                raise InputError(f"{values}: the names of options are texts, got {odd[0]!r:.80}")
        except Image2VideoError as error:
            raise TypeError(f'Parser key "config": {error}') from error
        super().__call__(parser, cfg, values, option_string)


class CommandParser(ArgumentParser):
    """A parser whose errors are one line, with the option as it is typed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, parser_mode=_MODE, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and where the help is; exit with code 2."""
        command = (getattr(ex, "subcommand_parser", None) or self).prog.replace(" [options]", "")
        text = " ".join(plain_error(message).split())
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
        self.exit(2, f"{command}: error: {text}; {command} --help lists the options\n")


def plain_error(message: str) -> str:
    """The parser's own message in the words of the command line."""
    key = re.match(r'Parser key "([\w.]+)":\s*', message)
    if key is None:
        return message.replace("arguments are required: sites.model", "arguments are required: MODEL")
    option = dashed(key[1].rpartition(".")[2])
    types = [_TYPE_NAMES.get(name, name) for name in re.findall(r"Expected an? <class '(\w+)'>", message)]
    for choices in re.findall(r"typing\.Literal\[(.*?)\]", message):
        types.append("one of " + choices.replace("'", ""))
    value = re.search(r"(?:Given value|Got value): (.*)", message)
    if not types or value is None:
        return f"{option}: {' '.join(message[key.end() :].split())}"
    wanted = " or ".join(dict.fromkeys(types))
    return f"{option} must be {wanted}, got {value[1].strip()}"


_TYPE_NAMES = {
    "tuple": "a list",
    "list": "a list",
    "dict": 'JSON as {"name": value}',
    "int": "a whole number",
    "float": "a finite number",
    "NoneType": "null",
    "str": "text",
    "bool": "true or false",
}


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
    parser.add_argument("--config", action=ConfigFile, help="YAML file with options, such as the config.yaml of a run")
    parser.add_argument(
        "--import",
        type=str | list[str] | None,
        default=None,
        help="Python files or modules to import first, with commas between them: own ops, fusions, spaces, models",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def dashed(name: str) -> str:
    """The option of a field: `--train-images`."""
    return "--" + name.replace("_", "-")


def add_fields(
    parser: ArgumentParser | argparse._ArgumentGroup,
    *sources: type,
    rename: Mapping[str, str] | None = None,
    skip: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """One option per field of the dataclasses `sources`; help is the field's line in the docstring.

    rename: field → option, so that one thing has one name in all commands; skip: fields without an option; defaults:
    other defaults, by field. A field that is False by default becomes a flag.
    """
    # jsonargparse's own add_class_arguments knows neither dashes, nor flags, nor groups, nor other names.
    rename, defaults = rename or {}, defaults or {}
    for source in sources:
        types = typing.get_type_hints(source)
        texts = {p.arg_name: p.description for p in docstring_parser.parse(source.__doc__ or "").params}
        for field in dataclasses.fields(source):
            if field.name in skip:
                continue
            name = dashed(rename.get(field.name, field.name))
            text = " ".join((texts.get(field.name) or "").split()).rstrip(".;").replace("`", "")
            text = text.replace("a name from fusion_names()", f"one of {', '.join(BUILT_IN)}, or a registered name")
            default = defaults.get(field.name, _default(field))
            if default is False and types[field.name] is bool:
                parser.add_argument(name, action="store_true", help=text)
            else:
                parser.add_argument(name, type=types[field.name], default=default, help=text)


def add_grouped(
    parser: ArgumentParser,
    source: type,
    groups: Mapping[str, Collection[str] | None],
    *,
    rename: Mapping[str, str] | None = None,
    skip: Collection[str] = (),
) -> None:
    """One option per field of the dataclass `source`, under headings: `groups` has the fields of each; None: the rest.

    Raises `InputError` where a group names what is no field.
    """
    fields = {field.name for field in dataclasses.fields(source)}
    named = {name for names in groups.values() for name in names or ()}
    if unknown := sorted(named - fields):
        raise InputError(f"{source.__name__} has no field {unknown[0]!r}; a group must name its fields")
    for title, names in groups.items():
        shown = fields - named if names is None else set(names)
        add_fields(parser.add_argument_group(title), source, rename=rename, skip=(fields - shown) | set(skip))


def collect(source: type[T], options: Namespace, *, rename: Mapping[str, str] | None = None, **fixed: Any) -> T:
    """The dataclass `source` with the options that `add_fields` made for it; fields without one keep their default."""
    rename = rename or {}
    values, types = {}, typing.get_type_hints(source)
    for field in dataclasses.fields(source):  # type: ignore[arg-type]
        name = rename.get(field.name, field.name)
        if name in options:
            values[field.name] = options[name]
            # jsonargparse takes a null for any option.
            if options[name] is None and _default(field) is not None and not _takes_none(types[field.name]):
                raise InputError(f"{dashed(name)} must have a value, got null; leave it out for {_default(field)!r}")
    return source(**{**values, **fixed})


def _takes_none(kind: Any) -> bool:
    return type(None) in typing.get_args(kind)


def record(options: Namespace) -> dict[str, Any]:
    """The options as plain values, for `config.yaml`; given to `--config` they repeat the run."""
    place = ("config", "debug", "given", "out", "resume", "overwrite")
    kept = {name: value for name, value in vars(options).items() if name not in place}
    if kept.get("import") is None:  # records from before there was this option go on
        kept.pop("import", None)
    return plain_values(kept)


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Tuples as lists, which is how YAML writes them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _default(field: dataclasses.Field[Any]) -> Any:
    """The default of a field; None where it has none."""
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None
