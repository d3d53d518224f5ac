"""Run a script of timm (train.py, validate.py, …) with the wrapped models registered.

    python -m image2video.integrations.timm_launch train.py --model i2v_resnet50 --model-kwargs T=3 "genotype=rotate(5)"
    torchrun --nproc-per-node 2 -m image2video.integrations.timm_launch train.py --model i2v_resnet50 …

The script sees its own arguments and stands first on the import path, as if it had been started directly.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from image2video.functional import InputError, MissingError

_USAGE = "usage: python -m image2video.integrations.timm_launch SCRIPT.py [the script's arguments]"


def launch(arguments: Sequence[str]) -> None:
    """Run a script as `__main__`, with the wrapped models registered.

    Args:
        arguments: the script's path, and its own arguments.

    Raises:
        InputError: no script is named.
        MissingError: there is no such file.
    """
    if not arguments or arguments[0].startswith("-"):
        came = f"got {arguments[0]!r} first" if arguments else "got no arguments"
        raise InputError(f"name the script to run; {came}; {_USAGE}")
    script = Path(arguments[0])
    if not script.is_file():
        raise MissingError(f"there is no script {str(script)!r} in {Path.cwd()}; {_USAGE}")
    importlib.import_module("image2video.integrations.timm_models")
    sys.argv = [str(script), *arguments[1:]]
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        sys.exit(f"{__doc__}\n{_USAGE}")
    try:
        launch(sys.argv[1:])
    except (InputError, MissingError) as error:
        sys.exit(str(error))
