"""Heads over frames: their outputs are brought to images before the loss is taken, by one rule per kind of head."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor

from image2video.functional import InputTypeError, UnsupportedError, frames_to_clip
from image2video.integrations.openmmlab.cover import Size
from image2video.integrations.openmmlab.frames import mean_of_frames


class HeadRule(ABC):
    """How a kind of head that computes its loss by itself does so over frames; see `register_head_rule`."""

    @abstractmethod
    def losses(
        self,
        head: Any,
        features: Any,
        samples: Sequence[Any],
        train_cfg: Any,
        video: HeadOutputs,
        previous: Any = None,
    ) -> dict[str, Any]:
        """The losses of B images.

        `features` are those of the B·T frames, `samples` those of the images, `previous` what the stage before gave for
        the frames (cascades alone).
        """

    def predict(
        self,
        head: Any,
        features: Any,
        metas: Sequence[dict[str, Any]],
        test_cfg: Any,
        video: HeadOutputs,
        previous: Any = None,
    ) -> Tensor | None:
        """The logits of B images `(B, K, H, W)`; None: predict frame by frame, and average what comes out."""
        return None


_RULES: dict[str, HeadRule] = {}
# Heads that give several maps and predict by the first of them.
_FIRST_PREDICTS = ("DAHead", "EncHead")


def register_head_rule(name: str, rule: HeadRule) -> None:
    """Make `rule` that of the head class `name` and its subclasses; raises `InputTypeError` for what is no rule."""
    if not isinstance(rule, HeadRule):
        raise InputTypeError(f"the rule of {name} must be a HeadRule, got {type(rule).__name__}")
    _RULES[name] = rule


@dataclasses.dataclass(frozen=True)
class HeadOutputs:
    """How outputs of frames become those of images, in one forward.

    Attributes:
        to_video: what made the frames.
        content: (height, width) of every image without padding.
        canvas: that of the padded batch.
        size: the size at which maps are brought back; None for their own.

    """

    to_video: Any
    content: Sequence[Size]
    canvas: Size
    size: Size | None

    def images(self, outputs: Any, *, align_corners: bool = False, size: Size | None = None) -> Any:
        """Outputs of the B·T frames as those of the B images.

        Maps `(B·T, K, h, w)` are resized to `size` (bilinear; default: `self.size`), unwarped and averaged; vectors
        `(B·T, K)` and the scores of queries `(B·T, Q, K)`, which have no place in the image, are averaged; tuples,
        lists and dicts are walked, None stays None.
        Raises `InputTypeError` for anything else.
        """
        size = self.size if size is None else size
        if isinstance(outputs, Tensor) and outputs.is_floating_point() and outputs.ndim == 4:
            return self._map(outputs, align_corners, size)
        if isinstance(outputs, Tensor) and outputs.is_floating_point() and outputs.ndim in (2, 3):
            return frames_to_clip(outputs, self.to_video.T).float().mean(1)
        if outputs is None:
            return None
        if isinstance(outputs, Mapping):
            return {k: self.images(v, align_corners=align_corners, size=size) for k, v in outputs.items()}
        if isinstance(outputs, tuple | list):
            return like(outputs, (self.images(v, align_corners=align_corners, size=size) for v in outputs))
        what = f"{type(outputs).__name__} {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else repr(outputs)[:80]
        raise InputTypeError(f"a head returned {what}, which cannot be averaged over frames")

    def mean(self, frame: Callable[[int], Tensor]) -> Tensor:
        """The images' maps `(B, K, h, w)`: those that `frame(t)` gives for every frame, unwarped and averaged."""
        return mean_of_frames(self.to_video, frame, self.content, self.canvas)

    def _map(self, maps: Tensor, align_corners: bool, size: Size | None) -> Tensor:
        clip = frames_to_clip(maps, self.to_video.T)

        def frame(t: int) -> Tensor:
            one = clip[:, t]
            if size is None or one.shape[2:] == tuple(size):
                return one
            return resize(one.float(), size=size, mode="bilinear", align_corners=align_corners, warning=False)

        return self.mean(frame)


