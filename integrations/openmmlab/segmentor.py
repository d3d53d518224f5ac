"""`VideoEncoderDecoder`: one line in a stock config turns a segmentor into a video segmentor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder
from mmseg.registry import MODELS
from mmseg.utils import add_prefix
from torch import Tensor

from image2video.functional import InputError
from image2video.integrations.openmmlab.heads import HeadOutputs, cascade_losses, check_head, head_losses, head_rule
from image2video.integrations.openmmlab.video_segmentor import VideoSegmentor


@MODELS.register_module()
class VideoEncoderDecoder(VideoSegmentor, EncoderDecoder):
    """mmsegmentation's `EncoderDecoder` that sees every image as a short video (Casarin et al., CVPR 2024, section 3).

    In a config that inherits a stock one:

        custom_imports = dict(imports=["image2video.integrations.openmmlab"])
        model = dict(type="VideoEncoderDecoder", video=dict(genotype="translate_x(0.02) > scale(1.05)", T=5))

    Args:
        video: a dict of `VideoOptions`; all others are those of `EncoderDecoder`.

    Raises:
        InputError: a `video` key or value that is not known, a backbone without a site for the fusion, the config of
            a cascade.
        UnsupportedError: a head whose loss over frames is not known.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        stages = kwargs.get("decode_head")
        if "num_stages" in kwargs or isinstance(stages, list | tuple):
            what = "model.num_stages" if "num_stages" in kwargs else f"model.decode_head of {len(stages or ())} stages"
            raise InputError(f"{what} is of a cascade: set model.type to 'VideoCascadeEncoderDecoder'")
        super().__init__(*args, **kwargs)

    def _decode_losses(self, features: Any, samples: Sequence[Any], video: HeadOutputs) -> dict[str, Any]:
        return add_prefix(head_losses(self.decode_head, features, samples, self.train_cfg, video), "decode")

    def _decode_frame(self, features: Any, metas: list[dict[str, Any]]) -> Tensor:
        return self.decode_head.predict(features, metas, self.test_cfg)

    def _head_outputs(self, features: Any) -> Any:
        return self.decode_head.forward(features)

    def _rule_logits(self, features: Any, metas: Sequence[dict[str, Any]], video: HeadOutputs) -> Tensor | None:
        rule = head_rule(self.decode_head)
        return None if rule is None else rule.predict(self.decode_head, features, metas, self.test_cfg, video)

    def _at_head_size(self, features: Any, metas: Sequence[dict[str, Any]], video: HeadOutputs) -> Tensor:
        outputs = self._head_outputs(features)
        # The heads that give several maps (see `check_head`) predict by the first.
        maps = video.images(outputs[0] if isinstance(outputs, tuple) else outputs)
        return self.decode_head.predict_by_feat(maps, metas)


@MODELS.register_module()
class VideoCascadeEncoderDecoder(VideoSegmentor, CascadeEncoderDecoder):
    """The same for `CascadeEncoderDecoder` (OCRNet): frames pass all stages, and each stage's logits are averaged.

    Raises `InputError` for a config that is no cascade, and what `VideoEncoderDecoder` raises.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        stages = kwargs.get("decode_head")
        if isinstance(stages, dict):
            raise InputError(
                f"model.decode_head is one head ({stages.get('type')}), and a cascade has a list of num_stages heads: "
                "set model.type to 'VideoEncoderDecoder'"
            )
        if stages is not None and kwargs.get("num_stages", len(args) and args[0]) != len(stages):
            raise InputError(
                f"model.num_stages={kwargs.get('num_stages')} and model.decode_head has {len(stages)} heads: they "
                "must agree"
            )
        super().__init__(*args, **kwargs)

    def _decode_losses(self, features: Any, samples: Sequence[Any], video: HeadOutputs) -> dict[str, Any]:
        first = self.decode_head[0]
        check_head(first)
        previous = first.forward(features)
        found = first.loss_by_feat(video.images(previous, align_corners=first.align_corners), samples)
        losses = add_prefix(found, "decode_0")
        for index, head in enumerate(self.decode_head[1:], 1):
            found, previous = cascade_losses(head, features, previous, samples, self.train_cfg, video)
            losses.update(add_prefix(found, f"decode_{index}"))
        return losses

    def _decode_frame(self, features: Any, metas: list[dict[str, Any]]) -> Tensor:
        previous = self._before_last(features)
        return self.decode_head[-1].predict(features, previous, metas, self.test_cfg)

    def _head_outputs(self, features: Any) -> Any:
        return self.decode_head[-1].forward(features, self._before_last(features))

    def _rule_logits(self, features: Any, metas: Sequence[dict[str, Any]], video: HeadOutputs) -> Tensor | None:
        last = self.decode_head[-1]
        rule = head_rule(last)
        if rule is None:
            return None
        return rule.predict(last, features, metas, self.test_cfg, video, self._before_last(features))

    def _at_head_size(self, features: Any, metas: Sequence[dict[str, Any]], video: HeadOutputs) -> Tensor:
        return self.decode_head[-1].predict_by_feat(video.images(self._head_outputs(features)), metas)

    def _before_last(self, features: Any) -> Any:
        outputs = self.decode_head[0].forward(features)
        for head in self.decode_head[1:-1]:
            outputs = head.forward(features, outputs)
        return outputs
