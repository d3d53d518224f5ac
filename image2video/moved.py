"""Module paths of version 0.1 that stand elsewhere now: they give out the public names of the package.

`from image2video.genotype import Genotype` goes on working, with a `DeprecationWarning` that names the new path. What
was not public is not found at its old path.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

PACKAGES = {  # package whose public names they are -> the old modules
    "image2video": ("builders", "checkpoint", "colours", "frame_sources", "genotype", "layout", "op", "ops", "optim"),
    "image2video.clip": ("random_clips",),
    "image2video.search": (
        *("search.candidates", "search.chain_scores", "search.config", "search.fixed_weights", "search.ranking"),
        *("search.scores", "search.task", "search.topology"),
    ),
    "image2video.experiments": ("demo",),
}
MOVED = {f"image2video.{old}": package for package, modules in PACKAGES.items() for old in modules}


class OldPaths(MetaPathFinder, Loader):
    """Finds the modules of `MOVED`, each as a view of the package that has its names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for an old path, None for any other."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: types.ModuleType) -> None:
        """Let the module answer for the public names of its package."""
        old, new = module.__name__, MOVED[module.__name__]

        def public_name(name: str) -> Any:
            package = importlib.import_module(new)
            if name not in package.__all__:
                raise AttributeError(f"module {old!r} has no attribute {name!r}; the public names are those of {new}")
            # The caller is below importlib's frames where it imports, and directly below where it reads an attribute.
            warnings.warn(f"{old} has moved: from {new} import {name}", DeprecationWarning, stacklevel=2)
            return getattr(package, name)

        module.__getattr__ = public_name  # type: ignore[method-assign]


def install() -> None:
    """Make the old paths importable, once for an interpreter."""
    if not any(isinstance(finder, OldPaths) for finder in sys.meta_path):
        sys.meta_path.append(OldPaths())
