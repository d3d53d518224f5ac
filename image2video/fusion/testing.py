"""The contract that every fusion keeps, as one call for the tests of a fusion of your own."""

import copy
import io
from collections.abc import Callable

import torch
from torch import Tensor

from image2video.errors import Image2VideoError
from image2video.fusion.base import Fusion
from image2video.trace.layout import NHWC, NLC, Layout

_HEIGHT, _WIDTH = 5, 7

Make = Callable[..., Fusion]


class ContractError(Image2VideoError, AssertionError):
    """A fusion that breaks the contract of `Fusion`; the message names the rule and what was seen."""


def check_fusion(make: Make, *, channels: int = 16, seed: int = 0) -> None:
    """Hold a fusion to the contract that `Fusion` states; run it in the tests of a fusion of your own.

    Checked on the CPU: shape, dtype and memory format, T = 2, 3 and 5 in turn; T = 1 leaves the frames alone; frames
    mix, and in evaluation mode clips and parts do not; layouts agree; wrong input is refused; every parameter has a
    finite gradient; `residual=True` starts as the identity and every parameter has moved after two optimisation
    steps; state dict, deep copy and pickle give the same outputs; the names without weight decay exist.

    Args:
        make: the class, or any callable `make(channels, residual=bool) -> Fusion`. It must be seeded by the global
            generator, which is left as it was.
        channels: channels to try it with; `"beside"` fusions get them as the channels of the frames.
        seed: seed of weights and data.

    Raises:
        ContractError: a rule that is broken.

    Example:
        >>> from image2video.fusion import TSM
        >>> check_fusion(TSM)
    """
    with torch.random.fork_rng(devices=[]):
        for rule in _RULES:
            torch.manual_seed(seed)
            rule(make, channels)


