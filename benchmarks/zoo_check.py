"""The checks of one timm architecture with one fusion after another, and those that other sweeps share."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn
from zoo_driver import FUSIONS, IMAGES

from image2video import VideoWrap
from image2video.errors import Image2VideoError
from image2video.functional import Plan
from image2video.inject import inject_, plan


def check(architecture: str, T: int, *, short: bool = False) -> dict[str, Any]:
    """Check an architecture at its own input size, on random weights with nothing near zero."""
    torch.manual_seed(0)
    net = timm.create_model(architecture)
    size = tuple(net.pretrained_cfg["input_size"])
    wake(net, lambda: net(torch.randn(IMAGES * T, *size)))
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


def wake(net: nn.Module, forward: Callable[[], object]) -> None:
    """Move scales, gains and heads that start at zero (or near it) away, and let batch norms see the data of `forward`.

    The network is left in eval mode.
    """
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() and parameter.abs().max() < 1e-2:
                parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim < 2 else 0.02))
        norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = None  # the statistics are the means over all batches
        if norms:
            net.train()
            forward()
        for norm in norms:
            norm.momentum = 0.1
    net.eval()


def described(made: Plan) -> dict[str, Any]:
    """The sites of a plan, and what was left out."""
    return {
        "sites": len(made.sites),
        "skipped": len(made.skipped),
        "rules": {rule: sum(s.rule == rule for s in made.sites) for rule in sorted({s.rule for s in made.sites})},
        "parts": sum(s.parts > 1 for s in made.sites),
        "shared": sum(s.calls > 1 for s in made.sites),
        "unordered": sum(s.layout.spatial == "none" for s in made.sites),
        "skip_reasons": sorted({s.reason for s in made.skipped}),
    }


def _check_fusion(net: nn.Module, fusion: str, images: Tensor, T: int, short: bool) -> dict[str, Any]:
    """Run every check; an AssertionError names the one that failed."""
    made = plan(net, fusion=fusion)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    record = described(made)
    with torch.no_grad():
        bare = net(images)
    record |= {"mixed": None, "leaked": None} if short else mixing(net, made, images, T)
    _train_step(net, fusion, images, T, checkpointing=short)
    _reload(net, fusion, before)
    with torch.no_grad():
        again = net(images)
    after = net.state_dict()
    assert list(after) == list(before), "the keys of the state dict changed"
    changed = [key for key, value in before.items() if not torch.equal(value, after[key])]
    assert not changed, f"unwrap left {len(changed)} tensors changed, {changed[:3]}"
    assert all(torch.equal(a, b) for a, b in zip(tensors(bare), tensors(again), strict=True)), "outputs changed"
    return record


def _average(net: nn.Module, images: Tensor, T: int) -> float:
    """How far `fusion="none"` is from the mean of the bare model over the frames, relative to its largest output."""
    wrapped = VideoWrap(net, fusion="none", T=T)
    with torch.no_grad():
        frames = wrapped.to_video(images).flatten(0, 1)
        averaged = tensors(wrapped(images))
        wrapped.unwrap()
        expected = [t.unflatten(0, (-1, T)).float().mean(1) for t in tensors(net(frames))]
    return max(_relative(a, b) for a, b in zip(averaged, expected, strict=True))


def mixing(net: nn.Module, made: Plan, images: Tensor, T: int) -> dict[str, float]:
    """Change one frame of the first clip: that must move its clip's other frames, and must not move the other clips."""
    # Frames that are nearly alike: what moves in the others comes from the one that is changed.
    frames = images.repeat_interleave(T, 0) + 0.1 * torch.randn(len(images) * T, *images.shape[1:])
    other = frames.clone()
    other[1] = torch.randn_like(other[1])
    injection = inject_(net, made, residual=False)  # as published: residual fusions start as identities
    try:
        with torch.no_grad():
            with injection.frames(T):
                one, two = tensors(net(frames)), tensors(net(other))
            with injection.frames(T, enabled=False):
                off = tensors(net(frames))
    finally:
        injection.remove_()
    with torch.no_grad():
        bare = tensors(net(frames))
    assert all(torch.equal(a, b) for a, b in zip(off, bare, strict=True)), "switched off, it is not the bare model"
    mixed = max(float((a[0] - b[0]).abs().max()) for a, b in zip(one, two, strict=True))
    leaked = max(float((a[T:] - b[T:]).abs().max()) for a, b in zip(one, two, strict=True))
    assert leaked == 0, f"clips leak into each other by {leaked:.1e}"
    assert mixed > 0, "frames do not mix"
    return {"mixed": mixed, "leaked": leaked}


def _train_step(net: nn.Module, fusion: str, images: Tensor, T: int, *, checkpointing: bool) -> None:
    """Forward and backward in train mode; the buffers that training moves are put back.

    With `checkpointing`, blocks are computed again in backward, which bounds memory.
    """
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    with torch.no_grad():
        expected = [t.shape for t in tensors(net.train()(images))]
    wrapped = VideoWrap(net, fusion=fusion, T=T, residual=False).train()
    if checkpointing:
        wrapped.set_grad_checkpointing(True)
    out = tensors(wrapped(images))
    assert [t.shape for t in out] == expected, f"shapes {[tuple(t.shape) for t in out]}, bare {expected}"
    sum(t.float().pow(2).mean() for t in out).backward()
    assert_gradients_are_finite(wrapped)
    assert_all_have_gradients(wrapped.fusion)
    if checkpointing:
        wrapped.set_grad_checkpointing(False)
    wrapped.eval().unwrap()
    net.zero_grad()
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            buffer.copy_(buffers[name])


def assert_gradients_are_finite(net: nn.Module) -> None:
    """Name the parameters with a gradient that is not finite."""
    bad = [n for n, p in net.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not bad, f"{len(bad)} gradients are not finite, {bad[:3]}"


def assert_all_have_gradients(fusion: nn.Module) -> None:
    """Name the fusion parameters without a gradient."""
    lost = [name for name, parameter in fusion.named_parameters() if parameter.grad is None]
    assert not lost, f"{len(lost)} fusion parameters have no gradient, {lost[:3]}"


def _reload(net: nn.Module, fusion: str, state: Mapping[str, Tensor]) -> None:
    """A bare checkpoint loads into the wrapper, strictly."""
    wrapped = VideoWrap(net, fusion=fusion)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped.load_state_dict({key: value.clone() for key, value in state.items()}, strict=True)
    wrapped.unwrap()


def tensors(out: Any) -> list[Tensor]:
    """All tensors of what a model returned."""
    if isinstance(out, Tensor):
        return [out]
    items = out.values() if isinstance(out, Mapping) else out
    return [tensor for item in items for tensor in tensors(item)]


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b).abs().max() / b.abs().max().clamp_min(1e-12))
