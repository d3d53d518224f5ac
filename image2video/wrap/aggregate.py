"""Frames back to images: the outputs of B·T frames become the outputs of B images."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from image2video.errors import InputError, InputTypeError, UnsupportedError
from image2video.protocols import Unwarper
from image2video.trace.layout import NCHW, NHWC, Layout

AGGREGATIONS = ("auto", "mean", "mean_prob", "first", "unwarp", "none")
"""The named ways to aggregate; a callable `(outputs, T) -> outputs` is the other one."""

Aggregation = str | Callable[[Any, int], Any]


@dataclass(frozen=True)
class OutputFormats:
    """What is known of the layouts of a backbone's outputs.

    Args:
        declared: the backbone's own `output_fmt` for maps, `"NCHW"` or `"NHWC"`; None where it declares none.
        layouts: layouts by path in the output (`""`, `"[1]"`, `"['aux']"`), read from a trace of the backbone.
    """

    declared: Literal["NCHW", "NHWC"] | None = None
    layouts: Mapping[str, Layout] = field(default_factory=dict)


def check_aggregation(how: Aggregation) -> None:
    """Raise `InputError` for an unknown name, `InputTypeError` for what is neither a name nor callable."""
    if isinstance(how, str):
        if how not in AGGREGATIONS:
            raise InputError(f"aggregate={how!r} is unknown; choose one of {', '.join(AGGREGATIONS)}, or a callable")
    elif not callable(how):
        raise InputTypeError(f"aggregate must be a name or a callable (outputs, T); got {type(how).__name__}")


def aggregate(
    outputs: Any,
    T: int,
    how: Aggregation = "auto",
    *,
    to_video: Unwarper,
    image_size: tuple[int, int],
    formats: OutputFormats | None = None,
    rows: int | None = None,
) -> Any:
    """Aggregate whatever a backbone returned for frames `(B·T, …)` over T.

    Tensors, tuples, lists, dicts and dataclasses are walked, and keep their types; None stays None. Sums are taken in
    float32, results have the output's dtype. The choices of `how`:

    - `"auto"`: vectors `(B·T, K)` → mean; maps (4-D) → unwarped to the reference image, then averaged where valid;
      tokens `(B·T, N, C)` → the same on their grid, prefix tokens averaged as they are.
    - `"mean"`: the mean over T of every tensor, unwarping nothing (the paper's, for logits).
    - `"mean_prob"`: the log of the mean of softmax(output) over T, so that cross-entropy stays right (ours).
    - `"first"`: frame 0 of every tensor; under the schedule `from_zero` that is the image itself.
    - `"unwarp"`: as `"auto"`, but an error where the outputs hold no map and no tokens.
    - `"none"`: `(B, T, …)`, nothing aggregated.
    - a callable `(outputs, T)`, which gets the outputs as they are.

    `rows` is B·T where the caller knows it; `image_size` is (height, width) of the images, for unwarping.
    Raises `InputError` for a leading dimension that is not B·T, `InputTypeError` for what is no tensor or has a dtype
    that cannot be averaged, `UnsupportedError` for a layout that is not known; each names the path, as `out[1]["aux"]`.
    """
    check_aggregation(how)
    if not isinstance(how, str):
        return how(outputs, T)
    walk = _Aggregator(T, how, to_video, image_size, formats or OutputFormats(), rows)
    result = walk(outputs, "")
    if how == "unwarp" and not walk.unwarped:
        raise InputError(
            'aggregate="unwarp" found no map and no tokens in the outputs, so it would have had no effect; '
            'use aggregate="mean" or "auto"'
        )
    return result


class _Aggregator:
    """One walk over one output structure."""

    def __init__(
        self,
        T: int,
        how: str,
        to_video: Unwarper,
        image_size: tuple[int, int],
        formats: OutputFormats,
        rows: int | None,
    ) -> None:
        self.T, self.how, self.to_video, self.image_size = T, how, to_video, image_size
        self.formats, self.rows = formats, rows
        self.unwarped = False

    def __call__(self, value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        if value is None:
            return None
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [f.name for f in dataclasses.fields(value) if f.init]
            return dataclasses.replace(value, **{n: self(getattr(value, n), f"{path}.{n}") for n in names})
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if isinstance(value, tuple | list):
            items = [self(item, f"{path}[{index}]") for index, item in enumerate(value)]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        raise InputTypeError(
            f"{_show(path)} is a {type(value).__name__}, which cannot be aggregated over {self.T} frames; "
            "return tensors (B·T, …) from the backbone, or pass aggregate=callable(outputs, T)"
        )

    def _mapping(self, value: Mapping[Any, Any], path: str) -> Any:
        items = {key: self(item, f"{path}[{key!r}]") for key, item in value.items()}
        if type(value) is dict:
            return items
        same: Any = copy.copy(value)
        for key, item in items.items():
            same[key] = item
        return same

    def _tensor(self, value: Tensor, path: str) -> Tensor:
        if value.ndim == 0:
            raise InputError(
                f"{_show(path)} is a scalar: it has no frames to aggregate; return it per frame, (B·T,), "
                "or pass aggregate=callable(outputs, T)"
            )
        if value.shape[0] % self.T or self.rows not in (None, value.shape[0]):
            multiple = self.rows is None or self.rows % self.T
            needed = f"a multiple of T = {self.T}" if multiple else f"B·T = {self.rows}"
            raise InputError(
                f"{_show(path)} has shape {tuple(value.shape)}: its leading dimension is {value.shape[0]}, not "
                f"{needed}; only outputs with one row per frame can be aggregated. Pass aggregate=callable(outputs, T)"
            )
        clip = value.reshape(-1, self.T, *value.shape[1:])
        if self.how == "none":
            return clip
        if self.how == "first":
            return clip[:, 0]
        if not value.is_floating_point():
            raise InputTypeError(
                f"{_show(path)} is {value.dtype}, which has no mean over frames; "
                'use aggregate="first" or "none", or a callable (outputs, T)'
            )
        if self.how == "mean":
            return _mean(clip)
        if self.how == "mean_prob":
            return self._mean_prob(value, clip, path)
        return self._auto(value, clip, path)

    def _auto(self, value: Tensor, clip: Tensor, path: str) -> Tensor:
        if value.ndim <= 2:
            return _mean(clip)
        if value.ndim == 3:
            return self._tokens(value, path)
        return self._map(value, self._map_layout(value, path))

    def _mean_prob(self, value: Tensor, clip: Tensor, path: str) -> Tensor:
        if value.ndim == 2:
            log_probs = _wide(clip).log_softmax(-1)
            return (log_probs.logsumexp(1) - math.log(self.T)).to(value.dtype)
        if value.ndim != 4:
            raise UnsupportedError(
                f'aggregate="mean_prob" needs class scores (B·T, K) or maps of them; {_show(path)} has shape '
                f"{tuple(value.shape)}"
            )
        layout = self._map_layout(value, path)
        probs = self._map(_wide(value).softmax(layout.channel_dim), layout)
        return probs.clamp_min(torch.finfo(torch.float32).tiny).log().to(value.dtype)

    def _map(self, value: Tensor, layout: Layout) -> Tensor:
        """The unwarped mean of maps `(B·T, …)` in either layout, in the layout and dtype that they came in."""
        self.unwarped = True
        mean = self.to_video.unwarped_mean(_wide(layout.to_maps(value)), self.image_size, self.T)
        return layout.from_maps(mean, mean).to(value.dtype)

    def _map_layout(self, value: Tensor, path: str) -> Layout:
        if value.ndim != 4:
            raise UnsupportedError(
                f"{_show(path)} has shape {tuple(value.shape)}: only vectors (2-D), tokens (3-D) and maps (4-D) are "
                'aggregated by themselves; use aggregate="mean" or a callable (outputs, T)'
            )
        if self.formats.declared is not None:
            return NHWC if self.formats.declared == "NHWC" else NCHW
        traced = self.formats.layouts.get(path)
        if traced is not None and traced.spatial == "map":
            return traced
        height, width = self.image_size
        ratio = (height * value.shape[3]) / (width * value.shape[2])
        if not 0.5 <= ratio <= 2:
            # Read as NCHW, a channels-last map has the channels for its width: its shape gives it away.
            raise UnsupportedError(
                f"{_show(path)} has shape {tuple(value.shape)}, which is no (B·T, C, h, w) map of a {height}×{width} "
                'image, and the backbone declares no layout; set backbone.output_fmt = "NHWC" (or "NCHW"), or use '
                'aggregate="mean"'
            )
        return NCHW

    def _tokens(self, value: Tensor, path: str) -> Tensor:
        layout = self.formats.layouts.get(path)
        tokens = value.shape[1] if layout is None or layout.channel_dim == -1 else value.shape[2]
        known = layout is not None and layout.spatial == "tokens" and layout.grid is not None
        if layout is None or not known or tokens != layout.prefix_tokens + _area(layout.grid):
            raise UnsupportedError(
                f"{_show(path)} has shape {tuple(value.shape)}: a sequence whose grid in the image is not known "
                f"(the plan says {layout.describe() if layout else 'nothing'}); "
                'use aggregate="mean" for the mean without unwarping, "first", "none", or a callable (outputs, T)'
            )
        prefix, body = layout.split_prefix(value)
        self.unwarped = True
        mean = self.to_video.unwarped_mean(_wide(layout.to_maps(body)), self.image_size, self.T)
        images = layout.from_maps(mean, body[:: self.T]).to(value.dtype)
        if prefix is None:
            return images
        return layout.join_prefix(_mean(prefix.reshape(-1, self.T, *prefix.shape[1:])), images)


def _area(grid: tuple[int, int] | None) -> int:
    return grid[0] * grid[1] if grid is not None else 0


def _mean(clip: Tensor) -> Tensor:
    return _wide(clip).mean(1).to(clip.dtype)


def _wide(value: Tensor) -> Tensor:
    """Float32, or float64 where it came so: what sums over frames are taken in."""
    return value if value.dtype == torch.float64 else value.float()


def _show(path: str) -> str:
    return "out" + path.replace("'", '"')
