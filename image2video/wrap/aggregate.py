"""Frames back to images: the outputs of B·T frames become the outputs of B images."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from image2video.clip.ops.op import working_dtype
from image2video.errors import InputError, InputTypeError, UnsupportedError
from image2video.protocols import Unwarper
from image2video.trace.layout import NCHW, NHWC, Layout
from image2video.trace.token_grid import TokenGrid, grid_for

AGGREGATIONS = ("auto", "mean", "mean_prob", "first", "unwarp", "none")
"""The named ways to aggregate; a callable `(outputs, T) -> outputs` is the other one."""

Aggregation = str | Callable[[Any, int], Any]


@dataclass(frozen=True)
class OutputFormats:
    """What is known of the layouts of a backbone's outputs.

    Attributes:
        declared: the backbone's own `output_fmt` for maps, `"NCHW"` or `"NHWC"`; None where it declares none.
        layouts: layouts by path in the output (`""`, `"[1]"`, `"['aux']"`), read from a trace of the backbone; None
            where the trace does not tell.
        grids: by path, how the grid of tokens follows from the size of the image.
        tokens: the layouts of all token sequences that the trace knows and how their grids follow from the size of the
            image, for outputs that it did not return (hidden states that a call asks for).
        later: traces the backbone as it runs now; it is called where the layouts above say nothing of an output.
        before: the paths of outputs that are made before the clip begins, inside of the backbone.
        inside: whether the clip begins there.
        prefix_tokens: how many tokens without a place in the image a pair `(map or tokens, prefix tokens)` has.
    """

    declared: Literal["NCHW", "NHWC"] | None = None
    layouts: Mapping[str, Layout | None] = field(default_factory=dict)
    grids: Mapping[str, TokenGrid] = field(default_factory=dict)
    tokens: frozenset[tuple[Layout, tuple[TokenGrid, ...]]] = frozenset()
    later: Callable[[], OutputFormats] | None = None
    before: frozenset[str] = frozenset()
    inside: bool = False
    prefix_tokens: int = 0


def check_aggregation(how: Aggregation) -> None:
    """Raise `InputError` for an unknown name, `InputTypeError` for what is neither a name nor callable."""
    if isinstance(how, str):
        if how not in AGGREGATIONS:
            raise InputError(f"unknown aggregate {how!r}; choose one of {', '.join(AGGREGATIONS)}, or a callable")
    elif not callable(how):
        raise InputTypeError(f"aggregate must be a name or a callable (outputs, T), got {type(how).__name__}")


def aggregate(
    outputs: Any,
    T: int,
    how: Aggregation = "auto",
    *,
    to_video: Unwarper,
    image_size: tuple[int, int],
    formats: OutputFormats | None = None,
    rows: int | None = None,
    ways: Mapping[str, Unwarper] | None = None,
) -> Any:
    """Turn what a backbone returned for frames `(B·T, …)` into outputs for B images.

    Tensors are aggregated; tuples, lists, dicts and dataclasses that hold them keep their types; None stays None. Sums
    are taken in float32, and results have the dtype of the outputs.

    Outputs that were made before a clip inside of the backbone are those of the images, and stay as they are.

    Args:
        outputs: what the backbone returned.
        T: frames per image.
        how: `"auto"`: vectors `(B·T, K)` → their mean; maps (4-D) → unwarped to the image, then averaged where valid;
            tokens `(B·T, N, C)` → the same on their grid, with the plain mean of prefix tokens.
            `"mean"`: the mean over T of every tensor, nothing unwarped (the paper's, for logits).
            `"mean_prob"`: the log of the mean of softmax(output) over T, so that cross-entropy stays right (ours). One
            logit, `(B·T, 1)` or `(B·T, 1, h, w)`, is a binary decision: the logit of the mean of sigmoid(output), for
            binary cross-entropy. Several logits are taken for classes that exclude each other; outputs do not tell a
            multi-label head, for which a callable or `"mean"` is right.
            `"first"`: frame 0 of every tensor; with the schedule `from_zero` of a genotype that is the image itself.
            `"unwarp"`: as `"auto"`, but outputs without a map and tokens are an error.
            `"none"`: `(B, T, …)`, nothing aggregated.
            A callable `(outputs, T)` gets the outputs as they are, and its result is returned.
        to_video: what brings maps of the frames back to the image.
        image_size: (height, width) of the images, for unwarping.
        formats: what is known of the layouts of the outputs.
        rows: B·T, where the caller knows it.
        ways: by path, what brings maps of an output back whose frames were not moved at all places.

    Returns:
        The outputs of the images, in the same structure.

    Raises:
        InputError: a leading dimension other than B·T, a scalar, or `"unwarp"` with nothing to unwarp.
        InputTypeError: something that is no tensor, or a dtype that has no mean.
        UnsupportedError: a layout that is not known. All three name the place, as `out[1]["aux"]`.
    """
    check_aggregation(how)
    if not isinstance(how, str):
        return how(outputs, T)
    aggregator = _Aggregator(T, how, to_video, image_size, formats or OutputFormats(), rows, ways or {})
    result = aggregator.walk(outputs, "")
    if how == "unwarp" and not aggregator.unwarped:
        raise InputError(
            'aggregate="unwarp" needs a map or tokens in the outputs, and there are none; use aggregate="mean" or '
            '"auto"'
        )
    return result


@dataclass
class _Aggregator:
    """Aggregates the outputs of one forward pass, and notes whether something was unwarped."""

    T: int
    how: str
    to_video: Unwarper
    image_size: tuple[int, int]
    formats: OutputFormats
    rows: int | None
    ways: Mapping[str, Unwarper]
    unwarped: bool = False

    def walk(self, value: Any, path: str) -> Any:
        """Aggregate every tensor in a structure; `path` is where the structure stands in the outputs."""
        if isinstance(value, Tensor):
            return value if self._is_before(value, path) else self._tensor(value, path)
        if value is None:
            return None
        # Before dataclasses, as in the trace: transformers' ModelOutput is both, and its layouts are found by key.
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value) if field.init]
            return dataclasses.replace(value, **{n: self.walk(getattr(value, n), f"{path}.{n}") for n in names})
        if isinstance(value, tuple | list):
            prefix = 1 if self._has_prefix(value, path) else -1
            items = [
                self._prefix(item, f"{path}[{index}]") if index == prefix else self.walk(item, f"{path}[{index}]")
                for index, item in enumerate(value)
            ]
            is_named_tuple = hasattr(value, "_fields")
            return type(value)(*items) if is_named_tuple else type(value)(items)
        raise InputTypeError(
            f"{_show(path)} is a {type(value).__name__}, which cannot be aggregated over {self.T} frames; "
            "return tensors (B·T, …) from the backbone, or pass aggregate=callable(outputs, T)"
        )

    def _has_prefix(self, value: Any, path: str) -> bool:
        """Whether a pair is a map or tokens with its prefix tokens, which have no place in the image."""
        if not self.formats.prefix_tokens or self.how not in ("auto", "unwarp") or len(value) != 2:
            return False
        body, prefix = value
        if not isinstance(body, Tensor) or not isinstance(prefix, Tensor) or body.ndim not in (3, 4):
            return False
        alike = prefix.ndim == 3 and prefix.shape[1] == self.formats.prefix_tokens and len(body) == len(prefix)
        return alike and self._traced(f"{path}[1]", "tokens") is None

    def _prefix(self, value: Tensor, path: str) -> Tensor:
        """Return the plain mean of prefix tokens beside their map."""
        if self._is_before(value, path):
            return value
        self._check_rows(value, path)
        return _mean(self._clip(value))

    def _mapping(self, value: Mapping[Any, Any], path: str) -> Any:
        """Aggregate the values of a mapping."""
        items = {key: self.walk(item, f"{path}[{key!r}]") for key, item in value.items()}
        if type(value) is dict:
            return items
        # Other types (transformers' ModelOutput) may take other arguments than dict: copy, then fill in.
        same: Any = copy.copy(value)
        for key, item in items.items():
            same[key] = item
        return same

    def _tensor(self, value: Tensor, path: str) -> Tensor:
        """Aggregate one tensor as `how` says."""
        self._check_rows(value, path)
        clip = self._clip(value)
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
            return self._mean_of_probabilities(value, path)
        if value.ndim <= 2:
            return _mean(clip)
        if value.ndim == 3:
            return self._tokens(value, path)
        return self._unwarped_mean(value, self._map_layout(value, path), path)

    def _check_rows(self, value: Tensor, path: str) -> None:
        """Refuse a tensor without one row per frame."""
        if value.ndim == 0:
            raise InputError(
                f"{_show(path)} is a scalar and has no frames to aggregate; return it per frame, (B·T,), "
                "or pass aggregate=callable(outputs, T)"
            )
        count = value.shape[0]
        if count % self.T == 0 and self.rows in (None, count):
            return
        # The batch itself may be no multiple of T; then B·T is no number to ask for.
        needed = f"a multiple of T = {self.T}" if self.rows is None or self.rows % self.T else f"B·T = {self.rows}"
        raise InputError(
            f"the leading dimension of {_show(path)} must be {needed}, got the shape {tuple(value.shape)}; only "
            "outputs with one row per frame can be aggregated; pass aggregate=callable(outputs, T) for others"
        )

    def _clip(self, value: Tensor) -> Tensor:
        """View `(B·T, …)` as `(B, T, …)`."""
        return value.reshape(-1, self.T, *value.shape[1:])

    def _mean_of_probabilities(self, value: Tensor, path: str) -> Tensor:
        """Return the log of the mean class probabilities of scores `(B·T, K)` or of maps of them."""
        if value.ndim == 2:
            scores = _wide(self._clip(value))
            if value.shape[1] == 1:
                # log(p / (1 − p)) of the mean p: the T in both means cancels, and no p near 1 is rounded.
                return (logsigmoid(scores).logsumexp(1) - logsigmoid(-scores).logsumexp(1)).to(value.dtype)
            return (scores.log_softmax(-1).logsumexp(1) - math.log(self.T)).to(value.dtype)
        if value.ndim != 4:
            raise UnsupportedError(
                f'aggregate="mean_prob" needs class scores (B·T, K) or maps of them; {_show(path)} has shape '
                f"{tuple(value.shape)}"
            )
        layout = self._map_layout(value, path)
        if value.shape[layout.channel_dim] == 1:
            log_yes = self._log_of_mean(_wide(value).sigmoid(), layout, path)
            return (log_yes - self._log_of_mean(_wide(-value).sigmoid(), layout, path)).to(value.dtype)
        return self._log_of_mean(_wide(value).softmax(layout.channel_dim), layout, path).to(value.dtype)

    def _log_of_mean(self, probs: Tensor, layout: Layout, path: str) -> Tensor:
        """Return the log of the unwarped mean of maps of probabilities; the log of 0, −inf, is cut off."""
        return self._unwarped_mean(probs, layout, path).clamp_min(torch.finfo(torch.float32).tiny).log()

    def _unwarped_mean(self, body: Tensor, layout: Layout, path: str) -> Tensor:
        """Return the unwarped mean of maps or of tokens without their prefix, in the layout and dtype they came in."""
        self.unwarped = True
        way_back = self.ways.get(path, self.to_video)
        mean = way_back.unwarped_mean(_wide(layout.to_maps(body)), self.image_size, self.T)
        one_row_per_image = body[:: self.T]
        return layout.from_maps(mean, one_row_per_image).to(body.dtype)

    def _map_layout(self, value: Tensor, path: str) -> Layout:
        """Return the layout of a map: declared by the backbone, or read from its trace."""
        if value.ndim != 4:
            raise UnsupportedError(
                f"{_show(path)} has shape {tuple(value.shape)}; only vectors (2-D), tokens (3-D) and maps (4-D) are "
                'aggregated by themselves; use aggregate="mean" or a callable (outputs, T)'
            )
        if self.formats.declared is not None:
            return NHWC if self.formats.declared == "NHWC" else NCHW
        traced = self._traced(path, "map")
        if traced is None:
            raise UnsupportedError(
                f"{_show(path)} has shape {tuple(value.shape)}, and neither the backbone nor its trace tells whether "
                'that is (B·T, C, h, w); pass input_size=(C, H, W), set backbone.output_fmt = "NCHW" (or "NHWC"), or '
                'use aggregate="mean"'
            )
        return traced

    def _is_before(self, value: Tensor, path: str) -> bool:
        """Whether an output was made before the clip begins, inside of the backbone."""
        of_images = self.rows is not None and value.ndim > 0 and value.shape[0] * self.T == self.rows
        if self.formats.inside and of_images and path not in self.formats.before and self.formats.later is not None:
            self._look_again()  # an auxiliary output of training, say, that the plan does not know
        return path in self.formats.before

    def _look_again(self) -> None:
        """Take what a trace of the backbone as it runs now says of its outputs."""
        known = self.formats
        assert known.later is not None, "asked where there is one"
        late = known.later()
        before = known.before | late.before
        late = dataclasses.replace(late, before=before, prefix_tokens=known.prefix_tokens)
        self.formats = dataclasses.replace(late, tokens=known.tokens, inside=known.inside)

    def _traced(self, path: str, spatial: str) -> Layout | None:
        """Return the layout of an output as traced, now or when the plan was made; None for another kind of layout."""
        layout = self.formats.layouts.get(path)
        if (layout is None or layout.spatial != spatial) and self.formats.later is not None:
            self._look_again()
            layout = self.formats.layouts.get(path)
        return layout if layout is not None and layout.spatial == spatial else None

    def _tokens(self, value: Tensor, path: str) -> Tensor:
        """Unwarp and average tokens on their grid; prefix tokens have no place in the image and get the plain mean."""
        layout = self._token_layout(value, path)
        prefix, body = layout.split_prefix(value)
        images = self._unwarped_mean(body, layout, path)
        if prefix is None:
            return images
        return layout.join_prefix(_mean(self._clip(prefix)), images)

    def _token_layout(self, value: Tensor, path: str) -> Layout:
        """Return the traced layout of a sequence, with the grid that it has for images of this size."""
        layout = self._traced(path, "tokens")
        planned = self.formats.layouts.get(path)
        if layout is not None:
            rule = self.formats.grids.get(path)
            sized = self._sized(layout, value, () if rule is None else (rule,))
        else:
            sized = None if path in self.formats.layouts else self._layout_of_alike(value)
        if sized is not None:
            return sized
        raise UnsupportedError(
            f"{_show(path)} has shape {tuple(value.shape)}: a sequence whose grid in the image is not known "
            f"(the plan says {planned.describe() if planned else 'nothing'}); "
            'use aggregate="mean" for the mean without unwarping, "first", "none", or a callable (outputs, T)'
        )

    def _layout_of_alike(self, value: Tensor) -> Layout | None:
        """Return the layout of the traced sequences that are as long as this one, if all of them have the same."""
        alike = {self._sized(layout, value, rules) for layout, rules in self.formats.tokens} - {None}
        return alike.pop() if len(alike) == 1 else None

    def _sized(self, layout: Layout, value: Tensor, rules: Sequence[TokenGrid]) -> Layout | None:
        """Return a layout with the grid of a sequence for images of this size; None where its length is another."""
        if value.ndim != 3:
            return None
        tokens = value.shape[layout.token_dim] - layout.prefix_tokens
        grid = grid_for(rules, self.image_size, tokens) if rules else layout.grid
        if grid is None or grid[0] * grid[1] != tokens:
            return None
        return dataclasses.replace(layout, grid=grid)


def _mean(clip: Tensor) -> Tensor:
    """Return the mean over T of `(B, T, …)`, summed in float32."""
    return _wide(clip).mean(1).to(clip.dtype)


def _wide(value: Tensor) -> Tensor:
    """Return float64 as it is, and everything else in float32: sums over frames are taken in these."""
    return value.to(working_dtype(value))


def _show(path: str) -> str:
    """Name a place in the outputs in a message."""
    return "out" + path.replace("'", '"')
