"""What all hooks of an injection share: the T of the forward that runs here, in this thread and in this task."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Iterable, Set
from typing import Any

import torch
from torch import nn

from image2video.errors import StateError
from image2video.trace.recompute import ForwardLog, FrameState, backward_task, next_node_number, saves_by_hooks

FORWARD = "forward"
"""The key of the call of a whole backbone; a scope of `Injection.frames` is its own key."""

# Compiled code runs to its end without an await: what it opens belongs to whatever task runs it.
_ANY_TASK = object()


class Call:
    """A scope, or a forward inside of one, that is open in a thread.

    Args:
        key: what `FrameContext.end` names it by.
        state: T, rows and the switch.
        outer: what was open in the thread before.

    Attributes:
        fired: names of the sites whose hook ran in it.
        checkpointed: whether one of them ran inside of a gradient checkpoint.
    """

    def __init__(self, key: object, state: FrameState, outer: Call | None) -> None:
        self.key = key
        self.state = state
        self.outer = outer
        self.open = True
        self.fired: set[str] = set()
        self.checkpointed = False
        self.task: object = _ANY_TASK
        self.home = -1
        self.first = 0
        self.grad = False
        self.region: object = None

    def notice(self) -> None:
        """Note where an eager call begins: its task, its backward pass, its first node, its checkpoint."""
        self.task = running_task()
        self.home = backward_task()
        self.first = next_node_number()
        self.grad = torch.is_grad_enabled()
        self.region = saves_by_hooks()

    def belongs_to(self, task: object) -> bool:
        """Whether the call is open, and was opened by this asyncio task."""
        return self.open and (self.task is task or self.task is _ANY_TASK)


class _Here:
    """What is open in a thread."""

    def __init__(self) -> None:
        self.top: Call | None = None
        self.fired: Set[str] = frozenset()


class _Threads(threading.local):
    """The `_Here` of each thread.

    It stands between, since compiled code that breaks into several graphs loses what it writes to a `threading.local`.
    """

    def __init__(self) -> None:
        self.here = _Here()


class FrameContext:
    """What all hooks of one injection share.

    Every thread and every asyncio task has scopes of its own, so forwards with other T and other batches may run at
    once, and one forward may run inside of another.

    Attributes:
        injection: the one that owns the context; None in a copy of the backbone alone, dead after its owner.
    """

    def __init__(self) -> None:
        self.injection: weakref.ref[nn.Module] | None = None
        self._threads = _Threads()
        self._log = ForwardLog()

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts outside of any forward; the injection that is copied along makes itself known.
        return {}

    def __setstate__(self, _: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def begin(self, key: object, state: FrameState) -> None:
        """Open a call with `state` in this thread."""
        here = self._threads.here
        call = Call(key, state, here.top)
        if not torch.compiler.is_compiling():
            call.notice()
            self._log.close()
            self._log.open(state)
            if key is FORWARD:
                here.fired = call.fired
        here.top = call

    def end(self, key: object) -> None:
        """Close the latest open call with this key, and all that was left open inside of it."""
        here = self._threads.here
        if torch.compiler.is_compiling():
            # At a graph break inside of a scope, the compiler leaves the scope and enters it again: what was open in it
            # is gone.
            found = here.top
            while found is not None and found.key is not key:
                found = found.outer
            if found is not None:
                here.top = found.outer
            return
        task = running_task()
        inside = []
        call = here.top
        while call is not None and not (call.key is key and call.belongs_to(task)):
            inside.append(call)
            call = call.outer
        if call is None:
            return
        for left in inside:
            left.open = left.open and not left.belongs_to(task)
        call.open = False
        while here.top is not None and not here.top.open:
            here.top = here.top.outer
        outer = self.running()
        around = _forward(outer)
        if around is not None:  # This forward ran inside of another, which goes on.
            here.fired = around.fired
        self._log.close()
        if outer is not None and outer.home == backward_task():
            self._log.open(outer.state)

    def running(self) -> Call | None:
        """Return the innermost call that is open in this thread and this task; None outside of any."""
        call = self._threads.here.top
        if call is None:
            return None
        task = running_task()
        while call is not None and not call.belongs_to(task):
            call = call.outer
        return call

    @property
    def is_owned(self) -> bool:
        """Whether the injection is there; it is not in a copy of the backbone alone."""
        return self.injection is not None and self.injection() is not None

    @property
    def fired(self) -> Set[str]:
        """Names of the sites whose hook ran since this thread last entered the backbone."""
        return self._threads.here.fired

    def current(self, where: str) -> FrameState:
        """Return the state of the running forward, or in a recomputation that of the forward it repeats.

        Args:
            where: who asks, for the error.

        Raises:
            StateError: neither is known.
        """
        if torch.compiler.is_compiling():
            call = self._threads.here.top
            state = None if call is None else call.state
        else:
            state = self._state(self.running())
        if state is None:
            raise self._unknown(where)
        return state

    def at_site(self, name: str) -> FrameState:
        """Return what `current` returns, and note that the hook of a site has run."""
        if torch.compiler.is_compiling():
            return self.current(name)
        call = self.running()
        state = self._state(call)
        if state is None:
            raise self._unknown(f"module {name!r}")
        if call is not None and state is call.state:
            call.fired.add(name)
            if not call.checkpointed:
                call.checkpointed = saves_by_hooks() is not None if torch.is_grad_enabled() else call.grad
                if call.checkpointed:
                    _check_nesting(call)
        return state

    def remember(self, tensors: Iterable[torch.Tensor]) -> None:
        """Write the running forward on the autograd nodes of what it returns, where backward may recompute some.

        Graphs without checkpoints are left alone. The nodes keep the fusions alive: the wrapper may be dropped before
        backward.
        """
        call = self.running()
        if call is None or not call.checkpointed or not torch.is_grad_enabled():
            return
        around = _forward(call.outer)
        if around is not None and around.region is not call.region:
            return  # The checkpoint begins outside of this forward: it recomputes the forward around it.
        owner = None if self.injection is None else self.injection()
        self._log.mark(tensors, call.state, call.first, owner)

    def _state(self, call: Call | None) -> FrameState | None:
        """Return the state of an open call, or in a recomputation that of the forward it repeats."""
        task = backward_task()
        if task != -1 and (call is None or call.home != task):
            # A block is recomputed: what is open here, if anything, is another forward.
            return self._log.find()
        return None if call is None else call.state

    def _unknown(self, where: str) -> StateError:
        """Make the error for a call whose T is not known; it says what to do with what exists."""
        if not self.is_owned:
            return StateError(
                f"{where} of a backbone with injected fusions was called, but the backbone was copied or saved without "
                "its wrapper, so the number of frames T is not known; copy or save the whole wrapper, or wrap this "
                "backbone again (VideoWrap(backbone)); for the bare backbone, call unwrap() on that"
            )
        return StateError(
            f"{where} of a backbone with injected fusions was called outside of its wrapper, so the number of "
            "frames T is not known; call the wrapper, or `with injection.frames(T): backbone(frames)`; "
            "to use, copy or reparameterise the bare backbone, call wrapper.unwrap() or injection.remove_() first"
        )


def running_task() -> object:
    """Return the asyncio task that runs in this thread; None outside of any."""
    loop = asyncio._get_running_loop()
    return None if loop is None else asyncio.current_task(loop)


def _check_nesting(call: Call) -> None:
    """Raise where a checkpoint within a forward lies in a checkpoint of another forward around it.

    Backward then recomputes blocks of both while it executes one node, which cannot tell them apart.
    """
    around = _forward(call.outer)
    if around is None or around.region is call.region or call.region is saves_by_hooks() or call.home != -1:
        return
    if around.state != call.state:
        raise StateError(
            f"a checkpointed block calls its own model with T = {call.state.T} and {call.state.rows} rows inside of a "
            f"forward with T = {around.state.T} and {around.state.rows} rows, and that call has checkpoints too: "
            "backward could not tell them apart; switch gradient checkpointing off for one of them"
        )


def _forward(call: Call | None) -> Call | None:
    """Return the innermost call of a whole backbone from here outwards."""
    while call is not None and not (call.open and call.key is FORWARD):
        call = call.outer
    return call
