"""`VideoEncoderDecoder`: one line in a stock config turns a segmentor into a video segmentor."""

from __future__ import annotations

from typing import Any

from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder
from mmseg.registry import MODELS

from image2video.functional import InputError
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
        what = None
        if "num_stages" in kwargs:
            what = "model.num_stages"
        elif isinstance(stages, list | tuple):
            what = f"model.decode_head of {len(stages)} stages"
        if what is not None:
            raise InputError(f"{what} is of a cascade: set model.type to 'VideoCascadeEncoderDecoder'")
        super().__init__(*args, **kwargs)


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
        given = args[0] if args else None
        if stages is not None and kwargs.get("num_stages", given) != len(stages):
            raise InputError(
                f"model.num_stages={kwargs.get('num_stages')} and model.decode_head has {len(stages)} heads: they "
                "must agree"
            )
        super().__init__(*args, **kwargs)
