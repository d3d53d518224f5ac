"""Checks one timm architecture with one fusion after another; `zoo.py` runs it in a process of its own.

    python benchmarks/zoo_check.py resnet18 --frames 3

It prints one JSON object: for every fusion either what was measured, or the error and its reason.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from image2video import VideoWrap
from image2video.errors import Image2VideoError
from image2video.inject import inject_, plan

IMAGES = 2
FUSIONS = ("tsm", "gsf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="recompute in backward, no mixing check")
    options = parser.parse_args()
    print(json.dumps(check(options.architecture, options.frames, short=options.short)))


def check(architecture: str, T: int, *, short: bool = False) -> dict[str, Any]:
    """Check an architecture at its own input size, on random weights with nothing near zero."""
    torch.manual_seed(0)
    net = timm.create_model(architecture)
    size = tuple(net.pretrained_cfg["input_size"])
    _wake(net, size, T)
    record: dict[str, Any] = {
        "architecture": architecture,
        "parameters": sum(p.numel() for p in net.parameters()),
        "input_size": size,
        "frames": T,
    }
    images = torch.randn(IMAGES, *size)
    average_error = _average(net, images, T)
    for fusion in FUSIONS:
        start = time.perf_counter()
        try:
            record[fusion] = {"average_error": average_error} | _check_fusion(net, fusion, images, T, short)
            assert average_error <= 1e-5, f"none differs from the mean of the frames by {average_error:.1e}"
        except (Image2VideoError, AssertionError) as error:
            record[fusion] = {"error": type(error).__name__, "reason": str(error).splitlines()[0][:400]}
        record[fusion]["seconds"] = round(time.perf_counter() - start, 1)
    return record


def _wake(net: nn.Module, size: tuple[int, ...], T: int) -> None:
    """Move scales, gains and heads that start at zero (or near it) away, and let batch norms see data."""
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() and parameter.abs().max() < 1e-2:
                parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim < 2 else 0.02))
        norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = None
        if norms:
            net.train()
            net(torch.randn(IMAGES * T, *size))
        for norm in norms:
            norm.momentum = 0.1
    net.eval()


def _check_fusion(net: nn.Module, fusion: str, images: Tensor, T: int, short: bool) -> dict[str, Any]:
    """Run every check; an AssertionError names the one that failed."""
    made = plan(net, fusion=fusion)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    record: dict[str, Any] = {
        "sites": len(made.sites),
        "skipped": len(made.skipped),
        "rules": {rule: sum(s.rule == rule for s in made.sites) for rule in sorted({s.rule for s in made.sites})},
        "parts": sum(s.parts > 1 for s in made.sites),
        "shared": sum(s.calls > 1 for s in made.sites),
        "unordered": sum(s.layout.spatial == "none" for s in made.sites),
        "skip_reasons": sorted({s.reason for s in made.skipped}),
    }
    with torch.no_grad():
        bare = net(images)
    record["mixed"], record["leaked"] = (None, None) if short else mixing(net, made, images, T)
    _train_step(net, fusion, images, T, checkpointing=short)
    _reload(net, fusion, before)
    with torch.no_grad():
        again = net(images)
    after = net.state_dict()
    assert list(after) == list(before), "the keys of the state dict changed"
    changed = [key for key, value in before.items() if not torch.equal(value, after[key])]
    assert not changed, f"unwrap left {len(changed)} tensors changed, {changed[:3]}"
    assert all(torch.equal(a, b) for a, b in zip(_tensors(bare), _tensors(again), strict=True)), "outputs changed"
    assert short or record["leaked"] == 0, f"clips leak into each other by {record['leaked']:.1e}"
    assert short or record["mixed"] > 0, "frames do not mix"
    return record


def _average(net: nn.Module, images: Tensor, T: int) -> float:
    """How far `fusion="none"` is from the mean of the bare model over the frames, relative to its largest output."""
    wrapped = VideoWrap(net, fusion="none", T=T)
    with torch.no_grad():
        frames = wrapped.to_video(images).flatten(0, 1)
        averaged = _tensors(wrapped(images))
        wrapped.unwrap()
        expected = [t.unflatten(0, (-1, T)).float().mean(1) for t in _tensors(net(frames))]
    return max(_relative(a, b) for a, b in zip(averaged, expected, strict=True))


def mixing(net: nn.Module, made: Any, images: Tensor, T: int) -> tuple[float, float]:
    """Change one frame of the first clip: how far that moves its clip's other frames, and the other clips."""
    frames = images.repeat_interleave(T, 0) + 0.1 * torch.randn(len(images) * T, *images.shape[1:])
    other = frames.clone()
    other[1] = torch.randn_like(other[1])
    injection = inject_(net, made, residual=False)
    try:
        with torch.no_grad():
            with injection.frames(T):
                one, two = _tensors(net(frames)), _tensors(net(other))
            with injection.frames(T, enabled=False):
                off = _tensors(net(frames))
    finally:
        injection.remove_()
    with torch.no_grad():
        bare = _tensors(net(frames))
    assert all(torch.equal(a, b) for a, b in zip(off, bare, strict=True)), "switched off, it is not the bare model"
    mixed = max(float((a[0] - b[0]).abs().max()) for a, b in zip(one, two, strict=True))
    leaked = max(float((a[T:] - b[T:]).abs().max()) for a, b in zip(one, two, strict=True))
    return mixed, leaked


def _train_step(net: nn.Module, fusion: str, images: Tensor, T: int, *, checkpointing: bool) -> None:
    """Forward and backward in train mode; the buffers that training moves are put back.

    With `checkpointing`, blocks are computed again in backward, which bounds memory.
    """
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    with torch.no_grad():
        expected = [t.shape for t in _tensors(net.train()(images))]
    wrapped = VideoWrap(net, fusion=fusion, T=T, residual=False).train()
    if checkpointing:
        wrapped.set_grad_checkpointing(True)
    out = _tensors(wrapped(images))
    assert [t.shape for t in out] == expected, f"shapes {[tuple(t.shape) for t in out]}, bare {expected}"
    sum(t.float().pow(2).mean() for t in out).backward()
    bad = [n for n, p in wrapped.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not bad, f"{len(bad)} gradients are not finite, {bad[:3]}"
    lost = [name for name, parameter in wrapped.fusion.named_parameters() if parameter.grad is None]
    assert not lost, f"{len(lost)} fusion parameters have no gradient, {lost[:3]}"
    if checkpointing:
        wrapped.set_grad_checkpointing(False)
    wrapped.eval().unwrap()
    net.zero_grad()
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            buffer.copy_(buffers[name])


def _reload(net: nn.Module, fusion: str, state: Mapping[str, Tensor]) -> None:
    """A bare checkpoint loads into the wrapper, strictly."""
    wrapped = VideoWrap(net, fusion=fusion)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped.load_state_dict({key: value.clone() for key, value in state.items()}, strict=True)
    wrapped.unwrap()


def _tensors(out: Any) -> list[Tensor]:
    if isinstance(out, Tensor):
        return [out]
    items = out.values() if isinstance(out, Mapping) else out
    return [tensor for item in items for tensor in _tensors(item)]


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b).abs().max() / b.abs().max().clamp_min(1e-12))


if __name__ == "__main__":
    main()
