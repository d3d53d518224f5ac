"""Ops: signs and units on asymmetric content, exact powers, and what the registry refuses.

What photometric ops do to pixels stands in test_photometric.py.
"""

import dataclasses
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.clip.ops import registry as ops
from image2video.clip.ops.contract import check_op
from image2video.clip.ops.registry import Op, get_op, op_names, register_op
from image2video.errors import InputError, InputTypeError

H, W = 20, 32
GEOMETRIC = [name for name in op_names() if get_op(name).geometric]
PHOTOMETRIC = [name for name in op_names() if not get_op(name).geometric]


@pytest.fixture(autouse=True)
def _restore_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_REGISTRY", dict(ops._REGISTRY))


def matrix(name: str, magnitude: float, step: float = 1.0, height: int = H, width: int = W) -> Tensor:
    steps = torch.tensor([step], dtype=torch.float64)
    function = get_op(name).matrix
    return function(torch.tensor(magnitude, dtype=torch.float64), steps, height, width)[0]


def moved(name: str, magnitude: float, x: float, y: float) -> tuple[float, float]:
    point = matrix(name, magnitude) @ torch.tensor([x, y, 1.0], dtype=torch.float64)
    return point[0].item(), point[1].item()


@pytest.mark.parametrize(
    ("name", "magnitude", "expected"),
    [
        ("translate_x", 0.25, (3 + 8, 2)),  # right by a quarter of the width
        ("translate_y", 0.25, (3, 2 + 5)),  # down by a quarter of the height
        ("rotate", 90, (2, -3)),  # counter-clockwise on the screen: what stood right of the centre goes up
        ("rotate", 30, (3 * math.cos(math.pi / 6) + 1, -1.5 + 2 * math.cos(math.pi / 6))),
        ("scale", 2, (6, 4)),
        ("shear_x", 45, (5, 2)),  # what stands below the centre goes right
        ("shear_y", 45, (3, 5)),
        ("identity", 0, (3, 2)),
    ],
)
def test_where_a_point_goes(name: str, magnitude: float, expected: tuple[float, float]) -> None:
    assert moved(name, magnitude, 3, 2) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in GEOMETRIC if not name.startswith(("shear", "flip"))])
def test_half_a_power_twice_is_one(name: str) -> None:
    half = matrix(name, get_op(name).default, 0.5)
    assert torch.allclose(half @ half, matrix(name, get_op(name).default), atol=1e-12)


def test_default_steps_and_ranges_are_those_of_the_method() -> None:
    table = {name: (get_op(name).default, get_op(name).low, get_op(name).high) for name in op_names()}
    assert table == {
        "translate_x": (0.06, -1, 1),
        "translate_y": (0.06, -1, 1),
        "rotate": (10, -180, 180),
        "scale": (1.1, 0.25, 4),
        "shear_x": (5, -80, 80),
        "shear_y": (5, -80, 80),
        "flip_x": (1, 1, 1),
        "flip_y": (1, 1, 1),
        "identity": (0, 0, 0),
        "autocontrast": (1, 0, 1),
        "invert": (1, 0, 1),
        "equalize": (1, 0, 1),
        "solarize": (0.1, 0, 1),
        "posterize": (1, 0, 7),
        "color": (1.2, 0.25, 4),
        "brightness": (1.1, 0.25, 4),
        "contrast": (1.1, 0.25, 4),
        "sharpness": (1.3, 0.25, 4),
        "cutout": (0.25, 0, 1),
    }
    assert len(PHOTOMETRIC) == 10
    assert {name for name in op_names() if get_op(name).gradient == "straight_through"} == {
        "equalize",
        "solarize",
        "posterize",
    }
    assert get_op("shear_x").open_ends
    assert not get_op("rotate").open_ends


def test_check_gives_the_float_or_says_what_is_wrong() -> None:
    assert get_op("rotate").check(-180) == -180.0
    assert math.copysign(1, get_op("rotate").check(-0.0)) == 1
    for magnitude in (math.nan, math.inf, 10**400):
        with pytest.raises(InputError, match="rotate must be finite"):
            get_op("rotate").check(magnitude)
    with pytest.raises(InputError, match=r"scale must lie in 0\.25 … 4 \(factor\), got 5"):
        get_op("scale").check(5)
    with pytest.raises(InputError, match=r"-80 … 80 degrees \(ends excluded\), got 80"):
        get_op("shear_y").check(80)
    for wrong in (True, "10", None, [1.0]):
        with pytest.raises(InputTypeError, match="magnitude of rotate must be a number"):
            get_op("rotate").check(wrong)


def test_unknown_ops_name_the_closest() -> None:
    with pytest.raises(InputError, match=r"unknown op 'rotat'; did you mean 'rotate'.*translate_x, translate_y"):
        get_op("rotat")
    with pytest.raises(InputTypeError, match="named by a string"):
        get_op(3)


@dataclasses.dataclass
class Growth:
    """A matrix function with a state, and without a hash."""

    power: float

    def __call__(self, magnitude: float, steps: torch.Tensor, height: int, width: int) -> torch.Tensor:
        sizes = (magnitude**self.power) ** steps
        return torch.diag_embed(torch.stack([sizes, sizes, torch.ones_like(sizes)], dim=1))


def test_the_matrix_of_an_op_may_be_an_object_with_a_state() -> None:
    growth = Growth(1.0)
    register_op(dataclasses.replace(get_op("scale"), name="growth", matrix=growth))
    assert Image2Video("growth(1.5)", T=3)(torch.rand(1, 3, 4, 4)).shape == (1, 3, 3, 4, 4)
    growth.power = 400.0
    with pytest.raises(InputError, match="is singular"):
        Image2Video("growth(1.5)", T=3)


