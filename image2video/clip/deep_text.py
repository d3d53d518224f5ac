"""The text form of clips at several places of a network: `image: translate_x(0.03) | layer3: rotate(10)`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from image2video.clip.genotype_text import FRAME_BAR, MAX_FRAMES, Item, Parser, checked_length
from image2video.trace.places import MAX_PATH, MAX_PLACES

_PRESET = "preset"
"""With a colon it begins the name of a preset."""
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', flags=re.S)
_BEGIN = re.compile(rf"\s*(?:{_PLAIN.pattern}|{_QUOTED.pattern})\s*:", flags=re.S)


class SiteText(NamedTuple):
    """What a text says of one place.

    Args:
        place: the name of a module, or `image`.
        chains: the chain there, or those of the frames.
        is_set: whether they are the frames of a set.
    """

    place: str
    chains: tuple[tuple[Item, ...], ...]
    is_set: bool


def is_deep_text(text: object) -> bool:
    """Whether a text begins with a place and a colon, as that of a clip at several places does."""
    if not isinstance(text, str) or text.startswith(f"{_PRESET}:"):
        return False
    return _BEGIN.match(text[: 8 * MAX_PATH]) is not None


def format_sites(sites: Sequence[tuple[str, str, bool]]) -> str:
    """Write places with the texts of their clips, of which frame sets stand in brackets."""
    parts = [f"{_format_place(place)}: " + (f"[{text}]" if is_set else text) for place, text, is_set in sites]
    return f" {FRAME_BAR} ".join(parts)


def parse_sites(text: str) -> tuple[SiteText, ...]:
    """Read the places of a text and their chains, `image: [identity | flip_x] | layer3: [identity | rotate(10)]`.

    A place whose name holds other characters than letters, digits, `_`, `.` and `-` stands in double quotes, as a JSON
    string. Raises as `parse_chain` does, and `InputError` (with the position) for a missing place, colon or bracket,
    and for more than 64 places.
    """
    parser = Parser(checked_length(text))
    sites: list[SiteText] = []
    while True:
        parser.skip_space()
        if len(sites) == MAX_PLACES:
            raise parser.error(f"a clip has at most {MAX_PLACES} places")
        sites.append(_site(parser))
        parser.skip_space()
        if parser.at == len(text):
            return tuple(sites)
        parser.expect(FRAME_BAR, "between two places, or '>' between two ops")


def _site(parser: Parser) -> SiteText:
    """Read a place and its chain, or its frames in brackets."""
    place = _place(parser)
    parser.skip_space()
    parser.expect(":", f"after the place {place!r:.80}")
    parser.skip_space()
    if not parser.text.startswith("[", parser.at):
        return SiteText(place, (parser.chain(),), False)
    parser.at += 1
    chains = [parser.chain()]
    while parser.text.startswith(FRAME_BAR, parser.at):
        parser.at += 1
        parser.skip_space()
        if parser.text.startswith("]", parser.at) and len(chains) == 1:
            break  # a set of one frame ends with a bar
        if len(chains) == MAX_FRAMES:
            raise parser.error(f"a frame set has at most {MAX_FRAMES} frames")
        chains.append(parser.chain())
    parser.expect("]", f"after the frames at {place!r:.80}, {FRAME_BAR!r} between two of them, or '>' between two ops")
    return SiteText(place, tuple(chains), True)


def _place(parser: Parser) -> str:
    """Read the name of a place."""
    quoted = _QUOTED.match(parser.text, parser.at)
    match = quoted or _PLAIN.match(parser.text, parser.at)
    begin = parser.at
    if match is None or not parser.text[match.end() :].lstrip().startswith(":"):
        raise parser.error(
            "expected a place with a colon, as in 'layer3: rotate(10)'; a frame set stands in brackets, as in 'layer3: "
            "[identity | flip_x]', and other names than paths of modules in double quotes"
        )
    parser.at = match.end()
    if quoted is None:
        return match.group()
    try:
        place: str = json.loads(quoted.group())
    except ValueError as error:
        raise parser.error(f"a place in double quotes is a JSON string ({error})", begin) from None
    return place


def _format_place(place: str) -> str:
    """Write the name of a place; in quotes, where it is not plain."""
    return place if _PLAIN.fullmatch(place) and place != _PRESET else json.dumps(place)
