"""How images are made ready for a network: as its run recorded it, else as its published config says."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from image2video.data.resizing import CROP_MODES, INTERPOLATIONS, Resizing
from image2video.errors import InputError, MissingError
from image2video.runs.origin import run_behind
from image2video.runs.texts import read_json

FIELDS = ("image_size", "mean", "std", "resize", "crop_fraction", "crop_mode")
_WEIGHTS = ("url", "hf_hub_id", "file", "state_dict")
"""Where timm's config says that weights are; without any of them it describes no training."""
_CONFIG = "config.json"


@dataclass(frozen=True)
class Preparation:
    """How a network's images are made ready; None where nothing is known.

    Attributes:
        origin: who says so, for people: `run runs/bare`, `published config of resnet18.a1_in1k`.
        image_size: pixels per side.
        mean: per channel in 0 … 1.
        std: goes with `mean`.
        resize: interpolation with which files are resized.
        crop_fraction: as in `Resizing`.
        crop_mode: as in `Resizing`.
        binding: whether images in memory are resized to `image_size` too: where a run had this size, or the network
            takes no other one. Otherwise small images keep their size.
        recorded: whether a run recorded it. What a user asks for instead is then always a conflict; against a
            published config only another mean or std is, since many networks are used at other sizes.
    """

    origin: str
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: str | None = None
    crop_fraction: float | None = None
    crop_mode: str | None = None
    binding: bool = False
    recorded: bool = False

    @classmethod
    def of(cls, model: nn.Module | str | os.PathLike[str]) -> Preparation | None:
        """What is known of a network's images.

        Args:
            model: a network with timm's `pretrained_cfg`, bare or wrapped, whose weights are pretrained; or the folder
                or the weights of a training run, or a folder of `save_pretrained`.

        Returns:
            The preparation; None for a network whose config names no published weights, and for weights that no run
            and no config is known of.

        Raises:
            MissingError: there is no such folder or file.
            InputError: a record that cannot be read.
        """
        if isinstance(model, nn.Module):
            return cls._published(model)
        path = Path(model).expanduser()
        if not path.exists():
            raise MissingError(f"no folder or file {path}; give a run, its weights, or a network")
        found = run_behind(path)
        if found is not None:
            return cls._recorded(found[0], found[1])
        if (path / _CONFIG).is_file():
            return cls._saved(path)
        return None

    @classmethod
    def _published(cls, model: nn.Module) -> Preparation | None:
        """What the config of the published weights says."""
        config: Any = getattr(model, "pretrained_cfg", None) or {}
        if not isinstance(config, Mapping):
            config = vars(config)
        if not any(config.get(key) for key in _WEIGHTS):
            return None
        name = ".".join(str(config[key]) for key in ("architecture", "tag") if config.get(key))
        known: dict[str, Any] = {
            "image_size": _side(_own_size(model, config)),
            "mean": _numbers(config.get("mean")),
            "std": _numbers(config.get("std")),
            "resize": _one_of(config.get("interpolation"), INTERPOLATIONS),
            "crop_fraction": config.get("crop_pct"),
            "crop_mode": _one_of(config.get("crop_mode"), CROP_MODES),
        }
        origin = f"published config of {name or type(model).__name__}"
        return cls(origin, **known, binding=bool(config.get("fixed_input_size")))

    @classmethod
    def _recorded(cls, folder: Path, record: Mapping[str, Any]) -> Preparation:
        """What the `run.json` of a training run says."""
        data = record.get("dataset")
        if not isinstance(data, Mapping) or not isinstance(data.get("input_size"), list):
            raise InputError(f"{folder / 'run.json'} does not say which images the run had; restore a copy of it")
        resizing = data.get("resizing") or {}
        known: dict[str, Any] = {
            "image_size": _side(data["input_size"]),
            "mean": _numbers(data.get("mean")),
            "std": _numbers(data.get("std")),
            "resize": resizing.get("interpolation"),
            "crop_fraction": resizing.get("crop_fraction"),
            "crop_mode": resizing.get("crop_mode"),
        }
        return cls(f"run {folder}", **known, binding=True, recorded=True)

    @classmethod
    def _saved(cls, folder: Path) -> Preparation | None:
        """What the config of `save_pretrained` says of the images; it knows nothing of files and their crops."""
        config = read_json(folder / _CONFIG)
        if not isinstance(config, Mapping) or config.get("library") != "image2video":
            return None
        size = config.get("input_size") or []
        mean, std = _numbers(config.get("mean")), _numbers(config.get("std"))
        side = _side(size) or None  # zeros: the size of its images is not known
        return cls(f"config of {folder}", side, mean, std, binding=True, recorded=True)

    def or_else(self, other: Preparation | None) -> Preparation:
        """This preparation, with what `other` says where it says nothing."""
        if other is None or all(getattr(self, name) is not None for name in FIELDS):
            return self
        said = {
            name: getattr(self, name) if getattr(self, name) is not None else getattr(other, name) for name in FIELDS
        }
        return replace(self, origin=f"{self.origin}, else {other.origin}", **said)

    def warn_of(self, asked: Mapping[str, Any]) -> None:
        """Warn, with both values, of what a user asks for that the network was not trained with.

        Args:
            asked: values by the names in `FIELDS`; None where nothing is asked for.
        """
        names = FIELDS if self.recorded else ("mean", "std")
        pairs = [(name, getattr(self, name), asked.get(name)) for name in names]
        differ = [
            f"{name} {_text(known)} there, {_text(value)} here"
            for name, known, value in pairs
            if None not in (known, value) and not _equal(known, value)
        ]
        if differ:
            warnings.warn(
                f"these images are made ready otherwise than those of the {self.origin} ({'; '.join(differ)}); leave "
                "the options out to have the same",
                stacklevel=3,
            )


