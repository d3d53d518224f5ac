"""Learned averaging of segmentors: copies moved within learned ranges, their logits brought back and averaged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("mmseg")

from mmseg_cases import CLASSES, SIZE, build, largest_difference, predictions, samples, tiny_config, total_loss

from image2video.clip.image_to_video import Image2Video, frames_to_clip
from image2video.clip.matrices import normalise
from image2video.errors import InputError, UnsupportedError
from image2video.integrations.openmmlab import HeadRule, heads
from image2video.reproduce.learned import START, drawn_powers, fixed_powers, moves
from image2video.reproduce.segment_learned import LearnedEncoderDecoder, MovedCopies

T = 3
WIDE = (1.2, 0.8, 1.5, 0.9, 1.1)


def learned(decode: str = "psp", *, frames: int = T, widths=WIDE, plain=None, **options) -> LearnedEncoderDecoder:
    """A tiny segmentor with learned ranges, with the weights of `plain` where it is given; in eval mode."""
    names = {name: options.pop(name) for name in ("widen", "unwarp") if name in options}
    model = build({**tiny_config(decode, **options), "type": "LearnedEncoderDecoder", "T": frames, **names})
    if plain is not None:
        missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
        assert (missing, unexpected) == (["width"], [])
    with torch.no_grad():
        model.width.copy_(torch.tensor(widths))
    return model


# Widths


def test_the_widths_stand_beside_the_plain_keys() -> None:
    plain = build(tiny_config())
    model = build({**tiny_config(), "type": "LearnedEncoderDecoder", "T": T})
    assert set(model.state_dict()) == {*plain.state_dict(), "width", "_extra_state"}
    torch.testing.assert_close(model.width.detach(), torch.full((5,), START))
    again = build({**tiny_config(), "type": "LearnedEncoderDecoder", "T": T}, seed=3)
    again.load_state_dict(learned().state_dict())
    torch.testing.assert_close(again.width.detach(), torch.tensor(WIDE))


@pytest.mark.parametrize("decode", ["psp", "enc"])
@pytest.mark.parametrize("unwarp", ["label", "head"])
def test_no_width_is_the_plain_segmentor(decode: str, unwarp: str) -> None:
    plain = build(tiny_config(decode))
    model = learned(decode, widths=(0.0,) * 5, plain=plain, unwarp=unwarp)
    inputs, batch = samples(2)
    for mode in (False, True):  # in training, all copies of an image are it, and so are the batch's statistics
        plain.train(mode)
        model.train(mode)
        with torch.no_grad():
            torch.testing.assert_close(
                total_loss(model, inputs, batch), total_loss(plain, inputs, batch), atol=1e-4, rtol=1e-4
            )
    inputs, batch = samples(2, test=True)
    found = predictions(model.eval(), inputs, batch)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k in plain.state_dict()})
    assert largest_difference(found, predictions(plain.eval(), inputs, batch)) < 1e-3


@pytest.mark.parametrize(("unwarp", "step", "within"), [("label", 2e-3, 0.25), ("head", 1e-6, 1e-3)])
def test_widths_get_the_gradient_of_the_loss_and_a_bonus(unwarp: str, step: float, within: float) -> None:
    """Closely where all is float64; maps at the size of the labels are float32, and the loss has kinks."""
    model = learned(widen=0.5, unwarp=unwarp, widths=(0.5, 0.4, 0.6, 0.3, 0.5)).double().train()
    model.decode_head.conv_seg.weight.data *= 10
    # Smooth images, for differences between pixels have kinks; labels that follow them, so that moves cost.
    coarse = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inputs = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic")
    _, batch = samples(2)
    for image, sample in zip(inputs, batch, strict=True):
        sample.gt_sem_seg.data = image.argmax(0, keepdim=True)

    def loss() -> Tensor:
        torch.manual_seed(1)
        return total_loss(model, inputs, batch)

    loss().backward()
    assert model.decode_head.conv_seg.weight.grad.abs().sum() > 0
    slopes = []
    for index in range(5):
        with torch.no_grad():
            model.width[index] += step
            high = loss()
            model.width[index] -= 2 * step
            low = loss()
            model.width[index] += step
        slopes.append(float(high - low) / (2 * step))
    torch.testing.assert_close(model.width.grad + 0.5, torch.tensor(slopes).double(), atol=0.0, rtol=within)
    assert min(abs(slope) for slope in slopes) > 0.1


def test_the_way_back_is_a_part_of_the_gradient() -> None:
    """Not the frames alone: with maps that do not depend on them, widths are still to be learned."""
    theta = normalise(moves(torch.tensor([0.1, 0.05, 10.0, 0.1, 5.0]), drawn_powers(2 * T), 6, 8), 6, 8)
    back = frames_to_clip(theta, T).double().requires_grad_()
    maps = torch.randn(T, 2, 3, 6, 8, dtype=torch.float64)

    def mean(theta: Tensor) -> Tensor:
        return copies(theta, [(6, 8)] * 2, (6, 8)).mean(maps.__getitem__)

    assert torch.autograd.gradcheck(mean, (back,), atol=1e-4)


# Draws


def test_training_draws_anew_and_evaluation_does_not() -> None:
    model = learned()
    inputs, _ = samples(1)
    twice = inputs.repeat(2, 1, 1, 1)

    def made() -> Tensor:
        return frames_to_clip(model.make_frames(twice, [SIZE] * 2, None)[0], T)

    with torch.no_grad():
        state = torch.get_rng_state()
        first, second = made(), made()
        assert torch.equal(state, torch.get_rng_state())
        assert torch.equal(first, second)
        assert torch.equal(first[0], first[1])  # the same moves for every image
        assert (first[0, 0] - first[0, 1]).abs().max() > 0.1
        model.train()
        torch.manual_seed(5)
        first, second = made(), made()
        assert (first - second).abs().max() > 0.1
        assert (first[0] - first[1]).abs().max() > 0.1  # every image has its own
        torch.manual_seed(5)
        assert torch.equal(first, made())


def test_a_prediction_is_the_same_in_any_batch_and_at_any_time() -> None:
    model = learned()
    inputs, batch = samples(3, test=True)
    found = predictions(model, inputs, batch)
    torch.manual_seed(99)
    alone = [predictions(model, inputs[i : i + 1], batch[i : i + 1])[0] for i in range(3)]
    assert largest_difference(found, alone) < 1e-4
    assert largest_difference(found, predictions(learned(widths=(0.0,) * 5), inputs, batch)) > 0.05


# Σ unwarp / Σ mask


def sampled(image: np.ndarray, points: np.ndarray, outside: str = "constant") -> np.ndarray:
    """An image `(C, H, W)` between its pixels at points (x, y) from its centre; zeros outside, or its `edge`."""
    H, W = image.shape[1:]
    edge = 40
    wide = np.pad(image, ((0, 0), (edge, edge), (edge, edge)), mode=outside)
    x, y = points[0] + (W - 1) / 2 + edge, points[1] + (H - 1) / 2 + edge
    x, y = (np.clip(v, 0, n + 2 * edge - 1.001) for v, n in ((x, W), (y, H)))
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = y - i, x - j
    top = wide[:, i, j] * (1 - right) + wide[:, i, j + 1] * right
    return top * (1 - down) + (wide[:, i + 1, j] * (1 - right) + wide[:, i + 1, j + 1] * right) * down


def by_hand(width, power, height: int, wide: int) -> np.ndarray:
    """Where a point (x, y) of the image stands in a copy: moved right and down, turned, enlarged, sheared."""
    x, y, turn, zoom = (w * p for w, p in zip(width[:4], power[:4], strict=True))
    angle = math.radians(15 * turn)
    shift = np.array([[1, 0, 0.1 * x * wide], [0, 1, 0.1 * y * height], [0, 0, 1]])
    rotation = np.array([[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    scale = np.diag([math.exp(0.2 * zoom)] * 2 + [1])
    # A shear's width is an angle, its power a factor on the tangent.
    slope = math.tan(math.radians(10 * width[4])) * power[4]
    return np.array([[1, slope, 0], [0, 1, 0], [0, 0, 1]]) @ scale @ rotation @ shift


def test_one_image_by_hand() -> None:
    plain = build(tiny_config("fcn"))
    model = learned("fcn", plain=plain)
    inputs, batch = samples(1, test=True)
    (found,) = predictions(model, inputs, batch)
    H, W = SIZE
    ys, xs = np.mgrid[:H, :W]
    grid = np.stack([xs - (W - 1) / 2, ys - (H - 1) / 2, np.ones((H, W))])
    total, cover = np.zeros((found.shape[0], H, W)), np.zeros((1, H, W))
    powers = fixed_powers(T).double()
    least = int(powers.norm(dim=1).argmin())
    for number, power in enumerate(powers.tolist()):
        matrix = by_hand(WIDE, power, H, W)
        frame = sampled(inputs[0].double().numpy(), np.einsum("ij,jhw->ihw", np.linalg.inv(matrix), grid))
        (logits,) = predictions(plain, torch.from_numpy(frame).float()[None], batch)
        way = np.einsum("ij,jhw->ihw", matrix, grid)
        total += sampled(logits.double().numpy(), way)
        cover += sampled(np.ones((1, H, W)), way)
        if number == least:
            nearest = sampled(logits.double().numpy(), way, "edge")
    assert 10 < (cover < 1e-3).sum() < 200
    wanted = np.where(cover < 1e-3, nearest, total / np.maximum(cover, 1e-3))
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-3, rtol=1e-3)


def copies(back: Tensor, content, canvas) -> MovedCopies:
    return MovedCopies(Image2Video("identity", T=back.shape[1]), content, canvas, None, back)


def shifted(*shares: float) -> Tensor:
    """The way back of copies that were moved to the right by shares of the width, `(1, T, 3, 3)`."""
    back = torch.eye(3).repeat(1, len(shares), 1, 1)
    back[0, :, 0, 2] = 2 * torch.tensor(shares)
    return back


def test_a_pixel_counts_where_a_copy_shows_it() -> None:
    """Pixels that no copy shows take the first, which is the least moved, continued with its edge."""
    maps = torch.arange(1.0, 9.0).repeat(2, 1, 1, 2, 1)  # (T, B, K, h, w): columns 1 … 8
    maps[1] += 100
    found = copies(shifted(0.25, 0.5), [(4, 16)], (4, 16)).mean(maps.__getitem__)[0, 0, 0]
    # Column j of the image stands at j + 2 of the first copy, and at j + 4 of the second.
    torch.testing.assert_close(found, torch.tensor([54.0, 55, 56, 57, 7, 8, 8, 8]))


def test_the_least_moved_copy_comes_first() -> None:
    model = learned(frames=6, widths=(1.0, 0, 0, 0, 0)).train()
    _, video = model.make_frames(samples(4)[0], [SIZE] * 4, None)
    fixed = learned(frames=6, widths=(1.0, 1, 1, 1, 1))
    _, same = fixed.make_frames(samples(1)[0], [SIZE], None)
    assert len(video.back[:, :, 0, 2].unique()) == 24
    order = fixed_powers(6).square().sum(1).argsort()
    wanted = normalise(moves(torch.tensor([0.1, 0.1, 15.0, 0.2, 10.0]), fixed_powers(6)[order], *SIZE), *SIZE)
    torch.testing.assert_close(same.back[0], wanted)


@pytest.mark.parametrize("training", [True, False])
def test_a_constant_map_stays_constant(training: bool) -> None:
    model = learned(widths=(3.0,) * 5).train(training)
    torch.manual_seed(0)
    _, video = model.make_frames(samples(2)[0], [SIZE, (30, 44)], None)
    for size in ((5, 7), SIZE):
        maps = torch.full((2, 4, *size), 7.0)
        torch.testing.assert_close(video.mean(lambda t, maps=maps: maps), maps)


# Padding and windows


def test_every_image_moves_about_its_own_centre_and_its_padding_stays() -> None:
    model = learned()
    content = [(24, 40), SIZE]
    inputs, _ = samples(2, content, SIZE)
    inputs[0, :, 24:] = inputs[0, :, :, 40:] = -3.0
    with torch.no_grad():
        frames, video = model.make_frames(inputs, content, None)
        alone, by_itself = model.make_frames(inputs[:1, :, :24, :40], [(24, 40)], None)
        assert torch.equal(frames[:T, :, :24, :40], alone)
        assert (frames[:T, :, 24:] == -3).all()
        assert (frames[:T, :, :, 40:] == -3).all()
        maps = torch.randn(T, 2, 4, 5, 7)  # an eighth of the canvas; 3 × 5 of them are content
        found = video.mean(maps.__getitem__)
        wanted = by_itself.mean(lambda t: maps[t, :1, :, :3, :5])
        torch.testing.assert_close(found[:1, :, :3, :5], wanted)
        torch.testing.assert_close(found[0, :, 3:], maps[:, 0, :, 3:].mean(0))


def test_windows_are_predicted_one_by_one() -> None:
    window, stride = (24, 32), (16, 24)
    slides = learned(test_cfg={"mode": "slide", "crop_size": window, "stride": stride})
    whole = learned()
    inputs, batch = samples(1, test=True)
    total, count = torch.zeros(1, whole.out_channels, *SIZE), torch.zeros(*SIZE)
    with torch.no_grad():
        for top in (0, 16):
            for left in (0, 24):
                part = inputs[:, :, top : top + 24, left : left + 32]
                total[:, :, top : top + 24, left : left + 32] += whole.encode_decode(part, [{"img_shape": window}])
                count[top : top + 24, left : left + 32] += 1
    assert largest_difference(predictions(slides, inputs, batch), [(total / count)[0]]) < 1e-4


def test_the_raw_outputs_are_those_of_the_images() -> None:
    inputs, _ = samples(2)
    for mode in (True, False):
        assert learned().train(mode)(inputs, mode="tensor").shape[:2] == (2, CLASSES)


def test_it_is_called_without_data() -> None:
    model = learned(auxiliary=False).to("meta")
    assert model(torch.empty(1, 3, *SIZE, device="meta"), mode="tensor").device.type == "meta"


# Refusals


def test_what_it_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"model\.video and learned ranges exclude each other"):
        learned(video={"T": 2})
    with pytest.raises(UnsupportedError, match="not learned with cascades"):
        learned("ocr")
    with pytest.raises(InputError, match=r"T, the number of frames.*got 0"):
        learned(frames=0)

    class Rule(HeadRule):
        def losses(self, *args, **kwargs):
            return {}

    monkeypatch.setitem(heads._RULES, "PSPHead", Rule())
    with pytest.raises(UnsupportedError, match="the head PSPHead has a rule of its own"):
        learned()
