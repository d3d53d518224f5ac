"""Which forward made a node: across threads, and in the log itself."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_inject_checkpointing import CASES, MODES, Case, gradients
from torch import Tensor, nn

from image2video.errors import StateError
from image2video.trace import recompute
from image2video.trace.recompute import ForwardLog, FrameState, next_node_number

pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_backward_in_a_thread_of_its_own_as_on_an_accelerator(
    case: Case, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device thread numbers its own nodes from 0, and has no call of the engine on its stack at first."""
    expected = gradients(case, None)
    backward, depth = Tensor.backward, recompute.backward_depth
    # The host thread is new too: the main thread has made a node for every operation of the tests before this one, and
    # the device would have to make as many to catch up.
    with ThreadPoolExecutor(1) as host, ThreadPoolExecutor(1) as device:
        caller = host.submit(threading.get_ident).result()

        def elsewhere(tensor: Tensor) -> None:
            if threading.get_ident() == caller:
                device.submit(catch_up, next_node_number()).result()
                device.submit(backward, tensor).result()
            else:
                backward(tensor)

        monkeypatch.setattr(Tensor, "backward", elsewhere)
        monkeypatch.setattr(recompute, "backward_depth", lambda: depth() - (threading.get_ident() != caller))
        came = host.submit(gradients, case, mode).result()
    for bare, recomputed in zip(expected, came, strict=True):
        torch.testing.assert_close(recomputed, bare, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("threads", "depth", "found"),
    [
        ({"here": 3}, 1, 3),  # backward was called from here: so was the forward
        ({"here": 3, "there": 3}, 1, 3),
        ({"here": 3}, 0, None),  # a device thread executes nodes that another thread has made
        ({"there": 2}, 1, 2),
        ({"there": 2}, 0, 2),
        ({"here": 3, "there": 2}, 0, 2),
        ({"there": 2, "elsewhere": 2}, 0, 2),
        ({"here": 3, "there": 2}, 1, StateError),  # their numbers are equal: cannot be told apart
        ({"there": 2, "elsewhere": 3}, 0, StateError),
    ],
)
def test_equal_numbers_in_several_threads(
    threads: dict[str, int], depth: int, found: int | type[StateError] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = (torch.ones(1, requires_grad=True) * 2).grad_fn
    number = node._sequence_nr()
    log = ForwardLog()
    here = log._here.thread
    numbers = {"here": here, "there": here + 1, "elsewhere": here + 2}
    for name, T in threads.items():
        log._spans.append(recompute.Span(numbers[name], number - 1, number + 1, 0, FrameState(T, 6, True)))
    monkeypatch.setattr(recompute, "backward_depth", lambda: depth)
    monkeypatch.setattr(torch._C, "_current_autograd_node", lambda: node)
    if found is StateError:
        with pytest.raises(StateError, match=r"forwards of several threads may have made it \(T = 2, T = 3\)"):
            log.find()
        return
    state = log.find()
    assert (state and state.T) == found


def test_a_mark_tells_the_forward_whatever_the_numbers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(1, requires_grad=True)
    before = x * 2
    first, log = next_node_number(), ForwardLog()
    inside = before * 3
    state, other = FrameState(3, 6, True), FrameState(2, 6, True)
    log._spans.append(recompute.Span(log._here.thread, 0, first + 1, 0, other))
    log.mark([inside.sum(), x], state, first, None)
    monkeypatch.setattr(recompute, "backward_depth", lambda: 1)
    for tensor, expected in ((inside, state), (before, other)):
        monkeypatch.setattr(torch._C, "_current_autograd_node", lambda node=tensor.grad_fn: node)
        assert log.find() == expected


def test_a_thread_that_is_over_leaves_its_number_to_no_other() -> None:
    log = ForwardLog()
    seen = []
    for _ in range(3):  # the system gives the same identity to threads that follow each other
        thread = threading.Thread(target=lambda: seen.append(log._here.thread))
        thread.start()
        thread.join()
    assert len(set(seen)) == 3


def catch_up(number: int) -> None:
    """Make nodes in this thread until their numbers reach those of a forward in another: they tell nothing alone."""
    x = torch.ones(1, requires_grad=True)
    while next_node_number() < number - 40:
        x * 2


def test_neighbouring_forwards_share_one_entry_and_the_log_is_not_copied() -> None:
    log = ForwardLog()
    state, other = FrameState(3, 6, True), FrameState(2, 6, True)
    for current in (state, state, other, state):
        log.open(current)
        nn.functional.relu(torch.ones(1, requires_grad=True))
        log.close()
    assert [span.state for span in log._spans] == [state, other, state]
    log.open(other)
    log.close()
    assert len(log._spans) == 3
    assert log.__getstate__() == {}
