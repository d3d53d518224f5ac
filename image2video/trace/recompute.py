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
    """

    T: int
    rows: int | None
    enabled: bool

    @property
    def fuses(self) -> bool:
        """Whether the hooks act: at T = 1 there is nothing to mix."""
        return self.enabled and self.T > 1


class Span(NamedTuple):
    """The autograd nodes numbered `first` to `end` - 1 in `thread` belong to a forward with `state`.

    An open span (`end` None) is that of a forward which is still running; `depth` is how many calls of the engine it
    runs below (0 but for a forward inside of a recomputation).
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
        last = self._spans[-1] if self._spans else None
        if last is not None and last[0] == span.thread and last[3:] == span[3:]:
            # What lies between them is of no forward, or of a recomputation that is over.
            self._spans[-1] = last._replace(end=end)
        else:
            self._spans.append(span._replace(end=end))

    def find(self) -> FrameState | None:
        """Return the state of the forward that made the node which is being executed; None where none is known.

        Forwards of several threads whose numbers are equal cannot be told apart on an accelerator: None.

        Nodes are numbered per thread. On the CPU the backward runs in the thread that called it; on an accelerator in
        a thread of its own, where no Python call of the engine is on the stack (depth 0). A backward inside of a
        backward (nested reentrant checkpoints) works on nodes that a recomputation has made: these are in no forward's
        span and belong to the recomputation around them, one depth up.
        """
        node = torch._C._current_autograd_node()
        if node is None:
            return None
        number, here, depth = node._sequence_nr(), threading.get_ident(), backward_depth()
        spans = [span for span in (*self._open.values(), *reversed(tuple(self._spans))) if span.covers(number)]
        outer = {d: state for d, state in self._found.get(here, {}).items() if d < depth}
        # An open span also covers what a backward inside of it has recomputed, which only a deeper backward executes.
        own = [s.state for s in spans if s.thread == here and depth and (s.end is not None or s.depth == depth - 1)]
        enclosing = [outer[max(outer)]] if outer else []
        others = {s.state for s in spans if s.thread != here}
        # Numbers of two other threads may be equal: then only one state for both is an answer.
        state = next(iter((*own, *enclosing, *(others if len(others) == 1 else ()))), None)
        if state is not None:
            self._found[here] = {**outer, depth: state}
        return state


def backward_depth() -> int:
    """Count the calls of the autograd engine on this thread's Python stack."""
    depth = 0
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        depth += frame.f_code is _ENGINE_CODE
        frame = frame.f_back
    return depth
