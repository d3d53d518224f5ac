"""Heads that classify masks or points: what the frames give is averaged before the head's own loss and prediction."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

pytest.importorskip("mmseg")

from mmengine.structures import PixelData
from mmseg.models.decode_heads import Mask2FormerHead, MaskFormerHead, point_head
from mmseg.structures import SegDataSample
from mmseg_cases import CLASSES, build, largest_difference, predictions, samples, tiny_config, total_loss

from image2video.functional import Image2Video, InputError
from image2video.integrations.openmmlab import HeadOutputs, PointRule, QueryRule
from image2video.integrations.openmmlab.heads import head_rule
from image2video.integrations.openmmlab.mask_heads import frame_places

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CHAIN = "translate_x(0.1) > rotate(12)"
CANVAS = (24, 40)
T = 3


class Queries(nn.Module):
    """A head of the interface of MaskFormer's and Mask2Former's: two layers of scores and masks of learned queries."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)))
        self.classify = nn.Linear(6, CLASSES + 1)
        self.seen: tuple[list[Tensor], list[Tensor]] | None = None

    def forward(self, features, samples):
        assert len(samples) == len(features[0])
        pooled = features[0].mean((2, 3))
        scores = [self.classify(layer * pooled[:, None]) for layer in self.embed]
        return scores, [torch.einsum("qc,bchw->bqhw", layer, features[0]) for layer in self.embed]

    def loss(self, features, samples, train_cfg):
        self.seen = self(features, samples)
        scores, masks = self.seen
        assert len(scores[0]) == len(samples)
        return {"loss_cls": scores[-1].square().mean(), "loss_mask": sum(m.square().mean() for m in masks)}

    def predict(self, features, metas, test_cfg):
        scores, masks = self(features, [SegDataSample(metainfo=meta) for meta in metas])
        size = metas[0].get("pad_shape", metas[0]["img_shape"])
        masks = functional.interpolate(masks[-1], size=size, mode="bilinear", align_corners=False)
        return torch.einsum("bqc,bqhw->bchw", scores[-1].softmax(-1)[..., :-1], masks.sigmoid())


def outputs(genotype: str = CHAIN, content=((24, 40), (24, 40)), **options) -> HeadOutputs:
    return HeadOutputs(Image2Video(genotype, T=T, **options), content, CANVAS, CANVAS)


def features(count: int = 2, *, equal: bool = False, seed: int = 0) -> tuple[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if equal:
        return (torch.randn(count, 6, 6, 10, generator=generator).repeat_interleave(T, 0),)
    return (torch.randn(count * T, 6, 6, 10, generator=generator),)


def metas(count: int = 2) -> list[dict]:
    return [{"img_shape": (20, 33), "pad_shape": (90, 90)} for _ in range(count)]


def two_samples() -> list[SegDataSample]:
    found = [SegDataSample(metainfo={"img_shape": CANVAS}) for _ in range(2)]
    for one in found:
        one.gt_sem_seg = PixelData(data=torch.zeros(1, *CANVAS, dtype=torch.long))
    return found


def test_the_heads_have_their_rules():
    kinds = [MaskFormerHead, Mask2FormerHead, point_head.PointHead, type("Mine", (MaskFormerHead,), {})]
    rules = [head_rule(kind.__new__(kind)) for kind in kinds]
    assert [type(rule) for rule in rules] == [QueryRule, QueryRule, PointRule, QueryRule]


def test_the_loss_sees_queries_averaged_over_the_frames():
    head, video = Queries(), outputs()
    (maps,) = features()
    losses = QueryRule().losses(head, (maps,), two_samples(), {}, video)
    scores, masks = head.seen
    bare_scores, bare_masks = head((maps,), [None] * 2 * T)
    for layer in range(2):
        torch.testing.assert_close(scores[layer], bare_scores[layer].unflatten(0, (2, T)).mean(1))
        torch.testing.assert_close(masks[layer], video.to_video.unwarped_mean(bare_masks[layer], CANVAS))
    assert masks[0].shape == (2, 4, 6, 10)  # its own size, not the labels'
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in head.parameters())


