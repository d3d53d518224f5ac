"""What both video segmentors share: images become frames, features are fused, logits are averaged over the frames."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

from mmengine.logging import print_log
from mmseg.utils import add_prefix
from torch import Tensor, nn

from image2video.clip.deep_video import DeepVideo
from image2video.functional import Image2VideoError, Plan, UnsupportedError, inject_, plan_for
from image2video.inject.clip_site import ClipSite
from image2video.integrations.openmmlab.cover import Size, Video, back_of
from image2video.integrations.openmmlab.frames import content_sizes, padded_frames
from image2video.integrations.openmmlab.heads import (
    HeadOutputs,
    Meta,
    check_head,
    frame_of,
    head_losses,
    head_rule,
    heads_of,
    stage_losses,
    stage_outputs,
)
from image2video.integrations.openmmlab.inside import (
    PaddedMaps,
    PaddedPlaces,
    cells_of_batch,
    check_heads,
    passed_by_heads,
)
from image2video.integrations.openmmlab.loading import adapt_checkpoint
from image2video.integrations.openmmlab.options import VideoOptions
from image2video.integrations.openmmlab.sliding import windows
from image2video.wrap.clip_record import encode, record_of
from image2video.wrap.inside import check_begin, check_cells, named_as
from image2video.wrap.phases import phases
from image2video.wrap.steps import found_at

_DEFAULT_SIZE = (512, 512)
_LITTLE = 0.5


class VideoSegmentor:
    """What both segmentors share: the clip, the fusion, the loss on averaged logits, and prediction frame by frame.

    Checkpoints of the plain segmentor load, with the fusions as they start; fusion parameters stand under
    `video_fusion.` beside the keys of the plain one, and the clip as text under `_extra_state`.
    """

    # What EncoderDecoder gives.
    backbone: nn.Module
    data_preprocessor: Any
    decode_head: Any
    out_channels: int
    init_cfg: Any
    train_cfg: Any
    test_cfg: Any
    extract_feat: Any
    register_load_state_dict_pre_hook: Any

    def __init__(self, *args: Any, video: Any = None, **kwargs: Any) -> None:
        _refuse_multimodal(kwargs)
        options = VideoOptions.from_config(video)
        fusion = options.fusion_config()
        super().__init__(*args, **kwargs)
        self.video_options = options
        size = _input_size(options, self.data_preprocessor)
        channels = len(getattr(self.data_preprocessor, "mean", (0, 0, 0)))
        clip, places = options.clip_and_places(partial(phases, self.backbone, input_size=(channels, *size)))
        to_video: Video = options.clip_maker(*_colours(self.data_preprocessor), clip=clip)
        for head in self._heads():
            check_head(head, at_head_size=options.unwarp == "head")
        try:
            plan = plan_for(self.backbone, fusion, options.sites, (channels, *size), None, places, found=found_at(clip))
            if plan.clip_site is not None and not plan.later_sites:
                check_begin(to_video, plan.clip_site.name)
            self.to_video: Video = named_as(to_video, plan)
            check_cells(self.to_video, plan)
            self._passed = passed_by_heads(self, plan.clip_sites, channels, at_image=plan.clip_site is None)
            self._warn_of_empty_frames(size, plan)
            # Parameters stand beside the bare keys, which stay as they are.
            self.video_fusion = inject_(self.backbone, plan, residual=options.residual)
        except Image2VideoError as error:
            raise type(error)(f"model.backbone ({type(self.backbone).__name__}): {error}") from error
        self.register_load_state_dict_pre_hook(adapt_checkpoint)
        print_log(
            f"{type(self).__name__}: {self.to_video}; {plan.fusion.name} at {len(plan.sites)} sites{_begin(plan)}",
            "current",
        )

    def init_weights(self) -> None:
        """Initialise all weights as the config says; fusions start as they were made, or come from a checkpoint."""
        start = {name: tensor.clone() for name, tensor in self.video_fusion.state_dict().items()}
        super().init_weights()  # type: ignore[misc]
        rules = self.init_cfg if isinstance(self.init_cfg, list | tuple) else [self.init_cfg or {}]
        kinds = [rule.get("type") for rule in rules]
        if "Pretrained" not in kinds:
            # A rule for all convolutions of the model is none for the fusions, which would no longer start at zero.
            self.video_fusion.load_state_dict(start)

    def video_record(self) -> dict[str, Any]:
        """The clip and the fusion as plain values: written into checkpoints, compared when they are loaded."""
        return record_of(self.to_video, self.video_fusion, self.video_options.residual)

    @property
    def clip_site(self) -> ClipSite | None:
        """Where in the backbone the clip begins; None for the image."""
        return self.video_fusion._plan.clip_site

    def get_extra_state(self) -> Tensor:
        """The clip and the fusion as a tensor of text, in the state dict."""
        return encode(self.video_record(), self)  # type: ignore[arg-type]

    def make_frames(self, inputs: Tensor, content: Sequence[Size], size: Size | None) -> tuple[Tensor, HeadOutputs]:
        """The frames `(B·T, C, H, W)` of images, and how outputs for them become those of the images, at `size`.

        Where the clip begins inside of the backbone, the images themselves `(B, C, H, W)`; frames that are the same up
        to a later place may be one row until there. `content` are the sizes of the images without padding; None as
        `size` leaves outputs at their own.
        """
        canvas = _size(inputs)
        begin = cells_of_batch(self.video_fusion._plan.clip_sites, self.to_video, canvas)
        video = HeadOutputs(self.to_video, content, canvas, size, begin=begin)
        maker = self._maker(content)
        if maker is None:
            return padded_frames(self.to_video, inputs, content), video
        return maker.image_frames(inputs) if isinstance(maker, PaddedPlaces) else inputs, video

    def _maker(self, content: Sequence[Size]) -> PaddedMaps | PaddedPlaces | None:
        """What makes the frames inside of the backbone; None where the clip is made at the image alone."""
        if not isinstance(self.to_video, DeepVideo):
            return None if self.clip_site is None else PaddedMaps(self.to_video, content)
        # In training norms would weigh frames otherwise that are one row.
        shared = 0 if self.training or self.backbone.training else self.video_fusion._plan.shared  # type: ignore[attr-defined]
        return PaddedPlaces(self.to_video.frames_of_call(shared=shared), content)

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Any]:
        """The losses of all heads on the logits averaged over the frames; images `(B, C, H, W)`, B samples."""
        label = tuple(data_samples[0].gt_sem_seg.shape[-2:])
        content = content_sizes(_size(inputs), [sample.metainfo for sample in data_samples])
        features, video = self._frame_features(inputs, content, label if self.video_options.unwarp == "label" else None)
        losses = self._decode_losses(features, data_samples, video)
        auxiliary = getattr(self, "auxiliary_head", None)
        several = isinstance(auxiliary, nn.ModuleList)
        for index, head in enumerate(heads_of(auxiliary)):
            passed = self._passed[index]
            if passed == 0 and self.clip_site is not None:  # it takes what the images give
                found = head.loss(features, data_samples, self.train_cfg)
            else:
                behind = video.behind(passed + (self.clip_site is None))
                found = head_losses(head, features, data_samples, self.train_cfg, behind)
            losses.update(add_prefix(found, f"aux_{index}" if several else "aux"))
        return losses

    def _decode_losses(self, features: Any, samples: Sequence[Any], video: HeadOutputs) -> dict[str, Any]:
        """The losses of the decode heads: of a cascade, those of each stage on its own averaged outputs."""
        *before, last = heads_of(self.decode_head)
        losses: dict[str, Any] = {}
        previous = None
        for index, head in enumerate(before):
            found, previous = stage_losses(head, features, samples, video, previous)
            losses.update(add_prefix(found, f"decode_{index}"))
        found = head_losses(last, features, samples, self.train_cfg, video, previous)
        losses.update(add_prefix(found, f"decode_{len(before)}" if before else "decode"))
        return losses

    def encode_decode(self, inputs: Tensor, batch_img_metas: Sequence[Meta]) -> Tensor:
        """The averaged logits of images `(B, C, H, W)`, at their size."""
        return self._decode_images(inputs, batch_img_metas, content_sizes(_size(inputs), batch_img_metas))

    def slide_inference(self, inputs: Tensor, batch_img_metas: Sequence[Meta]) -> Tensor:
        """Logits by overlapping windows (`test_cfg.crop_size`, `test_cfg.stride`); each is a clip of its own."""
        content = content_sizes(_size(inputs), batch_img_metas)
        total = inputs.new_zeros((len(inputs), self.out_channels, *_size(inputs)))
        count = inputs.new_zeros((1, 1, *_size(inputs)))
        for top, left, bottom, right in windows(_size(inputs), self.test_cfg.crop_size, self.test_cfg.stride):
            window = inputs[:, :, top:bottom, left:right]
            metas = [{**meta, "img_shape": window.shape[2:]} for meta in batch_img_metas]
            inside = []
            for height, width in content:
                if height > top and width > left:
                    inside.append((min(height, bottom) - top, min(width, right) - left))
                else:  # nothing but padding, which is cut off later
                    inside.append(_size(window))
            total[:, :, top:bottom, left:right] += self._decode_images(window, metas, inside)
            count[:, :, top:bottom, left:right] += 1
        return total.div_(count)

    def _decode_images(self, inputs: Tensor, metas: Sequence[Meta], content: Sequence[Size]) -> Tensor:
        """The averaged logits of images, by the rule of the last head, at its own size, or frame by frame."""
        features, video = self._frame_features(inputs, content)
        last = heads_of(self.decode_head)[-1]
        rule = head_rule(last)
        if rule is not None:
            logits = rule.predict(last, features, metas, self.test_cfg, video, self._before_last(features))
            if logits is not None:
                return logits
        if self.video_options.unwarp == "head":
            outputs = self._last_outputs(features)
            # The heads that give several maps (see `check_head`) predict by the first.
            maps = video.images(outputs[0] if isinstance(outputs, tuple) else outputs)
            return last.predict_by_feat(maps, metas)
        T = self.to_video.T

        def frame(t: int) -> Tensor:
            one = frame_of(features, t, T, None if self.clip_site is None else len(inputs))
            stages = (one,) if last is self.decode_head else (one, self._before_last(one))
            return last.predict(*stages, [dict(meta) for meta in metas], self.test_cfg)

        return video.mean(frame)

    def _before_last(self, features: Any) -> Any:
        """What the stages of a cascade before the last give for features; None without a cascade."""
        outputs = None
        for head in heads_of(self.decode_head)[:-1]:
            outputs = stage_outputs(head, features, outputs)
        return outputs

    def _last_outputs(self, features: Any) -> Any:
        """What the last decode head gives for features, at its own size."""
        return stage_outputs(heads_of(self.decode_head)[-1], features, self._before_last(features))

    def _forward(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> Any:
        metas = [{} for _ in inputs] if data_samples is None else [sample.metainfo for sample in data_samples]
        content = content_sizes(_size(inputs), metas)
        features, video = self._frame_features(inputs, content)
        return video.images(self._last_outputs(features))

    def _frame_features(
        self, inputs: Tensor, content: Sequence[Size], size: Size | None = None
    ) -> tuple[Any, HeadOutputs]:
        """The features of the frames, and how outputs for them become those of the images."""
        check_heads(self, inputs)
        frames, video = self.make_frames(inputs, content, size)
        with self.video_fusion._frames(self.to_video.T, maker=self._maker(content)):
            return self.extract_feat(frames), video

    def _heads(self) -> list[Any]:
        """All decode and auxiliary heads."""
        return [*heads_of(self.decode_head), *heads_of(getattr(self, "auxiliary_head", None))]

    def _warn_of_empty_frames(self, size: Size, plan: Plan) -> None:
        """Warn where a frame shows less than half of the image, or of the map where the clip begins."""
        if plan.clip_site is None or plan.later_sites:
            # An eighth of the size tells the shares well enough.
            small = (math.ceil(size[0] / 8), math.ceil(size[1] / 8))
            back = back_of(self.to_video, cells_of_batch(plan.clip_sites, self.to_video, size))
            shares = back.valid_mask(small, size, device="cpu").mean(dim=(1, 2, 3)).tolist()
        else:
            shares = self.to_video.valid_share(plan.clip_site.map_size, size)
        least = min(shares)
        if least < _LITTLE:
            t = shares.index(least)
            warnings.warn(
                f"model.video.genotype={self.to_video.genotype}: frame {t} of {self.to_video.T} shows {least:.0%} of "
                f"an image of {size[0]} × {size[1]} pixels, all frames together {sum(shares) / len(shares):.0%}; "
                "smaller steps or a smaller model.video.T show more",
                stacklevel=3,
            )


def _refuse_multimodal(config: dict[str, Any]) -> None:
    """Raise `UnsupportedError` for what `MultimodalEncoderDecoder` (SAN) alone takes."""
    encoder = config.get("image_encoder")
    if encoder is not None:
        head = (config.get("decode_head") or {}).get("type")
        raise UnsupportedError(
            f"model.image_encoder ({encoder.get('type')}) is of a MultimodalEncoderDecoder, whose head ({head}) reads "
            "the images itself; video segmentors take the configs of EncoderDecoder and CascadeEncoderDecoder"
        )


def _begin(plan: Plan) -> str:
    """Where the clip begins and moves on, for the log."""
    words = "" if plan.clip_site is None else f"; the clip begins at {plan.clip_site.name}"
    return words + (f"; places {', '.join(plan.places)}" if plan.later_sites else "")


def _size(images: Tensor) -> Size:
    return images.shape[2], images.shape[3]


def _input_size(options: VideoOptions, preprocessor: Any) -> Size:
    """The size of the images that the config trains with."""
    size = options.input_size or getattr(preprocessor, "size", None) or _DEFAULT_SIZE
    return int(size[0]), int(size[1])


def _colours(preprocessor: Any) -> tuple[Any, Any]:
    """mean and std of images in 0 … 1; both None where the preprocessor does not tell."""
    if not hasattr(preprocessor, "_enable_normalize"):
        return None, None
    if not preprocessor._enable_normalize:
        return 0.0, 1 / 255
    mean, std = preprocessor.mean.flatten().tolist(), preprocessor.std.flatten().tolist()
    return [value / 255 for value in mean], [value / 255 for value in std]
