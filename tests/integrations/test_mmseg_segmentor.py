"""A video segmentor predicts and learns what it promises: the average of the frames, in the image's own place."""

import copy
from itertools import cycle

import pytest
import torch
from torch import nn

pytest.importorskip("mmseg")

from by_hand import CHAIN, STEPS, mean_over, unwarped, warped
from mmengine.structures import PixelData
from mmseg_cases import IGNORED, SIZE, build, largest_difference, pair, predictions, samples, tiny_config, total_loss

FUSIONS = ("gsf", "gsm", "conv3d", "none")
SLIDE = {"mode": "slide", "crop_size": (28, 32), "stride": (16, 20)}
STILL = {"genotype": "identity", "T": 3}
MOVING = {"genotype": CHAIN, "T": 3, "schedule": "from_zero", "padding": "zeros", "fusion": "none"}


def frames_of(images, steps, content):
    """The frames of padded images, one tensor for each step."""
    found = []
    for step in steps:
        frames = images.clone()
        for b, (h, w) in enumerate(content):
            frames[b, :, :h, :w] = warped(images[b : b + 1, :, :h, :w], step)[0]
        found.append(frames)
    return found


def average(logits, steps, content):
    """Σ unwarp / Σ mask of every content, the plain mean in the padding."""
    mean = torch.stack(logits).mean(0)
    for b, (h, w) in enumerate(content):
        mean[b, :, :h, :w] = mean_over([one[b : b + 1, :, :h, :w] for one in logits], steps)[0]
    return mean


def metas_of(content, canvas):
    padding = [(0, canvas[1] - w, 0, canvas[0] - h) for h, w in content]
    return [
        {"img_shape": size, "ori_shape": size, "pad_shape": canvas, "img_padding_size": sides}
        for size, sides in zip(content, padding, strict=True)
    ]


@pytest.mark.parametrize(("mode", "fusion"), [*(("whole", fusion) for fusion in FUSIONS), ("slide", "gsf")])
def test_identity_equals_the_plain_segmentor(fusion, mode):
    plain, wrapped = pair(video={**STILL, "fusion": fusion}, test_cfg=SLIDE if mode == "slide" else None)
    assert len(wrapped.video_fusion.plan.sites) == {"none": 0, "conv3d": 19}.get(fusion, 8)
    batch = samples(2, canvas=(44, 64), test=True)
    expected = predictions(plain, *batch)
    assert expected[0].std() > 0.1
    assert [one.shape[1:] for one in expected] == [SIZE, SIZE]
    assert largest_difference(predictions(wrapped, *batch), expected) < 1e-4
    inputs, found = samples(2, [SIZE, (33, 50)])
    losses, plain_losses = wrapped.loss(inputs, found), plain.loss(inputs, found)
    assert losses.keys() == plain_losses.keys()
    for key, value in plain_losses.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fusion", ["gsf", "gsm"])
def test_a_fusion_that_has_learned_changes_the_prediction(fusion):
    plain, wrapped = pair(video={**STILL, "fusion": fusion})
    for parameter in wrapped.video_fusion.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(0))
    batch = samples(1, test=True)
    assert largest_difference(predictions(wrapped, *batch), predictions(plain, *batch)) > 1e-2


@pytest.mark.parametrize(
    ("schedule", "canvas"),
    [pytest.param("from_zero", SIZE, id="whole"), *((schedule, (48, 72)) for schedule in STEPS)],
    ids=str,
)
def test_predictions_are_the_unwarped_average(schedule, canvas):
    plain, wrapped = pair(video={**MOVING, "schedule": schedule})
    inputs, found = samples(2, canvas=canvas, test=True)
    content, metas = (SIZE, SIZE), metas_of((SIZE, SIZE), canvas)
    with torch.no_grad():
        logits = [plain.encode_decode(one, metas) for one in frames_of(inputs, STEPS[schedule], content)]
    expected = average(logits, STEPS[schedule], content)[:, :, : SIZE[0], : SIZE[1]]
    shown = expected.isfinite()
    assert shown.float().mean() > 0.9
    for one, mine, seen in zip(predictions(wrapped, inputs, found), expected, shown, strict=True):
        torch.testing.assert_close(one[seen], mine[seen], rtol=1e-3, atol=1e-3)
        assert one.isfinite().all()


