"""Genotypes that have a name: the default and the presets. Listing them needs no torch."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

from image2video.errors import MissingError

DEFAULT_GENOTYPE = "translate_x(0.03)"
"""The genotype of `VideoWrap` (ours). With the defaults of `ClipOptions` it costs trained networks no accuracy, as the
page on results shows: it was chosen by that."""

PRESET_PREFIX = "preset:"


def preset_names() -> tuple[str, ...]:
    """List the genotypes that come with the library.

    Returns:
        Their names, sorted.
    """
    names = (entry.name for entry in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".json") for name in names if name.endswith(".json")))


def preset_text(name: str) -> str:
    """Read the file of a genotype that comes with the library.

    Args:
        name: one of `preset_names()`.

    Returns:
        Its JSON.

    Raises:
        MissingError: another name; the message lists all.
    """
    if name == "phases":
        raise MissingError(
            "preset:phases depends on the network: VideoWrap(network, genotype='preset:phases') makes it, and "
            "image2video.phases(network) returns it, to be printed and saved"
        )
    if name not in preset_names():
        raise MissingError(f"unknown preset {name!r:.80}; known presets: {', '.join(preset_names()) or '(none)'}")
    return _folder().joinpath(f"{name}.json").read_text("utf-8")


def _folder() -> Traversable:
    """Return the folder of the genotypes that come with the library."""
    return resources.files("image2video.clip.presets")
