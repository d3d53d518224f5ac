"""The checks of one stock config of mmsegmentation as a video segmentor."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmseg_models import MISSING, SEGMENTORS, batch, build, comparable, imports, packages_of, read, shrunk
from torch import Tensor, nn
from zoo_check import assert_all_have_gradients, assert_gradients_are_finite, described, mixing, tensors, wake
from zoo_driver import FUSIONS, IMAGES

from image2video.errors import Image2VideoError
from image2video.functional import Image2Video, plan

GENOTYPE = "translate_x(0.06) > rotate(5)"
CLOSE = 1e-4


def check(config: str, T: int, size: tuple[int, int]) -> dict[str, Any]:
    """Check a config; its `status` is passes, refused (by us), needs compiled ops, needs a package, or fails."""
    record: dict[str, Any] = {"config": config, "crop": size}
    start = time.perf_counter()
    try:
        model = read(config)
        assert model is not None, "the config has no model"
        record |= _parts(model)
        imports(model)
        model = shrunk(model, size)
        record |= _checked(model, T, size)
        record["status"] = "passes"
    except Exception as error:
        record |= {"status": _status(error), "error": type(error).__name__, "reason": _reason(error)}
    record["seconds"] = round(time.perf_counter() - start, 1)
    return record


def _parts(model: ConfigDict) -> dict[str, Any]:
    """The parts of a model, and the packages that they come from."""
    heads = model.get("decode_head", {})
    if not isinstance(heads, list | tuple):
        heads = [heads]
    backbone = model.get("backbone", model.get("image_encoder", {})).get("type")
    return {
        "segmentor": model.type,
        "backbone": backbone,
        "head": " > ".join(str(h.get("type")) for h in heads),
        "packages": packages_of(model),
    }


def _status(error: Exception) -> str:
    text = str(error)
    if isinstance(error, Image2VideoError):
        return "refused"
    if any(word in text for word in (MISSING, "mmcv", "mmdetection")):
        return "needs compiled ops"
    return "needs a package" if isinstance(error, ModuleNotFoundError) or "install" in text else "fails"


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["(no message)"]
    return lines[0][:400]


def _checked(model: ConfigDict, T: int, size: tuple[int, int]) -> dict[str, Any]:
    """Run every check; an AssertionError names the one that failed."""
    torch.manual_seed(0)
    if model.type not in SEGMENTORS:
        _video(model, "gsf", T, "identity")  # its error says what the model is
    bare = comparable(build(model))
    classes = bare.out_channels if bare.out_channels > 1 else 2
    images, samples = batch(IMAGES, size, classes)
    wake(bare, lambda: bare.loss(*batch(3 * IMAGES, size, classes, seed=1)))
    record: dict[str, Any] = {"parameters": sum(p.numel() for p in bare.parameters())}
    plans = {fusion: plan(bare.backbone, fusion=fusion, input_size=(3, *size)) for fusion in FUSIONS}
    for fusion, made in plans.items():
        record[fusion] = described(made) | mixing(bare.backbone, made, images, T)
    with torch.no_grad():
        expected = _logits(bare, images, samples)
    state = bare.state_dict()
    for fusion in FUSIONS:
        record[fusion] |= _segmentor(model, fusion, T, state, images, samples, expected)
    return record


def _segmentor(
    model: ConfigDict,
    fusion: str,
    T: int,
    state: dict[str, Tensor],
    images: Tensor,
    samples: list[Any],
    expected: Tensor,
) -> dict[str, Any]:
    """The video segmentor of one fusion: loading, prediction, loss and gradients."""
    net = comparable(_video(model, fusion, T, GENOTYPE))
    net.load_state_dict(state)  # strictly: a bare checkpoint lacks nothing
    net.eval()
    start = time.perf_counter()
    with torch.no_grad():
        logits = _logits(net, images, samples)
    record: dict[str, Any] = {"predict_s": round(time.perf_counter() - start, 2)}
    assert logits.shape == expected.shape, f"logits {tuple(logits.shape)}, bare {tuple(expected.shape)}"
    assert logits.isfinite().all(), "logits are not finite"
    if fusion != "tsm":  # TSM is no identity on equal frames
        net.to_video = Image2Video("identity", T=T)
        with torch.no_grad():
            same = _logits(net, images, samples)
        record["identity_error"] = float((same - expected).abs().max() / expected.abs().max())
        assert record["identity_error"] <= CLOSE, f"differs from the bare model by {record['identity_error']:.1e}"
        net.to_video = Image2Video(GENOTYPE, T=T)
    start = time.perf_counter()
    record |= _train(net, images, samples)
    record["step_s"] = round((time.perf_counter() - start) / 2, 2)
    return record


def _video(model: ConfigDict, fusion: str, T: int, genotype: str) -> nn.Module:
    video = copy.deepcopy(model)
    video.type = SEGMENTORS.get(model.type, "VideoEncoderDecoder")
    video.video = {"genotype": genotype, "T": T, "fusion": fusion}
    return build(video)


def _train(net: nn.Module, images: Tensor, samples: list[Any]) -> dict[str, Any]:
    """Two steps of SGD; the second gives every fusion parameter a gradient."""
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    # Scales that start at zero keep the gradients behind them at zero in the first step.
    for _ in range(2):
        optimizer.zero_grad()
        found = net.loss(images, copy.deepcopy(samples))
        losses = {k: v for k, v in found.items() if "loss" in k}
        # A head may give a list of losses under one name.
        total = sum(one.sum() for value in losses.values() for one in tensors(value))
        assert total.isfinite(), f"the loss is {float(total)}"
        total.backward()
        assert_gradients_are_finite(net)
        optimizer.step()
    assert_all_have_gradients(net.video_fusion)
    fused = list(net.video_fusion.parameters())
    still = sum(not parameter.grad.any() for parameter in fused)
    return {"losses": len(losses), "fusion_parameters": len(fused), "zero_gradients": still}


def _logits(net: nn.Module, images: Tensor, samples: list[Any]) -> Tensor:
    predicted = net.predict(images, copy.deepcopy(samples))
    assert all(p.pred_sem_seg.data.shape[-2:] == images.shape[-2:] for p in predicted), "the prediction's size"
    return torch.stack([p.seg_logits.data for p in predicted])
