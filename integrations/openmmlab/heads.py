"""Heads over frames: their outputs are brought to images before the loss is taken, by one rule per kind of head."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from image2video.functional import InputTypeError, UnsupportedError, frames_to_clip
from image2video.integrations.openmmlab.cover import Cells, Size
from image2video.integrations.openmmlab.frames import mean_of_frames

Meta = dict[str, Any]


class HeadRule(ABC):
    """How a kind of head that computes its loss by itself does so over frames; see `register_head_rule`."""

    @abstractmethod
    def losses(
        self, head: Any, features: Any, samples: Sequence[Any], train_cfg: Any, video: HeadOutputs, previous: Any = None
    ) -> dict[str, Any]:
        """The losses of B images.

        Args:
            head: the head of mmsegmentation.
            features: of the B·T frames.
            samples: of the B images.
            train_cfg: that of the segmentor.
            video: how outputs of the frames become those of the images.
            previous: in a cascade, the outputs of the stage before for the frames.

        Returns:
            The losses by name.
        """

    def predict(
        self, head: Any, features: Any, metas: Sequence[Meta], test_cfg: Any, video: HeadOutputs, previous: Any = None
    ) -> Tensor | None:
        """The logits of B images.

        Args:
            head: the head of mmsegmentation.
            features: of the B·T frames.
            metas: of the B images.
            test_cfg: that of the segmentor.
            video: how outputs of the frames become those of the images.
            previous: in a cascade, the outputs of the stage before for the frames.

        Returns:
            Logits `(B, K, H, W)`; None to predict every frame by itself and average the logits.
        """
        return None


_RULES: dict[str, HeadRule] = {}
# Heads that give several maps and predict by the first of them.
_FIRST_PREDICTS = ("DAHead", "EncHead")


def register_head_rule(name: str, rule: HeadRule) -> None:
    """Let heads of a class compute losses and predictions over frames by a rule.

    Args:
        name: the name of the head's class; subclasses follow the same rule.
        rule: the rule.

    Raises:
        InputTypeError: a rule that is no `HeadRule`.
    """
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
        begin: for each place that the frames have passed, (h, w) of the batch's maps there, where magnitudes count
            their cells; else None. None alone stands for a clip that is made at the image.

    """

    to_video: Any
    content: Sequence[Size]
    canvas: Size
    size: Size | None
    begin: Cells | None = dataclasses.field(default=None, kw_only=True)

    def behind(self, count: int) -> HeadOutputs:
        """How outputs of frames that have passed fewer places become those of images.

        Args:
            count: of a clip at several places, how many of them.

        Returns:
            The same with the way back of these places.
        """
        return self if self.begin is None else dataclasses.replace(self, begin=self.begin[:count])

    def images(self, outputs: Any, *, align_corners: bool = False, size: Size | None = None) -> Any:
        """Outputs of the B·T frames as those of the B images.

        Maps `(B·T, K, h, w)` are resized (bilinear), unwarped and averaged. Vectors `(B·T, K)` and the scores of
        queries `(B·T, Q, K)` have no place in the image and are averaged alone.

        Args:
            outputs: tensors, alone or in tuples, lists and dicts, whose structure is kept; None stays None.
            align_corners: of the resizing.
            size: (height, width) that maps are resized to; by default `self.size`.

        Returns:
            The outputs for the images.

        Raises:
            InputTypeError: an output that cannot be averaged.
        """
        size = self.size if size is None else size

        def average(output: Tensor) -> Tensor:
            if output.is_floating_point() and output.ndim == 4:
                return self._map(output, align_corners, size)
            return averaged(output, self.to_video.T)

        return walked(outputs, average)

    def mean(self, frame: Callable[[int], Tensor]) -> Tensor:
        """The unwarped mean of maps over the frames.

        Args:
            frame: gives the maps `(B, K, h, w)` of frame t; it is called once for each.

        Returns:
            The maps `(B, K, h, w)` of the images.
        """
        return mean_of_frames(self.to_video, frame, self.content, self.canvas, self.begin)

    def _map(self, maps: Tensor, align_corners: bool, size: Size | None) -> Tensor:
        clip = frames_to_clip(maps, self.to_video.T)

        # One frame at a time: all enlarged maps together would take T times the memory.
        def frame(t: int) -> Tensor:
            one = clip[:, t]
            if size is None or one.shape[2:] == tuple(size):
                return one
            return resize(one.float(), size=size, mode="bilinear", align_corners=align_corners, warning=False)

        return self.mean(frame)


