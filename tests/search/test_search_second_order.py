"""The second-order gradient of τ: against autograd through the SGD step, and without a trace in the network."""

import functools

import pytest
import torch
from search_cases import bilevel, blobs, smooth_network, tiny_network
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from image2video.clip.image_to_video import frames_to_clip
from image2video.errors import InputError
from image2video.search import SearchConfig, search
from image2video.search.optimise.bilevel import Bilevel
from image2video.search.optimise.second_order import unrolled_gradients
from image2video.search.score.network import FrameNetwork, build_network


def batch(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    data = blobs(12, seed)
    return data.images.to(dtype), data.labels


def ours(run: Bilevel, train: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor]) -> tuple[Tensor, list[Tensor]]:
    training, validation = (functools.partial(run._gradients, part, None) for part in (train, held))
    clip = run.config.grad_clip
    return unrolled_gradients(run.outer, run.bare, run.optimizer, training, validation, clip=clip)


def exact(run: Bilevel, train: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The same by autograd alone, through SGD's step written out."""
    config, names = run.config, dict(run.bare.named_parameters())
    randomness = torch.get_rng_state()

    def loss(weights: dict[str, Tensor], part: tuple[Tensor, Tensor]) -> Tensor:
        torch.set_rng_state(randomness)
        logits = functional_call(run.bare, weights, (run.cell(part[0]),))
        return cross_entropy(frames_to_clip(logits, 3).mean(1), part[1])

    slopes = torch.autograd.grad(loss(dict(names), train), list(names.values()), create_graph=True)
    norm = torch.cat([slope.flatten() for slope in slopes]).norm()
    assert (config.grad_clip == 0.05) == (0 < config.grad_clip < norm)  # clips where a test wants it
    if config.grad_clip > 0:
        slopes = tuple(slope * (config.grad_clip / (norm + 1e-6)).clamp(max=1) for slope in slopes)
    moved = {}
    for (name, weight), slope in zip(names.items(), slopes, strict=True):
        step = slope + (config.weight_decay if weight.ndim > 1 else 0) * weight
        buffer = run.optimizer.state.get(weight, {}).get("momentum_buffer")
        moved[name] = weight - config.lr * (step if buffer is None else step + config.momentum * buffer)
    value = loss(moved, held)
    return value, list(torch.autograd.grad(value, run.outer))


def first_order(run: Bilevel, held: tuple[Tensor, Tensor]) -> list[Tensor]:
    return run._gradients(held, None, run.outer)[1]


@pytest.mark.parametrize("options", [{}, {"grad_clip": 0.0}, {"grad_clip": 0.05}, {"weight_decay": 0.1}])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_it_is_the_gradient_through_the_sgd_step(options: dict[str, float], dropout: float) -> None:
    torch.manual_seed(3)
    network = FrameNetwork(smooth_network(dropout), None).double()
    run = bilevel(network, second_order=True, learn_magnitudes=True, lr=0.5, **options)
    for seed in (7, 8):
        run.weight_step(*batch(seed))  # a momentum that is not zero
    train, held, randomness = batch(0), batch(1), torch.get_rng_state()
    value, expected = exact(run, train, held)
    torch.set_rng_state(randomness)
    plain = first_order(run, held)
    torch.set_rng_state(randomness)
    loss, found = ours(run, train, held)
    assert loss.item() == pytest.approx(value.item(), rel=1e-12)
    assert [g.shape for g in found] == [run.cell.tau.shape, run.cell.outer_parameters()[1].shape]
    for ours_, exact_, first in zip(found, expected, plain, strict=True):
        assert (ours_ - exact_).norm() < 1e-7 * exact_.norm()
        assert (first - exact_).norm() > 1e-3 * exact_.norm()  # the first order is another gradient


def test_float32_is_close() -> None:
    run = bilevel(FrameNetwork(smooth_network(), None), second_order=True, lr=0.5)
    train, held = batch(0, torch.float32), batch(1, torch.float32)
    _, expected = exact(run, train, held)
    _, found = ours(run, train, held)
    assert (found[0] - expected[0]).norm() < 1e-2 * expected[0].norm()


def test_the_extra_passes_leave_no_trace() -> None:
    network = build_network(tiny_network(), "gsf", residual=True, input_size=(1, 12, 16))
    run = bilevel(network, second_order=True)
    network.train()
    train, held = batch(0, torch.float32), batch(1, torch.float32)
    for part in (train, held):
        run.weight_step(*part)  # moves the running statistics away from their start
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = {name: p.grad for name, p in network.named_parameters()}
    torch.manual_seed(5)
    first_order(run, held)
    afterwards = torch.get_rng_state()
    assert any(not torch.equal(before[name], value) for name, value in network.state_dict().items())
    network.load_state_dict(before)
    torch.manual_seed(5)
    start = run.cell.tau.detach().clone()
    assert run.tau_step(*held, train).isfinite()
    assert not torch.equal(run.cell.tau, start)
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.grad is gradients[name] for name, p in network.named_parameters())
    assert torch.equal(torch.get_rng_state(), afterwards)  # what one validation pass draws, not four passes


def test_a_pass_that_fails_leaves_the_weights() -> None:
    class Breaks(Exception):  # noqa: N818
        pass

    network = FrameNetwork(smooth_network(), None)
    run = bilevel(network, second_order=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    calls = 0

    def fails(module: nn.Module, args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            assert not torch.equal(before["backbone.0.weight"], network.state_dict()["backbone.0.weight"])
            raise Breaks

    network.register_forward_pre_hook(fails)
    with pytest.raises(Breaks):
        run.tau_step(*batch(1, torch.float32), batch(0, torch.float32))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_without_trainable_weights_it_is_the_first_order() -> None:
    network = FrameNetwork(smooth_network(), None).requires_grad_(False)
    taus = []
    for second_order in (True, False):
        run = bilevel(network, second_order=second_order)
        run.tau_step(*batch(1, torch.float32), batch(0, torch.float32))
        taus.append(run.cell.tau.detach())
    assert torch.equal(*taus)


def test_it_needs_the_training_batch() -> None:
    with pytest.raises(InputError, match="needs the batch of the weight step"):
        bilevel(FrameNetwork(smooth_network(), None), second_order=True).tau_step(*batch(1, torch.float32))


def test_a_search_gives_it_the_batch_of_the_next_weight_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Tensor, Tensor]] = []
    original, following = Bilevel.tau_step, Bilevel.weight_step

    def tau_step(self: Bilevel, images: Tensor, labels: Tensor, train_batch: object, draw: object) -> Tensor:
        calls.append((train_batch[0], images))
        return original(self, images, labels, train_batch, draw)

    def weight_step(self: Bilevel, images: Tensor, labels: Tensor, *rest: object) -> Tensor:
        if len(calls) > len(seen):
            seen.append(torch.equal(calls[-1][0], images) and not torch.equal(calls[-1][1], images))
        return following(self, images, labels, *rest)

    seen: list[bool] = []
    monkeypatch.setattr(Bilevel, "tau_step", tau_step)
    monkeypatch.setattr(Bilevel, "weight_step", weight_step)
    config = SearchConfig(T=3, epochs=2, batch_size=16, second_order=True, selection="argmax", device="cpu")
    result = search(tiny_network(), blobs(60, 0), config)
    assert seen == [True] * 4
    # Weights, τ, and three passes over the training batch, at each of T frames.
    assert result.frames == 2 * 3 * (30 + 30 + 3 * 30)
