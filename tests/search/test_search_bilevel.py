"""The two steps of the search: each moves what it should, by the gradient that it should."""

import copy
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from search_cases import bilevel, blobs, smooth_network, tiny_network
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from image2video.errors import Image2VideoError, InputError, StateError
from image2video.search import SearchConfig, search
from image2video.search.cell.draw import Draw
from image2video.search.optimise.bilevel import Bilevel
from image2video.search.optimise.schedule import cosine, linear, work_share
from image2video.search.optimise.watch import LossWatch
from image2video.search.run import _check_accelerator
from image2video.search.score.network import FrameNetwork, build_network, predictions
from image2video.search.score.task import ClassificationTask


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    data = blobs(12, seed)
    return data.images, data.labels


def logits(network: nn.Module, clip: Tensor) -> Tensor:
    return predictions(network, clip, ClassificationTask(), lambda maps: maps)


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def moved(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {name for name, value in module.named_parameters() if not torch.equal(before[name], value)}


def test_a_tau_step_moves_tau_alone_and_along_its_gradient() -> None:
    run = bilevel(copy.deepcopy(FrameNetwork(tiny_network(), None)).eval())
    before, start = parameters(run.network), run.cell.tau.detach().clone()
    images, labels = batch()
    twin = copy.deepcopy(run.cell)
    loss = cross_entropy(logits(run.bare, twin(images)), labels)
    loss.backward()
    run.network.zero_grad(set_to_none=True)
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
    with torch.random.fork_rng():
        torch.manual_seed(0)
        run = bilevel(build_network(tiny_network(), "gsf", residual=True, input_size=(1, 12, 16)))
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
    cross_entropy(logits(twin, run.cell(images).detach()), labels).backward()
    norm = torch.stack([p.grad.norm() for p in twin.parameters() if p.grad is not None]).norm()
    assert norm > 0.01
    run.weight_step(images, labels)
    for name, value in network.named_parameters():
        old = twin.get_parameter(name)
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
    assert torch.allclose(logits(network, clip), expected, atol=1e-6)
    assert len(list(network.fusion.parameters())) > 0
    mixed = build_network(backbone, "tsm", residual=True, input_size=(1, 12, 16))
    assert not torch.allclose(logits(mixed, clip), expected, atol=1e-4)
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
    rates = [cosine(0.025, 0.001, epoch / 10) for epoch in range(11)]
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
        ({"accumulate": 0}, "accumulate must be an integer of at least 1, got 0"),
        ({"orders": True}, "orders must be an integer of at least 1, got True"),
        ({"second_order": "yes"}, "second_order must be True or False, got 'yes'"),
        ({"checkpoint_activations": 1}, "checkpoint_activations must be True or False, got 1"),
        ({"relaxation": "path"}, "unknown relaxation 'path'; choose one of mixture, single_path"),
        ({"temperature": 0.0}, "temperature must be a finite number above 0, got 0.0"),
        ({"temperature": 0.1}, "temperature_min <= temperature, got temperature=0.1, temperature_min=0.5"),
        ({"temperature_min": None}, "temperature_min must be a finite number above 0, got None"),
        ({"magnitudes_per": "op"}, "unknown magnitudes_per 'op'; choose one of node, edge"),
        ({"magnitude_lr": -1.0}, "magnitude_lr must be"),
        ({"magnitude_bound": 0.5}, "magnitude_bound must be a finite number of at least 1"),
        ({"max_images": 0}, "max_images must be an integer of at least 1 or None, got 0"),
        ({"max_minutes": 0.0}, "max_minutes must be a finite number above 0, got 0.0"),
        ({"stop_early": -2.0}, "stop_early must be a finite number above 0, got -2.0"),
        ({"tau_betas": (0.5, 1.0)}, "tau_betas must be two numbers"),
        ({"tau_betas": 0.5}, "tau_betas must be two numbers"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, got 1.0"),
    ],
)
def test_bad_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchConfig(**options)


@pytest.mark.parametrize("images", [12, 11])
@pytest.mark.parametrize("options", [{}, {"second_order": True}])
def test_accumulated_pieces_are_one_batch(images: int, options: dict) -> None:
    ends, sizes = [], []
    for pieces in (1, 3):
        run = bilevel(
            FrameNetwork(smooth_network().double(), None), accumulate=pieces, batch_size=12 // pieces, lr=0.5, **options
        )
        seen: list[int] = []
        run.bare.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(len(args[0])))
        for seed in range(3):
            (x, y), (u, v) = batch(seed), batch(seed + 5)
            held, train = (x[:images].double(), y[:images]), (u[:images].double(), v[:images])
            losses = torch.stack([run.tau_step(*held, train), run.weight_step(*train)])
        ends.append([run.cell.tau.detach(), losses, *run.network.parameters()])
        sizes.append(seen)
    assert set(sizes[0]) == {images}
    assert max(sizes[1]) == 4
    assert len(sizes[1]) == 3 * len(sizes[0])
    for whole, pieced in zip(*ends, strict=True):
        assert torch.allclose(whole, pieced, rtol=1e-10, atol=1e-13)


