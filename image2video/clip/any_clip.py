"""What may stand where a clip is made: a genotype or a frame set, in every form in which a user may give it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeGuard

from image2video.clip.deep_clip import DeepClip
from image2video.clip.deep_text import is_deep_text
from image2video.clip.frame_set import SET_SCHEDULE, FrameSet
from image2video.clip.genotype import PRESET_PREFIX, Genotype
from image2video.clip.genotype_json import MAX_FILE_BYTES, decode, is_deep
from image2video.clip.genotype_text import FRAME_BAR, NO_DEEP
from image2video.clip.options import ClipOptions
from image2video.clip.schedules import schedule_steps
from image2video.errors import Image2VideoError, InputError, InputTypeError
from image2video.runs.texts import parse_json, read_text

Clip = Genotype | FrameSet
"""What makes frames of an image: one chain at several powers, or a chain per frame."""
AnyClip = Genotype | FrameSet | DeepClip
"""What makes the frames of a wrapped network: a clip of its images, or clips at several of its places."""


def clip_from_json(text: str, source: str = "the clip's JSON") -> Clip:
    """Read what `Genotype.to_json` or `FrameSet.to_json` wrote.

    Args:
        text: the JSON.
        source: what errors call it.

    Returns:
        The genotype or frame set with its provenance.

    Raises:
        InputError: wrong values.
        InputTypeError: wrong types; the messages of both name the JSON path.
    """
    kind = FrameSet if decode(text, source).is_set else Genotype
    return kind._decode(text, source)


def parse_clip(text: str) -> Clip:
    """Read the text of a genotype or, where it has a bar, of a frame set; never the name of a file.

    Args:
        text: such as `rotate(10)` or `identity | flip_x`.

    Returns:
        The genotype or frame set, without provenance.

    Raises:
        InputError: a text that is wrong; the message names the position.
        InputTypeError: no text.
    """
    is_set = isinstance(text, str) and FRAME_BAR in text
    return FrameSet.parse(text) if is_set else Genotype.parse(text)


def any_clip_from_json(text: str, source: str = "the clip's JSON") -> AnyClip:
    """Read what `to_json` of a `Genotype`, a `FrameSet` or a `DeepClip` wrote; see `clip_from_json`.

    Args:
        text: the JSON.
        source: what errors call it.

    Returns:
        The clip with its provenance.
    """
    short = isinstance(text, str) and len(text) <= MAX_FILE_BYTES  # else `decode` refuses it
    if short and is_deep(parse_json(text, source)):
        return DeepClip._decode(text, source)
    return clip_from_json(text, source)


def parse_any_clip(text: str) -> AnyClip:
    """Read the text of a genotype, a frame set or a deep clip, `layer3: rotate(10)`; see `parse_clip`.

    Args:
        text: the text; never the name of a file.

    Returns:
        The clip, without provenance.
    """
    return DeepClip.parse(text) if is_deep_text(text) else parse_clip(text)


def as_any_clip(value: object) -> AnyClip:
    """Read a clip in any form that a user may give for a network; see `as_clip`.

    Args:
        value: what `as_clip` takes, a `DeepClip`, its text, the path of its file, or a mapping from places to clips in
            any form that `as_clip` takes.

    Returns:
        The genotype, frame set or deep clip.

    Raises:
        MissingError: no such file or preset.
        InputError: a text or file that is wrong; the message names the place.
        InputTypeError: another type.

    >>> as_any_clip({"image": "scale(1.1)", "layer3": "identity"}).places
    ('image', 'layer3')
    """
    if isinstance(value, DeepClip):
        return value
    if isinstance(value, Mapping):
        return DeepClip(tuple((place, _clip_at(place, clip)) for place, clip in value.items()))
    if _is_file(value):
        return any_clip_from_json(read_text(value, "genotype file", max_bytes=MAX_FILE_BYTES), repr(os.fsdecode(value)))
    return DeepClip.parse(value) if is_deep_text(value) else as_clip(value)  # type: ignore[arg-type]  # as_clip refuses


def _clip_at(place: object, value: Any) -> Clip:
    """Read the clip of one place; errors name the place."""
    try:
        return as_clip(value)
    except Image2VideoError as error:
        raise type(error)(f"at the place {place!r:.80}: {error}") from None


def _is_file(value: object) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a value names a file."""
    return isinstance(value, os.PathLike) or (isinstance(value, str) and value.endswith(".json"))


