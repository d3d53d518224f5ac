"""Which forward made an autograd node: how a block that is recomputed in backward finds the T of its own forward.

Gradient checkpointing runs a block again while the backward pass executes a node of the first run (reentrant: the
checkpoint's own node; otherwise the node whose saved tensor is asked for). A forward with checkpoints writes its state
on the nodes behind its outputs, so that the node that is being executed tells it, in whatever order and in whatever
threads forwards and backwards come. Nodes that no output of a forward depends on (backward from a feature that some
other hook has caught, nodes that a recomputation has made) are found by their number: autograd numbers the nodes of a
thread in the order in which they are made, so a forward is an interval of numbers.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import graph
from torch.utils.checkpoint import CheckpointFunction

from image2video.errors import StateError

# Forwards whose graph may still wait for its backward; neighbours with equal state share one entry.
MAX_SPANS = 4096

_ENGINE_CODE = graph._engine_run_backward.__code__
_CHECKPOINT_CODE = CheckpointFunction.forward.__code__
# The system uses the number of a thread again after its end.
_THREADS = itertools.count()


class FrameState(NamedTuple):
    """What the hooks need to know of one forward.

    Args:
        T: frames per clip.
        rows: B·T, the leading dimension of what came into the backbone, or of what leaves the clip site inside of it;
            None where that was not seen.
        enabled: whether frames are fused.
        size: (height, width) of the images; None where they were not seen.
        maker: what makes the frames at places inside of the backbone; None where there are none.
        modes: lets the fusions follow the mode of the backbone, where a method of it runs that may change it.
    """

    T: int
    rows: int | None
    enabled: bool
    size: tuple[int, int] | None = None
    maker: Any = None
    modes: Any = None

    @property
    def fuses(self) -> bool:
        """Whether the hooks act: at T = 1 there is nothing to mix."""
        return self.enabled and self.T > 1


@dataclass
class Span:
    """The autograd nodes that one forward has made, as an interval of their numbers.

    Args:
        thread: the thread that runs the forward; each thread numbers its own nodes.
        first: the first number.
        end: the number after the last one; None while the forward is still running.
        depth: how many calls of the engine the forward runs below: 0 but for one inside of a recomputation.
        state: that of the forward.
    """

    thread: int
    first: int
    end: int | None
    depth: int
    state: FrameState

    def covers(self, number: int) -> bool:
        """Whether a node with this number lies in the span."""
        return self.first <= number and (self.end is None or number < self.end)

    def goes_on_in(self, other: Span) -> bool:
        """Whether the other span differs in its numbers alone."""
        return (self.thread, self.depth, self.state) == (other.thread, other.depth, other.state)


class Mark(NamedTuple):
    """What a forward with checkpoints writes on its autograd nodes.

    Args:
        state: that of the forward.
        keep: what has to live as long as the nodes, since a recomputation needs it.
    """

    state: FrameState
    keep: object


def next_node_number() -> int:
    """Return the number that the next autograd node of this thread will get."""
    number: int = torch.autograd._get_sequence_nr()
    return number


def backward_task() -> int:
    """Return the id of the backward pass that this thread is in; -1 outside of one."""
    task: int = torch._C._current_graph_task_id()
    return task


def saves_by_hooks() -> object:
    """Return the hook that gets what autograd saves here, one for each non-reentrant checkpoint; None without."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return None if hooks is None else hooks[0]


class _Here(threading.local):
    """What a log knows of each thread."""

    def __init__(self) -> None:
        self.thread = next(_THREADS)
        self.open: Span | None = None
        self.last: Span | None = None
        self.found: dict[int, FrameState] = {}