def walked(outputs: Any, change: Callable[[Tensor], Any]) -> Any:
    """The outputs of a module with every tensor changed; tuples, named ones too, lists and dicts keep their structure.

    Raises `InputTypeError` for anything but tensors and None.
    """
    if outputs is None:
        return None
    if isinstance(outputs, Tensor):
        return change(outputs)
    if isinstance(outputs, Mapping):
        return {key: walked(value, change) for key, value in outputs.items()}
    if isinstance(outputs, tuple | list):
        # A named tuple takes its items one by one, other tuples and lists as one iterable.
        make = getattr(type(outputs), "_make", type(outputs))
        return make(walked(value, change) for value in outputs)
    raise InputTypeError(
        f"a backbone, neck or head must return tensors, alone or in tuples, lists and dicts; got {outputs!r:.80}"
    )


def averaged(output: Tensor, T: int) -> Tensor:
    """Vectors and scores of the B·T frames `(B·T, …)` averaged over each clip, in float32 at least."""
    if not output.is_floating_point() or output.ndim not in (2, 3):
        raise InputTypeError(
            f"a head returned {output.dtype} {tuple(output.shape)}, which cannot be averaged over frames; needs "
            "floating-point maps (B·T, K, h, w), scores (B·T, Q, K) or vectors (B·T, K)"
        )
    wide = output if output.dtype == torch.float64 else output.float()
    return frames_to_clip(wide, T).mean(1)


def frame_of(features: Any, t: int, T: int, images: int | None = None) -> Any:
    """The features of frame t, `(B, …)`, out of those of all frames, `(B·T, …)`.

    Those of as many rows as there are `images`, made before a clip begins, are every frame's.
    """
    return walked(features, lambda one: one if len(one) == images else frames_to_clip(one, T)[:, t])


def head_losses(
    head: Any, features: Any, samples: Sequence[Any], train_cfg: Any, video: HeadOutputs, previous: Any = None
) -> dict[str, Any]:
    """The losses of a decode or auxiliary head on the images' outputs, by its rule where it has one.

    `previous` is what the stage before gave for the frames, in cascades alone. Raises as `check_head` does.
    """
    rule = head_rule(head)
    if rule is not None:
        return rule.losses(head, features, samples, train_cfg, video, previous)
    losses, _ = stage_losses(head, features, samples, video, previous)
    return losses


def stage_losses(
    head: Any, features: Any, samples: Sequence[Any], video: HeadOutputs, previous: Any = None
) -> tuple[dict[str, Any], Any]:
    """The losses of a head without a rule, and its outputs for the frames, which the stage after it takes."""
    check_head(head)
    outputs = stage_outputs(head, features, previous)
    losses = head.loss_by_feat(video.images(outputs, align_corners=head.align_corners), samples)
    return losses, outputs


def stage_outputs(head: Any, features: Any, previous: Any = None) -> Any:
    """What a head gives for features; a later stage of a cascade takes the outputs of the stage before, too."""
    return head.forward(features) if previous is None else head.forward(features, previous)


def check_head(head: Any, *, at_head_size: bool = False) -> None:
    """Refuse a head whose loss or prediction over frames is not known.

    Args:
        head: the head of mmsegmentation.
        at_head_size: whether its prediction must be that of its maps, which are then averaged at its own size.

    Raises:
        UnsupportedError: a head without a rule that computes its loss, or under `at_head_size` its prediction, in a way
            of its own; a head that predicts depth.
    """
    name = type(head).__name__
    if any(kind.__name__ == "VPDDepthHead" for kind in type(head).__mro__):
        raise UnsupportedError(
            f"the head {name} predicts depth, not classes: video segmentors take the configs of EncoderDecoder and "
            "CascadeEncoderDecoder"
        )
    if head_rule(head) is not None:
        return
    predict = getattr(type(head), "predict", None)
    predicts_by_maps = predict in (BaseDecodeHead.predict, BaseCascadeDecodeHead.predict) or name in _FIRST_PREDICTS
    if at_head_size and not predicts_by_maps:
        raise UnsupportedError(
            f"model.video.unwarp='head' needs the maps that the head {name} predicts by, which computes its prediction "
            "in a way of its own; use model.video.unwarp='label'"
        )
    if getattr(type(head), "loss", None) not in (BaseDecodeHead.loss, BaseCascadeDecodeHead.loss):
        raise UnsupportedError(
            f"the head {name} computes its loss in a way of its own, so the loss of averaged frames is not known; "
            "supported are heads with the loss of BaseDecodeHead, and "
            f"{', '.join(sorted(_RULES)) or 'none besides'}; register a rule with "
            "image2video.integrations.openmmlab.register_head_rule"
        )


def head_rule(head: Any) -> HeadRule | None:
    """The rule of a head's class or of the nearest base that has one; None where it needs none."""
    for kind in type(head).__mro__:
        if kind.__name__ in _RULES:
            return _RULES[kind.__name__]
    return None


def heads_of(part: Any) -> list[Any]:
    """The heads in `decode_head` or `auxiliary_head` of a segmentor: one, a list of them, or none."""
    if part is None:
        return []
    return list(part) if isinstance(part, nn.ModuleList) else [part]
