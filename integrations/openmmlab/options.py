"""`model.video` of a config: the options of the clip and of the fusion, checked in the user's own terms."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from image2video.clip.any_clip import AnyClip, options_for
from image2video.clip.deep_clip import DeepClip
from image2video.clip.options import WRAP_CLIP
from image2video.functional import (
    DEFAULT_GENOTYPE,
    FusionConfig,
    Image2VideoError,
    InputError,
    resolve_fusion,
)
from image2video.integrations.openmmlab.cover import Video
from image2video.trace.places import IMAGE
from image2video.wrap.phases import PHASES
from image2video.wrap.steps import video_of, wanted_clip

UNWARP = ("label", "head")
KEY = "model.video"


@dataclass(frozen=True)
class VideoOptions:
    """What `video=dict(…)` in a config says; every key has a default.

    Attributes:
        genotype: a text such as `"translate_x(0.02) > scale(1.05)"` or, of a frame set, `"identity | flip_x"`, the path
            of a .json file or `"preset:NAME"`. Of a clip that moves at several places of the backbone its text,
            `"image: translate_x(0.03) | layer3: rotate(10)"`, its file, a dict from places to clips, or
            `"preset:phases"`, that of the backbone.
        T: frames per image, 1 or more; None, as for the next three, stands for what the genotype was found with, else
            for the default of `VideoWrap`; of a frame set for all its frames.
        schedule: the power of each frame: `from_zero`, `ramp`, `centred` or `mirror`; a frame set has none but the
            first.
        padding: what stands outside the image in a frame: `zeros` (the mean colour), `border` or `reflection`.
        interpolation: `bilinear`, `nearest` or `bicubic`.
        fusion: how frames mix; a name from `fusion_names()`, or a dict such as `dict(name="gsf", ratio=0.5)`.
        residual: start as the plain segmentor, averaged over the frames; False for the fusions as published.
        sites: where fusions act in the backbone: a regular expression (fullmatch on module names) or a list of names;
            None for all that the rule finds.
        clip_at: the module of the backbone at whose input the clip begins, such as `"layer3"`: up to there the backbone
            sees every image once. `"image"`: at the image. None: where the genotype's file was found, or where the
            genotype says, else at the image.
        unwarp: bring logits back at the size of the labels (`label`), or at the size that the head gives (`head`),
            which is cheaper and less exact.
        input_size: (height, width) of the images that the sites are traced with; None for the crop size that the
            data preprocessor knows, or 512 × 512.
        allow_mismatch: load checkpoints that were trained with another clip or fusion, with a warning, not an error.

    """

    genotype: str | Mapping[str, Any] | DeepClip = str(DEFAULT_GENOTYPE)
    T: int | None = None
    schedule: str | None = None
    padding: str | None = None
    interpolation: str | None = None
    fusion: str | Mapping[str, Any] = "gsf"
    residual: bool = True
    sites: str | tuple[str, ...] | None = None
    clip_at: str | None = None
    unwarp: str = "label"
    input_size: tuple[int, int] | None = None
    allow_mismatch: bool = False

    @classmethod
    def from_config(cls, config: Any) -> VideoOptions:
        """The options of a config's dict.

        Args:
            config: what stands at `model.video`; None for the defaults.

        Returns:
            The options.

        Raises:
            InputError: an unknown key, or a value of another type; names the key as the config spells it.
        """
        if config is None:
            return cls()
        if not isinstance(config, Mapping):
            raise InputError(f"{KEY} must be a dict of options, got {type(config).__name__}: {config!r:.80}")
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(config) - set(known))
        if unknown:
            raise InputError(f"{KEY}.{unknown[0]} is no option; the options are {', '.join(known)}")
        options = cls(**{name: _plain(value) for name, value in config.items()})
        options._check()
        return options

    def _check(self) -> None:
        for name in ("residual", "allow_mismatch"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{KEY}.{name} must be True or False, got {getattr(self, name)!r:.80}")
        if self.unwarp not in UNWARP:
            raise InputError(f"{KEY}.unwarp={self.unwarp!r} is unknown; choose one of {', '.join(UNWARP)}")
        if self.input_size is not None and not _is_size(self.input_size):
            raise InputError(f"{KEY}.input_size must be (height, width) in pixels, got {self.input_size!r:.80}")
        if self.clip_at is not None and not isinstance(self.clip_at, str):
            raise InputError(
                f"{KEY}.clip_at must be the name of a module of the backbone, 'image' or None, got {self.clip_at!r:.80}"
            )
        names = self.sites if isinstance(self.sites, tuple) else (self.sites or "",)
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"{KEY}.sites must be a regular expression or a list of names, got {self.sites!r:.80}")

    def clip_and_places(
        self, phases: Callable[[], DeepClip] | None = None
    ) -> tuple[AnyClip, str | tuple[str, ...] | None]:
        """The clip that is asked for, and the place or places in the backbone where it moves.

        Args:
            phases: makes the clip of `preset:phases` for the backbone; None where there is none.

        Returns:
            The clip, and what a plan takes as `clip_at`.

        Raises:
            Image2VideoError: no clip, or one that names its places beside `clip_at`, with all options of the clip.
        """
        with self._words():
            clip, places = wanted_clip(self.genotype, self.clip_at, phases or _no_backbone)
            self._warn_of_another_clip(clip, places)
        return clip, places

    def clip_maker(self, mean: Any = None, std: Any = None, *, clip: AnyClip | None = None) -> Video:
        """What makes the frames.

        Args:
            mean: of the images' normalisation, for photometric ops.
            std: goes with `mean`.
            clip: what `clip_and_places` returned, where the caller has it.

        Returns:
            The maker of clips.

        Raises:
            Image2VideoError: options of which no clip can be made, with all their values.
        """
        clip = self.clip_and_places()[0] if clip is None else clip
        with self._words():
            given = {name: getattr(self, name) for name in ("T", "schedule", "padding", "interpolation")}
            return video_of(clip, options_for(clip, WRAP_CLIP, mean=mean, std=std, **given))

    @contextmanager
    def _words(self) -> Iterator[None]:
        """Name the options of the clip, with their values, in errors."""
        try:
            yield
        except Image2VideoError as error:
            names = ("genotype", "T", "schedule", "padding", "interpolation")
            values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
            raise type(error)(f"{KEY} ({values}): {error}") from error

    def _warn_of_another_clip(self, genotype: AnyClip, places: str | tuple[str, ...] | None) -> None:
        """Warn where the file of a genotype says that it was found with other frames, which make another clip."""
        if not str(self.genotype).endswith(".json"):
            return
        provenance = genotype.provenance or {}
        other = []
        for key in ("T", "schedule"):
            now, was = getattr(self, key), provenance.get(key)
            if None not in (was, now) and was != now:
                other.append(f"{KEY}.{key}={now!r}, found with {was!r}")
        # Where the config names no place the clip begins where it was found, as in `VideoWrap`.
        found_at = provenance.get("clip_at") or IMAGE
        if isinstance(places, str) and places != found_at:
            other.append(f"{KEY}.clip_at={places!r}, found with {found_at!r}")
        if other:
            warnings.warn(
                f"{KEY}.genotype={self.genotype} was found for another clip: {', '.join(other)}", stacklevel=5
            )

    def fusion_config(self) -> FusionConfig:
        """The fusion that is asked for."""
        try:
            if isinstance(self.fusion, Mapping):
                values = dict(self.fusion)
                return resolve_fusion(values.pop("name", values.pop("type", "")), **values)
            return resolve_fusion(self.fusion)
        except Image2VideoError as error:
            raise type(error)(f"{KEY}.fusion={self.fusion!r}: {error}") from error


def _no_backbone() -> DeepClip:
    """Refuse the clip of a backbone where there is none."""
    raise InputError(f"{PHASES} is the clip of a backbone, and there is none here; write its places into a genotype")


def _is_size(value: Any) -> bool:
    """Whether a value is two whole numbers above 0; True counts as none."""
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return all(type(number) is int and number > 0 for number in value)


def _plain(value: Any) -> Any:
    """Lists as tuples and config dicts as dicts: what a frozen record holds."""
    if isinstance(value, list):
        return tuple(value)
    return dict(value) if isinstance(value, Mapping) else value
