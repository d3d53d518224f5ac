"""Norms on the statistics of a batch, and the batches that scores are taken on."""

import math
from pathlib import Path

import pytest
import timm.layers
import torch
from accelerate import Accelerator
from search_cases import Arrays, blobs, config, launch, tiny_network
from torch import Tensor, nn

from image2video.clip.image_to_video import frames_to_clip
from image2video.errors import InputError
from image2video.runs.folders import torch_load
from image2video.search import SearchConfig, SearchSpace
from image2video.search.cell.mixing import mixing_matrix
from image2video.search.epochs import search_epoch
from image2video.search.run import SearchRun
from image2video.search.score.batch_statistics import batch_statistics
from image2video.search.score.even_batches import even_batches, number_of_batches
from image2video.search.score.network import build_network, in_mode
from image2video.search.setup import Setup

SPACE = SearchSpace("three_for_scores", ("translate_x(0.1)", "rotate(10)", "scale(1.2)"), nodes=2)
NORMS = {
    "torch": lambda: nn.BatchNorm2d(4),
    "cumulative": lambda: nn.BatchNorm2d(4, momentum=None),
    "no affine": lambda: nn.BatchNorm2d(4, affine=False),
    "timm": lambda: timm.layers.BatchNormAct2d(4, act_layer=None),
    "sync": lambda: nn.SyncBatchNorm(4),
}


def moved(norm: nn.Module) -> nn.Module:
    """A norm whose running statistics are far from those of any batch."""
    for name, buffer in norm.named_buffers():
        if name.startswith("running_"):
            buffer.add_(3)
    return norm


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("norm", NORMS)
def test_batch_norms_take_the_statistics_of_the_batch_and_move_nothing(norm: str) -> None:
    network = nn.Sequential(moved(NORMS[norm]()), nn.Dropout(0.5)).eval()
    images = torch.randn(6, 4, 5, 7, generator=torch.Generator().manual_seed(0)) * 2 + 1
    before, running = state(network), network(images)
    with batch_statistics(network):
        found = network(images)
    expected = nn.functional.batch_norm(images, None, None, training=True)  # nothing is dropped either
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(running, expected, atol=0.1)
    assert list(before) == list(state(network))
    assert all(torch.equal(before[name], value) for name, value in state(network).items())
    assert torch.equal(network(images), running)


def test_norms_of_other_libraries_take_them_too() -> None:
    norm = moved(timm.layers.EvoNorm2dB0(4)).eval()
    images = torch.randn(6, 4, 5, 7, generator=torch.Generator().manual_seed(0)) * 2 + 1
    before, running = state(norm), norm(images)
    with batch_statistics(norm), torch.no_grad():
        found = norm(images)
    assert not torch.allclose(found, running, atol=1e-2)
    assert all(torch.equal(before[name], value) for name, value in state(norm).items())
    assert not norm.training
    expected = timm.layers.EvoNorm2dB0(4).train()
    torch.testing.assert_close(found, expected(images))


def test_an_instance_norm_that_averages_is_meant_as_well() -> None:
    norm = moved(nn.InstanceNorm2d(4, track_running_stats=True)).eval()
    images = torch.randn(3, 4, 5, 7)
    before = state(norm)
    with batch_statistics(norm):
        torch.testing.assert_close(norm(images), nn.functional.instance_norm(images))
    assert all(torch.equal(before[name], value) for name, value in state(norm).items())


def test_fixed_statistics_and_norms_of_single_images_stay() -> None:
    network = nn.Sequential(
        moved(timm.layers.FrozenBatchNormAct2d(4, apply_act=False)),
        nn.GroupNorm(2, 4),
        nn.BatchNorm2d(4, track_running_stats=False),
    ).eval()
    images = torch.randn(3, 4, 5, 7)
    plain = network(images)
    with batch_statistics(network):
        assert torch.equal(network(images), plain)
    assert torch.equal(network(images), plain)


def test_all_is_put_back_after_an_error() -> None:
    network = tiny_network()
    network[4].eval()  # a norm whose mode is its own
    modes = [module.training for module in network.modules()]
    before = state(network)
    bad = torch.randn(2, 3, 12, 16)  # of other channels
    with pytest.raises(RuntimeError, match="channels"), in_mode(network, training=False), batch_statistics(network):
        network(bad)
    assert [module.training for module in network.modules()] == modes
    assert all(norm.track_running_stats for norm in network if isinstance(norm, nn.BatchNorm2d))
    assert list(before) == list(network.state_dict())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def running(data: Arrays, **options: object) -> SearchRun:
    network = build_network(tiny_network(), "gsf", residual=True, input_size=(1, 12, 16))
    run = SearchRun(network, Setup(config(**options), SPACE, Accelerator(cpu=True)), data, data)
    search_epoch(run, 0, moves_tau=True)
    return run


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_scores_are_those_of_the_statistics_asked_for_and_change_nothing(statistics: str) -> None:
    data = blobs(60, 0)
    run = running(data, score_statistics=statistics, batch_size=60)
    network = run.bilevel.bare
    before, modes = state(network), [module.training for module in network.modules()]
    mixing = mixing_matrix(run.tau(), SPACE)
    first, second = run.score([mixing, 0.5 * mixing], 1), run.score([mixing], 2)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert first.mean_loss(0) == second.mean_loss(0)
    with torch.no_grad():
        network.eval()
        if statistics == "batch":
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.train()
        logits = frames_to_clip(network(run.cell(data.images, mixing)), run.config.T).mean(1)
    assert first.mean_loss(0) == pytest.approx(nn.functional.cross_entropy(logits, data.labels).item(), abs=1e-5)


