"""Which forward made an autograd node: how a block that is recomputed in backward finds the T of its own forward.

Gradient checkpointing runs a block again while the backward pass executes a node of the first run (reentrant: the
checkpoint's own node; otherwise the node whose saved tensor is asked for). Autograd numbers the nodes of a thread in
the order in which they are made, so a forward is an interval of numbers, and the number of the node that is being
executed names the forward, in whatever order forwards and backwards come.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from types import FrameType
from typing import NamedTuple

import torch
from torch.autograd import graph

# Forwards whose graph may still wait for its backward; neighbours with equal state share one entry.
MAX_SPANS = 4096

_ENGINE_CODE = graph._engine_run_backward.__code__


class FrameState(NamedTuple):
    """What the hooks need to know of one forward.

    Args:
        T: frames per clip.
        rows: B·T, the leading dimension of what came into the backbone; None where that was not seen.
        enabled: whether frames are fused.
        size: (height, width) of the images; None where they were not seen.
    """

    T: int
    rows: int | None
    enabled: bool
    size: tuple[int, int] | None = None

    @property
    def fuses(self) -> bool:
        """Whether the hooks act: at T = 1 there is nothing to mix."""
        return self.enabled and self.T > 1


class Span(NamedTuple):
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


def next_node_number() -> int:
    """Return the number that the next autograd node of this thread will get."""
    number: int = torch.autograd._get_sequence_nr()
    return number


def backward_task() -> int:
    """Return the id of the backward pass that this thread is in; -1 outside of one."""
    task: int = torch._C._current_graph_task_id()
    return task


class ForwardLog:
    """Remembers which autograd nodes belong to which forward; empty again in a copy or after unpickling."""

    def __init__(self) -> None:
        self._spans: deque[Span] = deque(maxlen=MAX_SPANS)
        self._open: dict[int, Span] = {}
        self._found: dict[int, dict[int, FrameState]] = {}

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, _: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]

    def open(self, state: FrameState) -> None:
        """Begin: the nodes that this thread makes from now on belong to a forward with `state`."""
        here = threading.get_ident()
        depth = 0 if backward_task() == -1 else backward_depth()
        self._open[here] = Span(here, next_node_number(), None, depth, state)

    def close(self) -> None:
        """End what `open` began in this thread, if anything."""
        span = self._open.pop(threading.get_ident(), None)
        end = next_node_number()
        if span is None or end == span.first:
            return
        span = span._replace(end=end)
        last = self._spans[-1] if self._spans else None
        if last is not None and last._replace(first=span.first, end=end) == span:
            # Only the numbers differ. What lies between is of no forward, or of a recomputation that is over.
            self._spans[-1] = last._replace(end=end)
        else:
            self._spans.append(span)

    def find(self) -> FrameState | None:
        """Return the state of the forward that made the node which is being executed; None where none is known.

        On the CPU a backward runs in the thread that called it. On an accelerator it runs in a thread of its own, where
        no Python call of the engine is on the stack (depth 0); there, forwards of several threads whose numbers are
        equal cannot be told apart. A backward inside of a backward (nested reentrant checkpoints) works on nodes that
        a recomputation has made: these are in no forward's span and belong to the recomputation around them.
        """
        node = torch._C._current_autograd_node()
        if node is None:
            return None
        here, depth = threading.get_ident(), backward_depth()
        spans = self._covering(node._sequence_nr())
        # What was found at greater depths is of backward passes that have ended.
        outer = {at: state for at, state in self._found.get(here, {}).items() if at < depth}
        state = _of_thread(spans, here, depth)
        if state is None and outer:
            state = outer[max(outer)]
        if state is None:
            state = _of_other_threads(spans, here)
        if state is not None:
            self._found[here] = {**outer, depth: state}
        return state

    def _covering(self, number: int) -> list[Span]:
        """List the spans with a node of this number, those of running forwards first, then the latest first."""
        # Copied: another thread may append at the same time.
        closed = reversed(tuple(self._spans))
        return [span for span in (*self._open.values(), *closed) if span.covers(number)]


def _of_thread(spans: list[Span], thread: int, depth: int) -> FrameState | None:
    """Choose the state of a forward of the thread itself, which called the backward."""
    if depth == 0:  # The thread of a device executes nodes that other threads have numbered.
        return None
    for span in spans:
        # A running forward also covers what a backward inside of it has recomputed, which only a deeper backward
        # executes.
        if span.thread == thread and (span.end is not None or span.depth == depth - 1):
            return span.state
    return None


def _of_other_threads(spans: list[Span], thread: int) -> FrameState | None:
    """Choose the state of a forward of other threads; their numbers may be equal, so all of them must agree."""
    states = {span.state for span in spans if span.thread != thread}
    return states.pop() if len(states) == 1 else None


def backward_depth() -> int:
    """Count the calls of the autograd engine on this thread's Python stack."""
    depth = 0
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        depth += frame.f_code is _ENGINE_CODE
        frame = frame.f_back
    return depth