def randomised(module: Fusion, *, seed: int = 1) -> Fusion:
    """Give every parameter and buffer of a module values that hide nothing (zero scales and gates hide all)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 + 0.5 * torch.rand(parameter.shape, generator=generator))
        for name, buffer in module.named_buffers():
            if buffer.is_floating_point():
                low = 0.5 if name.endswith("running_var") else -0.2
                buffer.copy_(low + torch.rand(buffer.shape, generator=generator))
    return module


def _shapes(make: Make, channels: int) -> None:
    for residual in (False, True):
        module = make(channels, residual=residual)
        for T in (2, 3, 5, 2):
            frames = _frames(channels, T)
            for memory_format in (torch.contiguous_format, torch.channels_last):
                came = frames.to(memory_format=memory_format)
                out = module(came, T)
                if module.placement != "beside":
                    _require(out.shape == frames.shape, f"frames {tuple(frames.shape)} came out as {tuple(out.shape)}")
                _require(out.dtype == frames.dtype, f"{frames.dtype} came out as {out.dtype}")
                _require(
                    out.is_contiguous(memory_format=memory_format),
                    f"{memory_format} did not come out as {memory_format}",
                )


def _single_frame(make: Make, channels: int) -> None:
    module, frames = randomised(make(channels, residual=False)), _frames(channels, 1)
    out = module(frames, 1)
    expected = torch.zeros_like(out) if module.placement == "beside" else frames
    _require(torch.equal(out, expected), "T = 1 does not leave the frames alone")


def _mixing(make: Make, channels: int) -> None:
    module = randomised(make(channels, residual=False)).eval()
    T, parts = 3, 2
    frames = _frames(channels, T * parts)
    with torch.no_grad():
        before = module(frames, T, parts=parts)

        def change(*where: int | slice) -> Tensor:
            """Change frames `(clip, frame, part)`; return by how much each row of the output changes."""
            changed = frames.clone()
            changed.unflatten(0, (-1, T, parts))[where] += 1.0
            return (module(changed, T, parts=parts) - before).unflatten(0, (-1, T, parts)).flatten(3).abs().amax(-1)

        _require(
            bool((change(0, slice(None), slice(None))[1:] == 0).all()), "a change of one clip changes another clip"
        )
        by_part = change(0, slice(None), 1)
        _require(bool((by_part[:, :, 0] == 0).all()), "a change of one part changes another part")
        by_frame = change(0, 1, 1)
        _require(bool((by_frame[0, [0, 2], 1] > 0).any()), "a change of frame 1 changes neither frame 0 nor frame 2")
        for part in range(parts):
            alone = module(frames.unflatten(0, (-1, parts))[:, part], T)
            _same(before.unflatten(0, (-1, parts))[:, part], alone, "parts together differ from a part alone")


def _layouts(make: Make, channels: int) -> None:
    module = randomised(make(channels, residual=False)).eval()
    if module.placement == "beside":
        return
    T = 3
    frames = _frames(channels, T)
    with torch.no_grad():
        expected = module(frames, T)
        last = frames.permute(0, 2, 3, 1).contiguous()
        _same(module(last, T, layout=NHWC).permute(0, 3, 1, 2), expected, "(N, H, W, C) differs from (N, C, H, W)")
        tokens = last.flatten(1, 2)
        grid = Layout(channel_dim=-1, spatial="tokens", grid=(_HEIGHT, _WIDTH))
        out = module(tokens, T, layout=grid)
        _same(out, expected.flatten(2).transpose(1, 2), "tokens with a grid differ from (N, C, H, W)")
        with_prefix = torch.cat([torch.randn(len(tokens), 2, channels), tokens], dim=1)
        prefixed = Layout(channel_dim=-1, spatial="tokens", prefix_tokens=2, grid=(_HEIGHT, _WIDTH))
        _same(module(with_prefix, T, layout=prefixed)[:, 2:], out, "prefix tokens change the other tokens")
        first = Layout(channel_dim=1, spatial="tokens", grid=(_HEIGHT, _WIDTH))
        _same(module(frames.flatten(2), T, layout=first), expected.flatten(2), "(N, C, L) differs from (N, C, H, W)")
        vectors = frames[:, :, 0, 0]
        flat = Layout(channel_dim=1, spatial="none")
        _same(module(vectors, T, layout=flat), module(vectors[:, :, None, None], T).flatten(1), "(N, C) vectors differ")


def _refusals(make: Make, channels: int) -> None:
    module = make(channels, residual=False)
    frames = _frames(channels, 3)
    calls: dict[str, Callable[[], Tensor]] = {
        "rows that are no multiple of T": lambda: module(frames[:-1], 3),
        "T = 0": lambda: module(frames, 0),
        "another number of channels": lambda: module(frames[:, 1:], 3),
        "a layout of three dimensions for four": lambda: module(frames, 3, layout=NLC),
        "integers": lambda: module(frames.to(torch.uint8), 3),
    }
    for what, call in calls.items():
        try:
            call()
        except Image2VideoError:
            continue
        raise ContractError(f"{what} must raise an Image2VideoError")


def _gradients(make: Make, channels: int) -> None:
    module = randomised(make(channels, residual=True))
    frames = _frames(channels, 3).requires_grad_()
    module(frames, 3).square().sum().backward()
    for name, tensor in (("the frames", frames), *module.named_parameters()):
        _require(tensor.grad is not None, f"{name} has no gradient")
        assert tensor.grad is not None
        _require(bool(tensor.grad.isfinite().all()), f"{name} has a gradient that is not finite")


def _residual_start(make: Make, channels: int) -> None:
    module = make(channels, residual=True)
    if not module.residual_is_identity:
        return
    frames = _frames(channels, 3)
    for training in (False, True):
        out = module.train(training)(frames, 3)
        expected = torch.zeros_like(out) if module.placement == "beside" else frames
        _require(torch.equal(out, expected), "residual=True does not start as the identity")


def _residual_learns(make: Make, channels: int) -> None:
    module = make(channels, residual=True)
    parameters = dict(module.named_parameters())
    if not parameters:
        return
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(2):
        out = module(_frames(channels, 3), 3)
        (out - torch.randn_like(out)).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    still = [name for name, parameter in parameters.items() if torch.equal(parameter, before[name])]
    _require(not still, f"after two optimisation steps {', '.join(still)} had not moved")


def _copies(make: Make, channels: int) -> None:
    module, frames = randomised(make(channels, residual=True)).eval(), _frames(channels, 3)
    loaded = make(channels, residual=True).eval()
    loaded.load_state_dict(module.state_dict())
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    copies = {
        "the state dict": loaded,
        "a deep copy": copy.deepcopy(module),
        "a pickle": torch.load(file, weights_only=False),
    }
    for what, other in copies.items():
        _require(torch.equal(other(frames, 3), module(frames, 3)), f"{what} does not give the same outputs")
    unknown = module.no_weight_decay() - dict(module.named_parameters()).keys()
    _require(not unknown, f"no_weight_decay names {', '.join(sorted(unknown))}, which are no parameters")


_RULES = (
    _shapes,
    _single_frame,
    _mixing,
    _layouts,
    _refusals,
    _gradients,
    _residual_start,
    _residual_learns,
    _copies,
)


def _frames(channels: int, rows: int) -> Tensor:
    return torch.randn(2 * rows, channels, _HEIGHT, _WIDTH)


def _same(came: Tensor, expected: Tensor, message: str) -> None:
    _require(came.shape == expected.shape, f"{message}: shape {tuple(came.shape)} for {tuple(expected.shape)}")
    error = (came - expected).abs().max().item()
    _require(error <= 1e-4, f"{message} by up to {error:.2g}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ContractError(message)
