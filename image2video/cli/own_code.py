"""`--import`: a user's own ops, fusions, spaces, selections and models on the command line."""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from image2video.errors import Image2VideoError, InputError, MissingError

_PACKAGE = str(Path(__file__).parents[1])


def import_code(given: str | Sequence[str] | None) -> None:
    """Import files and modules, which register what they define; each once in a process.

    Args:
        given: paths of `.py` files and names of modules, as a list or with commas between them.

    Raises:
        MissingError: no such file or module.
        InputError: a file or module that fails; the message names the line.
    """
    texts = given.split(",") if isinstance(given, str) else given or ()
    for text in filter(None, (text.strip() for text in texts)):
        try:
            _run_file(Path(text).expanduser()) if text.endswith(".py") else _run_module(text)
        except Image2VideoError as error:
            raise type(error)(f"--import {text}: {error}") from error
        except Exception as error:
            raise InputError(f"--import {text}: {_where(error)}{type(error).__name__}: {error}; mend it") from error


def imported(options: Namespace) -> dict[str, Any]:
    """What `--import` was given, for the record of a run; nothing where it was not given."""
    given = options["import"]
    return {} if given is None else {"import": given}


def _run_file(path: Path) -> None:
    """Run a file as the module of its name."""
    if not path.is_file():
        raise MissingError(f"no file {path}; give a .py file, or the name of a module")
    path = path.resolve()
    known = sys.modules.get(path.stem)
    if known is not None:
        if getattr(known, "__file__", None) == str(path):
            return
        raise InputError(f"a module {path.stem!r} is loaded already; give the file another name")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, "the name ends with .py"
    assert spec.loader is not None, "likewise"
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # classes of it can be pickled, as workers that read images need
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise


def _run_module(name: str) -> None:
    """Import a module by its name, from the working folder too."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        pkgutil.resolve_name(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise MissingError(f"no module {name}; give a .py file, or the name of an installed module") from error
    finally:
        sys.path.remove(here)


def _where(error: Exception) -> str:
    """The last place of an error outside of this library, as `my_ops.py:3: `."""
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or '').name}:{error.lineno}: "
    trace, place = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith((_PACKAGE, "<frozen")):
            place = f"{Path(name).name}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return place
