"""One forward of a copy of the backbone, written down operation by operation; the backbone itself is not touched."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MethodType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from image2video.errors import InputError, UnsupportedError
from image2video.trace.axes import image_axes
from image2video.trace.draws import streams_kept
from image2video.trace.recorder import Recorder, Trace, Value

IMAGES = 2


Preparation = Callable[[nn.Module], None]
"""What is done to the copy of a backbone before it runs: hooks on its modules, for example."""


def trace_forward(
    backbone: nn.Module,
    example: Tensor,
    *,
    as_is: bool = False,
    images: int = IMAGES,
    prepare: Preparation | None = None,
    real: bool = True,
) -> Trace:
    """Trace a forward of a copy of `backbone` on `images` images like `example` `(·, C, H, W)`.

    The copy is in eval mode, or with `as_is` in the modes of the backbone's modules. `prepare` gets it before it runs.
    Without `real` it computes nothing, even where it fails on fake tensors.

    The first try is with fake tensors, which compute nothing. A model that looks at its data (`.item()`, a branch on a
    value) fails on them, so a real copy of it runs once. Either way the backbone, its buffers and the random state stay
    as they are.

    Raises:
        UnsupportedError: a model that cannot be copied, or that is compiled by TorchScript.
        InputError: a forward that fails on such images; the message names the failure.
    """
    run = _Run(backbone, example, images, as_is, prepare)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        return _traced(run, fake)
    except UnsupportedError:
        raise
    except Exception as fake_error:
        if not real:
            raise InputError(_failed(run, fake_error)) from _of_the_model(fake_error)
        try:
            return _traced(run, None)
        except UnsupportedError:
            raise
        except Exception as error:
            # Where both fail alike the second failure says all; else the first one is what has to be seen.
            cause = error if _first_line(error) == _first_line(fake_error) else fake_error
            raise InputError(_failed(run, error)) from _of_the_model(cause)


def _failed(run: _Run, error: Exception) -> str:
    """Say that a forward failed, and what may help."""
    return (
        f"the forward of {type(run.backbone).__name__} failed on images of size {tuple(run.example.shape[1:])}: "
        f"{type(error).__name__}: {_first_line(error)}; pass the size that it takes: input_size=(C, H, W), or "
        "example_input=images; a backbone takes images alone: give what else it needs from a module around it"
    )


def _of_the_model(error: Exception) -> Exception:
    """Leave only the model's own lines in an error's traceback: those of the tracing would hide them."""
    error.__cause__ = None  # which also keeps the error before this one out of the traceback
    ours = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parent.parent))
    lines, step = [], error.__traceback__
    while step is not None:
        if not step.tb_frame.f_code.co_filename.startswith(ours):
            lines.append(step)
        step = step.tb_next
    kept: TracebackType | None = None
    for line in reversed(lines):
        kept = TracebackType(kept, line.tb_frame, line.tb_lasti, line.tb_lineno)
    return error.with_traceback(kept)


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, without a full stop."""
    return (str(error).strip().splitlines() or ["(no message)"])[0][:300].rstrip(".")


@dataclasses.dataclass(frozen=True)
class _Run:
    """What `trace_forward` was asked for."""

    backbone: nn.Module
    example: Tensor
    images: int
    as_is: bool
    prepare: Preparation | None


def _traced(run: _Run, fake: FakeTensorMode | None) -> Trace:
    """Run a copy of the backbone below a recorder, on fake tensors where a mode is given."""
    trace = Trace(fake=fake is not None)
    model, parameters = _copied(run.backbone, fake)
    if not run.as_is:
        model.eval()  # not chained: mmsegmentation's backbones return nothing from `train`
    for module in model.modules():
        # In training these wait for the other processes, which may trace nothing just now.
        if isinstance(module, nn.SyncBatchNorm):
            module.training = False
    recorder = Recorder(trace, parameters, _foreign(run.backbone, model))
    names = _names(model)
    if run.prepare is not None:
        run.prepare(model)
    with ExitStack() as stack:
        stack.enter_context(_quiet(run.example.device))
        stack.enter_context(torch.inference_mode())
        if fake is not None:
            stack.enter_context(fake)
        images = _images(run.example, run.images)
        value = Value(0, "input", tuple(images.shape), depends=True, axes=image_axes(tuple(images.shape)))
        recorder.add(images, value)
        for module, name in names.items():
            recorder.watch(module, name)
        stack.enter_context(recorder)
        out = model(images)
    trace.outputs = [(path, recorder.value_of(leaf)) for path, leaf in tensors_of(out)]
    return trace