@torch.no_grad()
def test_the_prediction_is_the_semantic_inference_of_the_averages_on_the_whole_canvas():
    head, video = Queries(), outputs()
    (maps,) = features()
    before = metas()
    logits = QueryRule().predict(head, (maps,), before, {}, video)
    assert before == metas()
    bare_scores, bare_masks = head((maps,), [None] * 2 * T)
    masks = functional.interpolate(video.to_video.unwarped_mean(bare_masks[-1], CANVAS), CANVAS, mode="bilinear")
    weights = bare_scores[-1].unflatten(0, (2, T)).mean(1).softmax(-1)[..., :-1]
    torch.testing.assert_close(logits, torch.einsum("bqc,bqhw->bchw", weights, masks.sigmoid()))


@torch.no_grad()
def test_equal_frames_and_the_identity_give_what_the_bare_head_gives():
    head, (maps,) = Queries(), features(equal=True)
    plain = [{"img_shape": CANVAS, "pad_shape": CANVAS}] * 2
    found = QueryRule().predict(head, (maps,), plain, {}, outputs("identity"))
    torch.testing.assert_close(found, head.predict((maps[::T],), plain, {}))
    found = QueryRule().losses(head, (maps,), two_samples(), {}, outputs("identity"))
    for name, value in head.loss((maps[::T],), two_samples(), {}).items():
        torch.testing.assert_close(found[name], value)


def test_the_head_is_left_as_it_was_also_after_an_error():
    head = Queries()
    QueryRule().predict(head, features(), metas(), {}, outputs())
    with pytest.raises(RuntimeError):
        QueryRule().losses(head, (torch.zeros(2 * T, 5, 6, 10),), two_samples(), {}, outputs())
    assert not head._forward_hooks
    assert not head._forward_pre_hooks


def pixel_points(size: tuple[int, int]) -> Tensor:
    """The centres of a map's pixels, `(h·w, 2)` in [0, 1]."""
    h, w = size
    y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def read(maps: Tensor, points: Tensor) -> Tensor:
    """Maps `(N, K, h, w)` at points `(N, P, 2)` in [0, 1], zeros outside: what `mmcv.ops.point_sample` computes."""
    found = functional.grid_sample(maps, points[:, :, None] * 2 - 1, align_corners=False, padding_mode="zeros")
    return found[..., 0]


def test_a_point_is_read_where_the_unwarp_reads_it():
    video = outputs("translate_x(0.1) > rotate(20) > scale(1.2)")
    maps = torch.randn(2 * T, 3, *CANVAS, generator=torch.Generator().manual_seed(0))
    places, weights = frame_places(pixel_points(CANVAS).expand(2, -1, -1), video)
    found = read(maps, places.flatten(0, 1)).unflatten(2, CANVAS).unflatten(0, (2, T))
    torch.testing.assert_close(found, video.to_video.unwarp(maps, CANVAS), atol=1e-4, rtol=1e-4)
    mask = video.to_video.valid_mask(CANVAS, CANVAS)[:, 0]
    shown = weights.unflatten(2, CANVAS)
    assert (shown[:, mask == 1] == 1).all()
    assert (shown[:, mask == 0] == 0).all()
    assert 0.2 < shown[:, 1:].mean() < 0.98


def test_points_of_padded_images_turn_about_the_content_and_stay_in_the_padding():
    video = outputs("rotate(90)", content=((24, 40), (12, 20)))
    points = torch.tensor([[0.25, 0.25], [0.3, 0.25], [0.9, 0.25]]).expand(2, -1, -1)
    places, weights = frame_places(points, video)
    # The second content is 20 × 12 pixels, its centre at (10, 6): the point (12, 6) turns to (10, 4).
    torch.testing.assert_close(places[1, 1, 0], points[1, 0])
    torch.testing.assert_close(places[1, 1, 1] * torch.tensor([40.0, 24.0]), torch.tensor([10.0, 4.0]))
    assert (places[1, :, 2] == points[1, 2]).all()
    assert (weights[1] == 1).all()
    assert weights[0, 1, 2] == 0  # in the first image it is content, and leaves the frame


def test_a_point_that_no_frame_shows_is_read_at_the_edge_of_the_nearest_frame():
    video = outputs("translate_x(0.7)", schedule="ramp")
    places, weights = frame_places(torch.tensor([[0.1, 0.5], [0.6, 0.5]]).expand(2, -1, -1), video)
    assert weights[0].tolist() == [[1, 1], [0, 0], [0, 0]]
    torch.testing.assert_close(places[0, 0], torch.tensor([[0.8, 0.5], [1.0, 0.5]]))


