"""Schedules, chains, inverses and normalised coordinates."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from image2video.clip.matrices import chain_matrices, inverse_affine, normalise
from image2video.clip.ops.registry import get_op, op_names
from image2video.clip.schedules import schedule_steps
from image2video.errors import InputError, InputTypeError

EYE = torch.eye(3, dtype=torch.float64)
MILD = {"scale": (0.5, 2.0), "shear_x": (-40.0, 40.0), "shear_y": (-40.0, 40.0), "identity": (0.0, 0.0)}


def transforms() -> st.SearchStrategy[tuple[str, float]]:
    def magnitude(name: str) -> st.SearchStrategy[tuple[str, float]]:
        op = get_op(name)
        low, high = MILD.get(name, (op.low, op.high))
        return st.tuples(st.just(name), st.floats(low, high))

    return st.sampled_from([name for name in op_names() if get_op(name).geometric]).flatmap(magnitude)


chains = st.lists(transforms(), max_size=5)
sizes = st.tuples(st.integers(1, 300), st.integers(1, 300))


def matrices_of(chain: list[tuple[str, float]], steps: list[float], height: int, width: int) -> Tensor:
    magnitudes = torch.tensor([m for _, m in chain], dtype=torch.float64)
    return chain_matrices([n for n, _ in chain], magnitudes, torch.tensor(steps), height, width)


@pytest.mark.parametrize(
    ("schedule", "T", "steps"),
    [
        ("from_zero", 4, (0, 1, 2, 3)),
        ("ramp", 4, (1, 2, 3, 4)),
        ("centred", 4, (-2, -1, 0, 1)),
        ("centred", 5, (-2, -1, 0, 1, 2)),
        ("mirror", 4, (2, 1, 0, 1)),
        ("mirror", 5, (2, 1, 0, 1, 2)),
        ("from_zero", 1, (0,)),
        ("ramp", 1, (1,)),
        ("centred", 1, (0,)),
        ("mirror", 1, (0,)),
    ],
)
def test_schedules(schedule: str, T: int, steps: tuple[float, ...]) -> None:
    assert schedule_steps(schedule, T) == steps


def test_what_is_no_schedule_of_frames_is_refused() -> None:
    for T in (1.5, 2.0, True, None, "3"):
        with pytest.raises(InputTypeError, match="number of frames, must be an integer"):
            schedule_steps("ramp", T)
    for T in (0, -1):
        with pytest.raises(InputError, match=f"must be at least 1, got {T}"):
            schedule_steps("ramp", T)
    with pytest.raises(InputError, match="unknown schedule 'linear'; choose one of from_zero, ramp, centred, mirror"):
        schedule_steps("linear", 3)


def test_the_first_op_is_applied_first() -> None:
    chain = matrices_of([("translate_x", 0.25), ("rotate", 90.0)], [1.0], 10, 20)[0]
    centre = chain @ torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert torch.allclose(centre, torch.tensor([0.0, -5.0, 1.0], dtype=torch.float64), atol=1e-12)


@settings(deadline=None)
@given(chains, sizes, st.integers(-3, 4))
@example([], (5, 7), 3)
def test_each_op_is_at_its_own_power(chain: list[tuple[str, float]], size: tuple[int, int], step: int) -> None:
    expected = EYE
    for transform in chain:
        one = matrices_of([transform], [1.0], *size)[0]
        expected = torch.linalg.matrix_power(one, step) @ expected
    got = matrices_of(chain, [float(step)], *size)[0]
    assert torch.allclose(got, expected, rtol=1e-8, atol=1e-7 * expected.abs().max().item())


@settings(deadline=None)
@given(chains, sizes, st.floats(-3, 4))
def test_the_closed_form_is_the_inverse(chain: list[tuple[str, float]], size: tuple[int, int], step: float) -> None:
    matrix = matrices_of(chain, [step], *size)
    inverse = inverse_affine(matrix)
    tolerance = 1e-13 * (matrix.abs().max() * inverse.abs().max()).item()
    assert torch.allclose(matrix @ inverse, EYE, atol=max(1e-9, 10 * tolerance))
    assert torch.equal(inverse[:, 2], EYE[2:])


@settings(deadline=None)
@given(chains, sizes)
def test_normalise_is_a_change_of_coordinates(chain: list[tuple[str, float]], size: tuple[int, int]) -> None:
    """The image reaches from −1 to 1 in both directions, so that one matrix serves maps of every size."""
    height, width = size
    matrix = matrices_of(chain, [2.0], height, width)
    N = torch.diag(torch.tensor([width / 2, height / 2, 1.0], dtype=torch.float64))
    assert torch.allclose(normalise(matrix, height, width), torch.linalg.inv(N) @ matrix @ N, rtol=1e-9, atol=1e-9)


def test_chain_matrices_are_differentiable_in_the_magnitudes() -> None:
    names = ["translate_x", "rotate", "shear_y", "scale", "translate_y", "shear_x"]
    magnitudes = torch.tensor([0.06, 10.0, 5.0, 1.1, -0.2, 7.0], dtype=torch.float64, requires_grad=True)
    steps = torch.tensor([-1.0, 0.0, 0.5, 2.0], dtype=torch.float64)

    def there_and_back(m: Tensor) -> tuple[Tensor, Tensor]:
        matrices = chain_matrices(names, m, steps, 6, 9)
        return matrices, normalise(inverse_affine(matrices), 6, 9)

    assert torch.autograd.gradcheck(there_and_back, (magnitudes,))


def test_as_many_magnitudes_as_ops() -> None:
    with pytest.raises(InputError, match=r"2 ops need magnitudes of shape \(2,\), got \(3,\)"):
        chain_matrices(["rotate", "scale"], torch.ones(3), torch.ones(1), 4, 5)
