"""timm's feature extractors as backbones of mmsegmentation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from image2video.functional import InputError, MissingError
from image2video.integrations.timm_backbones import build

STRIDES = (8, 16, 32)
# What timm raises for options that a model does not take.
_TIMM_ERRORS = (AssertionError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


@MODELS.register_module()
class TimmFeatures(BaseModule):
    """The feature maps of a timm model: images `(N, C, H, W)` -> a tuple of maps `(N, C_i, H_i, W_i)`.

    In a config:

        backbone=dict(type="TimmFeatures", model_name="xception65", out_indices=(1, 2, 3, 4), output_stride=16)

    It is timm's `features_only` model, whose state-dict keys stand under `timm_model.`, as in mmsegmentation's own
    `TIMMBackbone`. Beyond that one, weights load from a file of the whole classifier, maps that timm gives
    channels-last (Swin) come as `(N, C, H, W)`, and nothing is downloaded unless `pretrained=True` says so.

    Args:
        model_name: the model's name in timm, with or without a tag.
        out_indices: which of the model's feature maps; None for all. `channels` and `strides` say what they are.
        output_stride: 8, 16 or 32, for models that can trade stride for dilation; None for the model's own.
        pretrained: take timm's weights, from the network or its cache. A string, which is what `model.pretrained` of a
            segmentor's config hands over, is refused: it names a checkpoint of another network; set
            `model.pretrained=None`.
        checkpoint_path: a local file with weights of the whole timm model, classifier included or not.
        in_channels: channels of the images; the first convolution of loaded weights is adapted as timm does.
        init_cfg: as in any `BaseModule`; `dict(type="Pretrained", …)` takes checkpoints with the keys of this module.
        kwargs: everything else goes to `timm.create_model`: `drop_path_rate`, `img_size`, …

    Attributes:
        channels: of each map.
        strides: of each map, in pixels of the image.

    Raises:
        InputError: a name that timm does not have, a model without feature maps, maps that it does not have, an output
            stride that it cannot take, `pretrained` that is not True or False.
        MissingError: no file at `checkpoint_path`.

    >>> import torch
    >>> backbone = TimmFeatures("resnet18", out_indices=(2, 3), output_stride=8)
    >>> backbone.channels, backbone.strides
    ((128, 256), (8, 8))
    >>> [tuple(one.shape) for one in backbone(torch.zeros(1, 3, 64, 96))]
    [(1, 128, 8, 12), (1, 256, 8, 12)]
    """

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int] | None = None,
        output_stride: int | None = None,
        pretrained: bool = False,
        checkpoint_path: str = "",
        in_channels: int = 3,
        init_cfg: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg)
        _check_weights(pretrained, checkpoint_path)
        if output_stride not in (None, *STRIDES):
            raise InputError(f"model.backbone.output_stride must be one of {STRIDES}, got {output_stride!r}")
        options: dict[str, Any] = dict(kwargs)
        if out_indices is not None:
            options["out_indices"] = tuple(out_indices)
        if output_stride is not None:
            options["output_stride"] = output_stride
        if checkpoint_path:
            if "pretrained_cfg_overlay" in kwargs:
                raise InputError(
                    "model.backbone: checkpoint_path and pretrained_cfg_overlay both say where weights are; give one"
                )
            # As timm's own weights, they load before the classifier is cut off; after it, their keys would not fit.
            options["pretrained_cfg_overlay"] = {"file": os.fspath(checkpoint_path), "source": "file"}
        try:
            self.timm_model = build(
                model_name,
                pretrained=pretrained or bool(checkpoint_path),
                in_chans=in_channels,
                features_only=True,
                **options,
            )
        except InputError as error:
            raise InputError(f"model.backbone.model_name: {error}") from error
        except _TIMM_ERRORS as error:
            asked = {"out_indices": out_indices, "output_stride": output_stride, **kwargs}
            asked["checkpoint_path"] = checkpoint_path or None
            listed = ", ".join(f"{name}={value!r}" for name, value in asked.items() if value is not None)
            raise InputError(
                f"model.backbone: timm cannot build the feature maps of {model_name!r} with {listed or 'defaults'} "
                f"({type(error).__name__}: {error}); timm.create_model({model_name!r}, "
                "features_only=True).feature_info says what maps it has"
            ) from error
        info: Any = self.timm_model.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self._channels_last = str(getattr(self.timm_model, "output_fmt", "NCHW")).upper().endswith("NHWC")
        if pretrained or checkpoint_path:
            self._is_init = True  # or init_weights would overwrite them

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps `out_indices`, channels first."""
        maps = self.timm_model(images)
        if self._channels_last:
            return tuple(one.permute(0, 3, 1, 2).contiguous() for one in maps)
        return tuple(maps)


def _check_weights(pretrained: Any, checkpoint_path: Any) -> None:
    if not isinstance(pretrained, bool):
        raise InputError(
            f"pretrained={pretrained!r} came to TimmFeatures, which takes True or False; if it is model.pretrained of "
            "the config, which names a checkpoint of another network, set model.pretrained=None, and "
            "model.backbone.pretrained=True or model.backbone.checkpoint_path='FILE' instead"
        )
    if checkpoint_path and pretrained:
        raise InputError("model.backbone has both pretrained=True and checkpoint_path; give one of them")
    if checkpoint_path and not os.path.isfile(checkpoint_path):
        raise MissingError(f"model.backbone.checkpoint_path={checkpoint_path!r}: there is no such file")
