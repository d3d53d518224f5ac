"""Rules of the heads that classify masks or points instead of pixels: MaskFormer, Mask2Former, PointRend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmseg.models.decode_heads.point_head import calculate_uncertainty
from mmseg.models.utils import resize
from torch import Tensor

from image2video.clip.deep_video import DeepVideo
from image2video.clip.way_back import WayBack
from image2video.functional import InputError, clip_to_frames, frames_to_clip
from image2video.integrations.openmmlab.cover import Video
from image2video.integrations.openmmlab.frames import Batch, Run
from image2video.integrations.openmmlab.heads import HeadOutputs, HeadRule, Meta, register_head_rule


class QueryRule(HeadRule):
    """Heads that give every learned query a class and a mask (MaskFormer, Cheng et al., NeurIPS 2021; Mask2Former).

    Query q is the same learned vector in every frame, so what it gives in the frames is averaged over them: class
    scores `(B·T, Q, K + 1)` plainly, mask logits `(B·T, Q, h, w)` unwarped, at their own size. The head's own matching,
    loss and semantic inference then take these averages for its outputs, in training and in prediction alike.
    """

    def losses(
        self, head: Any, features: Any, samples: Sequence[Any], train_cfg: Any, video: HeadOutputs, previous: Any = None
    ) -> dict[str, Any]:
        """The head's own losses of B images, on the averaged queries of every decoder layer."""
        with _averaged_queries(head, video):
            return head.loss(features, samples, train_cfg)

    def predict(
        self, head: Any, features: Any, metas: Sequence[Meta], test_cfg: Any, video: HeadOutputs, previous: Any = None
    ) -> Tensor:
        """The scores `(B, K, H, W)` of the head's semantic inference, padding included."""
        # MaskFormer reads the size of its output from the one key, Mask2Former from the other, which in a sliding
        # window is that of the whole image.
        whole = {"img_shape": tuple(video.canvas), "pad_shape": tuple(video.canvas)}
        with _averaged_queries(head, video):
            return head.predict(features, [{**meta, **whole} for meta in metas], test_cfg)


