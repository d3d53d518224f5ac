"""Whether what runs is being written down as a graph, and what such a graph holds as a constant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, fx
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _disable_current_modes

from image2video.errors import UnsupportedError

_Result = TypeVar("_Result")
_ONE_SIZE: ContextVar[bool] = ContextVar("one_size", default=False)
"""Whether what is traced for TorchScript will see images of the traced size alone."""
_WAY = "use torch.export.export(model, (images,)), or torch.onnx.export for a file"


def is_captured() -> bool:
    """Whether a compiler, an exporter or a tracer writes down what runs now."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_transformed() -> bool:
    """Whether what runs now has to be made of torch's own operations: it is captured, or differentiated as it runs.

    A compiler fuses plain operations by itself, an exported graph holds no function of ours, and neither torch.func's
    transforms (grad, vmap, jvp) nor dual numbers know the derivatives of one.
    """
    return is_captured() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_plain(*tensors: Tensor) -> bool:
    """Whether plain eager operations run now, on plain tensors: no graph, no transform, no mode, no dual numbers."""
    return (
        not is_transformed()
        and torch._C._len_torch_dispatch_stack() == 0
        and all(type(tensor) is Tensor for tensor in tensors)
    )


def is_exported() -> bool:
    """Whether the graph that is written down will run without Python: an export, or a trace for TorchScript."""
    return _is_exporting() or torch.jit.is_tracing()


@contextmanager
def one_size() -> Iterator[None]:
    """Let a trace for TorchScript see images of one size, so that what follows from the size is a constant of it."""
    token = _ONE_SIZE.set(True)
    try:
        yield
    finally:
        _ONE_SIZE.reset(token)


def goes_into_export(*values: Any) -> bool:
    """Whether a graph that leaves Python has to hold a computation from these values.

    So it is where one of them stands for many (a size that is dynamic, a tensor of the graph), under `torch.jit.trace`,
    whose sizes are all dynamic outside of `one_size`, and under strict export, where nothing can be computed beside
    the graph. A graph for `torch.compile` does not leave Python.
    """
    if torch.jit.is_tracing():
        return not _ONE_SIZE.get()
    if not _is_exporting():
        return False
    return torch.compiler.is_dynamo_compiling() or not all(_is_known(value) for value in values)


def constant(make: Callable[..., _Result], *values: Any) -> _Result:
    """Return `make(*values)`, which an exported graph holds as a constant where it can be computed beside the graph.

    What a runtime or a quantiser does to a computation in a graph (less precision, eight bits) cannot be done to a
    constant that is no weight. See `goes_into_export` for where that is not possible.
    """
    if goes_into_export(*values):
        return make(*values)
    if torch.jit.is_tracing():
        with _untraced():
            return make(*[_as_number(value) for value in values])
    if _is_exporting():
        with _disable_current_modes():
            return make(*values)
    return make(*values)


def refuse_symbols(value: Any, what: str) -> None:
    """Raise `UnsupportedError` for what torch.fx.symbolic_trace passes in place of a tensor."""
    if isinstance(value, fx.Proxy):
        raise UnsupportedError(
            f"torch.fx.symbolic_trace cannot follow {what}, whose steps depend on the shapes that come; {_WAY}"
        )


def refuse_script(what: str) -> NoReturn:
    """Raise `UnsupportedError` for torch.jit.script, which asks a module for `__prepare_scriptable__`."""
    raise UnsupportedError(f"torch.jit.script cannot compile {what}, since it knows no forward hooks; {_WAY}")


@contextmanager
def _untraced() -> Iterator[None]:
    """Pause a trace for TorchScript: a tensor that is made meanwhile is a constant to it."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


def _as_number(value: Any) -> Any:
    """Return the number that a size stands for: a tracer gives sizes as tensors without dimensions."""
    return value.item() if isinstance(value, Tensor) and value.ndim == 0 else value


def _is_exporting() -> bool:
    """Whether torch.export writes the graph, strict or not."""
    # Dynamo of torch 2.11 answers is_exporting() with True in torch.compile too, whose matrices would lose float64; the
    # flag behind it says the same in all versions.
    return torch.compiler._is_exporting_flag


def _is_known(value: Any) -> bool:
    """Whether a value is the same in every run of an exported graph."""
    if isinstance(value, Tensor):
        return type(value) is Tensor  # tensors of the graph are of types of their own
    return not isinstance(value, torch.SymInt | torch.SymFloat)
