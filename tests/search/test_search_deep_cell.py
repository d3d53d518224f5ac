"""Cells at several places of a network: what they do there, and how it comes back."""

from __future__ import annotations

import pytest
import torch
from deep_search_cases import SIZE, SPACE, cell_at, clip_of, one_hot, stages, video_of
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import interpolate

from image2video import VideoWrap, plan
from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError, InputTypeError
from image2video.search import DeepCell, DeepSpace, SearchSpace, get_space
from image2video.search.cell.mixing import single_path_mixing
from image2video.search.score.network import FrameNetwork, build_network, predictions
from image2video.search.score.task import ClassificationTask

PLACES = [("image", "2"), ("image", "2", "4"), ("2", "4"), ("2",)]


def images(count: int = 2, size: tuple[int, int, int] = SIZE) -> Tensor:
    return torch.rand(count, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def network(places: tuple[str, ...], fusion: str = "none") -> FrameNetwork:
    return build_network(stages().double(), fusion, residual=True, input_size=SIZE, places=places).eval()


def logits(net: FrameNetwork, cell: DeepCell, x: Tensor, *args: object, **how: object) -> Tensor:
    view = cell.view(x, *args, **how)
    return predictions(net, view.inputs, ClassificationTask(), view.unwarp, view.maker)


@pytest.mark.parametrize("padding", ["zeros", "reflection"])
@pytest.mark.parametrize("places", PLACES)
def test_one_op_per_edge_is_the_clip_at_these_places(places: tuple[str, ...], padding: str) -> None:
    cell, x = cell_at(places, padding=padding), images()
    for ops in ((0, 1, 0), (1, 0, 2), (2, 2, 1)):
        ops = ops[: len(places)]
        model = VideoWrap(
            *(stages().double(), "none"),
            **{"genotype": clip_of(cell.space, ops), "T": 3, "schedule": "from_zero", "padding": padding},
            input_size=SIZE,
        )
        with torch.no_grad():
            found = logits(network(places), cell, x, one_hot(cell.space, ops))
            torch.testing.assert_close(found, model(x), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("places", PLACES)
def test_frames_at_every_place_are_those_of_the_clip(places: tuple[str, ...]) -> None:
    cell, ops = cell_at(places), (0, 1, 0)[: len(places)]
    video = video_of(cell.space, ops)
    view, x = cell.view(images(), one_hot(cell.space, ops)), images()
    inside, made = [place for place in places if place != "image"], video.frames_of_call()
    rows = x
    if places[0] == "image":
        rows = view.inputs.flatten(0, 1)
        torch.testing.assert_close(rows, made.image_frames(x), atol=1e-9, rtol=1e-9)
    for number in range(len(inside)):
        rows = interpolate(rows, (6 - number, 8)).tanh()  # maps of some network
        expected = made.place_frames(number, rows, SIZE[1:])
        rows = view.maker.place_frames(number, rows, SIZE[1:])
        torch.testing.assert_close(rows, expected, atol=1e-9, rtol=1e-9)
    assert view.maker.counts == made.counts
    assert view.maker.parents_at(0) == made.parents_at(0)


def test_the_mixture_is_the_weighted_sum_at_every_place() -> None:
    cell, maps = cell_at(("image", "2")), torch.rand(6, 2, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        cell.tau += torch.randn(cell.tau.shape, generator=torch.Generator().manual_seed(1))
    weights = torch.softmax(cell.tau.detach().double(), -1)[1]
    expected = sum(
        weight * video_of(cell.space, (0, op)).frames_of_call().place_frames(0, maps, (10, 14))
        for op, weight in enumerate(weights)
    )
    found = cell.view(images(), cell.mixing().detach().double()).maker.place_frames(0, maps, (10, 14))
    torch.testing.assert_close(found, expected)


def test_places_at_rest_leave_the_frames_as_they_are() -> None:
    cell, x = cell_at(("image", "2", "4")), images()
    net, matrix = network(("image", "2", "4")), one_hot(cell_at(("image", "2", "4")).space, (0, 1, 0))
    with torch.no_grad():
        for resting in ((0,), (0, 1), (0, 1, 2), (1,)):
            ops = tuple(2 if place in resting else op for place, op in enumerate((0, 1, 0)))
            found = logits(net, cell, x, matrix, resting=resting)
            torch.testing.assert_close(found, logits(net, cell, x, one_hot(cell.space, ops)), atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(logits(net, cell, x, matrix, resting=(0, 1, 2)), stages().double()(x))


@pytest.mark.parametrize("places", [("image", "2"), ("2",), ("2", "4")])
@pytest.mark.parametrize("per", ["node", "edge"])
def test_logits_are_differentiable_in_tau_and_magnitudes_of_every_place(places: tuple[str, ...], per: str) -> None:
    space = SearchSpace("two", ("rotate(8)", "identity"), nodes=2)
    cell = cell_at(places, space, learn_magnitudes=True, magnitudes_per=per, padding="reflection").double()
    net, x = network(places, "tsm"), images(1)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self) -> Tensor:
            return logits(net, self.cell, x, frozen=False)

    def of(tau: Tensor, values: Tensor) -> Tensor:
        return functional_call(Logits(), {"cell.tau": tau, "cell.magnitudes": values}, ())

    start = (1 + 0.1 * torch.randn(cell.magnitudes.shape, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(of, (cell.tau.detach().requires_grad_(), start))
    grads = torch.autograd.grad(of(cell.tau, start).square().sum(), [cell.tau, start])
    edges = len(space.edges)
    for place in range(len(places)):
        assert grads[0][place * edges : (place + 1) * edges].abs().max() > 0


def test_a_frozen_view_gives_tau_no_gradient_and_the_network_all_of_its_own() -> None:
    cell, net = cell_at(("2",), learn_magnitudes=True).double(), network(("2",))
    logits(net, cell, images()).sum().backward()
    assert cell.tau.grad is None
    assert cell.magnitudes.grad is None
    assert all(parameter.grad.abs().max() > 0 for parameter in net.parameters())


@pytest.mark.parametrize("places", PLACES)
def test_a_checkpointed_view_has_the_same_gradients(places: tuple[str, ...]) -> None:
    cell, net = cell_at(places).double(), network(places, "tsm")
    found = []
    for checkpointed in (False, True):
        loss = logits(net, cell, images(), frozen=False, checkpointed=checkpointed).square().sum()
        found.append(torch.autograd.grad(loss, [cell.tau, *net.parameters()]))
    for plain, again in zip(*found, strict=True):
        assert torch.equal(plain, again)


def test_a_drawn_path_is_computed_alone() -> None:
    cell, x = cell_at(("image", "2"), get_space("affine5")), images()
    matrix, active = single_path_mixing(cell.tau.detach(), cell.space, 1.0, torch.Generator().manual_seed(5))
    net = network(("image", "2"))
    with torch.no_grad():
        found = logits(net, cell, x, matrix.double(), active=active)
        torch.testing.assert_close(found, logits(net, cell, x, matrix.double()))
    assert len(active) == 20


def shifts(T: int = 3) -> DeepCell:
    """Shifts by whole pixels, for which one sampling after the other is one sampling."""
    return cell_at(
        ("image", "2"), SearchSpace("s", ("translate_x(0.25)", "translate_y(-0.25)", "identity"), nodes=1), T
    )


@pytest.mark.parametrize("ops", [(0, 1), (1, 0), (0, 0), (2, 1), (1, 2)])
def test_maps_come_back_by_the_composition_of_all_places(ops: tuple[int, int]) -> None:
    cell = shifts()
    maps = torch.rand(6, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    back = cell.view(torch.rand(2, 1, 16, 16, dtype=torch.float64), one_hot(cell.space, ops)).unwarp(maps)
    video = video_of(cell.space, ops)
    expected = video.at_maps((None, (4, 4))).unwarped_mean(maps, (16, 16))
    torch.testing.assert_close(back, expected, atol=1e-9, rtol=1e-9)


def test_the_way_back_without_a_still_frame_is_filled_by_the_nearest() -> None:
    space = SearchSpace("r", ("translate_x(0.25)", "identity"), nodes=1, schedule="ramp")
    cell = cell_at(("image", "2"), space)
    maps = torch.rand(6, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    back = cell.view(torch.rand(2, 1, 16, 16, dtype=torch.float64), one_hot(cell.space, (0, 0))).unwarp(maps)
    assert back.isfinite().all()
    constant = cell.view(torch.rand(2, 1, 16, 16), None).unwarp(torch.full((6, 2, 8, 8), 0.7))
    torch.testing.assert_close(constant, torch.full((2, 2, 8, 8), 0.7))


def test_what_cannot_be_at_a_place_is_refused() -> None:
    with pytest.raises(InputError, match=r"'autoaugment13' cannot be searched inside of the network: .* colours"):
        DeepSpace(get_space("autoaugment13"), ("image", "2"))
    DeepSpace(get_space("autoaugment13"), ("image",))
    with pytest.raises(InputError, match="needs one at least, got none"):
        DeepSpace(SPACE, ())
    cell = cell_at(("image", "2"))
    with pytest.raises(InputError, match=r"must be \(edges, candidates\) = \(2, 3\), got \(1, 3\)"):
        cell.view(images(), torch.ones(1, 3))
    with pytest.raises(InputError, match="takes images"):
        cell.view(images()[0])
    with pytest.raises(InputTypeError, match="takes float images"):
        cell.view(images().long())
    with pytest.raises(InputError, match="needs an interpolation with a gradient"):
        cell_at(("2",), learn_magnitudes=True, interpolation="nearest")


def test_edges_and_nodes_are_numbered_place_by_place() -> None:
    space = DeepSpace(SearchSpace("two inputs", ("rotate(5)", "identity"), inputs=2, nodes=2), ("image", "a", "b"))
    assert space.inputs == 6
    assert space.num_nodes == 12
    assert len(space.edges) == 15
    assert space.size == 2**15
    for edge, (source, target) in enumerate(space.edges):
        place, number = space.place_of(edge)
        assert space.place_of_node(target)[0] == space.place_of_node(source)[0] == place
        local = (space.place_of_node(source)[1], space.place_of_node(target)[1])
        assert local == space.cell.edges[number]
        assert (space.node(place, local[0]), space.node(place, local[1])) == (source, target)
    assert {space.node(p, n) for p in range(3) for n in range(4)} == set(range(12))
    for node in range(6, 12):
        place, number = space.place_of_node(node)
        assert space.incoming(node) == tuple(place * 5 + e for e in space.cell.incoming(number))
    assert space.edge_name(7) == "a: 0-3"


def test_a_cell_at_one_place_makes_what_the_clip_there_makes() -> None:
    cell, maps = cell_at(("2",)), torch.rand(2, 4, 6, 8, dtype=torch.float64)
    made = cell.view(images(), one_hot(cell.space, (0,))).maker.map_frames(maps, SIZE[1:], 3)
    video = Image2Video(cell.space.candidates[0], T=3, padding="zeros")
    torch.testing.assert_close(made, video.map_frames(maps, SIZE[1:], 3), atol=1e-9, rtol=1e-9)
    assert plan(stages(), fusion="none", input_size=SIZE, clip_at="2").places == ("2",)