class ForwardLog:
    """Remembers which autograd nodes belong to which forward; empty again in a copy or after unpickling."""

    def __init__(self) -> None:
        self._here = _Here()
        self._lock = threading.Lock()
        self._spans: deque[Span] = deque(maxlen=MAX_SPANS)
        self._open: dict[int, Span] = {}

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, _: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]

    def open(self, state: FrameState) -> None:
        """Begin: the nodes that this thread makes from now on belong to a forward with `state`."""
        here = self._here
        depth = 0 if backward_task() == -1 else backward_depth()
        here.open = Span(here.thread, next_node_number(), None, depth, state)
        with self._lock:
            self._open[here.thread] = here.open

    def close(self) -> None:
        """End what `open` began in this thread, if anything."""
        here = self._here
        span, here.open = here.open, None
        if span is None:
            return
        span.end = next_node_number()
        with self._lock:
            self._open.pop(here.thread, None)
            if span.end == span.first:
                return
            last = self._spans[-1] if self._spans else None
            if last is not None and last is here.last and last.goes_on_in(span):
                # What lies between is of no forward, or of a recomputation that is over.
                last.end = span.end
            else:
                self._spans.append(span)
                here.last = span

    def mark(self, tensors: Iterable[Tensor], state: FrameState, first: int, keep: object) -> None:
        """Write the state of a forward on the nodes that made its outputs.

        Args:
            tensors: what the forward returns, in the thread that ran it.
            state: that of the forward.
            first: the number of its first node.
            keep: what has to live as long as the nodes.
        """
        mark, end = Mark(state, keep), next_node_number()
        nodes = [tensor.grad_fn for tensor in tensors]
        while nodes:
            node = nodes.pop()
            # Earlier nodes made the inputs; nodes of parameters have the largest number there is. A node that has a
            # mark belongs to a forward inside of this one.
            if node is None or not first <= node._sequence_nr() < end or self in _metadata(node):
                continue
            _metadata(node)[self] = mark
            nodes += [following for following, _ in node.next_functions]

    def find(self) -> FrameState | None:
        """Return the state of the forward that made the node which is being executed; None where none is known.

        On the CPU a backward runs in the thread that called it. On an accelerator it runs in a thread of its own, where
        no Python call of the engine is on the stack (depth 0). A backward inside of a backward (nested reentrant
        checkpoints) works on nodes that a recomputation has made: these are in no forward's span and belong to the
        recomputation around them.

        Raises:
            StateError: a node without a mark, and forwards with other states in several threads, whose numbers are
                equal.
        """
        node = torch._C._current_autograd_node()
        if node is None:
            return None
        here, depth = self._here, backward_depth()
        # What was found at greater depths is of backward passes that have ended.
        outer = {at: state for at, state in here.found.items() if at < depth}
        mark = _metadata(node).get(self)
        if mark is not None:
            state: FrameState | None = mark.state
        else:
            spans = self._covering(node._sequence_nr())
            state = _of_thread(spans, here.thread, depth)
            if state is None and outer:
                state = outer[max(outer)]
            if state is None:
                state = _of_other_threads(spans, here.thread)
        if state is not None:
            here.found = {**outer, depth: state}
        return state

    def _covering(self, number: int) -> list[Span]:
        """List the spans with a node of this number, those of running forwards first, then the latest first."""
        with self._lock:
            return [span for span in (*self._open.values(), *reversed(self._spans)) if span.covers(number)]


def _of_thread(spans: list[Span], thread: int, depth: int) -> FrameState | None:
    """Choose the state of a forward of the thread itself, which called the backward."""
    if depth == 0:  # The thread of a device executes nodes that other threads have numbered.
        return None
    for span in spans:
        # A running forward also covers what a backward inside of it has recomputed, which only a deeper backward
        # executes.
        if span.thread == thread and (span.end is not None or span.depth == depth - 1):
            if span.end is not None:
                _check_agreement(span.state, spans, thread)
            return span.state
    return None


def _of_other_threads(spans: list[Span], thread: int) -> FrameState | None:
    """Choose the state of a forward of other threads."""
    for span in spans:
        if span.thread != thread:
            _check_agreement(span.state, spans, thread)
            return span.state
    return None


def _check_agreement(state: FrameState, spans: list[Span], thread: int) -> None:
    """Raise unless all forwards of other threads that could have made a node have this state."""
    others = {span.state for span in spans if span.thread != thread} | {state}
    if len(others) > 1:
        known = ", ".join(f"T = {other.T}{'' if other.enabled else ' off'}" for other in sorted(others, key=repr))
        raise StateError(
            f"a block is recomputed in backward, and forwards of several threads may have made it ({known}); with "
            "gradient checkpointing in several threads, go backward from what the wrapper or the backbone's own call "
            "returned, or pass what another door returned through injection.tie"
        )


def in_reentrant_checkpoint() -> bool:
    """Whether this thread is in the first run, without gradient, of a block that `torch.utils.checkpoint` runs again.

    The outputs of both runs have to be equal bit for bit, so neither may take a way that is for inference alone.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is _CHECKPOINT_CODE:
            return True
        frame = frame.f_back
    return False


def backward_depth() -> int:
    """Count the calls of the autograd engine on this thread's Python stack."""
    depth = 0
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        depth += frame.f_code is _ENGINE_CODE
        frame = frame.f_back
    return depth


def _metadata(node: graph.Node) -> dict[Any, Any]:
    """Return what can be written onto an autograd node; torch's types call the dictionary a method."""
    return node.metadata  # type: ignore[return-value]