def head_losses(head: Any, features: Any, samples: Sequence[Any], train_cfg: Any, video: HeadOutputs) -> Any:
    """The losses of a decode or auxiliary head on the images' outputs.

    Raises `UnsupportedError` for a head whose loss is not the one of its outputs, naming it, unless there is a rule.
    """
    rule = head_rule(head)
    if rule is not None:
        return rule.losses(head, features, samples, train_cfg, video)
    check_head(head)
    outputs = video.images(head.forward(features), align_corners=head.align_corners)
    return head.loss_by_feat(outputs, samples)


def cascade_losses(
    head: Any, features: Any, previous: Any, samples: Sequence[Any], train_cfg: Any, video: HeadOutputs
) -> tuple[Any, Any]:
    """The losses of a later stage of a cascade, and its outputs for the frames, which the stage after it takes.

    Raises as `head_losses` does.
    """
    rule = head_rule(head)
    if rule is not None:
        return rule.losses(head, features, samples, train_cfg, video, previous), None
    check_head(head)
    outputs = head.forward(features, previous)
    losses = head.loss_by_feat(video.images(outputs, align_corners=head.align_corners), samples)
    return losses, outputs


def check_head(head: Any, *, at_head_size: bool = False) -> None:
    """Raise `UnsupportedError` for a head that computes its loss by itself and has no rule, or that predicts depth.

    `at_head_size`: and for one that does so with its prediction, whose maps are not known before they are resized.
    """
    if any(kind.__name__ == "VPDDepthHead" for kind in type(head).__mro__):
        raise UnsupportedError(
            f"the head {type(head).__name__} predicts depth, not classes: video segmentors take the configs of "
            "EncoderDecoder and CascadeEncoderDecoder"
        )
    predict = getattr(type(head), "predict", None)
    known = predict in (BaseDecodeHead.predict, BaseCascadeDecodeHead.predict) or type(head).__name__ in _FIRST_PREDICTS
    if at_head_size and head_rule(head) is None and not known:
        raise UnsupportedError(
            f"model.video.unwarp='head' needs the maps that the head {type(head).__name__} predicts by, which computes "
            "its prediction in a way of its own; use model.video.unwarp='label'"
        )
    loss = getattr(type(head), "loss", None)
    if head_rule(head) is None and loss not in (BaseDecodeHead.loss, BaseCascadeDecodeHead.loss):
        raise UnsupportedError(
            f"the head {type(head).__name__} computes its loss in a way of its own, so the loss of averaged frames is "
            "not known; supported are heads with the loss of BaseDecodeHead, and "
            f"{', '.join(sorted(_RULES)) or 'none besides'}. Register a rule: image2video.integrations.openmmlab."
            "register_head_rule"
        )


def head_rule(head: Any) -> HeadRule | None:
    """The rule of a head's class or of the nearest base that has one; None where it needs none."""
    return next((_RULES[kind.__name__] for kind in type(head).__mro__ if kind.__name__ in _RULES), None)


def frame_of(features: Any, t: int, T: int) -> Any:
    """The features of frame t, `(B, …)`, out of those of all frames, `(B·T, …)`; tuples, lists and dicts are walked."""
    if isinstance(features, Tensor):
        return frames_to_clip(features, T)[:, t]
    if isinstance(features, Mapping):
        return {key: frame_of(value, t, T) for key, value in features.items()}
    if isinstance(features, tuple | list):
        return like(features, (frame_of(value, t, T) for value in features))
    if features is None:
        return None
    raise InputTypeError(f"a backbone or neck returned {type(features).__name__}, which has no frames")


def like(values: tuple[Any, ...] | list[Any], items: Iterable[Any]) -> Any:
    """The items as the kind of tuple or list that `values` is, named tuples included."""
    make = getattr(type(values), "_make", type(values))
    return make(items)