@contextmanager
def _averaged_queries(head: Any, video: HeadOutputs) -> Iterator[None]:
    """Calls of the head take features of B·T frames and samples of B images, and return outputs of B images."""
    T = video.to_video.T

    def before(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        features, samples = args
        return features, [sample for sample in samples for _ in range(T)]

    def after(_: Any, args: tuple[Any, ...], outputs: Any) -> tuple[list[Tensor], list[Tensor]]:
        scores, masks = outputs
        averaged = []
        for layer in masks:
            height, width = layer.shape[-2:]
            averaged.append(video.images(layer, size=(height, width)))
        return video.images(list(scores)), averaged

    handles = (head.register_forward_pre_hook(before), head.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class PointRule(HeadRule):
    """PointRend's second stage (Kirillov et al., CVPR 2020): points are chosen in the reference image.

    The uncertain points are those of the first stage's averaged logits. Each is read in every frame at the place where
    the frame shows it; its logits are averaged over the frames that show it. A point that no frame shows is read at the
    nearest place in the frame with the smallest |s|; one in the padding, which nothing moves, in all of them.
    """

    def losses(
        self, head: Any, features: Any, samples: Sequence[Any], train_cfg: Any, video: HeadOutputs, previous: Any = None
    ) -> dict[str, Any]:
        """The head's loss of B images at points of the averaged `previous` `(B·T, K, h, w)`."""
        frames = _frames_before(previous)
        with torch.no_grad():
            coarse = _coarse(head, frames, video)
            points = head.get_points_train(coarse, calculate_uncertainty, cfg=train_cfg)
        logits = _point_logits(head, head._transform_inputs(features), frames, points, video)
        return head.loss_by_feat(logits, points, samples)

    def predict(
        self, head: Any, features: Any, metas: Sequence[Meta], test_cfg: Any, video: HeadOutputs, previous: Any = None
    ) -> Tensor:
        """The averaged logits of the first stage, refined at their uncertain points, at the images' size."""
        frames = _frames_before(previous)
        refined = _coarse(head, frames, video)
        inputs = head._transform_inputs(features)
        options = {"mode": "bilinear", "align_corners": head.align_corners}
        for _ in range(test_cfg.subdivision_steps):
            refined = resize(refined, scale_factor=test_cfg.scale_factor, **options)
            chosen, points = head.get_points_test(refined, calculate_uncertainty, cfg=test_cfg)
            logits = _point_logits(head, inputs, frames, points, video).to(refined.dtype)
            flat = refined.flatten(2).scatter(2, chosen[:, None].expand_as(logits), logits)
            refined = flat.unflatten(2, (refined.shape[2], refined.shape[3]))
        return head.predict_by_feat(refined, [dict(meta) for meta in metas])


def _frames_before(previous: Any) -> Tensor:
    """The logits of the frames by the stage before."""
    if not isinstance(previous, Tensor):
        raise InputError(f"the stage before PointHead must give one map of logits, got {type(previous).__name__}")
    return previous


def _coarse(head: Any, frames: Tensor, video: HeadOutputs) -> Tensor:
    """The averaged logits of the stage before, at their own size."""
    return video.images(frames, align_corners=head.align_corners, size=(frames.shape[2], frames.shape[3]))


def _point_logits(head: Any, inputs: Any, frames: Tensor, points: Tensor, video: HeadOutputs) -> Tensor:
    """The logits `(B, K, P)` of `points` `(B, P, 2)`, averaged over the frames that show them."""
    places, weights = frame_places(points, video)
    rows = clip_to_frames(places)
    fine = head._get_fine_grained_point_feats(inputs, rows)
    logits = head.forward(fine, head._get_coarse_point_feats(frames, rows))
    clip, shares = frames_to_clip(logits, video.to_video.T).float(), weights[:, :, None]
    return (clip * shares).sum(1) / shares.sum(1)


def frame_places(points: Tensor, video: HeadOutputs) -> tuple[Tensor, Tensor]:
    """Where every frame shows points of the reference image, and with what weight it counts.

    Args:
        points: (x, y) `(B, P, 2)` in [0, 1] of the padded batch, from its left and upper edge to the right and lower.
        video: the clip, and the sizes of the images.

    Returns:
        Places `(B, T, P, 2)` in the same coordinates; weights `(B, T, P)`, 1 where the frame shows the point, else 0.
        At least one weight of a point is 1.

    """
    canvas = points.new_tensor([video.canvas[1], video.canvas[0]])
    places, weights = [], []
    batch = Batch(video.content, video.canvas, video.begin)
    runs = [run for run in batch.runs(video.canvas) for _ in range(run.rows.start, run.rows.stop)]
    for pixels, run in zip(points * canvas, runs, strict=True):
        place, weight = _places_of_image(pixels, run, video.to_video)
        places.append(place / canvas)
        weights.append(weight)
    return torch.stack(places), torch.stack(weights)


def _places_of_image(points: Tensor, run: Run, to_video: Video) -> tuple[Tensor, Tensor]:
    """The same of one image of a run, with points `(P, 2)` and places `(T, P, 2)` in pixels."""
    corner = points.new_tensor([run.size[1], run.size[0]])
    # Nothing moves the padding.
    in_padding = (points > corner).any(-1)
    inside = torch.ones((), dtype=torch.bool, device=points.device)
    # A point that leaves the frame at one place is lost, and padding stands where a later place brings it back.
    for back in _ways_back(run, to_video):
        places = torch.where(in_padding[:, None], points, _moved(points, corner / 2, run, back))
        inside = inside & ((places >= 0) & (places <= corner)).all(-1)
    weights = (inside | in_padding).to(points.dtype)
    # The nearest frame stands in for points that no frame shows.
    nearest = back.nearest_frame()
    unseen = weights.sum(0) == 0
    clamped = places[nearest].clamp_min(0).minimum(corner)
    places[nearest] = torch.where(unseen[:, None], clamped, places[nearest])
    weights[nearest] = weights[nearest].masked_fill(unseen, 1.0)
    return places, weights


def _ways_back(run: Run, to_video: Video) -> list[WayBack]:
    """The ways back behind each place that the frames have passed, from the first to the last."""
    if not isinstance(to_video, DeepVideo) or run.cells is None:
        return [run.back(to_video)]
    return [to_video.at_maps(run.cells, count) for count in range(1, len(run.cells) + 1)]


def _moved(points: Tensor, centre: Tensor, run: Run, back: WayBack) -> Tensor:
    """Where the frames `(T, P, 2)` of a clip show points `(P, 2)`, in pixels."""
    matrices = back.genotype.step_matrices(back.options.steps, *run.size, cells=back.cells)
    matrices = matrices.to(points.dtype).to(points.device)  # in this order: MPS has no float64
    turned = (points - centre) @ matrices[:, :2, :2].transpose(1, 2)
    return turned + matrices[:, None, :2, 2] + centre


register_head_rule("MaskFormerHead", QueryRule())
register_head_rule("Mask2FormerHead", QueryRule())
register_head_rule("PointHead", PointRule())
