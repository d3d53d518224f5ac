"""The candidates of `image2video search --compare`: what a search has to be better than, as text and as arms."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from image2video.clip.genotype import Genotype
from image2video.errors import Image2VideoError, InputError
from image2video.experiments.arms import Arm
from image2video.report import Contrast
from image2video.report.table import genotype_text

FOUND = "found"
SEARCHES = {
    "frozen": "the same search with τ never trained",
    "argmax": "the largest τ on every edge",
    "perturbation": "the paper's selection",
    "one_shot": "chains ranked under shared weights",
    "fixed_weights": "chains ranked for the trained weights",
}
"""Candidates that a search of their own finds, with the same settings and budget."""
CONTROLS = {
    "random": "clips drawn from the space",
    "replica": "the image T times",
    "bare": "the network without a video, also at equal compute; always there",
    "averaging": "the found clip without fusion",
}
"""Candidates that are not searched for."""
COUNTED = ("random", *(name for name in SEARCHES if name != "fixed_weights"))
"""Those that may carry a count: so many draws, or searches with so many seeds."""
OFF = "none"
_LONG_NAME = 80
MAX_TEXT = 10_000
MAX_ITEMS = 100
MAX_COUNT = 10_000

_GENOTYPE = re.compile(r"\(|>|\||^preset:|\.json$|^identity$")
"""What only a genotype has (or a frame set, which is refused as such)."""


@dataclass(frozen=True)
class Candidate:
    """One item of `--compare`: a known name with a count, or `genotype` with the chain itself."""

    name: str
    count: int = 1
    genotype: Genotype | None = None


def parse_candidates(text: str | None) -> tuple[Candidate, ...]:
    """The candidates of a list such as `random:5,frozen,argmax,replica`; none for None and `none`.

    An item is NAME or NAME:COUNT out of `SEARCHES` and `CONTROLS`, or a genotype: a text, a .json file, `preset:NAME`.

    Raises:
        InputError: an unknown name (the message lists what is known), a count below 1 or where none can be, an item
            twice.

    """
    if text is None or text.strip() == OFF:
        return ()
    items = text.split(",")
    if len(text) > MAX_TEXT or len(items) > MAX_ITEMS:
        raise InputError(
            f"--compare must have at most {MAX_TEXT} characters and {MAX_ITEMS} candidates, got {len(text)} and "
            f"{len(items)}"
        )
    found: list[Candidate] = []
    for item in items:
        candidate = _parse_item(item.strip())
        if any((c.name, c.genotype) == (candidate.name, candidate.genotype) for c in found):
            raise InputError(
                f"--compare names {item.strip()!r:.80} twice; several draws of one are {candidate.name}:COUNT"
            )
        found.append(candidate)
    return tuple(found)


def _parse_item(item: str) -> Candidate:
    """The candidate of one item."""
    name, colon, count = item.partition(":")
    if name in SEARCHES or name in CONTROLS:
        if not colon:
            return Candidate(name)
        if name not in COUNTED:
            raise InputError(
                f"--compare {item!r:.80}: {name} is always the same; only {', '.join(COUNTED)} take a count"
            )
        if not (re.fullmatch(r"[0-9]{1,5}", count) and 1 <= int(count) <= MAX_COUNT):
            raise InputError(
                f"--compare {item!r:.80}: a count must be at least 1 and at most {MAX_COUNT}, as in {name}:5"
            )
        return Candidate(name, int(count))
    if item == OFF:
        raise InputError(f"--compare: {OFF!r} means no comparison and stands alone; without fusion is 'averaging'")
    if not _GENOTYPE.search(item):
        raise InputError(
            f"--compare: unknown candidate {item!r:.80}; known are {', '.join((*CONTROLS, *SEARCHES))}, and genotypes: "
            "a text such as rotate(10), a .json file, preset:NAME"
        )
    try:
        return Candidate("genotype", genotype=Genotype.coerce(item))
    except Image2VideoError as error:
        raise InputError(f"--compare {item!r:.80}: {error}") from None


def check_candidates(candidates: Sequence[Candidate], *, trained: bool, held_out: bool) -> None:
    """Refuse candidates that need trained weights or held-out images where there are none.

    Raises:
        InputError: they are missing.
    """
    if any(c.name == "fixed_weights" for c in candidates) and not (trained and held_out):
        missing = (
            "images it has not seen; give --holdout above 0" if trained else "a trained network; give --weights FILE"
        )
        raise InputError(f"--compare fixed_weights needs {missing}")


def candidate_arms(
    candidates: Sequence[Candidate], chains: Mapping[str, Sequence[Genotype]], *, T: int, fusion: str, space: str
) -> tuple[tuple[Arm, ...], tuple[Contrast, ...]]:
    """The arms of a comparison and its questions; `chains` holds the genotypes of every candidate by `key_of`.

    `chains["found"]` is what the search found. The bare network takes part with as many epochs, and with T times as
    many, which is equal compute.
    """
    found, bare = str(chains[FOUND][0]), "the image itself"
    arms = [
        Arm(FOUND, f"found, {fusion.upper()}", found, fusion, group="the search"),
        Arm("bare", "bare network", group=bare),
        Arm("bare_long", f"bare network, {T}× epochs", epochs_factor=T, group=bare),
    ]
    contrasts = [
        Contrast("equal_compute", "at equal compute", FOUND, "bare_long", headline=True),
        Contrast("equal_epochs", "at equal epochs", FOUND, "bare"),
    ]
    for candidate in candidates:
        key = key_of(candidate)
        if candidate.name == "averaging":
            arms.insert(1, Arm(key, "found, averaged without fusion", found, "none", group="the search"))
        arms += _video_arms(candidate, chains.get(key, ()), fusion, space)
        if candidate.name != "bare":
            lead = _LEADS.get(candidate.name, "instead of this chain")
            contrasts.append(Contrast(candidate.name, lead, FOUND, key, headline=candidate.name == "random"))
    # A table shows a group's heading once, so the arms of a group stand together.
    groups = list(dict.fromkeys(arm.group for arm in arms))
    return tuple(sorted(arms, key=lambda arm: groups.index(arm.group))), tuple(contrasts)


def _video_arms(candidate: Candidate, chains: Sequence[Genotype], fusion: str, space: str) -> list[Arm]:
    """An arm per chain of one candidate; contrasts take them as one."""
    key, group = key_of(candidate), "controls"
    if candidate.name == "random":
        group = f"random clips of {space}"
    elif candidate.name in SEARCHES:
        group = "other selections" if len(chains) == 1 else f"selection {candidate.name}"
    arms = []
    for number, chain in enumerate(chains, start=1):
        # The names of a longer list begin with those of a shorter one: a resumed comparison finds its files.
        suffix = str(number) if candidate.name == "random" or number > 1 else ""
        title = f"{_title(candidate)} {suffix}".strip()
        arms.append(Arm(key + suffix, f"{title}, {fusion.upper()}", str(chain), fusion, group=group, pool=key))
    return arms


def _title(candidate: Candidate) -> str:
    """The candidate in tables."""
    if candidate.genotype is not None:
        return genotype_text(str(candidate.genotype))
    return "copies (replica)" if candidate.name == "replica" else candidate.name.replace("_", " ")


_LEADS = {
    "random": "a search instead of a random draw",
    "replica": "a moving clip instead of copies",
    "averaging": "fusion instead of averaging",
    "frozen": "training τ instead of leaving it",
    "argmax": "instead of the largest τ",
    "perturbation": "instead of perturbation",
    "one_shot": "instead of one-shot ranking",
    "fixed_weights": "instead of a ranking for the trained weights",
}


def key_of(candidate: Candidate) -> str:
    """What files of the candidate are called: its name, and for a genotype one that its chain decides."""
    if candidate.genotype is None:
        return candidate.name
    text = str(candidate.genotype)
    plain = re.sub(r"[^a-z0-9.-]+", "_", text).strip("_")
    if len(plain) > _LONG_NAME:  # what is cut off still tells two chains apart
        plain = f"{plain[:_LONG_NAME]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return f"genotype_{plain}"