@pytest.fixture
def point_rend(monkeypatch):
    """PointRend over a ResNet; its one compiled-package function written in torch."""

    def sample(maps, points, align_corners=False, **options):
        return functional.grid_sample(maps, points[:, :, None] * 2 - 1, align_corners=align_corners, **options)[..., 0]

    monkeypatch.setattr(point_head, "point_sample", sample)

    def make(video=None, seed=0):
        config = tiny_config("ocr", video=video, auxiliary=False)
        first = config.decode_head[0]
        config.decode_head[1] = {
            **{key: first[key] for key in ("channels", "loss_decode", "num_classes", "align_corners")},
            "type": "PointHead",
            "in_channels": [16],
            "in_index": [1],
            "num_fcs": 2,
            "dropout_ratio": -1,
        }
        config.train_cfg = {"num_points": 64, "oversample_ratio": 3, "importance_sample_ratio": 0.75}
        config.test_cfg = {"mode": "whole", "subdivision_steps": 2, "subdivision_num_points": 50, "scale_factor": 2}
        return build(config, seed=seed)

    return make


def test_point_rend_with_the_identity_is_the_bare_one(point_rend):
    bare, video = point_rend(), point_rend({"genotype": "identity", "T": 3}, seed=1)
    with pytest.warns(match="plain segmentor"):
        video.load_state_dict(bare.state_dict())
    inputs, found = samples(test=True)
    assert largest_difference(predictions(bare, inputs, found), predictions(video, inputs, found)) < 1e-4
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        losses = []
        for model in (bare, video):
            torch.manual_seed(0)  # the head draws its points
            losses.append(model.loss(inputs, found))
    assert set(losses[0]) == set(losses[1])
    assert "decode_1.pointloss_ce" in losses[0]
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, atol=1e-4, rtol=1e-4)


def test_point_rend_trains_and_predicts_padded_images(point_rend):
    model = point_rend({"genotype": CHAIN, "T": 3})
    inputs, found = samples(sizes=((40, 56), (33, 41)))
    total = total_loss(model.train(), inputs, found)
    total.backward()
    assert total.isfinite()
    lost = {name.split(".")[1] for name, parameter in model.named_parameters() if parameter.grad is None}
    assert lost == {"layer4"}, "neither stage reads the last stage of the backbone; all others have gradients"
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    inputs, found = samples(sizes=((33, 41),), canvas=(40, 56), test=True)
    logits = predictions(model.eval(), inputs, found)
    assert [one.shape for one in logits] == [(CLASSES, 33, 41)] * 2
    assert all(one.isfinite().all() for one in logits)


def test_points_are_averaged_over_the_frames_that_show_them():
    class Head:
        align_corners = False

        def _transform_inputs(self, inputs):
            return inputs

        def get_points_train(self, coarse, uncertainty, cfg):
            self.coarse = coarse
            return pixel_points(CANVAS).expand(len(coarse), -1, -1)

        def _get_fine_grained_point_feats(self, inputs, points):
            return read(inputs, points)

        _get_coarse_point_feats = _get_fine_grained_point_feats

        def forward(self, fine, coarse):
            return fine

        def loss_by_feat(self, logits, points, samples):
            return {"logits": logits}

    head, video = Head(), outputs("translate_x(0.2)")
    maps = torch.randn(2 * T, 3, *CANVAS, generator=torch.Generator().manual_seed(0))
    logits = PointRule().losses(head, maps, two_samples(), {}, video, maps)["logits"]
    expected = video.to_video.unwarped_mean(maps, CANVAS)  # by whole pixels: every pixel is shown, or is not
    torch.testing.assert_close(logits.unflatten(2, CANVAS), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(head.coarse, expected)


def test_a_first_stage_that_gives_no_map_is_refused():
    with pytest.raises(InputError, match="one map of logits, got list"):
        PointRule().losses(None, None, [], {}, outputs(), [torch.zeros(6, 3, 4, 4)])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mmdet") is None, reason="mmdetection is not installed")
@pytest.mark.parametrize(
    "config",
    [
        "maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py",
        "mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py",
    ],
)
def test_the_stock_configs_pass_every_check_of_the_sweep(config):
    command = [sys.executable, str(BENCHMARKS / "mmseg_zoo.py"), "--check", config, "--stand-in"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    record = json.loads(run.stdout.splitlines()[-1])
    assert record["status"] == "passes", record
    assert record["gsf"]["identity_error"] < 1e-4
