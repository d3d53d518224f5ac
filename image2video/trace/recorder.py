"""Writing a forward down: every operation becomes a value, every module execution a call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from image2video.errors import UnsupportedError
from image2video.trace.axes import Axes
from image2video.trace.axis_mixing import PACKED_LINEARS
from image2video.trace.axis_rules import output_axes
from image2video.trace.operation import Named, Operation

WEIGHTED = frozenset(
    {"conv1d", "conv2d", "conv3d", "convolution", "_convolution"}
    | {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
    | {"linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "mv", "bilinear", "_int_mm"}
    | {"lstm", "gru", "rnn_tanh", "rnn_relu", "_native_multi_head_attention"}
    | PACKED_LINEARS
)
_DECOMPOSED = frozenset({"einsum", "tensordot", "chain_matmul", "linalg_multi_dot"})


@dataclass
class Value:
    """One version of one tensor.

    Attributes:
        index: its place in the trace.
        op: the name of the operation that made it.
        shape: of the tensor.
        parents: the values it was computed from, each once, ascending.
        operands: the same in the operation's own order.
        call: the innermost module call that made it; -1 outside of every module.
        depends: whether the images went into it.
        learned: whether a parameter went into it and the images did not.
        weighted: whether it is a weight's product with one tensor that depends.
        kernel: of the convolution that made it.
        data: the value that the weight was multiplied with.
        axes: the names of its dimensions, where it depends.
        operation: what made it, where it depends.
    """

    index: int
    op: str
    shape: tuple[int, ...]
    parents: tuple[int, ...] = ()
    operands: tuple[int, ...] = ()
    call: int = -1
    depends: bool = False
    learned: bool = False
    weighted: bool = False
    kernel: tuple[int, ...] = ()
    data: int = -1
    axes: Axes | None = None
    operation: Operation | None = None


@dataclass
class Call:
    """One execution of one module.

    Attributes:
        index: its place in the trace.
        name: the module's path.
        module: the module.
        parent: the call around it; -1 for the root's.
        start: the first of its values, which have indices in `[start, stop)`, those of its submodules included.
        inputs: the values of its positional inputs, -1 for what is no tensor.
        extra_inputs: the values that came in lists or by keyword.
        outputs: the values of what it returned, or of its items; -1 for what is no tensor.
        stop: the index after its last value; -1 while it runs.
    """

    index: int
    name: str
    module: nn.Module
    parent: int
    start: int
    inputs: tuple[int, ...] = ()
    extra_inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    stop: int = -1


@dataclass
class Trace:
    """The values and module calls of one forward on `IMAGES` images, in the order of execution."""

    values: list[Value] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: list[tuple[str, int]] = field(default_factory=list)
    fake: bool = True


class Recorder(TorchDispatchMode):
    """Turns every dispatched operation into values.

    Under inference mode tensors keep their identity and composite operations stay whole. Every tensor is kept alive, so
    that its id stays its own; with fake tensors that costs nothing.
    """

    def __init__(self, trace: Trace, parameters: set[int], foreign: Mapping[int, str]) -> None:
        super().__init__()
        self.trace = trace
        self.parameters = parameters
        self.foreign = foreign  # names of parameters of the model that this one is a copy of
        self.known: dict[int, int] = {}
        self.alive: list[Any] = []
        self.storages: dict[int, list[Tensor]] = {}
        self.stack: list[int] = []
        self.used: set[int] = set()  # values that went into an operation

    def value_of(self, tensor: Tensor) -> int:
        """Return the index of the tensor's present value; a tensor from outside is a constant."""
        if id(tensor) not in self.known:
            if id(tensor) in self.foreign:
                raise UnsupportedError(_not_copied(self.foreign[id(tensor)]))
            learned = id(tensor) in self.parameters
            self.add(tensor, Value(0, "parameter" if learned else "constant", tuple(tensor.shape), learned=learned))
        return self.known[id(tensor)]

    def add(self, tensor: Tensor, value: Value) -> None:
        """Append a value and make it the tensor's present one."""
        value.index = len(self.trace.values)
        value.call = self.stack[-1] if self.stack else -1
        self.trace.values.append(value)
        if id(tensor) not in self.known:
            self.alive.append(tensor)
            self.storages.setdefault(_storage(tensor), []).append(tensor)
        self.known[id(tensor)] = value.index

    def watch(self, module: nn.Module, name: str) -> None:
        """Write every execution of a module down."""
        trace = self.trace

        def places(items: Iterable[Any]) -> tuple[int, ...]:
            """The values of what comes in or goes out; -1 for what is no tensor."""
            return tuple(self.value_of(item) if isinstance(item, Tensor) else -1 for item in items)

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            call = Call(len(trace.calls), name, module, self.stack[-1] if self.stack else -1, start=0)
            call.inputs = places(args)
            # Tensors inside of lists, and those that come by keyword.
            nested = [arg for arg in args if not isinstance(arg, Tensor)]
            call.extra_inputs = places(_tensors((nested, kwargs)))
            call.start = len(trace.values)  # After the inputs: a constant among them is a new value.
            trace.calls.append(call)
            self.stack.append(call.index)

        def after(_: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            call = trace.calls[self.stack.pop()]
            if isinstance(out, Tensor):
                call.outputs = places([out])
            elif isinstance(out, list | tuple):
                call.outputs = places(out)
            call.stop = len(trace.values)

        module.register_forward_pre_hook(before, prepend=True, with_kwargs=True)
        module.register_forward_hook(after)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and write it down."""
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[-1]
        if name in _DECOMPOSED:
            with self:
                decomposed = func.decompose(*args, **kwargs)
            if decomposed is not NotImplemented:
                return decomposed
        operands = tuple(self.value_of(tensor) for tensor in _tensors((args, kwargs)))
        out = func(*args, **kwargs)
        written = _written(func, args, kwargs)
        if written:
            name = name.removesuffix("_")  # `add_` computes what `add` does.
        given = {id(tensor) for tensor in _tensors((args, kwargs))}
        for index, tensor in enumerate(_tensors(out)):
            # What gives back its own input (a cast to the same type, dropout in eval mode) makes no value where the
            # input is used already: the value would stand in for the input in all that comes later.
            same = id(tensor) in given and not written
            if not (same and self.value_of(tensor) in self.used):
                self.record(name, args, kwargs, operands, tensor, index)
        self.used.update(operands)
        for tensor in written:
            self.spread(tensor, name, args, kwargs, operands)
        return out

    def record(self, name: str, args: Any, kwargs: Any, operands: tuple[int, ...], tensor: Tensor, index: int) -> None:
        """Append the value of one output of an operation."""
        values = [self.trace.values[i] for i in operands]
        shape = tuple(tensor.shape)
        value = Value(0, name, shape, tuple(sorted(set(operands))), operands)
        data = [operand for operand in values if operand.depends]
        weights = [operand for operand in values if operand.learned and len(operand.shape) > 1]  # no biases
        value.depends = bool(data)
        value.learned = not data and any(operand.learned for operand in values)
        if value.depends:
            named = tree_map(self.named, (args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Tensor))
            value.operation = Operation(name, tuple(named[0]), named[1], shape, index)
            value.axes = output_axes(value.operation)
        if len(data) == 1 and name in WEIGHTED and (weights or name in PACKED_LINEARS):
            value.weighted, value.data = True, data[0].index
            value.kernel = weights[0].shape[2:] if "conv" in name else ()
        self.add(tensor, value)

    def named(self, leaf: Any) -> Any:
        """Stand in for a tensor with its shape and axes."""
        if not isinstance(leaf, Tensor):
            return leaf
        value = self.trace.values[self.value_of(leaf)]
        return Named(value.shape, value.axes if value.depends else None)

    def spread(self, tensor: Tensor, name: str, args: Any, kwargs: Any, operands: tuple[int, ...]) -> None:
        """Give every view of a tensor that was written in place a new value."""
        if self.trace.values[self.value_of(tensor)].op != name:
            self.record(name, args, kwargs, operands, tensor, 0)
        new = self.value_of(tensor)
        for view in self.storages.get(_storage(tensor), []):
            if view is tensor:
                continue
            old = self.trace.values[self.value_of(view)]
            depends = old.depends or self.trace.values[new].depends
            value = Value(0, "written", old.shape, (old.index, new), (old.index, new), depends=depends)
            value.axes = old.axes if old.axes is not None else _written_axes(old.shape, self.trace.values[new])
            self.add(view, value)


def _not_copied(name: str) -> str:
    """Say that a copy ran with a parameter of its original."""
    return (
        f"a copy of the backbone runs with the original's parameter {name!r}: some module around it has a function of "
        "its own as forward (module.forward = wrapped(module.forward)), which a copy shares; a plan is made on a copy: "
        "define it in the class, or bind it (module.forward = types.MethodType(function, module))"
    )


def _tensors(tree: Any) -> list[Tensor]:
    """List the tensors in nested lists, tuples and dictionaries."""
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


def _written_axes(shape: tuple[int, ...], new: Value) -> Axes | None:
    """Name the dimensions of a view without names by what was written into its memory."""
    if not new.depends:
        return None
    return output_axes(Operation("written", (Named(new.shape, new.axes),), {}, shape, 0))


def _storage(tensor: Tensor) -> int:
    """Return what is equal for all views of one memory."""
    return tensor.untyped_storage()._cdata


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """List the tensors that an operation writes to, by its schema."""
    out = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            out += _tensors(args[position] if position < len(args) else kwargs.get(argument.name))
    return out
