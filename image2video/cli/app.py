"""Which command was asked for, its options, and how its errors are shown."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from image2video.cli.allocator import keep_memory
from image2video.cli.arguments import CommandParser, HelpFormatter, add_common
from image2video.cli.own_code import import_code, import_model
from image2video.errors import Image2VideoError
from image2video.version import __version__

COMMANDS = {
    "assess": "say whether a clip helps a trained classifier, at which cost",
    "demo": "see what helps a trained network where it is used, and write a report",
    "search": "search the genotype for a network and a data set",
    "train": "train a network, bare or wrapped",
    "rf": "measure receptive fields, bare and wrapped, and draw them",
    "export": "write a trained network as a file that runs without this library, and compare the two",
    "evaluate": "top-1 accuracy, loss and cost of a trained network",
    "show": "draw the clip of an image as a film strip",
    "sites": "print where fusions would sit in a network",
    "spaces": "list the search spaces and the ops, or check one of your own",
    "reproduce": "run a table of the paper with its controls, and render it",
    "presets": "list the genotypes that come with the library, and how they were found",
}
"""The commands; `commands.NAME` has `EXAMPLE` and `add_options(parser)`, and needs no torch; `NAME` has `run(args)`."""

_ARGUMENTS = {"export": " RUN", "reproduce": " TABLE", "sites": " MODEL", "spaces": " [SPACE]", "presets": " [NAME]"}
"""What stands before the options of a command, for its usage line."""

ERROR_CODE = 2
_INTERRUPTED_CODE = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code: 0, 2 for an error that the user can mend, 130 when interrupted.

    `argv` is what follows the program's name (default: the process's own arguments). With `--debug` errors are raised
    as they are.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(argv[0] if argv else None)
    if not argv:
        parser.print_help()
        return 0
    args = parser.parse_args(argv)
    options: Namespace = args[args.command]
    # What the user asked for, in the words of the command line or of a config file, as against defaults.
    options.given = tuple(vars(parser.parse_args(argv, defaults=False)[args.command]))
    with warnings.catch_warnings(), _any_path_printable():
        warnings.showwarning = _show_warning
        try:
            keep_memory()
            import_code(options["import"])
            import_model(options.get("model"))
            importlib.import_module(f"image2video.cli.{args.command}").run(options)
            _leave_processes()
        except Image2VideoError as error:
            if options.debug:
                raise
            print(f"image2video {args.command}: error: {error}", file=sys.stderr)
            return ERROR_CODE
        except OSError as error:  # a file that may not be read, a name too long, no connection
            if options.debug:
                raise
            print(f"image2video {args.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
            return ERROR_CODE
        except KeyboardInterrupt:
            if options.debug:
                raise
            print(f"image2video {args.command}: interrupted", file=sys.stderr)
            return _INTERRUPTED_CODE
    return 0


def build_parser(command: str | None) -> ArgumentParser:
    """The parser; only `command` gets its options."""
    parser = CommandParser(
        prog="image2video",
        description="Turn an image into a short video, and any timm backbone into a network that fuses its frames.",
        epilog="image2video COMMAND --help shows a command's options and an example.",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"image2video {__version__}")
    subcommands = parser.add_subcommands(dest="command", required=True, title="commands")
    for name, text in COMMANDS.items():
        options = CommandParser(
            usage=f"image2video {name}{_ARGUMENTS.get(name, '')} [options]",
            description=f"{text[0].upper()}{text[1:]}.",
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        if name == command:
            module = importlib.import_module(f"image2video.cli.commands.{name}")
            lines = textwrap.wrap(module.EXAMPLE, 74, break_long_words=False, break_on_hyphens=False)
            options.epilog = "example:\n  " + " \\\n      ".join(lines)
            add_common(options)
            module.add_options(options)
        subcommands.add_subcommand(name, options, help=text)
    return parser


def _leave_processes() -> None:
    """Ends the process group of a distributed run.

    Its threads may hold tensors, and a thread of gloo that lets one go while the interpreter ends aborts the process.
    They end with the group, which the last network under DistributedDataParallel keeps: hence the garbage collection.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()


@contextlib.contextmanager
def _any_path_printable() -> Iterator[None]:
    """Print names of files that are no UTF-8 with escapes, where the stream would refuse them."""
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper) and s.errors == "strict"]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream in streams:
            if not stream.closed:
                stream.reconfigure(errors="strict")


def _show_warning(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    print(f"image2video: warning: {message}", file=sys.stderr)
