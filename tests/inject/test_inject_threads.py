"""Forwards at once: in threads, in asyncio tasks, and one inside of another; each has its own T and its own batch."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from inject_cases import Pair, block_plan, frames, make_plan, randomise, seeded_net
from torch import Tensor, nn

from image2video.errors import InputError, StateError
from image2video.inject.api import inject_
from image2video.trace.layout import NLC

THREADS = 8
CHECKPOINTS = ["reentrant", "saved"]
pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")


def make_pair(fusion: str = "gsf", **options: str) -> Pair:
    net = seeded_net(**options)
    pair = Pair(net, inject_(net, block_plan(fusion)))
    randomise(pair.fusion, seed=3, scale=1.0)
    return pair


@pytest.fixture
def busy() -> Iterator[None]:
    """Let threads take turns often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def waiting(barrier: threading.Barrier) -> Callable[..., None]:
    def hook(module: nn.Module, args: object, output: object) -> None:
        barrier.wait(30)

    return hook


def meet_inside(pair: Pair, threads: int) -> None:
    """Let forwards wait for each other between the second block and the third."""
    barrier = threading.Barrier(threads)
    pair.backbone.blocks[1].register_forward_hook(waiting(barrier))


@pytest.mark.parametrize("fusion", ["tsm", "gsf", "conv3d"])
def test_forwards_that_overlap_have_their_own_t_and_batch(fusion: str) -> None:
    pair = make_pair(fusion)
    calls = [
        (frames(2, 3), 3, True),
        (frames(1, 6, seed=2), 6, True),
        (frames(3, 2), 2, True),
        (frames(6, 2), 4, False),
    ]
    with torch.no_grad():
        expected = [pair(*call) for call in calls]
        meet_inside(pair, len(calls))
        with ThreadPoolExecutor(len(calls)) as pool:
            came = list(pool.map(torch.no_grad()(lambda call: pair(*call)), calls))
    for got, right in zip(came, expected, strict=True):
        assert torch.equal(got, right)


@pytest.mark.parametrize("calls", [240, pytest.param(10_000, marks=pytest.mark.slow)])
def test_calls_in_eight_threads_equal_the_serial_ones(calls: int, busy: None) -> None:
    pair = make_pair()
    kinds = [(frames(1 + i % 3, 2 + i % 4, seed=i, size=(4, 6)), 2 + i % 4) for i in range(12)]
    with torch.no_grad():
        expected = [pair(*kind) for kind in kinds]

    @torch.no_grad()
    def work(thread: int) -> int:
        mine = range(thread, calls, THREADS)
        return sum(not torch.equal(pair(*kinds[i % 12]), expected[i % 12]) for i in mine)

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(work, range(THREADS))) == 0


def test_a_forward_inside_of_a_forward_has_its_own_t() -> None:
    pair = make_pair()
    outer, inner = frames(2, 3), frames(4, 2, seed=7)
    expected = pair(outer, 3), pair(inner, 2)
    came = []

    def call_again(module: nn.Module, args: object) -> None:
        if not came:
            came.append(None)
            came[0] = pair(inner, 2)

    pair.backbone.blocks[1].register_forward_pre_hook(call_again)
    assert torch.equal(pair(outer, 3), expected[0])
    assert torch.equal(came[0], expected[1])


def test_a_call_of_the_backbone_inside_of_its_forward_has_its_own_rows() -> None:
    """The rows of the inner call are half of the outer ones: counted by them, each frame would have two rows."""
    pair = make_pair("tsm")
    outer, inner = frames(2, 3), frames(1, 3, seed=7)
    expected = pair(outer, 3), pair(inner, 3)
    came = []

    def call_again(module: nn.Module, args: object) -> None:
        if not came:
            came.append(None)
            came[0] = pair.backbone(inner)

    pair.backbone.blocks[1].register_forward_pre_hook(call_again)
    assert torch.equal(pair(outer, 3), expected[0])
    assert torch.equal(came[0], expected[1])


def test_a_site_that_does_not_fire_is_noticed_around_an_inner_forward() -> None:
    pair = make_pair("tsm")
    net = pair.backbone
    whole, inside = net.stages, []

    def stages(x: Tensor) -> Tensor:
        if inside:
            return whole(x)
        inside.append(True)
        pair(frames(1, 3, seed=7), 3)  # all sites fire in this one
        return net.blocks[1](net.blocks[0](x))

    net.stages = stages
    with pytest.raises(StateError, match=r"1 of 3 sites did not fire .*blocks\.2\.conv1"):
        pair(frames(2, 3), 3)


