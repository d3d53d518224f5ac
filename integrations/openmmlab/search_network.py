"""A segmentor as a search sees it: the outputs of all its heads for every frame, and the task that they are for."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn.functional import pad

from image2video.functional import InputError, InputTypeError, Plan, UnsupportedError, plan_for
from image2video.fusion.config import FusionConfig
from image2video.integrations.openmmlab.heads import averaged, check_head, head_rule, heads_of, stage_outputs, walked
from image2video.integrations.openmmlab.inside import passed_by_heads
from image2video.search.score.segmentation import SegmentationScores
from image2video.search.score.task import Task, Unwarp
from image2video.segmentation import overlaps, pixel_losses

DECODE, AUXILIARY = "decode", "auxiliary"


class SegmentorFrames(nn.Module):
    """Frames `(N, C, H, W)` -> what every head of a segmentor gives for them: `{"decode": [...], "auxiliary": [...]}`.

    In eval mode the last decode head alone, as in mmsegmentation's own prediction. Maps have the heads' sizes; with
    `full_size` they are resized to that of the frames.

    Args:
        segmentor: an `EncoderDecoder` or a `CascadeEncoderDecoder`; it becomes a part of this module.
        full_size: whether maps are resized to the size of the frames.

    Raises:
        UnsupportedError: another kind of segmentor, or a head whose loss is not that of its outputs; names it.

    """

    def __init__(self, segmentor: nn.Module, *, full_size: bool = False) -> None:
        super().__init__()
        kind: Any = type(segmentor)
        if not isinstance(segmentor, EncoderDecoder) or kind.loss is not EncoderDecoder.loss:
            raise UnsupportedError(
                f"model.type={kind.__name__!r} computes its loss in a way of its own; the search takes EncoderDecoder "
                "and CascadeEncoderDecoder"
            )
        self.segmentor, self.full_size = segmentor, full_size
        for head in [*self.decode_heads, *self.auxiliary_heads]:
            if head_rule(head) is not None:
                raise UnsupportedError(
                    f"the head {type(head).__name__} has no loss of averaged maps, which the search needs; choose a "
                    "genotype with another head on the same backbone, or train with one from the presets"
                )
            check_head(head)

    @property
    def decode_heads(self) -> list[Any]:
        """The decode heads: one, or the stages of a cascade."""
        return heads_of(self.segmentor.decode_head)

    @property
    def auxiliary_heads(self) -> list[Any]:
        """The heads that count in training alone."""
        return heads_of(getattr(self.segmentor, "auxiliary_head", None))

    def forward(self, frames: Tensor) -> dict[str, list[Any]]:
        """The outputs of the heads."""
        segmentor: Any = self.segmentor
        features = segmentor.extract_feat(frames)
        size = (frames.shape[2], frames.shape[3]) if self.full_size else None
        heads = self.decode_heads
        decoded: list[Any] = []
        previous = None
        for head in heads:
            previous = stage_outputs(head, features, previous)
            decoded.append(previous)
        if not self.training:
            # Heads that give several maps predict by the first.
            last = previous[0] if isinstance(previous, tuple | list) else previous
            return {DECODE: [_sized(last, size, heads[-1].align_corners)], AUXILIARY: []}
        auxiliary = [_sized(head.forward(features), size, head.align_corners) for head in self.auxiliary_heads]
        found = [_sized(outputs, size, head.align_corners) for outputs, head in zip(decoded, heads, strict=True)]
        return {DECODE: found, AUXILIARY: auxiliary}


class SegmentorTask(Task):
    """Maps of all heads unwarped and averaged; the losses of the config; mIoU of the last decode head.

    The held-out loss is the cross-entropy of the averaged logits, whatever losses the config trains with.

    Args:
        network: the network that is searched for: its heads say what their losses are.
        sites: where fusions act in the backbone; see `image2video.plan`.

    """

    name = "segmentation"
    metric = "mIoU"

    def __init__(self, network: SegmentorFrames, sites: Any = None) -> None:
        self._heads = {DECODE: network.decode_heads, AUXILIARY: network.auxiliary_heads}
        self._elsewhere: dict[torch.device, dict[str, list[Any]]] = {}
        self.sites = sites
        last = network.decode_heads[-1]
        self.num_classes: int = last.num_classes
        self.ignore_index: int = last.ignore_index
        self._last = last

    def plan(self, network: nn.Module, fusion: FusionConfig, input_size: tuple[int, int, int]) -> tuple[Any, Plan]:
        """The segmentor's backbone, as in `VideoEncoderDecoder`: heads see frames that have mixed already."""
        backbone: Any = network.segmentor.backbone  # type: ignore[union-attr]
        return backbone, plan_for(backbone, fusion, self.sites, input_size, None)

    def part(self, network: nn.Module) -> nn.Module:
        """The segmentor's backbone, by whose modules places are named."""
        backbone: nn.Module = network.segmentor.backbone  # type: ignore[union-attr, assignment]
        return backbone

    def plan_at(
        self, network: nn.Module, fusion: FusionConfig, input_size: tuple[int, int, int], places: Sequence[str]
    ) -> tuple[Any, Plan]:
        """What `plan` gives for frames that are made and moved at places of the backbone; costs are the backbone's.

        Raises `InputError` for places that `VideoEncoderDecoder` refuses, and for an auxiliary head that takes what is
        made between two of them, whose maps the search would have to bring back by other ways than the decode head's.
        """
        segmentor: Any = network.segmentor
        found = plan_for(segmentor.backbone, fusion, self.sites, input_size, None, tuple(places))
        at_image = found.clip_site is None
        passed = passed_by_heads(segmentor, found.clip_sites, input_size[0], at_image=at_image)
        for head, count in zip(heads_of(getattr(segmentor, "auxiliary_head", None)), passed, strict=True):
            # What was made before a clip that begins inside is that of the images.
            if count < len(found.clip_sites) and (count > 0 or at_image):
                raise InputError(
                    f"the auxiliary head {type(head).__name__} takes features from before {found.places[-1]!r}, where "
                    f"its frames have moved at {', '.join(found.places[: count + at_image])} alone; a search needs "
                    "heads behind all places, or before the first one inside of the backbone: name other places, or "
                    "leave the head out (model.auxiliary_head=None)"
                )
        return segmentor.backbone, found

    def check(self, outputs: Any, rows: int) -> None:
        """Raise where `outputs` are not those of `SegmentorFrames`, with logits `(rows, K, h, w)` last."""
        if not isinstance(outputs, Mapping) or not outputs.get(DECODE):
            raise InputTypeError(f"expected the outputs of SegmentorFrames, got {type(outputs).__name__}")
        logits = _first(outputs[DECODE][-1])
        channels = self._last.out_channels
        if logits.ndim != 4 or logits.shape[:2] != (rows, channels):
            raise InputError(
                f"the decode head {type(self._last).__name__} must return ({rows}, {channels}, h, w) for {rows} "
                f"frames, got {tuple(logits.shape)}"
            )

    def predict(self, outputs: Any, T: int, unwarp: Unwarp) -> Any:
        """The same structure for the images: maps unwarped and averaged, vectors averaged, in float32 at least.

        Outputs from before a clip that begins inside of the backbone are those of the images, and stay.
        """
        images = len(_first(outputs[DECODE][-1])) // T

        def average(output: Tensor) -> Tensor:
            if T > 1 and len(output) == images:
                return output
            if output.is_floating_point() and output.ndim == 4:
                return unwarp(output if output.dtype == torch.float64 else output.float())
            return averaged(output, T)

        return walked(outputs, average)

    def loss(self, predictions: Any, labels: Tensor) -> Tensor:
        """The sum of the losses of all heads, each computed by its head: weights, samplers and ignored labels hold."""
        heads, samples = self._heads_on(labels.device), [_sample(label) for label in labels]
        total = labels.new_zeros((), dtype=torch.float32)
        for kind in (DECODE, AUXILIARY):
            for head, outputs in zip(heads[kind], predictions[kind], strict=True):
                total = total + sum(_losses(head.loss_by_feat(outputs, samples)))
        return total

    def per_image(self, predictions: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels of intersection and union `(B, 2, K)` and the summed cross-entropy `(B,)` at the labels' size."""
        maps = _first(predictions[DECODE][-1])
        logits = resize(maps, size=labels.shape[1:], mode="bilinear", align_corners=self._last.align_corners)
        decided = logits
        if logits.shape[1] == 1:  # one logit for two classes: that of the background is 0, or the head's threshold
            threshold = torch.tensor(self._last.threshold, device=logits.device).logit()
            logits, decided = (pad(x, (0, 0, 0, 0, 1, 0)) for x in (logits, logits - threshold))
        counts = overlaps(decided, labels, self.num_classes, ignore_index=self.ignore_index)
        return counts, pixel_losses(logits, labels, ignore_index=self.ignore_index)

    def collect(self, quality: Tensor, loss: Tensor) -> SegmentationScores:
        """mIoU and mean pixel loss of V variants."""
        return SegmentationScores(quality.cpu().int(), loss.cpu().double())

    def _heads_on(self, device: torch.device) -> dict[str, list[Any]]:
        """The heads where the labels are: some losses hold tensors of their own (the edge filter of STDC)."""
        own = next(self._last.parameters()).device
        if device == own:
            return self._heads
        if device not in self._elsewhere:
            moved = {kind: [copy.deepcopy(head).to(device) for head in heads] for kind, heads in self._heads.items()}
            self._elsewhere[device] = moved
        return self._elsewhere[device]


def _sized(outputs: Any, size: tuple[int, int] | None, align_corners: bool) -> Any:
    """The outputs of a head with all maps at `size`; vectors and scores stay."""
    if size is None:
        return outputs

    def enlarge(output: Tensor) -> Tensor:
        if output.ndim != 4 or tuple(output.shape[2:]) == size:
            return output
        return resize(output.float(), size=size, mode="bilinear", align_corners=align_corners, warning=False)

    return walked(outputs, enlarge)


def _first(outputs: Any) -> Tensor:
    """The map that a head predicts by."""
    found = outputs[0] if isinstance(outputs, tuple | list) else outputs
    if not isinstance(found, Tensor):
        raise InputTypeError(f"a decode head must return logits of pixels (B, K, h, w), got {type(found).__name__}")
    return found


def _sample(label: Tensor) -> SegDataSample:
    """A label `(H, W)` as mmsegmentation's losses take it."""
    size = tuple(label.shape)
    sample = SegDataSample(metainfo={"img_shape": size, "ori_shape": size, "pad_shape": size})
    sample.gt_sem_seg = PixelData(data=label.unsqueeze(0))
    return sample


def _losses(found: Mapping[str, Any]) -> Iterator[Tensor]:
    """What mmengine adds up: the means of all entries named loss."""
    for name, value in found.items():
        if "loss" in name:
            yield from (one.mean() for one in (value if isinstance(value, list) else [value]))
