"""Eq. 1, with candidates that change colours and without; what the former share, and what they must know."""

import pytest
import torch
from torch import Tensor

from image2video import Genotype, Image2Video
from image2video.clip.chain import apply_chain
from image2video.clip.colours import Colours
from image2video.clip.options import ClipOptions
from image2video.clip.schedules import schedule_steps
from image2video.errors import InputError
from image2video.search import Cell, Decisions, SearchSpace, get_space
from image2video.search.cell import warps as cell_warps
from image2video.search.cell.cell import CellTrace
from image2video.search.cell.mixing import mixing_matrix

SIZE = (14, 18)
COLOURS = Colours((0.5, 0.4, 0.45), (0.25, 0.2, 0.3))
SPACES = {
    "two inputs": SearchSpace("a", ("rotate(20)", "color(1.4)", "cutout(0.3)", "identity"), inputs=2, nodes=2),
    "no geometry": SearchSpace("b", ("brightness(1.3)", "invert(0.4)"), nodes=2, schedule="ramp"),
    "chains of both kinds": SearchSpace(
        "c", ("rotate(9) > color(1.3) > scale(0.9)", "sharpness(1.5) > autocontrast(0.5)", "translate_x(0.1)"), nodes=2
    ),
    "sum, mirrored": SearchSpace("d", ("color(1.2)", "identity"), nodes=2, reduce="sum", schedule="mirror"),
    "autoaugment13": get_space("autoaugment13"),
    "affine5": get_space("affine5"),
    "geometric, sum, two inputs, mirrored": SearchSpace(
        "e", ("translate_x(-0.1)", "translate_x(0.05)", "identity"), inputs=2, nodes=2, reduce="sum", schedule="mirror"
    ),
    "ramp, no identity, pairs": SearchSpace("f", ("shear_x(5) > rotate(7)", "scale(0.8)"), nodes=2, schedule="ramp"),
    "centred": SearchSpace("g", ("identity", "rotate(20)"), nodes=3, schedule="centred"),
    "identity alone": SearchSpace("h", ("identity",), nodes=2),
}


def images(count: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normalised images whose colours lie within 0.1 … 0.9, so that no op is clipped at once."""
    unit = 0.1 + 0.8 * torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return COLOURS.to_normalised(unit).to(dtype)


def reference(space: SearchSpace, T: int, x: Tensor, mixing: Tensor) -> Tensor:
    """Every op on every edge by itself, `(B, T, C, H, W)`."""
    steps = schedule_steps(space.schedule, T)
    nodes = [torch.stack([x] * T)] * space.inputs
    for node in range(space.inputs, space.num_nodes):
        total = torch.zeros_like(nodes[0])
        for edge in space.incoming(node):
            source = nodes[space.edges[edge][0]]
            for op, candidate in enumerate(space.candidates):
                total = total + mixing[edge, op] * apply_chain(
                    source, candidate, steps, ClipOptions().with_colours(COLOURS)
                )
        nodes.append(total)
    return nodes[-1].transpose(0, 1)


@pytest.mark.parametrize("name", SPACES)
def test_the_cell_is_equation_1(name: str) -> None:
    space = SPACES[name]
    cell = Cell(space, T=4, generator=torch.Generator().manual_seed(3), colours=COLOURS).double()
    with torch.no_grad():
        cell.tau.mul_(1000)
    x = images(dtype=torch.float64).requires_grad_()
    expected = reference(space, 4, x, cell.mixing())
    clip = cell(x)
    assert clip.shape == (2, 4, 3, *SIZE)
    assert torch.allclose(clip, expected, atol=1e-9)
    weight = torch.rand(clip.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    got = torch.autograd.grad((clip * weight).sum(), [cell.tau, x])
    wanted = torch.autograd.grad((expected * weight).sum(), [cell.tau, x])
    for ours, theirs in zip(got, wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-8)
    assert (wanted[0].abs().max() > 1e-3) == (len(space.candidates) > 1)
    assert wanted[1].abs().max() > 1e-3


def test_the_frame_at_power_0_is_the_image_bit_for_bit() -> None:
    cell = Cell(get_space("autoaugment13"), T=3, generator=torch.Generator().manual_seed(0), colours=COLOURS)
    assert torch.equal(cell(images())[:, 0], images())


class Counted:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chains: list[str] = []
        self._apply = cell_warps.apply_chain
        monkeypatch.setattr(cell_warps, "apply_chain", self)

    def __call__(self, frames: Tensor, chain: Genotype, *rest: object, **options: object) -> Tensor:
        self.chains.append(str(chain))
        return self._apply(frames, chain, *rest, **options)


def test_colours_are_changed_once_per_source_for_all_its_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    Cell(get_space("autoaugment13"), T=3, colours=COLOURS)(images())
    assert len(counted.chains) == 4 * 9  # both inputs are one source; three nodes; 9 ops each


def test_passes_that_share_a_trace_change_colours_once(monkeypatch: pytest.MonkeyPatch) -> None:
    space = SPACES["two inputs"]
    cell = Cell(space, T=3, generator=torch.Generator().manual_seed(0), colours=COLOURS)
    edge = space.incoming(3)[1]
    mixings = [mixing_matrix(cell.tau.detach(), space, masked_op=(edge, op)) for op in range(4)]
    alone = [cell(images(), mixing) for mixing in mixings]
    counted = Counted(monkeypatch)
    trace = CellTrace(3)
    shared = [cell(images(), mixing, trace=trace) for mixing in mixings]
    for a, b in zip(alone, shared, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert len(counted.chains) == 2 * 2
    assert not torch.allclose(shared[0], shared[1], atol=1e-4)


def test_what_has_no_weight_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    space = SPACES["two inputs"]
    cell = Cell(space, T=3, colours=COLOURS)
    decisions = Decisions({0: 1, 1: 3, 2: 0, 3: 0, 4: 3}, {2: 0, 3: 4})
    clip = cell(images(), mixing_matrix(cell.tau.detach(), space, decisions))
    assert counted.chains == ["color(1.4)"]
    expected = Image2Video("color(1.4)", T=3, mean=COLOURS.mean, std=COLOURS.std)(images())
    assert torch.allclose(clip, expected, atol=1e-5)


def test_colours_must_be_known() -> None:
    with pytest.raises(InputError, match=r"autocontrast.*say how the images are normalised: mean=…, std=…"):
        Cell(get_space("autoaugment13"), T=3)


def test_grey_images_have_one_channel() -> None:
    cell = Cell(SPACES["two inputs"], T=3, colours=Colours((0.5,), (0.25,)))
    assert cell(images()[:, :1]).shape == (2, 3, 1, *SIZE)
