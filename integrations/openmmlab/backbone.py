"""`VideoWrap`: any backbone of the OpenMMLab libraries that sees each image as a short video, aggregating features."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from mmseg.registry import MODELS
from torch import Tensor, nn

from image2video.clip.deep_video import CallFrames, DeepVideo
from image2video.functional import (
    Image2VideoError,
    InputError,
    OutputFormats,
    StateError,
    adapt_state_dict,
    aggregate,
    clip_to_frames,
    inject_,
    output_formats,
    plan_for,
)
from image2video.integrations.openmmlab import options
from image2video.integrations.openmmlab.loading import compare_record, saved_record
from image2video.integrations.openmmlab.options import VideoOptions
from image2video.wrap.clip_record import encode, record_of
from image2video.wrap.inside import check_begin, check_cells, named_as
from image2video.wrap.phases import phases
from image2video.wrap.steps import found_at
from image2video.wrap.ways import way_back, ways_between

KEY = "model.backbone.video"
NAME = "VideoWrap"
_DEFAULT_SIZE = (512, 512)


@ROOT_MODELS.register_module(name=NAME)
@MODELS.register_module(name=NAME)
class VideoBackbone(BaseModule):
    """A backbone over the frames of each image, whose feature maps are unwarped and averaged: `type="VideoWrap"`.

    Image `(B, C, H, W)` → clip → frames → backbone with fusion at its sites → maps of the frames → their average in
    the image. What it returns has the shapes and the structure of what the bare backbone returns, so necks and heads
    of mmsegmentation and of other OpenMMLab libraries follow as they do bare. Vectors are averaged, tokens on their
    grid.

    **This is feature aggregation, not the method of the paper**, which averages the predictions of the frames (Casarin
    et al., CVPR 2024, section 3; `VideoEncoderDecoder`). Heads run once on the mean of the frames' features, not once
    per frame, which is cheaper, and another function wherever the head is not linear. Two more differences: the clip
    is warped about the centre of the padded batch, since a backbone does not know of padding; and auxiliary heads see
    averaged features, too.

    Replacing the backbone of an inherited config, in its own file:

        _base_ = [__import__("mmseg").__path__[0] + "/.mim/configs/pspnet/pspnet_r50-d8_4xb4-20k_voc12aug-512x512.py"]
        custom_imports = dict(imports=["image2video.integrations.openmmlab"])
        model = dict(
            backbone=dict(
                _delete_=True,
                type="VideoWrap",
                backbone={{_base_.model.backbone}},
                video=dict(genotype="translate_x(0.02) > scale(1.05)", T=3),
            )
        )

    It is known to mmengine's root registry as well: from a config of another library, `type="VideoWrap"` and
    `type="mmseg.VideoWrap"` find it, and a plain inner type (`"ResNet"`) is that of the config's own default scope.

    Checkpoints of the bare backbone, and of a plain segmentor, classifier or detector around it, load with the fusions
    as they start: keys are mapped on every way of loading (`load_from`, `init_cfg`, `load_state_dict`). Those of the
    wrapped one have the backbone's keys below `backbone.`, the fusions' below `fusion.`, and the clip (`_extra_state`).
    Layer-wise learning rate decay, which reads parameter names, does not know the wrapped names.

    Args:
        backbone: the config of the backbone; types with a scope (`"mmpretrain.ResNet"`) are built from that library.
        video: a dict of `VideoOptions`, as in `VideoEncoderDecoder`; `unwarp` has no meaning here and is refused.
        pretrained: what `model.pretrained` of a segmentor's config hands over; the backbone gets it.
        mean, std: those of the data preprocessor (images in 0 … 255), for photometric ops alone.
        init_cfg: `dict(type="Pretrained", checkpoint=…)` alone; any other belongs to the backbone, or it would
            initialise the fusions too.

    Raises:
        InputError: a `video` key or value that is not known, a backbone without a site for the fusion, `pretrained`
            twice or for a backbone that takes none.
        StateError: a backbone that is wrapped already.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        video: Mapping[str, Any] | None = None,
        pretrained: str | None = None,
        mean: Any = None,
        std: Any = None,
        init_cfg: Any = None,
    ) -> None:
        _check_init(init_cfg)
        super().__init__(init_cfg)
        with _own_key():
            if isinstance(video, Mapping) and "unwarp" in video:
                raise InputError(
                    f"{KEY}.unwarp is of VideoEncoderDecoder, which unwarps logits; VideoWrap unwarps each feature map "
                    "at its own size: leave it out"
                )
            self.video_options = VideoOptions.from_config(video)
            fusion = self.video_options.fusion_config()
        inner = _build(backbone, pretrained)
        if any(isinstance(module, VideoBackbone) for module in inner.modules()):
            raise StateError(
                f"model.backbone.backbone ({type(inner).__name__}) is or holds a VideoWrap: its frames would be made "
                "into clips again; wrap once"
            )
        channels = int(backbone.get("in_channels", 3))
        size = self.video_options.input_size or _DEFAULT_SIZE
        with _own_key():
            clip, places = self.video_options.clip_and_places(partial(phases, inner, input_size=(channels, *size)))
            colours = (None if values is None else _unit(values) for values in (mean, std))
            to_video = self.video_options.clip_maker(*colours, clip=clip)
        try:
            plan = plan_for(
                inner, fusion, self.video_options.sites, (channels, *size), None, places, found=found_at(clip)
            )
            if plan.clip_site is not None and not plan.later_sites:
                check_begin(to_video, plan.clip_site.name)
            self.to_video = named_as(to_video, plan)
            check_cells(self.to_video, plan)
            self.fusion = inject_(inner, plan, residual=self.video_options.residual)
        except Image2VideoError as error:
            raise type(error)(
                f"model.backbone.backbone ({type(inner).__name__}), traced at {size[0]} × {size[1]} pixels "
                f"({KEY}.input_size): {error}"
            ) from error
        self.backbone = inner
        self.register_load_state_dict_pre_hook(_adapt)

    def forward(self, images: Tensor) -> Any:
        """The averaged features of images.

        Args:
            images: `(B, C, H, W)`.

        Returns:
            What the bare backbone returns for them.

        Raises:
            InputError: images of other channels than the backbone was traced with.
        """
        T, needed = self.to_video.T, self.fusion._plan.input_size[0]
        if images.ndim != 4 or images.shape[1] != needed:
            raise InputError(
                f"VideoWrap takes images (B, {needed}, H, W), got {tuple(images.shape)}; {needed} is "
                "model.backbone.backbone.in_channels (3 where it is not given)"
            )
        sites, size = self.fusion._plan.clip_sites, (images.shape[2], images.shape[3])
        maker = self._maker()
        if isinstance(maker, CallFrames) and maker.begins_at_image:
            given = maker.image_frames(images)
        else:
            given = images if sites else clip_to_frames(self.to_video(images, T))
        with self.fusion._frames(T, maker=maker):
            outputs = self.backbone(given)
        return aggregate(
            outputs,
            T,
            to_video=way_back(self.to_video, sites, size),
            image_size=size,
            formats=self._formats(),
            rows=images.shape[0] * T,
            ways=ways_between(self.to_video, self.fusion._plan, size),
        )

    def _maker(self) -> Any:
        """What makes the frames inside of the backbone; None where the clip is made at the image alone."""
        if isinstance(self.to_video, DeepVideo):
            # In training norms would weigh frames otherwise that are one row.
            shared = 0 if self.training or self.backbone.training else self.fusion._plan.shared
            return self.to_video.frames_of_call(shared=shared)
        return self.to_video if self.fusion._plan.clip_sites else None

    def _formats(self) -> OutputFormats:
        """What is known of the features: what mmsegmentation's backbones give its heads is (B, C, h, w)."""
        known = output_formats(self.backbone, self.fusion._plan)
        return known if known.declared is not None else dataclasses.replace(known, declared="NCHW")

    def video_record(self) -> dict[str, Any]:
        """The clip and the fusion as plain values: written into checkpoints, compared when they are loaded."""
        return record_of(self.to_video, self.fusion, self.video_options.residual)

    def get_extra_state(self) -> Tensor:
        """The clip and the fusion as a tensor of text, in the state dict."""
        return encode(self.video_record(), self)

    def meet_clip(self, saved: Mapping[str, Any]) -> None:
        """Compare the clip of a checkpoint; raise `InputError` for another one (see `compare_record`)."""
        compare_record(self, saved, KEY)

    def meet_no_clip(self) -> None:
        """Take a checkpoint without a clip as it is: older ones may hold it in their metadata, see `_adapt`."""

    def extra_repr(self) -> str:
        """The fusion and its sites, as `print(model)` shows them."""
        return f"fusion={self.fusion._plan.fusion} at {len(self.fusion._plan.sites)} sites"