def preparation_sentence(
    input_size: Sequence[int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    resizing: Resizing | None,
    *,
    asked: Mapping[str, Any],
    known: Preparation | None,
) -> str:
    """One line that says how images are made ready, and who says so.

    Args:
        input_size: (C, H, W) of the images.
        mean: as used.
        std: as used.
        resizing: as used; None for images in memory.
        asked: what the user asked for, by the names in `FIELDS`.
        known: what the run or the published config says.

    Returns:
        The line.
    """

    def origin(name: str, used: Any, own: str) -> str:
        if asked.get(name) is not None:
            return "as asked"
        said = None if known is None else getattr(known, name)
        return known.origin if known is not None and said is not None and _equal(said, used) else own

    height, width = input_size[1:]
    in_memory = "the data's own"
    default = in_memory if resizing is None else "the default for files"
    side = height if height == width else None
    parts = [(f"{height}×{width} px", origin("image_size", side, default))]
    parts.append((f"mean {_text(mean)}, std {_text(std)}", origin("mean", mean, default)))
    if resizing is not None:
        parts.append((str(resizing), origin("resize", resizing.interpolation, default)))
    grouped: dict[str, list[str]] = {}
    for text, where in parts:
        grouped.setdefault(where, []).append(text)
    return "images: " + "; ".join(f"{', '.join(texts)} ({where})" for where, texts in grouped.items())


def _own_size(model: nn.Module, config: Mapping[str, Any]) -> Any:
    """The size that the model was built for, which comes before that of its published weights."""
    traits = getattr(model, "_traits", None) or {}
    size = traits.get("img_size")
    return config.get("input_size") if size is None else (0, *size)


def _side(size: Any) -> int | None:
    """The side of square images of (C, H, W); None for others."""
    if not isinstance(size, Sequence) or len(size) != 3 or size[1] != size[2]:
        return None
    return int(size[1])


def _numbers(values: Any) -> tuple[float, ...] | None:
    """A mean or std as a config has it."""
    return None if values is None else tuple(float(value) for value in values)


def _one_of(value: Any, known: tuple[str, ...]) -> str | None:
    """A word of a config that is one of ours."""
    return value if value in known else None


def _equal(a: Any, b: Any) -> bool:
    """Whether two values are the same, but for the last digits of numbers in a file."""
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float | int) and isinstance(b, float | int):
        return math.isclose(a, b, rel_tol=1e-6)
    return bool(a == b)


def _text(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, tuple | list):
        return " ".join(f"{number:.4g}" for number in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
