"""Checks one stock config of mmsegmentation as a video segmentor; `mmseg_zoo.py` runs it in a process of its own.

    python benchmarks/mmseg_zoo_check.py pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py

It prints one JSON object: what was measured, or why it does not run.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import time
import warnings
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmseg_models import (
    MISSING,
    SEGMENTORS,
    batch,
    build,
    comparable,
    imports,
    packages_of,
    read,
    shrunk,
    stand_in_for_compiled_operators,
)
from torch import Tensor, nn
from zoo_check import mixing

from image2video.errors import Image2VideoError
from image2video.functional import Image2Video, Plan, plan

IMAGES = 2
FUSIONS = ("tsm", "gsf")
GENOTYPE = "translate_x(0.06) > rotate(5)"
CLOSE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="below mmsegmentation's configs")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--stand-in", action="store_true", help="let mmcv.ops be imported without its operators")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if options.stand_in:
        stand_in_for_compiled_operators()
    print(json.dumps(check(options.config, options.frames, (options.crop, options.crop))))


def check(config: str, T: int, size: tuple[int, int]) -> dict[str, Any]:
    """Check a config; its `status` is passes, refused (by us), needs compiled ops, needs a package, or fails."""
    record: dict[str, Any] = {"config": config, "crop": size}
    start = time.perf_counter()
    try:
        model = read(config)
        assert model is not None, "the config has no model"
        record |= _described(model)
        imports(model)
        model = shrunk(model, size)
        record |= _checked(model, T, size)
        record["status"] = "passes"
    except Exception as error:
        record |= {"status": _status(error), "error": type(error).__name__, "reason": _reason(error)}
    record["seconds"] = round(time.perf_counter() - start, 1)
    return record


def _described(model: ConfigDict) -> dict[str, Any]:
    heads = model.get("decode_head", {})
    heads = heads if isinstance(heads, list | tuple) else [heads]
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
        _video(model, "gsf", T, "identity")  # says in its error what it is
    bare = comparable(build(model))
    classes = bare.out_channels if bare.out_channels > 1 else 2
    images, samples = batch(IMAGES, size, classes)
    _wake(bare, size, classes)
    record: dict[str, Any] = {"parameters": sum(p.numel() for p in bare.parameters())}
    plans = {fusion: plan(bare.backbone, fusion=fusion, input_size=(3, *size)) for fusion in FUSIONS}
    for fusion, made in plans.items():
        record[fusion] = _described_plan(made) | _mixing(bare.backbone, made, images, T)
    with torch.no_grad():
        expected = _logits(bare, images, samples)
    state = bare.state_dict()
    del bare
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
    for _ in range(2):
        optimizer.zero_grad()
        found = net.loss(images, copy.deepcopy(samples))
        losses = {k: v for k, v in found.items() if "loss" in k}
        total = sum(torch.as_tensor(v).sum() for value in losses.values() for v in _tensors(value))
        assert total.isfinite(), f"the loss is {float(total)}"
        total.backward()
        bad = [n for n, p in net.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        assert not bad, f"{len(bad)} gradients are not finite, {bad[:3]}"
        optimizer.step()
    fused = dict(net.video_fusion.named_parameters())
    lost = [name for name, parameter in fused.items() if parameter.grad is None]
    assert not lost, f"{len(lost)} fusion parameters have no gradient, {lost[:3]}"
    still = sum(not parameter.grad.any() for parameter in fused.values())
    return {"losses": len(losses), "fusion_parameters": len(fused), "zero_gradients": still}


def _wake(net: nn.Module, size: tuple[int, int], classes: int) -> None:
    """Move scales and gains that start at zero (or near it) away, and let batch norms see data."""
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() and parameter.abs().max() < 1e-2:
                parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim < 2 else 0.02))
        norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = None
        net.train().loss(*batch(3 * IMAGES, size, classes, seed=1))
        for norm in norms:
            norm.momentum = 0.1
    net.eval()


def _described_plan(made: Plan) -> dict[str, Any]:
    return {
        "sites": len(made.sites),
        "rules": {rule: sum(s.rule == rule for s in made.sites) for rule in sorted({s.rule for s in made.sites})},
        "parts": sum(s.parts > 1 for s in made.sites),
        "unordered": sum(s.layout.spatial == "none" for s in made.sites),
        "skipped": len(made.skipped),
        "skip_reasons": sorted({s.reason for s in made.skipped}),
    }


def _mixing(backbone: nn.Module, made: Plan, images: Tensor, T: int) -> dict[str, float]:
    mixed, leaked = mixing(backbone, made, images, T)
    assert mixed > 0, "frames do not mix"
    assert leaked == 0, f"clips leak into each other by {leaked:.1e}"
    return {"mixed": mixed, "leaked": leaked}


def _logits(net: nn.Module, images: Tensor, samples: list[Any]) -> Tensor:
    predicted = net.predict(images, copy.deepcopy(samples))
    assert all(p.pred_sem_seg.data.shape[-2:] == images.shape[-2:] for p in predicted), "the prediction's size"
    return torch.stack([p.seg_logits.data for p in predicted])


def _tensors(out: Any) -> list[Tensor]:
    if isinstance(out, Tensor):
        return [out]
    return [tensor for item in out for tensor in _tensors(item)] if isinstance(out, tuple | list) else []


if __name__ == "__main__":
    main()
