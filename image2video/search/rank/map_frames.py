"""The averaged predictions of a fixed model under many clips that begin at one place inside of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from image2video.clip.deep_clip import DeepClip
from image2video.clip.deep_video import DeepVideo
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video, frames_to_clip
from image2video.clip.map_frames import map_clip
from image2video.clip.options import ClipOptions
from image2video.fusion.registry import resolve_fusion
from image2video.inject import Injection, inject_
from image2video.inject.clip_site import ClipSite
from image2video.inject.paths import Paths
from image2video.inject.plan import Plan
from image2video.search.cell.clip_view import clip_view
from image2video.search.rank.averaging import FrameKey, averages, check_float, matrix_key
from image2video.search.rank.clip_candidate import ClipCandidate
from image2video.search.rank.shared_weights import FULL, Precision
from image2video.search.score.network import FrameNetwork
from image2video.search.score.task import ClassificationTask, Task
from image2video.wrap.ways import way_back

Size = tuple[int, int]


@dataclass(frozen=True)
class _Frame:
    """A frame of a map: a chain at one power, and how it is sampled."""

    genotype: Genotype
    options: ClipOptions
    step: float


@dataclass(frozen=True)
class _Plan:
    """The different frames of some clips, those of one chain together, and `(clips, frames)` of their shares."""

    frames: tuple[_Frame, ...]
    shares: Tensor


@dataclass(frozen=True)
class _Maker:
    """Makes given frames of maps in place of a clip; what `Injection.frames` asks."""

    frames: tuple[_Frame, ...]

    def map_frames(self, maps: Tensor, image_size: Size, T: int | None = None) -> Tensor:
        """Return the frames `(B·U, C, h, w)` of maps `(B, C, h, w)`."""
        parts = []
        for (genotype, options), group in groupby(self.frames, key=lambda frame: (frame.genotype, frame.options)):
            steps = tuple(frame.step for frame in group)
            parts.append(map_clip(maps, genotype, steps, image_size, options))
        return torch.cat(parts, dim=1).flatten(0, 1)


class MapFrames:
    """Predicts many clips that begin at a place inside of a classifier; a frame that several share is predicted once.

    What lies before the place runs once for an image, where its frames fit into one batch.

    Args:
        model: images `(N, C, H, W)` -> logits `(N, K)`; it is bare again after each call.
        site: where the clips begin.
        batch_size: frames per forward pass.
        precision: makes the context of the forward passes.

    Attributes:
        frames: how many frames have gone through what lies behind the place.
    """

    def __init__(self, model: nn.Module, site: ClipSite, batch_size: int, precision: Precision = FULL) -> None:
        self.model, self.site, self.batch_size, self.precision = model, site, batch_size, precision
        self.frames = 0
        self._paths = Paths()

    def predictions(self, images: Tensor, clips: Sequence[ClipCandidate]) -> list[Tensor]:
        """The averages over the frames, `(B, K)` per clip, as `AveragedFrames` gives them.

        Raises `InputTypeError` for images that are not float, `InputError` for logits that are not `(N, K)`.
        """
        check_float(images)
        plan = _plan(clips, (images.shape[-2], images.shape[-1]), self.site)
        # As few images at once as let all frames of an image go together.
        few = max(1, self.batch_size // len(plan.frames))
        with _injected(self.model, self.site, self._paths) as injection:
            rows = [self._predict(injection, part, plan.frames) for part in images.split(few)]
        return averages(torch.cat(rows), plan.shares, [clip.aggregate for clip in clips])

    def _predict(self, injection: Injection, images: Tensor, frames: tuple[_Frame, ...]) -> Tensor:
        """Logits `(B, U, K)` of the frames."""
        logits = []
        most = max(2, self.batch_size // len(images))
        for start in range(0, len(frames), most):
            part = frames[start : start + most]
            # A scope of one frame is the bare network: a lone frame goes twice.
            part = part if len(part) > 1 else part * 2
            with self.precision(), injection._frames(len(part), maker=_Maker(part)):
                out = self.model(images)
            ClassificationTask().check(out, len(images) * len(part))
            self.frames += out.shape[0]
            clip = frames_to_clip(out.float() if out.dtype != torch.float64 else out, len(part))
            logits.append(clip[:, : len(frames) - start])
        return torch.cat(logits, dim=1)


class MapClips:
    """Predicts clips that begin at a place inside of a network, one after the other, for any task.

    Every clip runs what lies before the place again.

    Args:
        model: images -> what `task` takes; it is bare again after each call.
        site: where the clips begin.
        task: what is predicted, and how frames are averaged.
        precision: makes the context of the forward passes.

    Attributes:
        frames: how many frames have gone through what lies behind the place.
    """

    def __init__(self, model: nn.Module, site: ClipSite, task: Task, precision: Precision = FULL) -> None:
        self.model, self.site, self.task, self.precision = model, site, task, precision
        self.frames = 0
        self._paths = Paths()

    def predictions(self, images: Tensor, clips: Sequence[ClipCandidate]) -> Iterator[Any]:
        """What the task predicts from the frames of each clip, `(B, …)` per clip, each when it is asked for.

        Raises `InputTypeError` for images that are not float `(B, C, H, W)`, and what the task's `check` raises.
        """
        check_float(images)
        return (self._alone(images, clip) for clip in clips)

    def _alone(self, images: Tensor, clip: ClipCandidate) -> Any:
        # The network is bare again before the caller sees the maps, whatever it does with them.
        with _injected(self.task.part(self.model), self.site, self._paths) as injection:
            return self._predict(injection, images, clip)

    def _predict(self, injection: Injection, images: Tensor, clip: ClipCandidate) -> Any:
        video = Image2Video.of(clip.chain, clip.options)
        size = (images.shape[-2], images.shape[-1])
        self.frames += images.shape[0] * video.T
        with self.precision():
            with injection._frames(video.T, maker=video):
                outputs = self.model(images)
            self.task.check(outputs, images.shape[0] * video.T)
            back = way_back(video, (self.site,), size)
            return self.task.predict(outputs, video.T, lambda maps: back.unwarped_mean(maps, size))


class DeepClips:
    """Predicts clips that move at several places of a network, one after the other, for any task.

    Frames that are the same up to a place are one row until there, as in a `VideoWrap`.

    Args:
        model: images -> what `task` takes; it is bare again after each call.
        plan: of the places, without fusions.
        task: what is predicted, and how frames are averaged.
        precision: makes the context of the forward passes.

    Attributes:
        frames: how many frames have been predicted.
    """

    def __init__(self, model: nn.Module, plan: Plan, task: Task, precision: Precision = FULL) -> None:
        self.model, self.plan, self.task, self.precision = model, plan, task, precision
        self.frames = 0
        self._paths = Paths()

    def predictions(self, images: Tensor, clips: Sequence[ClipCandidate]) -> list[Any]:
        """What the task predicts from the frames of each clip, `(B, …)` per clip.

        Raises `InputTypeError` for images that are not float `(B, C, H, W)`, and what the task's `check` raises.
        """
        check_float(images)
        found = []
        with injected(self.task.part(self.model), self.plan, self._paths) as injection:
            network = FrameNetwork(self.model, injection)
            for clip in clips:
                assert isinstance(clip.genotype, DeepClip), "chains have predictors of their own"
                video = DeepVideo(clip.genotype, clip.options)
                self.frames += images.shape[0] * video.T
                with self.precision():
                    view = clip_view(video, images, self.plan.clip_sites, shared=clip.shared)
                    outputs = network(view.inputs, view.maker)
                    self.task.check(outputs, images.shape[0] * video.T)
                    if self.task.name == "classification" and clip.aggregate != "mean":
                        found.append(_log_mean(outputs, video.T))
                    else:
                        found.append(self.task.predict(outputs, video.T, view.unwarp))
        return found


def _log_mean(logits: Tensor, T: int) -> Tensor:
    """The log of the mean probability `(B, K)` over T frames of logits `(B·T, K)`."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return frames_to_clip(wide.log_softmax(-1), T).logsumexp(1) - math.log(T)