def test_images_of_different_sizes_are_warped_about_their_own_centres():
    plain, wrapped = pair(video=MOVING)
    content, canvas = (SIZE, (30, 41), (25, 56)), SIZE
    inputs, _ = samples(3, content)
    metas = metas_of(content, canvas)
    with torch.no_grad():
        mine = wrapped.encode_decode(inputs, metas)
        logits = [plain.encode_decode(one, metas) for one in frames_of(inputs, STEPS["from_zero"], content)]
    torch.testing.assert_close(mine, average(logits, STEPS["from_zero"], content), rtol=1e-3, atol=1e-3)
    for b, (h, w) in enumerate(content):
        about_canvas = unwarped(logits[1][b : b + 1], 1)[0, :, :h, :w]
        about_itself = unwarped(logits[1][b : b + 1, :, :h, :w], 1)[0]
        assert ((about_canvas - about_itself).abs().max() < 1e-3) == ((h, w) == canvas)


def test_sliding_averages_clips_of_windows():
    plain, wrapped = pair(video=MOVING, test_cfg=SLIDE)
    canvas, content = (44, 64), SIZE
    inputs, found = samples(1, canvas=canvas, test=True)
    total, count = torch.zeros(1, 5, *canvas), torch.zeros(canvas)
    for top in (0, 16):
        for left in (0, 20, 32):
            window = inputs[:, :, top : top + 28, left : left + 32]
            inside = [(min(content[0] - top, 28), min(content[1] - left, 32))]
            meta = [{"img_shape": torch.Size((28, 32))}]
            with torch.no_grad():
                logits = [plain.encode_decode(one, meta) for one in frames_of(window, (0, 1, 2), inside)]
            total[:, :, top : top + 28, left : left + 32] += average(logits, (0, 1, 2), inside)
            count[top : top + 28, left : left + 32] += 1
    expected = (total / count)[0, :, : content[0], : content[1]]
    torch.testing.assert_close(predictions(wrapped, inputs, found)[0], expected, rtol=1e-3, atol=1e-3)


def test_sliding_leaves_the_metas_alone():
    _, wrapped = pair(video=MOVING, test_cfg=SLIDE)
    inputs, found = samples(2, canvas=(44, 64), test=True)
    metas = [sample.metainfo for sample in found]
    before = copy.deepcopy(metas)
    with torch.no_grad():
        wrapped.inference(inputs, metas)
    assert metas == before