def test_batches_of_a_score_are_even_whatever_the_images_give() -> None:
    images = torch.arange(23.0).view(-1, 1)
    source = list(zip(images.split(9), images[:, 0].split(9), strict=True))  # 9, 9, 5
    sizes = [len(labels) for _, labels in even_batches(source, 23, 10)]
    assert sizes == [7, 8, 8]
    joined = torch.cat([x for x, _ in even_batches(source, 23, 10)])
    assert torch.equal(joined, images)
    for processes in (2, 3, 4):
        shares = [list(even_batches(source, 23, 10, (rank, processes))) for rank in range(processes)]
        rounds = math.ceil(number_of_batches(23, 10) / processes)
        assert {len(share) for share in shares} == {rounds}  # all can wait for each other after every batch
        whole = [batch for turn in zip(*shares, strict=True) for batch in turn if len(batch[1])]
        assert [len(labels) for _, labels in whole] == sizes
        assert torch.equal(torch.cat([x for x, _ in whole]), images)
        assert all(x.shape[1:] == (1,) for share in shares for x, _ in share)
    with pytest.raises(InputError, match="say num_images=30, but their batches gave 23"):
        list(even_batches(source, 30, 10))


def test_batches_of_a_score_are_shuffled_and_the_same_every_time() -> None:
    data = blobs(60, 0)
    order = data.labels.argsort(stable=True)  # sorted by class, as folders are
    run = running(Arrays(data.images[order], data.labels[order]), batch_size=20)
    first, again = (torch.stack([labels for _, labels in run._score_batches()]) for _ in range(2))
    assert torch.equal(first, again)
    assert all(len(labels.unique()) == 3 for labels in first)
    assert [len(y) for _, y in running(data, score_batch_size=25)._score_batches()] == [20, 20, 20]


PROCESSES = """
import gc, sys
import torch
from accelerate import Accelerator
from search_cases import blobs, config, tiny_network
from test_search_score_batches import SPACE
from image2video.search.run import SearchRun
from image2video.search.score.network import build_network
from image2video.search.setup import Setup
from image2video.search.cell.mixing import mixing_matrix

torch.set_num_threads(1)

def main():
    accelerator = Accelerator(cpu=True)
    network = build_network(tiny_network(), "none", residual=True, input_size=(1, 12, 16))
    data = blobs(50, 0)
    run = SearchRun(network, Setup(config(batch_size=12), SPACE, accelerator), data, data)
    mixing = mixing_matrix(run.tau(), SPACE)
    mixings = [mixing, 0.5 * mixing]
    scores = run.score(mixings, 1)
    early = run.score(mixings, 1, stop=lambda scores: scores.n >= 20)
    found = [scores.correct, scores.loss, scores.loss_products, torch.tensor(early.n)]
    torch.save(found, f"{sys.argv[1]}.{accelerator.process_index}")
    return accelerator

accelerator = main()
gc.collect()
accelerator.end_training()
"""


def test_two_processes_give_the_scores_of_one_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    assert launch(path, PROCESSES, tmp_path / "one") == 0
    assert launch(path, PROCESSES, tmp_path / "two", processes=2) == 0
    (one,) = [torch_load(tmp_path / "one.0")]
    for rank in (0, 1):
        two = torch_load(tmp_path / f"two.{rank}")
        for a, b in zip(one[:-1], two[:-1], strict=True):
            assert torch.equal(a, b)
        assert (int(one[-1]), int(two[-1])) == (20, 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_statistics": "moving"}, "unknown score_statistics 'moving'; choose one of batch, running"),
        ({"score_batch_size": 0}, "score_batch_size must be an integer of at least 1 or None, got 0"),
        ({"paper": 1}, "paper must be True or False, got 1"),
        ({"paper": True, "score_statistics": "running"}, "paper=True means score_statistics='batch', got 'running'"),
    ],
)
def test_settings_that_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchConfig(**options)


def test_the_published_way_is_one_setting() -> None:
    found = SearchConfig(paper=True)
    assert (found.residual, found.renormalise, found.score_statistics) == (False, False, "batch")
    assert SearchConfig(**{**found.to_dict(), "tau_betas": (0.5, 0.999)}) == found
    ours = SearchConfig()
    assert (ours.residual, ours.renormalise, ours.score_statistics) == (True, True, "batch")
