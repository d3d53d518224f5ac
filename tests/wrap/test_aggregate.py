"""Aggregation: from the outputs of B·T frames to those of B images."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from image2video.clip.image_to_video import Image2Video, clip_to_frames
from image2video.errors import InputError, InputTypeError, UnsupportedError
from image2video.trace.layout import NHWC, Layout
from image2video.trace.trace import tensors_of
from image2video.wrap.aggregate import AGGREGATIONS, OutputFormats, aggregate, check_aggregation

SIZE = (24, 40)
B, T = 2, 3
TO_VIDEO = Image2Video("translate_x(0.1) > rotate(7)", T=T)
NCHW_MAPS = OutputFormats(declared="NCHW")
Pair = namedtuple("Pair", ["logits", "maps"])


@dataclass(frozen=True)
class Output:
    logits: torch.Tensor
    aux: torch.Tensor | None = None


def run(outputs, how="auto", *, frames=T, rows=None, **formats):
    formats = formats or {"declared": "NCHW"}
    return aggregate(
        outputs, frames, how, to_video=TO_VIDEO, image_size=SIZE, formats=OutputFormats(**formats), rows=rows
    )


def logits(k=5, seed=0):
    return torch.randn(B * T, k, generator=torch.Generator().manual_seed(seed))


def maps(k=5, seed=1):
    return torch.randn(B * T, k, 6, 10, generator=torch.Generator().manual_seed(seed))


def test_vectors_are_averaged_over_the_frames_of_each_image():
    out = logits()
    expected = torch.stack([out[0:3].mean(0), out[3:6].mean(0)])
    torch.testing.assert_close(run(out), expected)
    torch.testing.assert_close(run(out[:, 0]), expected[:, 0])


def test_maps_are_unwarped_before_averaging():
    torch.testing.assert_close(run(maps()), TO_VIDEO.unwarped_mean(maps(), SIZE))
    assert not torch.allclose(run(maps()), run(maps(), "mean"))


def test_channels_last_maps_are_those_of_the_permuted_ones():
    last = maps().permute(0, 2, 3, 1)
    expected = run(maps()).permute(0, 2, 3, 1)
    torch.testing.assert_close(run(last, declared="NHWC"), expected)
    torch.testing.assert_close(run(last, layouts={"": NHWC}), expected)


def test_what_the_backbone_declares_comes_before_the_trace():
    torch.testing.assert_close(run(maps(), declared="NCHW", layouts={"": NHWC}), run(maps()))


@pytest.mark.parametrize("shape", [(6, 10, 96), (96, 6, 10), (6, 10, 10)])
@pytest.mark.parametrize("layouts", [{}, {"[0]": Layout(-1, "none")}])
def test_a_map_of_unknown_layout_is_refused_whatever_its_proportions(shape, layouts):
    with pytest.raises(UnsupportedError, match=r'out\[0\] has shape .* nor its trace.*output_fmt = "NCHW"'):
        run([torch.randn(B * T, *shape)], layouts=layouts)


def test_layouts_that_the_plan_does_not_know_are_traced_once_at_first_need():
    calls = []

    def later():
        calls.append(1)
        return OutputFormats(layouts={"[0]": NHWC, "[1]": NHWC})

    last = maps().permute(0, 2, 3, 1)
    run([logits()], layouts={}, later=later)
    assert not calls
    for out in run([last, last], layouts={}, later=later):
        torch.testing.assert_close(out, run(last, declared="NHWC"))
    assert calls == [1]


def test_tokens_are_unwarped_on_their_grid_and_prefix_tokens_averaged():
    layout = Layout(channel_dim=-1, spatial="tokens", prefix_tokens=2, grid=(6, 10))
    body, prefix = maps(8), torch.randn(B * T, 2, 8)
    tokens = torch.cat([prefix, body.flatten(2).transpose(1, 2)], dim=1)
    out = run(tokens, layouts={"": layout})
    assert out.shape == (B, 62, 8)
    torch.testing.assert_close(out[:, :2], prefix.unflatten(0, (B, T)).mean(1))
    torch.testing.assert_close(out[:, 2:].transpose(1, 2).unflatten(2, (6, 10)), run(body))


def test_channels_first_tokens():
    layout = Layout(channel_dim=1, spatial="tokens", grid=(6, 10))
    out = run(maps(8).flatten(2), layouts={"": layout})
    torch.testing.assert_close(out.unflatten(2, (6, 10)), run(maps(8)))


@pytest.mark.parametrize("layout", [None, Layout(-1, "tokens"), Layout(-1, "tokens", grid=(5, 5)), Layout(-1, "none")])
def test_tokens_without_a_known_grid_are_refused(layout):
    with pytest.raises(UnsupportedError, match=r'out\["x"\] has shape \(6, 60, 8\).*grid.*aggregate="mean"'):
        run({"x": torch.randn(B * T, 60, 8)}, layouts={"['x']": layout} if layout else {})


def test_containers_keep_their_types():
    out, aux = logits(), maps()
    for value in ([out, aux], (out, aux), {"a": out, "b": aux}, OrderedDict(a=out, b=aux), Pair(out, aux)):
        result = run(value)
        assert type(result) is type(value)
        items = result.values() if isinstance(result, dict) else result
        assert [tuple(item.shape) for item in items] == [(B, 5), (B, 5, 6, 10)]
    result = run(Output(out, None))
    assert isinstance(result, Output)
    assert result.aux is None
    torch.testing.assert_close(result.logits, run(out))


def test_subclassed_dicts_with_attributes_keep_them():
    class Bag(dict):
        extra = None

    bag = Bag(a=logits())
    bag.extra = "kept"
    result = run(bag)
    assert type(result) is Bag
    assert result.extra == "kept"
    assert bag["a"].shape[0] == B * T, "the backbone's own output must not change"


def test_nested_outputs_are_walked():
    result = run([logits(), {"aux": (maps(), None)}])
    assert result[1]["aux"][0].shape == (B, 5, 6, 10)
    assert result[1]["aux"][1] is None


def test_mean_prob_is_the_log_of_the_mean_probability():
    out = 3 * logits()
    expected = out.softmax(1).unflatten(0, (B, T)).mean(1).log()
    torch.testing.assert_close(run(out, "mean_prob"), expected)
    labels = torch.tensor([1, 4])
    mean_prob = out.softmax(1).unflatten(0, (B, T)).mean(1)
    torch.testing.assert_close(
        torch.nn.functional.cross_entropy(run(out, "mean_prob"), labels),
        torch.nn.functional.nll_loss(mean_prob.log(), labels),
    )


def test_mean_prob_of_maps_unwarps_probabilities_over_the_class_channel():
    expected = TO_VIDEO.unwarped_mean(maps().softmax(1), SIZE).log()
    torch.testing.assert_close(run(maps(), "mean_prob"), expected)
    last = run(maps().permute(0, 2, 3, 1), "mean_prob", declared="NHWC")
    torch.testing.assert_close(last.permute(0, 3, 1, 2), expected)


def test_mean_prob_survives_extreme_logits():
    out = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    result = aggregate(out, 2, "mean_prob", to_video=TO_VIDEO, image_size=SIZE)
    torch.testing.assert_close(result, torch.full((1, 2), 0.5).log())
    result[0, 0].backward()
    assert torch.isfinite(out.grad).all()


def test_first_none_and_mean():
    out = maps()
    assert torch.equal(run(out, "first"), out[::T])
    assert torch.equal(run(out, "none"), out.unflatten(0, (B, T)))
    torch.testing.assert_close(run(out, "mean"), out.unflatten(0, (B, T)).mean(1))
    assert torch.equal(run(torch.arange(B * T), "first"), torch.tensor([0, 3]))


def test_unwarp_without_a_map_is_an_error():
    torch.testing.assert_close(run([logits(), maps()], "unwarp")[1], run(maps()))
    with pytest.raises(InputError, match='aggregate="unwarp" needs a map or tokens'):
        run(logits(), "unwarp")


def test_a_callable_gets_the_outputs_and_t():
    out = {"x": 3}
    assert run(out, lambda outputs, frames: (outputs, frames)) == (out, T)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sums_are_float32_and_results_have_the_dtype(dtype):
    out = torch.full((8 * T, 2), 1.001).to(dtype)
    assert run(out).dtype == dtype
    assert torch.equal(run(out), out[:8])  # a bfloat16 sum of three would round
    assert run(maps().to(dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("outputs", "path"),
    [([logits(), {"aux": torch.tensor(1.0)}], r'out\[1\]\["aux"\]'), (Output(torch.tensor(1.0)), r"out\.logits")],
)
def test_scalars_are_refused_with_their_path(outputs, path):
    with pytest.raises(InputError, match=path + " is a scalar"):
        run(outputs)


def test_a_leading_dimension_that_is_not_bt_is_refused():
    boxes = (logits(), torch.randn(7, 4))
    with pytest.raises(InputError, match=r"dimension of out\[1\] must be a multiple of T = 3, got the shape \(7, 4\)"):
        run(boxes)
    with pytest.raises(InputError, match=r"must be B·T = 6, got the shape \(9, 4\)"):
        run(torch.randn(9, 4), rows=6)
    with pytest.raises(InputError, match=r"must be a multiple of T = 3, got the shape \(8, 4\)"):
        run(torch.randn(8, 4), rows=8)


@pytest.mark.parametrize("value", [3, "text", 2.5, object()])
def test_what_is_no_tensor_is_refused(value):
    with pytest.raises(InputTypeError, match=r'out\["n"\] is a '):
        run({"n": value})


def test_integers_have_no_mean():
    with pytest.raises(InputTypeError, match=r"out is torch.int64.*no mean"):
        run(torch.zeros(B * T, 3, dtype=torch.int64))


def test_five_dimensions_are_refused():
    with pytest.raises(UnsupportedError, match=r"\(6, 1, 1, 1, 1\)"):
        run(torch.zeros(B * T, 1, 1, 1, 1))
    with pytest.raises(UnsupportedError, match="mean_prob"):
        run(torch.zeros(B * T, 1, 1), "mean_prob")


def test_names_are_checked():
    for name in AGGREGATIONS:
        check_aggregation(name)
    with pytest.raises(InputError, match="unknown aggregate 'median'; choose one of auto, mean"):
        check_aggregation("median")
    with pytest.raises(InputTypeError, match="callable"):
        check_aggregation(3)


@settings(max_examples=25, deadline=None)
@given(
    b=st.integers(1, 3),
    frames=st.integers(1, 4),
    schedule=st.sampled_from(["from_zero", "ramp", "centred", "mirror"]),
    value=st.floats(-10, 10, width=32),
)
def test_constant_outputs_stay_constant(b, frames, schedule, value):
    video = Image2Video("translate_y(0.3) > scale(1.2)", T=frames, schedule=schedule)
    constant = [torch.full((b * frames, 3), value), torch.full((b * frames, 2, 5, 9), value)]
    for how in ("auto", "mean"):
        for result in aggregate(constant, frames, how, to_video=video, image_size=(20, 36), formats=NCHW_MAPS):
            torch.testing.assert_close(result, torch.full_like(result, value))


def test_frames_of_a_clip_come_back_as_the_image():
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 40), indexing="ij")
    images = (torch.sin(2 * xs) + torch.cos(3 * ys)).expand(B, 1, -1, -1)
    video = Image2Video("translate_x(0.05) > translate_y(-0.1)", T=T)
    back = aggregate(clip_to_frames(video(images)), T, to_video=video, image_size=SIZE, formats=NCHW_MAPS)
    assert (back - images)[..., 2:-2, 2:-2].abs().mean() < 0.02


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_mean_prob_of_one_logit_is_the_logit_of_the_mean_sigmoid(dtype):
    out = (3 * logits(1)).to(dtype)
    expected = torch.special.logit(out.double().sigmoid().unflatten(0, (B, T)).mean(1))
    result = run(out, "mean_prob")
    assert result.dtype == dtype
    assert result.abs().min() > 0.1  # it was 0
    torch.testing.assert_close(result.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    label = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    torch.testing.assert_close(
        torch.nn.functional.binary_cross_entropy_with_logits(run(out.double(), "mean_prob"), label),
        torch.nn.functional.binary_cross_entropy(expected.sigmoid(), label),
    )


def test_mean_prob_of_one_logit_has_gradients_and_survives_extremes():
    out = (3 * logits(1)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: run(x, "mean_prob"), out)
    for value in (-1e4, -60.0, 0.0, 60.0, 1e4):
        out = torch.full((T, 1), value, requires_grad=True)
        result = run(out, "mean_prob")
        torch.testing.assert_close(result, torch.tensor([[value]]))
        result.sum().backward()
        torch.testing.assert_close(out.grad, torch.full((T, 1), 1 / T))
    half = torch.tensor([[60_000.0], [-60_000.0], [0.0]], dtype=torch.float16)
    torch.testing.assert_close(run(half, "mean_prob"), torch.zeros(1, 1, dtype=torch.float16))


def test_mean_prob_of_one_logit_does_not_depend_on_which_class_is_named():
    out = 3 * logits(1)
    torch.testing.assert_close(run(-out, "mean_prob"), -run(out, "mean_prob"))
    two = torch.cat([out, torch.zeros_like(out)], dim=1)  # the same decision as a softmax over two classes
    log_probs = run(two, "mean_prob")
    torch.testing.assert_close(run(out, "mean_prob"), log_probs[:, :1] - log_probs[:, 1:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_mean_prob_of_maps_of_one_logit(dtype):
    out = (3 * maps(1)).to(dtype)
    expected = torch.special.logit(TO_VIDEO.unwarped_mean(out.double().sigmoid(), SIZE))
    result = run(out, "mean_prob")
    assert result.dtype == dtype
    assert result.abs().mean() > 0.5
    torch.testing.assert_close(result.double(), expected, rtol=1e-3, atol=2e-3 if dtype == torch.float16 else 1e-5)
    last = run(out.permute(0, 2, 3, 1), "mean_prob", declared="NHWC")
    torch.testing.assert_close(last.permute(0, 3, 1, 2), result)
    constant = run(torch.full((T, 1, 6, 10), 50.0), "mean_prob")
    torch.testing.assert_close(constant, torch.full((1, 1, 6, 10), 50.0))


def test_mean_prob_of_maps_of_one_logit_has_gradients():
    out = maps(1)[:T, :, :3, :4].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: run(x, "mean_prob"), out)


@dataclass
class ModelOutput(OrderedDict):
    """Both a dataclass and a dict that leaves out None, as the outputs of transformers are."""

    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None

    def __post_init__(self):
        for name in ("logits", "hidden_states"):
            if getattr(self, name) is not None:
                self[name] = getattr(self, name)

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)


def sequences():
    """Two token sequences with a class token, their layout, and what they are for the images."""
    layout = Layout(channel_dim=-1, spatial="tokens", prefix_tokens=1, grid=(6, 10))
    bodies = [maps(8, seed) for seed in (1, 2)]
    prefix = torch.randn(B * T, 1, 8)
    hidden = tuple(torch.cat([prefix, body.flatten(2).transpose(1, 2)], dim=1) for body in bodies)
    return hidden, layout, [run(body).flatten(2).transpose(1, 2) for body in bodies]


def test_hidden_states_of_a_model_output_are_found_where_the_trace_found_them():
    hidden, layout, expected = sequences()
    layouts = {f"['hidden_states'][{index}]": layout for index in range(2)}
    output = ModelOutput(logits(), hidden)
    assert [path for path, _ in tensors_of(output)] == ["['logits']", *layouts]
    result = run(output, layouts=layouts)
    assert type(result) is ModelOutput
    assert result["hidden_states"] is result.hidden_states
    torch.testing.assert_close(result.logits, run(logits()))
    for found, image in zip(result.hidden_states, expected, strict=True):
        torch.testing.assert_close(found[:, 1:], image)
    assert output.logits.shape[0] == B * T  # the backbone's own output has not changed


def test_sequences_that_the_trace_did_not_return_take_the_layout_of_those_as_long():
    hidden, layout, expected = sequences()
    for tokens in ({layout}, {layout, Layout(-1, "tokens", grid=(6, 11))}):
        result = run(hidden, tokens=frozenset((one, ()) for one in tokens))
        torch.testing.assert_close(result[1][:, 1:], expected[1])


@pytest.mark.parametrize(
    ("tokens", "layouts"),
    [
        ({Layout(-1, "tokens", 1, (5, 10))}, {}),
        ({Layout(-1, "tokens", 1, (6, 10)), Layout(-1, "tokens", 1, (10, 6))}, {}),  # either
        ({Layout(-1, "tokens", 1, (6, 10))}, {"[0]": None}),  # the trace saw it, and could not tell
        ({Layout(-1, "tokens", 1, None)}, {}),
    ],
)
def test_sequences_of_another_length_or_of_two_layouts_are_refused(tokens, layouts):
    with pytest.raises(UnsupportedError, match=r"out\[0\] has shape \(6, 61, 8\).*the plan says nothing"):
        run(sequences()[0], tokens=frozenset((one, ()) for one in tokens), layouts=layouts)
