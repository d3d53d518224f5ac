"""The names of dimensions against index arithmetic on real tensors."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from image2video.trace.axes import Atom, Axes, image_axes, joined, kind_of, merged, reshaped, size_of
from image2video.trace.operation import Named, broadcast

SHAPE = (2, 12, 6, 10)
NAMES = ("b", None, "h", "w")


def coordinates() -> list[torch.Tensor]:
    """For each dimension of `SHAPE`, a tensor that says where along it each element is."""
    return [torch.arange(n).view([-1 if i == d else 1 for i in range(4)]).expand(SHAPE) for d, n in enumerate(SHAPE)]


def check(axes: Axes, fields: list[torch.Tensor], channel_axis: object) -> None:
    """Assert that the atoms of every dimension say where its elements come from."""
    shape = fields[0].shape
    assert tuple(size_of(dim) for dim in axes) == tuple(shape)
    order = {"b": 0, channel_axis: 1, "h": 2, "w": 3}
    for d, dim in enumerate(axes):
        index = torch.arange(shape[d])
        inner = 1
        told = {name: torch.zeros_like(index) for name in order}
        for atom in reversed(dim):
            told[atom.axis] = told[atom.axis] + (index // inner) % atom.size * atom.stride
            inner *= atom.size
        for name, where in told.items():
            field = fields[order[name]].movedim(d, 0).reshape(shape[d], -1)
            moved = field - field[:1]
            assert torch.equal(moved, (where - where[0])[:, None].expand_as(moved))


@st.composite
def moves(draw):
    """A chain of permutations and of splits and joins of neighbouring dimensions."""
    chain, shape = [], list(SHAPE)
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["permute", "split", "join"]))
        if kind == "permute":
            order = draw(st.permutations(range(len(shape))))
            chain.append((kind, tuple(order)))
            shape = [shape[i] for i in order]
        elif kind == "split" and len(shape) < 7:
            d = draw(st.integers(0, len(shape) - 1))
            factor = draw(st.sampled_from([f for f in range(1, shape[d] + 1) if shape[d] % f == 0]))
            shape[d : d + 1] = [factor, shape[d] // factor]
            chain.append(("reshape", tuple(shape)))
        elif kind == "join" and len(shape) > 2:
            d = draw(st.integers(0, len(shape) - 2))
            shape[d : d + 2] = [shape[d] * shape[d + 1]]
            chain.append(("reshape", tuple(shape)))
    return chain


@settings(deadline=None, max_examples=150)
@given(moves())
def test_views_are_followed_exactly(chain):
    axes, fields = image_axes(SHAPE), coordinates()
    channel_axis = axes[1][0].axis
    for kind, argument in chain:
        if kind == "permute":
            axes, fields = tuple(axes[i] for i in argument), [f.permute(argument) for f in fields]
        else:
            axes, fields = reshaped(axes, argument), [f.reshape(argument) for f in fields]
        known = tuple(dim if kind_of(dim) != "unknown" or not dim else None for dim in axes)
        if None in known:
            return  # Joining a split that cuts across two factors has no name: nothing is claimed.
        check(axes, fields, channel_axis)


def test_the_property_test_reaches_windows():
    axes, fields = image_axes(SHAPE), coordinates()
    channel = axes[1][0].axis
    axes, fields = reshaped(axes, (2, 12, 3, 2, 2, 5)), [f.reshape(2, 12, 3, 2, 2, 5) for f in fields]
    order = (0, 2, 4, 3, 5, 1)
    axes, fields = tuple(axes[i] for i in order), [f.permute(order) for f in fields]
    axes, fields = reshaped(axes, (12, 10, 12)), [f.reshape(12, 10, 12) for f in fields]
    check(axes, fields, channel)
    assert [[(a.axis, a.size, a.stride) for a in dim] for dim in axes] == [
        [("b", 2, 1), ("h", 3, 2), ("w", 2, 5)],
        [("h", 2, 1), ("w", 5, 1)],
        [(channel, 12, 1)],
    ]


def test_a_reshape_across_factors_is_unknown_and_not_guessed():
    axes = reshaped(image_axes((2, 4, 6, 10)), (2, 4, 4, 15))
    assert [kind_of(dim) for dim in axes] == ["batch", "channel", "unknown", "unknown"]


def test_prefix_tokens_are_remembered_and_counted():
    grid = (Atom("position", 6, axis="h"), Atom("position", 10, axis="w"))
    once = joined([(), grid], [1, 60])
    twice = joined([(), once], [4, 61])
    assert [(a.size, a.prefix, a.tail) for a in once] == [(61, 1, grid)]
    assert [(a.size, a.prefix, a.tail) for a in twice] == [(65, 5, grid)]


def test_atoms_of_one_axis_join_only_where_they_are_neighbours():
    outer, inner = Atom("position", 3, 4, "h"), Atom("position", 4, 1, "h")
    assert merged((outer, inner)) == (Atom("position", 12, 1, "h"),)
    assert merged((inner, outer)) == (inner, outer)


def test_an_elementwise_result_takes_the_better_names():
    shape = (2, 4, 6, 10)
    known = image_axes(shape)
    unknown = tuple((Atom("unknown", n),) for n in shape)
    assert broadcast([Named(shape, unknown), Named(shape, known)], shape) == known