def test_a_failed_forward_leaves_nothing_behind() -> None:
    pair = make_pair("tsm")
    net, injection = pair.backbone, pair.fusion
    with injection.frames(3):
        expected = net.forward_features(frames(2, 3))
        with pytest.raises(InputError, match="must be a multiple of T = 3, got 4"):
            net(frames(4, 1))
        handle = net.head.register_forward_pre_hook(lambda module, args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            net(frames(3, 3))
        handle.remove()
        # Six rows are no multiple of the nine that the failed call had.
        assert torch.equal(net.forward_features(frames(2, 3)), expected)
    with pytest.raises(StateError, match="outside of its wrapper"):
        net(frames(2, 3))


def test_threads_know_nothing_of_a_scope_that_another_has_opened() -> None:
    pair = make_pair()
    with pair.fusion.frames(3), ThreadPoolExecutor(1) as pool:
        with pytest.raises(StateError, match="outside of its wrapper"):
            pool.submit(pair.backbone, frames(2, 3)).result()
        scope = pair.fusion.frames(2)

        def in_the_same_scope() -> Tensor:
            with scope:
                return pair.backbone(frames(3, 2))

        with scope:
            here = pair.backbone(frames(3, 2))
            assert torch.equal(pool.submit(in_the_same_scope).result(), here)
            assert torch.equal(pair.backbone(frames(3, 2)), here)
        assert not torch.allclose(pair.backbone(frames(2, 3)), here)


@pytest.mark.parametrize("order", ["nested", "crossed"])
def test_asyncio_tasks_have_scopes_of_their_own(order: str) -> None:
    pair = make_pair()
    x = frames(1, 6)
    expected = {T: pair(x, T) for T in (2, 3)}

    async def first(opened: asyncio.Event, go_on: asyncio.Event, done: asyncio.Event) -> list[Tensor]:
        with pair.fusion.frames(3):
            opened.set()
            await go_on.wait()
            came = [pair.backbone(x)]
            if order == "nested":
                done.set()
                await asyncio.sleep(0.01)
            came.append(pair.backbone(x))
        done.set()
        return came

    async def second(opened: asyncio.Event, go_on: asyncio.Event, done: asyncio.Event) -> list[Tensor]:
        await opened.wait()
        with pair.fusion.frames(2):
            came = [pair.backbone(x)]
            go_on.set()
            await done.wait()
            came.append(pair.backbone(x))
        return came

    async def both() -> list[list[Tensor]]:
        events = asyncio.Event(), asyncio.Event(), asyncio.Event()
        return await asyncio.gather(first(*events), second(*events))

    threes, twos = asyncio.run(both())
    assert all(torch.equal(came, expected[3]) for came in threes)
    assert all(torch.equal(came, expected[2]) for came in twos)
    with pytest.raises(StateError, match="outside of its wrapper"):
        pair.backbone(x)


def loss(outputs: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (outputs * torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)).sum()


def jobs() -> list[tuple[int, Tensor]]:
    """T and frames of each thread; equal numbers of rows, so that nothing but T tells the forwards apart."""
    return [(T, frames(12 // T, T, seed=T)) for T in (2, 3, 4, 6)]


def gradients_of(pair: Pair, total: Tensor | None = None) -> list[Tensor]:
    """What all backward passes have added up, and that of `total`."""
    if total is not None:
        total.backward()
    return [p.grad.clone() for p in pair.parameters()]


def expected_gradients() -> list[Tensor]:
    """Summed over the jobs."""
    pair = make_pair()
    return gradients_of(pair, sum(loss(pair(x, T), T) for T, x in jobs()))


def assert_alike(came: list[Tensor], right: list[Tensor], times: int = 1) -> None:
    for got, expected in zip(came, right, strict=True):
        torch.testing.assert_close(got, expected * times, rtol=1e-8, atol=1e-11)


def each_in_a_thread_of_its_own(work: Callable[[tuple[int, Tensor]], object], todo: list) -> list:
    """Fresh threads number their nodes from 0 alike."""
    with ThreadPoolExecutor(len(todo)) as pool:
        return list(pool.map(work, todo))


@pytest.mark.parametrize("mode", CHECKPOINTS)
def test_threads_that_train_at_once(mode: str) -> None:
    pair = make_pair(checkpointing=mode)
    barrier = threading.Barrier(len(jobs()))

    def steps(job: tuple[int, Tensor]) -> None:
        T, x = job
        for _ in range(3):
            total = loss(pair(x, T), T)
            barrier.wait(30)
            total.backward()

    each_in_a_thread_of_its_own(steps, jobs())
    assert_alike(gradients_of(pair), expected_gradients(), times=3)


@pytest.mark.parametrize("mode", CHECKPOINTS)
def test_forwards_in_threads_and_one_backward(mode: str) -> None:
    pair = make_pair(checkpointing=mode)
    loss(pair(frames(2, 6), 6), 1).backward()  # this thread has numbers of its own
    pair.zero_grad()
    barrier = threading.Barrier(len(jobs()))

    def forward(job: tuple[int, Tensor]) -> Tensor:
        barrier.wait(30)
        return loss(pair(job[1], job[0]), job[0])

    total = sum(each_in_a_thread_of_its_own(forward, jobs()))
    assert_alike(gradients_of(pair, total), expected_gradients())


@pytest.mark.parametrize("mode", CHECKPOINTS)
def test_forwards_here_and_backwards_in_threads(mode: str) -> None:
    pair = make_pair(checkpointing=mode)
    totals = [loss(pair(x, T), T) for T, x in jobs()]

    def backward(total: Tensor) -> None:
        with pair.fusion.frames(5):  # another T is open in the thread that goes backward
            pair.backbone(frames(1, 5))
            total.backward()

    each_in_a_thread_of_its_own(backward, totals)
    assert_alike(gradients_of(pair), expected_gradients())


@pytest.mark.parametrize("mode", CHECKPOINTS)
def test_a_forward_that_goes_on_from_one_of_another_thread(mode: str) -> None:
    def chained(pair: Pair, run: Callable[[Callable[[], Tensor]], Tensor]) -> list[Tensor]:
        first = run(lambda: pair(frames(2, 3), 3))
        second = run(lambda: pair(frames(3, 2, seed=6) * (1 + first.mean()), 2))
        return gradients_of(pair, loss(second, 5))

    def in_a_thread(work: Callable[[], Tensor]) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work).result()

    right = chained(make_pair(), lambda work: work())
    assert_alike(chained(make_pair(checkpointing=mode), in_a_thread), right)


class CallsItsModel(nn.Module):
    """Runs a block, and the whole model with another T inside of it."""

    def __init__(self, block: nn.Module, pair: Pair, checkpointing: str | None) -> None:
        super().__init__()
        self.block = block
        self.others = [pair]
        self.checkpointing = checkpointing
        self.inside = False

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        if self.inside:
            return y
        pair = self.others[0]
        before, pair.backbone.checkpointing = pair.backbone.checkpointing, self.checkpointing
        self.inside = True
        try:
            inner = pair(frames(3, 2, seed=6) * (1 + y.mean()), 2)
        finally:
            self.inside = False
            pair.backbone.checkpointing = before
        return y * inner.exp().mean().log().sin().exp()


def calls_itself(mode: str | None, inner_mode: str | None = None) -> Pair:
    pair = make_pair(checkpointing=mode)
    blocks = pair.backbone.blocks
    # The fusions stay at the block's own modules.
    calling = CallsItsModel(blocks[1], pair, inner_mode)
    pair.backbone.run = lambda block, x, run=pair.backbone.run: run(calling if block is blocks[1] else block, x)
    return pair


@pytest.mark.parametrize("mode", CHECKPOINTS)
def test_a_checkpointed_block_that_calls_the_model_with_another_t(mode: str) -> None:
    """The block is recomputed while backward executes a node of the inner forward."""
    came, right = (
        gradients_of(pair, loss(pair(frames(2, 3), 3), 5)) for pair in (calls_itself(mode), calls_itself(None))
    )
    assert_alike(came, right)


def test_checkpoints_inside_of_a_checkpointed_block_are_refused_where_t_differs() -> None:
    pair = calls_itself("saved", "saved")
    with pytest.raises(StateError, match=r"with T = 2 and 6 rows inside of a forward with T = 3 and 6 rows"):
        pair(frames(2, 3), 3)


def test_what_cannot_be_told_apart_is_refused() -> None:
    """Backward from a feature that left the forward by no output, with equal numbers in several threads."""
    pair = make_pair(checkpointing="saved")
    net = pair.backbone

    def caught(job: tuple[int, Tensor]) -> Tensor:
        features = []
        handle = net.blocks[2].register_forward_hook(lambda module, args, output: features.append(output * output))
        pair(job[1], job[0])
        handle.remove()
        return features[0].sum()

    one = each_in_a_thread_of_its_own(caught, jobs()[:1])[0]
    other = each_in_a_thread_of_its_own(caught, jobs()[1:2])[0]
    with pytest.raises(StateError, match=r"forwards of several threads may have made it \(T = 2, T = 3\)"):
        (one + other).backward()


def test_rows_of_windows_in_threads() -> None:
    """Two rows per frame in one thread, one in the other: the rows per frame are counted against its own batch."""
    net = nn.Sequential(nn.Identity(), nn.Linear(8, 8)).double()
    pair = Pair(net, inject_(net, make_plan("tsm", ["1"], layout=NLC)))
    x = torch.randn(12, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = pair(x, 3), pair(x[:6], 3)
    barrier = threading.Barrier(2)
    net[0].register_forward_hook(waiting(barrier))
    with ThreadPoolExecutor(2) as pool:
        came = list(pool.map(lambda rows: pair(x[:rows], 3), (12, 6)))
    assert all(torch.equal(got, right) for got, right in zip(came, expected, strict=True))