def as_clip(value: Clip | str | os.PathLike[str]) -> Clip:
    """Read a clip in any form that a user may give.

    Args:
        value: a `Genotype` or `FrameSet`, the text of either, the path of a .json file, or `"preset:NAME"`.

    Returns:
        The genotype or frame set.

    Raises:
        MissingError: no such file or preset.
        InputError: a text or file that is wrong; the message names the place.
        InputTypeError: another type.

    >>> as_clip("identity | flip_x").T
    2
    """
    if isinstance(value, FrameSet):
        return value
    if isinstance(value, DeepClip | Mapping) or (is_deep_text(value) and not _is_file(value)):
        raise InputTypeError(f"{NO_DEEP}: {str(value)!r:.80}")
    if _is_file(value):
        text = read_text(value, "genotype file", max_bytes=MAX_FILE_BYTES)
        return clip_from_json(text, repr(os.fsdecode(value)))
    if isinstance(value, str) and not value.startswith(PRESET_PREFIX):
        return parse_clip(value)
    if isinstance(value, list | tuple):
        raise InputTypeError(
            "a list of frames is given as a text, 'identity | flip_x', or FrameSet((…)) of genotypes, "
            f"got {value!r:.80}"
        )
    return Genotype.coerce(value)


def steps_of(clip: AnyClip, schedule: str, T: int) -> tuple[float, ...]:
    """Work out the step of every frame, and check that the clip has it.

    Args:
        clip: a genotype or frame set, or one at several places.
        schedule: by name; a set has the schedule `from_zero` alone, since it lists its frames in their order.
        T: how many frames.

    Returns:
        The powers of a genotype's frames, or the numbers of a set's.

    Raises:
        InputError: an unknown schedule, one that a set cannot have, more frames than a set lists, or a power at which a
            genotype is singular.
    """
    steps = schedule_steps(schedule, T)
    if listed_frames(clip) is not None and schedule != SET_SCHEDULE:
        raise InputError(
            f"a frame set lists its frames in their order, and has no schedule but {SET_SCHEDULE!r}; got {schedule!r}; "
            "leave the schedule out, or list the frames in another order"
        )
    clip.check_steps(steps)
    return steps


def listed_frames(clip: AnyClip) -> int | None:
    """Return how many frames a clip lists; None for chains, which have as many as one asks for."""
    return None if isinstance(clip, Genotype) else clip.T


def clip_in_words(clip: AnyClip, T: int, schedule: str) -> str:
    """Describe a clip in captions.

    Args:
        clip: a genotype or frame set.
        T: how many frames.
        schedule: by name; that of a set goes without saying.

    Returns:
        Such as `rotate(10), T = 3, centred`.
    """
    return f"{clip}, T = {T}" + ("" if listed_frames(clip) is not None else f", {schedule}")


def options_for(clip: AnyClip, default: ClipOptions | None = None, **given: Any) -> ClipOptions:
    """Work out the options of a clip: those that are given, else those that it was found with, else the defaults.

    Args:
        clip: a genotype or frame set, or one at several places. Where no T is given, sets have all the frames that
            they list.
        default: what neither says; None stands for `ClipOptions()`.
        **given: as `ClipOptions.found_with` takes them.

    Returns:
        The options.

    Raises:
        InputError: a T or a schedule that the clip cannot have.
    """
    listed = listed_frames(clip)
    if listed is not None:
        for name, own in (("T", listed), ("schedule", SET_SCHEDULE)):
            given[name] = own if given.get(name) is None else given[name]
    options = ClipOptions.found_with(clip.provenance, default, **given)
    steps_of(clip, options.schedule, options.T)
    return options
