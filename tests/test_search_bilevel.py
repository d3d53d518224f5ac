"""The two steps of the search: each moves what it should, by the gradient that it should."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from image2video.errors import InputError, InputTypeError, StateError
from image2video.search import Cell, SearchConfig, get_space
from image2video.search.bilevel import Bilevel, LossWatch, weight_optimizer
from image2video.search.network import FrameNetwork, build_network
from image2video.search.run import cosine
from search_cases import blobs, tiny_network


def bilevel(network: nn.Module | None = None, **options: object) -> Bilevel:
    config = SearchConfig(T=3, **options)  # type: ignore[arg-type]
    cell = Cell(get_space("affine5"), 3, generator=torch.Generator().manual_seed(0))
    if network is None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = build_network(tiny_network(), "gsf", residual=True, input_size=(1, 12, 16))
    accelerator = Accelerator(cpu=True)
    optimizer = weight_optimizer(network, config)
    if optimizer is not None:
        network, optimizer = accelerator.prepare(network, optimizer)
    return Bilevel(network, cell, optimizer, accelerator, config)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    data = blobs(12, seed)
    return data.images, data.labels


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def moved(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {name for name, value in module.named_parameters() if not torch.equal(before[name], value)}


def test_a_tau_step_moves_tau_alone_and_along_its_gradient() -> None:
    run = bilevel(copy.deepcopy(FrameNetwork(tiny_network(), None)).eval())
    before, start = parameters(run.network), run.cell.tau.detach().clone()
    images, labels = batch()
    twin = copy.deepcopy(run.cell)
    loss = cross_entropy(run.bare(twin(images)), labels)
    loss.backward()
    run.network.zero_grad(set_to_none=True)
    assert twin.tau.grad is not None
    assert twin.tau.grad.abs().min() > 0
    assert run.tau_step(images, labels).item() == pytest.approx(loss.item(), rel=1e-6)
    assert moved(before, run.network) == set()
    assert all(p.grad is None and p.requires_grad for p in run.network.parameters())
    assert run.cell.tau.grad is None
    # Adam's first step has the length of its rate.
    decayed = twin.tau.grad + 1e-3 * start
    expected = start - 3e-4 * decayed / (decayed.abs() + 1e-8)
    assert torch.allclose(run.cell.tau, expected, atol=1e-8)


def test_a_weight_step_moves_the_weights_alone() -> None:
    run = bilevel()
    before, start = parameters(run.network), run.cell.tau.detach().clone()
    for step in range(2):
        run.weight_step(*batch(step))
    assert torch.equal(run.cell.tau, start)
    assert run.cell.tau.grad is None
    # A norm cancels the bias before it; the fusions' gates move from the second step on, some less than float32 shows.
    idle = {"backbone.0.bias", "backbone.3.bias"}
    assert {name for name in before if not name.startswith("fusion")} - idle <= moved(before, run.network)
    assert all(
        p.grad is not None and p.grad.abs().max() > 0 for n, p in run.network.named_parameters() if n not in idle
    )


def test_a_weight_step_is_clipped_sgd() -> None:
    network = FrameNetwork(tiny_network(), None).eval()
    run = bilevel(network, grad_clip=0.01, weight_decay=0.5)
    twin = copy.deepcopy(network)
    images, labels = batch()
    cross_entropy(twin(run.cell(images).detach()), labels).backward()
    norm = torch.stack([p.grad.norm() for p in twin.parameters() if p.grad is not None]).norm()
    assert norm > 0.01
    run.weight_step(images, labels)
    for name, value in network.named_parameters():
        old = twin.get_parameter(name)
        assert old.grad is not None
        decay = 0.5 * old if old.ndim > 1 else 0
        assert torch.allclose(value, old - 0.025 * (old.grad * 0.01 / (norm + 1e-6) + decay), atol=1e-6), name


def test_a_network_with_nothing_to_train_takes_tau_steps_only() -> None:
    network = FrameNetwork(tiny_network(), None)
    network.requires_grad_(False)
    run = bilevel(network)
    before, start = parameters(network), run.cell.tau.detach().clone()
    assert run.weight_step(*batch()).isfinite()
    run.tau_step(*batch())
    assert moved(before, network) == set()
    assert not torch.equal(run.cell.tau, start)


def test_the_fused_network_starts_as_the_mean_over_the_frames() -> None:
    backbone = tiny_network().eval()
    network = build_network(backbone, "gsf", residual=True, input_size=(1, 12, 16))
    clip = torch.rand(2, 3, 1, 12, 16)
    expected = backbone(clip.flatten(0, 1)).view(2, 3, 3).mean(1)
    assert torch.allclose(network(clip), expected, atol=1e-6)
    assert len(list(network.fusion.parameters())) > 0  # type: ignore[union-attr]
    mixed = build_network(backbone, "tsm", residual=True, input_size=(1, 12, 16))
    assert not torch.allclose(mixed(clip), expected, atol=1e-4)
    assert torch.equal(backbone(clip[:, 0]), tiny_network().eval()(clip[:, 0]))


def test_frames_come_in_channels_last_where_asked() -> None:
    seen: list[bool] = []

    class Look(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return x.mean((2, 3))

    for channels_last in (True, False):
        FrameNetwork(Look(), None, channels_last=channels_last)(torch.rand(2, 3, 4, 8, 8).flip(0))
    assert seen == [True, False]


def test_a_backbone_that_is_no_classifier_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (x,)

    with pytest.raises(InputTypeError, match="returned tuple"):
        FrameNetwork(Pair(), None)(torch.rand(2, 3, 1, 4, 4))
    with pytest.raises(InputError, match=r"returned shape \(6, 1, 4, 4\) for 6 frames"):
        FrameNetwork(nn.Identity(), None)(torch.rand(2, 3, 1, 4, 4))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_loss_that_is_not_finite_is_named_by_its_step(device: str) -> None:
    watch = LossWatch("training", 40, torch.device(device))
    losses = [1.0, 2.0, float("inf"), 1.0]
    with pytest.raises(StateError, match="the training loss is inf at step 42"):  # noqa: PT012
        for loss in losses:
            watch.add(torch.tensor(loss))
        watch.mean()


def test_the_watch_averages() -> None:
    watch = LossWatch("training", 0, torch.device("cuda"))
    for loss in range(30):
        watch.add(torch.tensor(float(loss)))
    assert watch.latest == 24
    assert watch.mean() == 14.5
    assert watch.latest == 29


def test_the_rate_falls_from_high_to_low() -> None:
    rates = [cosine(0.025, 0.001, epoch, 10) for epoch in range(11)]
    assert rates[0] == 0.025
    assert rates[5] == pytest.approx(0.013)
    assert rates[10] == pytest.approx(0.001)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"T": 1}, "at least 2 frames"),
        ({"epochs": -1}, "epochs must be"),
        ({"batch_size": 1.5}, "batch_size must be"),
        ({"criterion": "f1"}, "unknown criterion 'f1'"),
        ({"validation_share": 1.0}, "validation_share"),
        ({"lr": 0.0}, "lr_min <= lr"),
        ({"validation_images": 0}, "validation_images"),
        ({"tau_lr": float("nan")}, "tau_lr must be a finite number of at least 0, got nan"),
        ({"grad_clip": -1.0}, "grad_clip"),
        ({"lr": float("inf")}, "learning rate"),
        ({"seed": 1.5}, "seed must be an integer of at least 0, got 1.5"),
    ],
)
def test_bad_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchConfig(**options)
