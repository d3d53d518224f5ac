"""Whether what runs is being written down as a graph, and what such a graph holds as a constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, fx
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _disable_current_modes

from image2video.errors import UnsupportedError

_Result = TypeVar("_Result")
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


def goes_into_export(*values: Any) -> bool:
    """Whether a graph that leaves Python has to hold a computation from these values.

    So it is where one of them stands for many (a size that is dynamic, a tensor of the graph), and under
    `torch.jit.trace` and strict export, where nothing can be computed beside the graph. A graph for `torch.compile`
    does not leave Python.
    """
    if torch.jit.is_tracing():
        return True
    if not _is_exporting():
        return False
    return torch.compiler.is_dynamo_compiling() or not all(_is_known(value) for value in values)


def constant(make: Callable[..., _Result], *values: Any) -> _Result:
    """Return `make(*values)`, which an exported graph holds as a constant where it can be computed beside the graph.

    What a runtime or a quantiser does to a computation in a graph (less precision, eight bits) cannot be done to a
    constant that is no weight. See `goes_into_export` for where that is not possible.
    """
    if _is_exporting() and not goes_into_export(*values):
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