def test_an_op_can_be_added_once() -> None:
    op = dataclasses.replace(get_op("scale"), name="zoom")
    assert register_op(op) is op
    assert get_op("zoom") is op
    assert op_names()[-1] == "zoom"
    with pytest.raises(InputError, match="'zoom' is registered already"):
        register_op(op)
    with pytest.raises(InputTypeError, match="takes an Op, got str"):
        register_op("zoom")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Zoom-in"}, "lower-case"),
        ({"default": math.nan}, "finite"),
        ({"default": 5.0}, "default of op 'zoom' must lie in its range .*, got 5"),
        ({"neutral": 0.0}, "neutral of op 'zoom' must lie in its range .*, got 0"),
        ({"neutral": 1.5}, "neutral magnitude 1.5"),
        ({"matrix": lambda m, s, h, w: torch.eye(3)}, r"must give \(S, 3, 3\)"),
        ({"matrix": lambda m, s, h, w: torch.eye(3, dtype=torch.float64).expand(2, 3, 3) * m}, "last row"),
        ({"matrix": lambda m, s, h, w: get_op("scale").matrix(m, s + 1, h, w)}, "at step 0"),
        ({"matrix": lambda m, s, h, w: None}, "gave NoneType"),
        ({"matrix": None}, "one of the two; got neither"),
        ({"pixels": get_op("invert").pixels}, "one of the two; got both"),
        ({"gradient": "straight_through"}, "is geometric; its gradient is exact"),
        ({"gradient": "none"}, "gradient 'none' of op 'zoom' must be one of exact, straight_through"),
    ],
)
def test_malformed_ops_are_refused(change: dict[str, object], message: str) -> None:
    op = dataclasses.replace(get_op("scale"), **{"name": "zoom", **change})
    with pytest.raises(InputError, match=message):
        register_op(op)
    assert "zoom" not in op_names()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("scale", {"shifts": -1}, "shifts images: its neutral must be 0, got 1"),
        ("rotate", {"shifts": -1}, "at step 1 its matrix must shift the axis -1 by 10 of its size"),
        ("translate_x", {"shifts": -2}, "at step 1 its matrix must shift the axis -2 by 0.06 of its size"),
        ("translate_x", {"shifts": 1}, "must be the axis of a geometric op, -1 or -2, got 1"),
        ("flip_x", {"shifts": -1}, "must be the axis of a geometric op"),
        ("invert", {"shifts": -1}, "must be the axis of a geometric op"),
    ],
)
def test_an_op_that_says_wrong_things_of_its_shifts_is_refused(
    name: str, change: dict[str, object], message: str
) -> None:
    op = dataclasses.replace(get_op(name), **{"name": "slide", **change})
    with pytest.raises(InputError, match=message):
        register_op(op)
    assert "slide" not in op_names()


def _in_place(images: Tensor, magnitude: float, step: float) -> Tensor:
    return images.detach().mul_(1 - step * magnitude / 4)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (lambda x, m, s: x.double() * m**s, r"at step 1, images \(2, 3, 5, 7\) torch.float32 gave .*torch.float64"),
        (lambda x, m, s: x[..., 1:], r"must keep shape and dtype; at step 1, .* gave \(\(2, 3, 5, 6\)"),
        (lambda x, m, s: None, "gave NoneType"),
        (lambda x, m, s: x * m**s, r"at step 1 pixels\(\) must stay in 0 … 1, got 0 … 1.1"),
        (lambda x, m, s: x - float(s < 0), r"at step -2 pixels\(\) must stay in 0 … 1, got -1 … 0"),
        (lambda x, m, s: x * math.nan, "must stay in 0 … 1, got nan"),
        (lambda x, m, s: x * 0.5, r"at step 0 pixels\(\) must give back the images"),
        (lambda x, m, s: x * 0.5 ** abs(s), r"at its neutral magnitude 1 pixels\(\) must give back the images"),
        (lambda x, m, s: x.detach() * min(m ** -abs(s), 1.0), "no gradient passes .*gradient='straight_through'"),
        (_in_place, r"at step 1 pixels\(\) changed its argument"),
    ],
)
def test_photometric_ops_that_break_their_contract_are_refused(pixels: Any, message: str) -> None:
    op = Op("fade", "(factor)", 1.1, 0.25, 4, 1, pixels=pixels)
    with torch.no_grad(), pytest.raises(InputError, match=message):
        register_op(op)
    assert "fade" not in op_names()


def test_an_op_of_ones_own_changes_colours_with_its_gradient_rule() -> None:
    def fade(images: Tensor, magnitude: float, step: float) -> Tensor:
        return 0.5 + (images - 0.5) * min(magnitude ** abs(step), 1.0)

    for gradient, slope in (("exact", 0.25), ("straight_through", 1.0)):
        with torch.device("meta"):
            op = register_op(Op(f"fade_{gradient}", "(factor)", 0.5, 0.25, 1, 1, pixels=fade, gradient=gradient))
        assert not op.geometric
        images = torch.rand(1, 1, 2, 2).requires_grad_()
        out = op.apply(images, 0.5, -2.0)
        assert torch.allclose(out, 0.375 + images * 0.25)
        out.sum().backward()
        assert torch.equal(images.grad, torch.full_like(images, slope))
    assert str(Genotype.parse("fade_exact(0.5) > rotate(3)")) == "fade_exact(0.5) > rotate(3)"


@pytest.mark.parametrize("name", op_names())
def test_our_own_ops_keep_the_contract(name: str) -> None:
    check_op(get_op(name))


def test_ops_pickle() -> None:
    for name in ("rotate", "solarize"):
        op: Op = pickle.loads(pickle.dumps(get_op(name)))
        assert op == get_op(name)
