"""A wrapper's clip in its state dict: written with the weights, compared with theirs or taken over from them."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

import image2video.clip.random_clips  # noqa: F401  registers the source that a saved model may name
from image2video.clip.any_clip import listed_frames, options_for, parse_any_clip
from image2video.clip.frame_sources import FrameSource, source_from_record
from image2video.clip.genotype_text import FRAME_BAR
from image2video.errors import InputError
from image2video.fusion.registry import config_from_dict
from image2video.inject.api import Injection, inject_
from image2video.inject.planning import plan
from image2video.trace.places import IMAGE
from image2video.wrap.aggregate import check_aggregation
from image2video.wrap.clip_files import record_in
from image2video.wrap.clip_record import (
    CLIP_OPTIONS,
    FUSION_OPTIONS,
    ClipWarning,
    Video,
    describe,
    differing,
    encode,
    record_of,
)
from image2video.wrap.inside import check_begin
from image2video.wrap.steps import video_of

OPTIONS = (*CLIP_OPTIONS, "frames", *FUSION_OPTIONS, "aggregate")
"""The arguments of `VideoWrap` that its state dict records."""


class ClipState(nn.Module):
    """What `VideoWrap` does with the clip in state dicts; see `image2video.wrap.clip_record`."""

    to_video: Video
    backbone: nn.Module
    fusion: Injection
    aggregate: Any
    residual: bool
    # Which options a checkpoint decides when it is loaded, and what has been warned of: loading again says it once.
    _follows: frozenset[str] = frozenset()
    _warned: frozenset[str] = frozenset()

    def get_extra_state(self) -> Tensor:
        """Put the clip into the state dict, under the key `_extra_state`.

        Returns:
            The record as text, `(N,)` uint8.
        """
        return encode(self._record(), self)

    def load_clip(self, source: Mapping[str, Any] | str | os.PathLike[str]) -> None:
        """Take over the clip of a checkpoint's training: genotype, T, options, place, fusion, sites, aggregation.

        Weights are not loaded. Where fusion or sites are other ones, the fusions are made anew: call it before
        `load_state_dict`, and before an optimiser, DistributedDataParallel or torch.compile get the model.

        `MissingError` says that there is no such file, or no clip in it (earlier versions wrote none). `InputError`
        refuses a clip that cannot be read, and sites that the backbone does not have; the model then stays as it was.

        Args:
            source: a state dict, a checkpoint file (.safetensors, or torch's with tensors and plain values only), or a
                folder of `save_pretrained`.
        """
        saved = record_in(source)
        self._take_over(saved, set(OPTIONS))

    def follow_clip(self, options: Iterable[str]) -> None:
        """Let every checkpoint that is loaded from now on decide these options, as the `i2v_` models of timm do.

        Args:
            options: arguments of `VideoWrap`; those that no state dict records are left out.
        """
        self._follows = frozenset(options) & frozenset(OPTIONS)

    def meet_clip(self, saved: Mapping[str, Any]) -> None:
        """Take over what a loaded checkpoint decides (see `follow_clip`), and warn once of what else differs.

        Args:
            saved: the checkpoint's record.
        """
        fusions = self.fusion
        if self._follows:
            self._take_over(saved, _adoptable(saved, self._record(), self._follows))
        if self.fusion is not fusions and list(fusions.parameters()) and list(self.fusion.parameters()):
            self._warn_once(
                "the fusions were made anew, as the checkpoint has them "
                f"({self.fusion._plan.fusion} at {len(self.fusion._plan.sites)} sites): an optimiser, "
                "DistributedDataParallel or torch.compile that got the model before holds the old ones; make them "
                "after the checkpoint is loaded"
            )
        own = self._record()
        names = differing(saved, own)
        if names:
            self._warn_once(
                f"the checkpoint was trained with another clip: {describe(names, saved, own)}. The model keeps its "
                "own; wrap with the checkpoint's options, or take them over with model.load_clip(checkpoint)"
            )

    def meet_no_clip(self) -> None:
        """Warn once that the clip of a loaded checkpoint of a wrapped model is not known."""
        self._warn_once(
            "the checkpoint is of a wrapped model and does not say with which clip it was trained (earlier versions "
            f"wrote none, and had other defaults); the model keeps its own: genotype={self._record()['genotype']!r}, "
            f"T={self.to_video.T}. Make sure that it is the checkpoint's"
        )

    def _record(self) -> dict[str, Any]:
        """Record the clip as the model has it now."""
        return record_of(self.to_video, self.fusion, self.residual, self.aggregate)

    def _take_over(self, saved: Mapping[str, Any], names: set[str]) -> None:
        """Take over the named options of a record; all checks come before the first change."""
        own = self._record()
        differ = [name for name in differing(saved, own) if name in names]
        to_video = self._clip_of(saved, names) if {*CLIP_OPTIONS, "frames"} & set(differ) else self.to_video
        aggregate = saved["aggregate"] if "aggregate" in differ else self.aggregate
        check_aggregation(aggregate)
        place = saved["clip_at"] if "clip_at" in differ else own["clip_at"]
        if place != IMAGE and isinstance(place, str):
            check_begin(to_video, place)
        if set(FUSION_OPTIONS) & set(differ):
            self._remake_fusions({**own, **{name: saved[name] for name in differ}})
        self.to_video = to_video.train(self.training)
        self.aggregate = aggregate

    def _clip_of(self, saved: Mapping[str, Any], names: set[str]) -> Video:
        """Make what makes the frames: the record's where named, and as it is now elsewhere."""
        if saved.get("frames") is not None and "frames" in names:
            source = source_from_record({**saved["frames"], "T": saved["T"]})
            source.set_frames(saved["T"] if "T" in names else self.to_video.T)
            return source
        if isinstance(self.to_video, FrameSource):
            if "frames" not in names:
                source = copy.deepcopy(self.to_video)
                source.set_frames(saved["T"])
                return source
            now: dict[str, Any] = {"T": self.to_video.T}
        else:
            now = {"genotype": self.to_video.genotype, **self.to_video.options.arguments()}
        known = {name for name in CLIP_OPTIONS if name in names and saved.get(name) is not None}
        taken = {name: saved[name] for name in known}
        if "genotype" in taken:  # parsed here: a text that came from a file names no other file
            taken["genotype"] = parse_any_clip(taken["genotype"])
        arguments = {**now, **taken}
        clip = arguments.pop("genotype")
        return video_of(clip, options_for(clip, **arguments))

    def _remake_fusions(self, record: Mapping[str, Any]) -> None:
        """Hook the fusions of a record into the backbone in place of the present ones; tried on a copy first."""
        config = config_from_dict(record["fusion"])
        residual = self.residual if record["residual"] is None else record["residual"]
        bare = copy.deepcopy(self).unwrap()  # type: ignore[operator]
        size = self.fusion._plan.input_size
        the_plan = plan(bare, fusion=config, sites=record["sites"] or None, input_size=size, clip_at=record["clip_at"])
        if [*the_plan.names] != record["sites"]:
            raise InputError(
                f"the checkpoint's fusion, {config}, is at the sites {record['sites']}; found {[*the_plan.names]} in "
                f"this {type(bare).__name__}; build the backbone as it was"
            )
        inject_(bare, the_plan, residual=residual)
        self.fusion._remove_()
        self.fusion = inject_(self.backbone, the_plan, residual=residual).train(self.training)
        self.residual = residual

    def _warn_once(self, message: str) -> None:
        """Warn, unless this model has said the same before."""
        if message not in self._warned:
            self._warned |= {message}
            warnings.warn(message, ClipWarning, stacklevel=2)


def _adoptable(saved: Mapping[str, Any], own: Mapping[str, Any], follows: frozenset[str]) -> set[str]:
    """Return which options may be taken over without undoing one that does not follow."""
    names = set(follows)
    drawn = saved.get("frames") is not None or own["frames"] is not None
    if drawn and saved.get("frames") != own["frames"]:
        # A source decides all options of the clip but T; it replaces them all, or stays.
        rest = {"frames", *CLIP_OPTIONS} - {"T"}
        names -= set() if rest <= names else rest
    if not drawn and _set_is_torn(saved, own, names):
        names -= {"genotype", "T", "schedule"}
    if _places_are_torn(saved, own, names):
        names -= {"genotype", "T", "schedule", *FUSION_OPTIONS}
    if not {"fusion", "sites"} <= names and saved.get("fusion") != own["fusion"]:
        names -= set(FUSION_OPTIONS)
    if "clip_at" not in names and saved["clip_at"] != own["clip_at"]:
        names -= set(FUSION_OPTIONS)  # the checkpoint's sites are those behind its own place
    return names


def _set_is_torn(saved: Mapping[str, Any], own: Mapping[str, Any], names: set[str]) -> bool:
    """Return whether taking over these options would part a frame set from its schedule or from its frames."""
    texts = saved.get("genotype") or "", own["genotype"] or ""
    if texts[0] == texts[1] or not any(FRAME_BAR in text for text in texts):
        return False
    if not names >= {"genotype", "schedule"}:
        return True
    listed = listed_frames(parse_any_clip(texts[0]))
    return listed is not None and "T" not in names and own["T"] > listed


def _places_are_torn(saved: Mapping[str, Any], own: Mapping[str, Any], names: set[str]) -> bool:
    """Return whether taking over these options would part a clip at several places from its places."""
    several = isinstance(saved["clip_at"], list) or isinstance(own["clip_at"], list)
    return several and not names >= {"genotype", "clip_at"}