@pytest.mark.parametrize("unwarp", ["label", "head"])
def test_the_loss_is_that_of_averaged_logits(unwarp):
    """Σ of the cross-entropies over all pixels, ignored ones as zeros, divided by the number of pixels."""
    plain, wrapped = pair("fcn", video={**MOVING, "unwarp": unwarp})
    content, canvas = (SIZE, (32, 48)), SIZE
    inputs, found = samples(2, content)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in found])
    assert 0 < (labels == IGNORED).float().mean() < 0.4
    with torch.no_grad():
        frames = frames_of(inputs, (0, 1, 2), content)
        losses = wrapped.loss(inputs, found)
        for key, head, weight in (("decode", plain.decode_head, 1.0), ("aux", plain.auxiliary_head, 0.4)):
            small = [head(plain.extract_feat(one)) for one in frames]
            if unwarp == "label":
                logits = average([enlarged(one, canvas) for one in small], (0, 1, 2), content)
            else:
                part = [(h // 8, w // 8) for h, w in content]
                logits = enlarged(average(small, (0, 1, 2), part), canvas)
            expected = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
            torch.testing.assert_close(
                losses[f"{key}.loss_ce"], weight * expected / labels.numel(), rtol=1e-4, atol=1e-4
            )


def enlarged(maps, size):
    return nn.functional.interpolate(maps, size, mode="bilinear")


# Which pixels no frame shows is the schedule's, whatever stands there: every schedule and every padding once.
@pytest.mark.parametrize(("schedule", "padding"), [*zip(STEPS, cycle(["zeros", "border", "reflection"]), strict=False)])
def test_gradients_are_finite(schedule, padding):
    video = {"genotype": "translate_x(0.2) > scale(0.8)", "T": 3, "schedule": schedule, "padding": padding}
    model = build(tiny_config(video=video)).train()
    inputs, found = samples(2, [SIZE, (21, 30)])
    found[1].gt_sem_seg = PixelData(data=torch.full_like(found[1].gt_sem_seg.data, IGNORED))
    total_loss(model, inputs, found).backward()
    names = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not names
    assert any(p.grad.abs().max() > 0 for p in model.video_fusion.parameters())


def test_heads_see_every_frame_with_the_metas_in_order():
    _, wrapped = pair(video={"genotype": "identity", "T": 4, "fusion": "none"})
    inputs, found = samples(3, test=True)
    for index, sample in enumerate(found):
        sample.set_metainfo({"img_path": f"{index}.png"})
    seen, predict = [], wrapped.decode_head.predict

    def recorded(features, metas, test_cfg):
        seen.append(([meta["img_path"] for meta in metas], metas[0]["img_shape"], features[3].shape[0]))
        metas[0]["img_shape"] = "written into"
        return predict(features, [{**meta, "img_shape": SIZE} for meta in metas], test_cfg)

    wrapped.decode_head.predict = recorded
    predictions(wrapped, inputs, found)
    assert seen == [(["0.png", "1.png", "2.png"], SIZE, 3)] * 4


def test_unwarping_at_head_size_is_near_to_that_at_label_size():
    batch = samples(2, canvas=(48, 64), test=True)
    found = {}
    for unwarp in ("label", "head"):
        _, model = pair(video={**MOVING, "unwarp": unwarp})
        found[unwarp] = torch.stack(predictions(model, *batch))
    agreed = (found["label"].argmax(1) == found["head"].argmax(1)).float().mean()
    assert 0.85 < agreed < 1


@pytest.mark.parametrize("fusion", ["gsf", "tsm"])
def test_one_frame_is_the_plain_segmentor_even_as_published(fusion):
    plain, wrapped = pair(video={"genotype": CHAIN, "T": 1, "fusion": fusion, "residual": False})
    batch = samples(1, test=True)
    assert largest_difference(predictions(wrapped, *batch), predictions(plain, *batch)) == 0


@pytest.mark.parametrize("decode", ["psp", "da", "ocr"])
def test_tensor_mode_gives_what_the_plain_one_gives(decode):
    plain, wrapped = pair(decode, video=STILL)
    inputs, found = samples(2)
    with torch.no_grad():
        mine, expected = wrapped(inputs), plain(inputs)
        again = wrapped(inputs, found, mode="tensor")
    assert type(mine) is type(expected)
    if decode != "da":
        mine, expected, again = [mine], [expected], [again]
    assert largest_difference(mine, expected) < 1e-4
    assert largest_difference(mine, again) == 0


def test_autocast_predicts_and_learns():
    _, wrapped = pair(video={"genotype": CHAIN, "T": 3})
    inputs, found = samples(2)
    exact = predictions(wrapped, inputs, found)
    with torch.autocast("cpu", torch.bfloat16):
        rough = predictions(wrapped, inputs, found)
        loss = total_loss(wrapped.train(), inputs, found)
    loss.backward()
    assert largest_difference(rough, exact) < 0.2
    assert all(p.grad.isfinite().all() for p in wrapped.parameters())
