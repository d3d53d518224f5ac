"""`--import`: a user's own ops, fusions, spaces, selections and models on the command line."""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from image2video.errors import Image2VideoError, InputError, MissingError

if TYPE_CHECKING:
    from torch import nn

    from image2video.wrap.builders import Builder

_PACKAGE = str(Path(__file__).parents[1])
_TOLD = ("num_classes", "in_chans", "pretrained")
"""What the library tells every builder, and a user's function need not take."""


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


def import_model(given: object) -> None:
    """Import the module of a network `module:function` or `file.py:function`, and make it known as a builder.

    Args:
        given: the value of `--model`. The name of a model without a colon, and that of a known builder, are left alone.

    Raises:
        MissingError: no such file or module.
        InputError: a file or module that fails.
    """
    if not isinstance(given, str):
        return
    text, colon, _ = given.partition(":")
    if not colon:
        return
    from image2video.wrap.builders import builder_names, register_builder  # torch comes with it, which help needs not

    if text in builder_names():
        return
    try:
        import_code(text)
    except Image2VideoError as error:
        message = str(error).removeprefix(f"--import {text}: ")
        raise type(error)(
            f"--model {given}: {text!r} is no builder ({', '.join(builder_names())}), and as a module: {message}"
        ) from error
    name = Path(text).stem if text.endswith(".py") else text
    if name not in sys.modules or not all(part.isidentifier() for part in name.split(".")):
        raise InputError(
            f"--model {given}: {text!r} must be a module or a .py file whose name is one word, as my_nets.py"
        )
    module = sys.modules[name]

    def build(name: str, **kwargs: Any) -> nn.Module:
        return _built(module, name, kwargs)

    register_builder(text, build)


def _built(module: ModuleType, name: str, kwargs: dict[str, Any]) -> nn.Module:
    """Call a function of a user's module; classes and channels are told to the functions that take them."""
    where = f"--model {module.__name__}:{name}"
    function = getattr(module, name, None)
    if not callable(function):
        raise MissingError(f"{where}: the module has no function {name!r}; give the function that builds the network")
    taken = _taken(function, kwargs)
    if kwargs.get("pretrained") and "pretrained" not in taken:
        raise InputError(f"{where} takes no pretrained=, so that its weights would be random; give --weights")
    try:
        network = function(**taken)
    except Image2VideoError:
        raise
    except Exception as error:
        raise InputError(f"{where}: {_where(error)}{type(error).__name__}: {error}; mend it") from error
    from torch import nn  # help needs no torch

    if not isinstance(network, nn.Module):
        raise InputError(f"{where} must return a torch.nn.Module, got {type(network).__name__}")
    return network


def _taken(function: Callable[..., object], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without those of the library's own that a function does not take."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(kwargs)
    names = {parameter.name for parameter in parameters}
    return {key: value for key, value in kwargs.items() if key in names or key not in _TOLD}


def own_lines(builder: Builder) -> tuple[str, str] | None:
    """How a script of its own gets the network of `module:function`.

    Args:
        builder: the recipe of the network.

    Returns:
        The lines that import the function, and the expression that builds the network; None for the builders of
        installed packages, which need neither.
    """
    from image2video.wrap.builders import installed_builders

    text, _, name = builder.name.partition(":")
    module = sys.modules.get(Path(text).stem if text.endswith(".py") else text)
    if text in installed_builders() or module is None or module.__file__ is None or not hasattr(module, name):
        return None
    file = Path(module.__file__)
    above = 1 + module.__name__.count(".") + (file.name == "__init__.py")
    folder = str(Path(*file.parts[:-above]))
    arguments = ", ".join(f"{key}={value!r}" for key, value in _taken(getattr(module, name), builder.kwargs).items())
    return f"sys.path.insert(0, {folder!r})\nfrom {module.__name__} import {name}", f"{name}({arguments})"


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