@pytest.mark.filterwarnings("ignore:.*chose the identity:UserWarning")
def test_batches_of_a_search_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"T": 3, "epochs": 3, "selection": "argmax", "device": "cpu", "fusion": "none"}
    config |= {"lr": 0.3, "tau_lr": 0.3}
    counts: list[int] = []
    original = Bilevel.weight_step

    def spy(self: Bilevel, images: Tensor, labels: Tensor, *rest: Tensor) -> Tensor:
        counts.append(len(labels))
        return original(self, images, labels, *rest)

    monkeypatch.setattr(Bilevel, "weight_step", spy)
    runs = [
        search(smooth_network(), blobs(120, 0), SearchConfig(**config, **sizes))
        for sizes in ({"batch_size": 32}, {"batch_size": 16, "accumulate": 2})
    ]
    assert counts == 6 * [32, 28]
    ends = [torch.tensor(run.state.steps[-1]["tau"]) for run in runs]
    assert torch.allclose(*ends, atol=1e-4)
    assert not torch.allclose(ends[0], torch.tensor(runs[0].state.steps[0]["tau"]), atol=1e-2)
    assert runs[0].frames == runs[1].frames


def test_a_single_path_trains_what_it_draws() -> None:
    run = bilevel(FrameNetwork(tiny_network(), None).eval(), relaxation="single_path", tau_weight_decay=0.0)
    draw = Draw(1.0, 5)
    mixing, active = draw.path(run.cell.tau, run.cell.space)
    again, _ = draw.path(run.cell.tau, run.cell.space)
    assert torch.equal(mixing, again)
    assert (mixing != 0).sum(dim=1).tolist() == [1] * len(run.cell.space.edges)
    assert all(mixing[edge, op] != 0 for edge, op in enumerate(active))
    assert {Draw(1.0, seed).path(run.cell.tau, run.cell.space)[1] for seed in range(9)} > {active}
    images, labels = batch()
    loss = cross_entropy(logits(run.bare, run.cell(images, mixing.detach())), labels)
    start = run.cell.tau.detach().clone()
    assert run.tau_step(images, labels, None, draw).item() == pytest.approx(loss.item(), rel=1e-5)
    assert not torch.equal(run.cell.tau, start)
    before = parameters(run.network)
    assert run.weight_step(images, labels, mixing.detach(), active).item() == pytest.approx(loss.item(), rel=1e-5)
    assert moved(before, run.network)


def test_a_search_draws_anew_in_every_step_and_cools(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Draw] = []
    original = Draw.path
    monkeypatch.setattr(Draw, "path", lambda self, *args: drawn.append(self) or original(self, *args))
    options = {"T": 3, "epochs": 3, "batch_size": 16, "selection": "argmax", "device": "cpu"}
    config = SearchConfig(relaxation="single_path", temperature=4.0, temperature_min=1.0, **options)
    search(tiny_network(), blobs(60, 0), config)
    assert len({draw.seed for draw in drawn}) == len(drawn) == 2 * 3 * 2  # for τ and for the weights
    assert [draw.temperature for draw in drawn] == 4 * [4.0] + 4 * [3.0] + 4 * [2.0]
    assert (linear(4.0, 1.0, 0.0), linear(4.0, 1.0, 1.0)) == (4.0, 1.0)


def test_magnitudes_are_trained_beside_tau() -> None:
    options = {"learn_magnitudes": True, "magnitude_bound": 1.5, "magnitude_lr": 0.25, "tau_lr": 0.5}
    run = bilevel(FrameNetwork(tiny_network(), None).eval(), **options)
    tau, magnitudes = run.cell.outer_parameters()
    assert torch.equal(magnitudes, torch.ones_like(magnitudes))
    run.tau_step(*batch())
    # Adam's first step has the length of its rate; no decay pulls them to 0.
    assert torch.allclose((magnitudes - 1).abs(), torch.full_like(magnitudes, 0.25), atol=1e-3)
    assert torch.allclose(tau.abs().median(), torch.tensor(0.5), atol=1e-3)
    for _ in range(5):
        run.tau_step(*batch())
        run.weight_step(*batch())
    assert magnitudes.abs().max() == 1.5
    assert tau.grad is None
    assert magnitudes.grad is None


@pytest.mark.parametrize(
    ("done", "total", "spent", "share"),
    [
        (0, 10, 0.0, 0.0),
        (5, 10, 0.0, 0.5),
        (1, 10, 0.3, 0.5),
        (3, 10, 0.2, 0.3),
        (0, 10, 0.05, 0.0),
        (9, 10, 0.3, 0.9),
        (0, 10, 0.9, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_rates_follow_the_steps_or_the_budget(done: int, total: int, spent: float, share: float) -> None:
    assert work_share(done, total, spent, 0.0, 0.6) == pytest.approx(share)
    assert work_share(0, 10, 0.75, 0.6, 0.9) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("accelerator", "message"),
    [
        ((2, DistributedType.NO), "give accumulate=2 to the search"),
        ((1, DistributedType.FSDP), "shares out images, not the model: FSDP is not supported"),
    ],
)
def test_accelerators_that_do_the_work_otherwise_are_refused(accelerator: tuple, message: str) -> None:
    steps, kind = accelerator
    with pytest.raises(Image2VideoError, match=message):
        _check_accelerator(SimpleNamespace(gradient_accumulation_steps=steps, distributed_type=kind))
