"""Clips at several places of a network: the image or a map is moved at each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from image2video.clip.deep_json import SiteRecord, decode_sites, encode_sites
from image2video.clip.deep_text import format_sites, is_deep_text, parse_sites
from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import Genotype
from image2video.clip.genotype_text import FRAME_BAR, MAX_TEXT, NO_DEEP
from image2video.clip.matrices import compose
from image2video.clip.stored import Stored
from image2video.errors import InputError, InputTypeError
from image2video.trace.capture import constant
from image2video.trace.places import IMAGE, MAX_PATH, MAX_PLACES


@dataclass(frozen=True, repr=False)
class DeepClip(Stored):
    """A clip that moves at several places of a network, `image: translate_x(0.03) | layer3: rotate(10)` (ours).

    The first place makes T frames of every image. At every later one frame t, which is there already, is moved once
    more, by the chain of that place at its own power s(t), or by frame t of the set there. On the way back the matrix
    of frame t is the product of all of them, the first place's applied first. Frozen and hashable.

    Attributes:
        sites: pairs of a place and its clip, in the order in which the network passes the places. A place is the path
            of a module at whose input maps are moved, or `"image"`, which comes first. All clips are genotypes, or all
            are frame sets of as many frames.
        provenance: how the clip was found, a read-only mapping of JSON values; it is saved and loaded, and is no part
            of equality or hash. That of the clips at the places is left out.

    Raises:
        InputError: no place, more than 64, one that is named twice, genotypes among frame sets, sets of different
            lengths, `"image"` behind another place, or a text of more than 10 000 characters.
        InputTypeError: wrong types.

    >>> DeepClip.of({"image": "translate_x(0.03)", "layer3": "rotate(10)"}).places
    ('image', 'layer3')
    """

    refusal = NO_DEEP

    sites: tuple[tuple[str, Genotype | FrameSet], ...]
    provenance: Mapping[str, Any] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.sites, str | Mapping) or not isinstance(self.sites, Sequence):
            raise InputTypeError(
                f"sites is a tuple of pairs (place, clip), got {self.sites!r:.80}; DeepClip.of reads a dict, "
                "DeepClip.parse a text"
            )
        for index, pair in enumerate(self.sites):
            _check_pair(index, pair)
        plain = ((place, clip if clip.provenance is None else clip.with_provenance(None)) for place, clip in self.sites)
        object.__setattr__(self, "sites", tuple(plain))
        self._check_places()
        self._check_frames()
        if len(str(self)) > MAX_TEXT:
            raise InputError(
                f"a clip's text has at most {MAX_TEXT} characters, these {len(self.sites)} places need "
                f"{len(str(self))}; use fewer places or frames, or shorter chains"
            )
        self._freeze_provenance()

    def _check_places(self) -> None:
        """Raise `InputError` for places that no network can have in this order."""
        places = self.places
        if not 1 <= len(places) <= MAX_PLACES:
            raise InputError(f"a deep clip has 1 … {MAX_PLACES} places, got {len(places)}; name the places")
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice is not None:
            raise InputError(f"the place {twice!r:.80} is named twice; give it one chain, op after op")
        if IMAGE in places[1:]:
            raise InputError(
                f"the place {IMAGE!r} is before the network, and comes after {places[0]!r:.80} here; list it first"
            )

    def _check_frames(self) -> None:
        """Raise `InputError` where the places do not agree on what a frame is."""
        counts = {place: clip.T if isinstance(clip, FrameSet) else None for place, clip in self.sites}
        if len({*counts.values()}) == 1:
            return
        found = ", ".join(f"{place:.40}: {'a chain' if T is None else f'{T} frames'}" for place, T in counts.items())
        raise InputError(
            "the places of a clip hold chains all of them, or frame sets of as many frames all of them; got "
            f"{found:.300}; write each chain as the set of its frames, and repeat frames where a place has fewer"
        )

    @classmethod
    def of(cls, sites: Mapping[str, Genotype | FrameSet | str]) -> DeepClip:
        """Make a deep clip of a mapping, whose order is that of the places.

        Args:
            sites: for each place a genotype, a frame set, or the text of either.

        Returns:
            The deep clip, without provenance.

        Raises:
            InputError: a text that is wrong, and whatever the constructor refuses.
            InputTypeError: no mapping, or a value that is no clip.
        """
        if not isinstance(sites, Mapping):
            raise InputTypeError(f"a deep clip is made of a dict from places to clips, got {sites!r:.80}")
        return cls(tuple((place, _clip_of(place, clip)) for place, clip in sites.items()))

    @classmethod
    def parse(cls, text: str) -> DeepClip:
        """Read a deep clip from its text; `InputError` names the position of what is wrong.

        Args:
            text: places with their chains, and bars between them, such as `image: scale(1.1) | layer3: rotate(10)`;
                frame sets stand in brackets, `layer3: [identity | flip_x]`.

        Returns:
            The deep clip, without provenance.
        """
        return cls(tuple((site.place, _clip(site.chains, is_set=site.is_set)) for site in parse_sites(text)))

    def to_json(self) -> str:
        """Write the deep clip as JSON.

        Returns:
            The text: `schema_version`, the places with their chains or frames and, where there is one, the provenance.
        """
        records = []
        for place, clip in self.sites:
            is_set = isinstance(clip, FrameSet)
            chains = tuple(frame.items for frame in clip.frames) if isinstance(clip, FrameSet) else (clip.items,)
            records.append(SiteRecord(place, chains, is_set))
        return encode_sites(records, self.provenance)

    @property
    def places(self) -> tuple[str, ...]:
        """The names of the places, in order."""
        return tuple(place for place, _ in self.sites)

    @property
    def clips(self) -> tuple[Genotype | FrameSet, ...]:
        """The genotype or frame set of each place."""
        return tuple(clip for _, clip in self.sites)

    @property
    def begins_at_image(self) -> bool:
        """Whether the first place is the image, and not a map inside of the network."""
        return self.places[0] == IMAGE

    @property
    def inner(self) -> tuple[str, ...]:
        """The places inside of the network."""
        return self.places[1:] if self.begins_at_image else self.places

    @property
    def is_set(self) -> bool:
        """Whether the places hold frame sets."""
        return isinstance(self.clips[0], FrameSet)

    @property
    def T(self) -> int | None:  # noqa: N802 (the field's name for the number of frames)
        """How many frames the sets list; None for chains, which have as many as one asks for."""
        first = self.clips[0]
        return first.T if isinstance(first, FrameSet) else None

    @property
    def is_geometric(self) -> bool:
        """Whether no place changes colours."""
        return all(clip.is_geometric for clip in self.clips)

    @property
    def has_cells(self) -> bool:
        """Whether some magnitude is in cells; see `Genotype.has_cells`."""
        return any(clip.has_cells for clip in self.clips)

    def first(self, count: int) -> DeepClip:
        """Return the clip of the first places alone.

        Args:
            count: how many, 1 or more.

        Returns:
            The new one, without provenance.
        """
        return DeepClip(self.sites[:count])

    def step_matrices(
        self,
        steps: Sequence[float],
        height: int,
        width: int,
        device: torch.device | str = "cpu",
        *,
        cells: Sequence[tuple[int, int] | None] | None = None,
    ) -> Tensor:
        """Compute the matrices of frames behind all places: the product of those of the places, the last one leftmost.

        Convention: as in `Genotype.matrix`, in centred pixels of the image. A map moves in [-1, 1] coordinates as its
        image does, so that matrices of maps of several sizes multiply.

        Args:
            steps: the powers of a genotype's frames, or the numbers of a set's.
            height: of the image, in pixels.
            width: likewise.
            device: where to compute; it must know float64.
            cells: for each place, (h, w) of the map there, whose cells magnitudes in cells mean; None: the image's
                pixels.

        Returns:
            The matrices `(S, 3, 3)`, float64.
        """
        sizes = [None] * len(self.sites) if cells is None else list(cells)
        total: Tensor | None = None
        for clip, size in zip(self.clips, sizes, strict=True):
            matrices = clip.step_matrices(steps, height, width, device, cells=size)
            total = matrices if total is None else constant(compose, matrices, total)
        assert total is not None, "there is a place"
        return total

    def mirrored(self, step: float) -> tuple[int, ...] | None:
        """Tell which axes a frame mirrors, where no place does anything else; see `Genotype.mirrored`.

        Args:
            step: the power of a genotype's frame, or the number of a set's.

        Returns:
            The axes; `()` where every pixel stays in its place, and None where the frame is sampled or shifted.
        """
        axes: set[int] = set()
        for clip in self.clips:
            more = clip.mirrored(step)
            if more is None:
                return None
            axes ^= {*more}
        return tuple(sorted(axes))

    def nearest(self, steps: Sequence[float]) -> int:
        """Find the frame that moves least, which stands in where no frame shows a place.

        Args:
            steps: the powers or numbers of the frames.

        Returns:
            The index of the first that no place moves, else of the first that is mirrored alone, else of the smallest
            |s| of chains, and 0 of sets.
        """
        ranks = [2 * (self.mirrored(step) is None) + (self.mirrored(step) != ()) for step in steps]
        sizes = [0.0 if self.is_set else abs(step) for step in steps]
        return min(range(len(ranks)), key=lambda index: (ranks[index], sizes[index]))

    def check_steps(self, steps: Sequence[float]) -> None:
        """Raise `InputError` where a place has no frame at one of these powers or numbers.

        Args:
            steps: the powers or numbers to check.
        """
        for clip in self.clips:
            clip.check_steps(steps)

    def __str__(self) -> str:
        return format_sites([(place, str(clip), isinstance(clip, FrameSet)) for place, clip in self.sites])

    def __repr__(self) -> str:
        return f"DeepClip.parse({str(self)!r})"

    @classmethod
    def _decode(cls, text: str, source: str) -> DeepClip:
        """Read JSON; `source` names it in errors."""
        records, provenance = decode_sites(text, source)
        try:
            return cls(tuple((one.place, _clip(one.chains, is_set=one.is_set)) for one in records), provenance)
        except InputTypeError as error:
            raise InputTypeError(f"{source}: {error}") from None
        except InputError as error:
            raise InputError(f"{source}: {error}") from None


def _check_pair(index: int, pair: Any) -> None:
    """Raise unless something is the name of a place with its clip."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise InputTypeError(f"sites[{index}] must be a pair (place, clip), got {pair!r:.80}")
    place, clip = pair
    if not isinstance(place, str):
        raise InputTypeError(f"a place is the path of a module or {IMAGE!r}, got {place!r:.80}")
    if not 0 < len(place) <= MAX_PATH:
        raise InputError(f"a place is the path of a module, 1 … {MAX_PATH} characters, got {len(place)}: {place!r:.80}")
    if not isinstance(clip, Genotype | FrameSet):
        raise InputTypeError(
            f"the clip at {place!r:.80} must be a Genotype or a FrameSet, got {clip!r:.80}; DeepClip.of reads texts"
        )


def _clip_of(place: object, value: object) -> Genotype | FrameSet:
    """Return the clip of one place, which may be a text."""
    if not isinstance(value, str):
        return value  # type: ignore[return-value]  # checked by the constructor
    if is_deep_text(value):
        raise InputError(f"the clip at {place!r:.80} must be a chain or a frame set, got places again: {value!r:.80}")
    try:
        return FrameSet.parse(value) if FRAME_BAR in value else Genotype.parse(value)
    except InputError as error:
        raise InputError(f"at {place!r:.80}: {error}") from None


def _clip(chains: Sequence[Any], *, is_set: bool) -> Genotype | FrameSet:
    """Return the clip of the chains that a text or a file has."""
    found = tuple(Genotype.of_items(chain) for chain in chains)
    return FrameSet(found) if is_set else found[0]