def tensors_of(out: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested tuples, lists, mappings and dataclasses, with the way to each."""
    if isinstance(out, Tensor):
        yield path, out
    elif isinstance(out, Mapping):
        for key, item in out.items():
            yield from tensors_of(item, f"{path}[{key!r}]")
    elif isinstance(out, tuple | list):
        for index, item in enumerate(out):
            yield from tensors_of(item, f"{path}[{index}]")
    elif dataclasses.is_dataclass(out) and not isinstance(out, type):
        for field in dataclasses.fields(out):
            yield from tensors_of(getattr(out, field.name), f"{path}.{field.name}")


def _images(example: Tensor, count: int) -> Tensor:
    """Draw images like the example, the same ones every time."""
    shape = (count, *example.shape[1:])
    generator = torch.Generator(device="cpu").manual_seed(0)
    if example.device.type == "meta":
        return torch.empty(shape, dtype=example.dtype, device="meta")
    return torch.randn(shape, generator=generator).to(device=example.device, dtype=example.dtype)


@contextmanager
def _quiet(device: torch.device) -> Iterator[None]:
    """Trace without warnings and fused attention kernels, and give the random states back as they were."""
    fast = torch.backends.mha.get_fastpath_enabled()
    devices = [device] if device.type == "cuda" else []
    # torch logs a traceback for every operation that fails on fake tensors, before the trace is tried with real ones.
    log = logging.getLogger(torch._subclasses.fake_tensor.__name__)
    silent, log.disabled = log.disabled, True
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=devices), streams_kept():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        log.disabled = silent


def _copied(backbone: nn.Module, fake: FakeTensorMode | None) -> tuple[nn.Module, set[int]]:
    """Copy the backbone, with fake tensors where a mode is given; return it and the ids of its parameters."""
    memo: dict[int, Any] = {}
    if fake is not None:
        tensors = [*backbone.parameters(), *backbone.buffers()]
        # A model that was made without values may have made its buffers with them (accelerate.init_empty_weights).
        empty = any(tensor.is_meta for tensor in backbone.parameters())
        for tensor in tensors:
            memo[id(tensor)] = _faked(tensor, fake, empty)
    try:
        model = copy.deepcopy(backbone, memo)
    except Exception as error:
        raise UnsupportedError(
            f"{type(backbone).__name__} cannot be copied ({type(error).__name__}: {_first_line(error)}); the plan is "
            "made on a copy, so that the model stays as it is: remove what cannot be copied (open files, locks)"
        ) from error
    for module, twin in zip(backbone.modules(), model.modules(), strict=False):
        # torch.compiler.disable(module.forward) is a function, and those are not copied: it would run the original.
        method = getattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable", None)
        if isinstance(method, MethodType) and method.__self__ is module and type(twin) is type(module):
            twin.__dict__["forward"] = MethodType(method.__func__, twin)
    return model, {id(tensor) for parameter in model.parameters() for tensor in _with_inner(parameter)}


def _foreign(backbone: nn.Module, model: nn.Module) -> dict[int, str]:
    """Name the parameters of the backbone that its copy does not share; the copy must not use them."""
    own = {id(parameter) for parameter in model.parameters()}
    return {id(parameter): name for name, parameter in backbone.named_parameters() if id(parameter) not in own}


def _faked(tensor: Tensor, fake: FakeTensorMode, empty: bool) -> Tensor:
    """Return a fake tensor like `tensor`, on the meta device where `empty`.

    The mode keeps weak references to what it was given, and torch swaps no tensor that has one
    (torch.__future__.set_swap_module_params_on_conversion): so it gets another object for the same values.
    """
    if type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided:
        # Of plain tensors nothing but size and strides matters; torch's own conversion takes most of a plan's time.
        like = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="meta")
        twin: Tensor = FakeTensor(fake, like, torch.device("meta") if empty else tensor.device)
        if isinstance(tensor, nn.Parameter):
            # What nn.Parameter does with a tensor of another type, without the operation that it runs for it.
            twin.requires_grad_(tensor.requires_grad)
            twin._is_param = True
        return twin
    other = tensor.detach()
    made: Tensor = fake.from_tensor(torch.empty_like(other, device="meta") if empty else other)
    if isinstance(tensor, nn.Parameter):
        # What nn.Parameter does for tensors of a class of their own, less the copy that it makes first: that took as
        # long as all the rest.
        made.requires_grad_(tensor.requires_grad)
        made._is_param = True
    return made


def _with_inner(tensor: Tensor) -> Iterator[Tensor]:
    """Yield a tensor and those that it is made of, where its class packs several (torchao's quantised weights)."""
    yield tensor
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _with_inner(getattr(tensor, name))


def _names(model: nn.Module) -> dict[nn.Module, str]:
    """Name each module by its first path; modules may be shared between blocks."""
    names: dict[nn.Module, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, name)
    return names