def _build(config: Any, pretrained: str | None) -> nn.Module:
    """Build the bare backbone, and hand it the weights of `model.pretrained`."""
    if not isinstance(config, Mapping) or "type" not in config:
        raise InputError(
            f"model.backbone.backbone must be the config of a backbone, a dict with a type, got {config!r:.80}"
        )
    config = dict(config)
    if pretrained is not None:
        if config.get("pretrained") is not None:
            raise InputError(
                f"model.pretrained={pretrained!r} and model.backbone.backbone.pretrained={config['pretrained']!r} are "
                "both given; set one of them to None"
            )
        config["pretrained"] = pretrained
    try:
        inner: nn.Module = MODELS.build(config)
    except TypeError as error:
        if pretrained is None or "'pretrained'" not in str(error):
            raise
        raise InputError(
            f"model.pretrained={pretrained!r} is for the backbone, but {config['type']} takes no pretrained; set "
            "model.pretrained=None and model.backbone.backbone.init_cfg=dict(type='Pretrained', checkpoint=…)"
        ) from error
    return inner


def _check_init(init_cfg: Any) -> None:
    """Refuse rules of initialisation, which would reach the fusions."""
    for one in [init_cfg] if isinstance(init_cfg, Mapping) else init_cfg or []:
        kind = one.get("type")
        if getattr(kind, "__name__", kind) not in ("Pretrained", "PretrainedInit"):
            raise InputError(
                f"model.backbone.init_cfg has the type {kind!r}, which would initialise the fusions too; give it to "
                "model.backbone.backbone.init_cfg; here stands dict(type='Pretrained', checkpoint=…) alone"
            )


def _adapt(module: VideoBackbone, state_dict: dict[str, Any], prefix: str, local_metadata: Any, *rest: Any) -> None:
    """Before a load: compare the clips, and map the keys of a bare backbone (see `adapt_state_dict`)."""
    compare_record(module, saved_record(None, local_metadata), KEY)
    adapt_state_dict(module, state_dict, prefix, local_metadata, *rest)


def _unit(values: Any) -> list[float]:
    return [float(value) / 255 for value in values]


@contextmanager
def _own_key() -> Iterator[None]:
    """Name the options in errors as this config spells them."""
    try:
        yield
    except Image2VideoError as error:
        raise type(error)(str(error).replace(options.KEY, KEY)) from error