@contextmanager
def _injected(model: nn.Module, site: ClipSite, paths: Paths) -> Iterator[Injection]:
    """Let clips begin at a place of a network for a while; `paths` remembers what was traced before."""
    height, width = site.grid.image
    with injected(model, Plan(resolve_fusion("none"), (), (0, height, width), clip_site=site), paths) as injection:
        yield injection


@contextmanager
def injected(model: nn.Module, plan: Plan, paths: Paths) -> Iterator[Injection]:
    """Let clips move at the places of a plan for a while; `paths` remembers what was traced before."""
    injection = inject_(model, plan)
    injection._paths.found = paths.found
    try:
        yield injection
    finally:
        injection._remove_()


def _plan(clips: Sequence[ClipCandidate], size: Size, site: ClipSite) -> _Plan:
    """Find the different frames of some clips, for images of `size` (H, W)."""
    cells = site.map_size_of(size)
    found: dict[FrameKey, _Frame] = {}
    held: list[list[FrameKey]] = []
    for clip in clips:
        chain, one = clip.chain, clip.options.replace(T=1)
        how = (one.padding, one.interpolation)
        steps = clip.options.steps
        # The frames of chains in cells are not known where the size of the map is not.
        unknown = chain.has_cells and cells is None
        matrices = chain.step_matrices(steps, *size, cells=cells)
        keys: list[FrameKey] = []
        for step, matrix in zip(steps, matrices, strict=True):
            axes = chain.mirrored(step)
            if axes is not None:
                keys.append(("exact", axes))
            else:
                keys.append((chain, step, *how) if unknown else (*matrix_key(matrix), *how))
            found.setdefault(keys[-1], _Frame(chain, one, step))
        held.append(keys)
    column = {key: number for number, key in enumerate(found)}
    shares = torch.zeros(len(clips), len(column), dtype=torch.float64)
    for row, keys in enumerate(held):
        for key in keys:
            shares[row, column[key]] += 1 / len(keys)
    return _Plan(tuple(found.values()), shares)
