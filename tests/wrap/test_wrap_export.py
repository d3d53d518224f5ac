"""Graphs that leave Python: torch.export, both exporters of ONNX, eight bits, vmap, and what is refused at the door."""

import importlib

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_flatten
from wrap_helpers import ALL_FUSIONS, CHAIN, COLOURFUL, backbone, images, stir

from image2video.clip.image_to_video import Image2Video
from image2video.clip.random_clips import RandomClips
from image2video.errors import UnsupportedError
from image2video.fusion import GSF, Conv3dConfig, GSFConfig, TSMConfig
from image2video.wrap.video_wrap import VideoWrap

SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 2)}
NETS = {
    "maps": ("cifar_resnet8", {}, (3, 32, 40)),
    "tokens": ("test_vit", {"img_size": 48, "depth": 2}, (3, 48, 48)),
    "channels last": ("test_convnext", {}, (3, 64, 96)),
    "windows": ("swin_tiny_patch4_window7_224", SWIN, (3, 64, 64)),
}
LIKE_A_TRACER = pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)


def wrapped(net="maps", fusion="gsf", *, net_options=None, **options):
    name, known, size = NETS[net]
    model = VideoWrap(backbone(name, **known | (net_options or {})), fusion, **{"genotype": CHAIN, "T": 3} | options)
    stir(model.fusion)
    return model.eval(), size


@torch.no_grad()
def assert_equal_for_batches(run, model, size, batches=(1, 2, 5)):
    """`run(images)` gives what the model gives, at batches other than the traced one."""
    for b in batches:
        batch = images(b, size, seed=b)
        found, expected = tree_flatten(run(batch))[0], tree_flatten(model(batch))[0]
        assert len(found) == len(expected) > 0
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other.shape
            # Other kernels add up in another order: an error is measured by the largest value.
            torch.testing.assert_close(one, other, atol=1e-4 * max(1.0, float(other.abs().max())), rtol=1e-4)


@torch.no_grad()
def exported(model, size, *, axes=(0,), strict=False):
    # The smallest batch counts: strict export takes a batch of one for a constant.
    dynamic = torch.export.Dim("batch", min=2) if strict else torch.export.Dim.DYNAMIC
    return torch.export.export(model, (images(2, size),), dynamic_shapes=(dict.fromkeys(axes, dynamic),), strict=strict)


def doubles(program):
    """The names of all float64 tensors of an exported program."""
    values = [(node.name, node.meta.get("val")) for node in program.graph.nodes]
    held = [*program.constants.items(), *program.state_dict.items()]
    return [n for n, v in (*values, *held) if isinstance(v, torch.Tensor) and v.dtype == torch.float64]


def sampling_points(program):
    """The operations that compute where a program samples, in its graph."""
    grids = [node.args[1] for node in program.graph.nodes if "grid_sampler" in str(node.target)]
    assert grids
    seen, rest = [], grids
    while rest:
        node = rest.pop()
        if node.op == "call_function":
            seen.append(node.target.__name__.split(".")[0] if hasattr(node.target, "__name__") else str(node.target))
            rest += node.all_input_nodes
    return set(seen)


FEATURES = {"features_only": True, "out_indices": (1, 2)}
# Without fusion, which samples nothing. A mean that is one number is tests/clip/test_frame_set_clips.py's, exported and
# traced; an average of frames that count alike is that of the tokens and of the frame set.
OUTPUTS = {
    "tokens": {"net": "tokens", "net_options": {"num_classes": 0, "global_pool": ""}},
    "colours per channel": {"genotype": COLOURFUL, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)},
    "ramp": {"net_options": FEATURES, "schedule": "ramp"},
    "frame set": {"net_options": FEATURES, "genotype": "flip_x | rotate(12) | scale(1.1)", "T": None},
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_an_exported_graph_samples_at_constants_of_single_precision(case):
    model, size = wrapped(fusion="none", **OUTPUTS[case])
    program = exported(model, size)
    assert not doubles(program)
    # Arithmetic on coordinates would be rounded by quantisers to eight bits: pixels of a 224 × 224 image.
    assert sampling_points(program) <= {"repeat", "detach_", "detach", "to", "lift_fresh_copy", "alias", "sym_size"}
    assert_equal_for_batches(program.module(), model, size)


def test_a_constant_of_an_exported_graph_is_the_eager_one_bit_for_bit():
    to_video, batch = Image2Video(CHAIN, T=4, interpolation="nearest"), images()
    program = torch.export.export(to_video, (batch,))
    assert torch.equal(program.module()(batch), to_video(batch))


# Strict export warns of the scope that a forward opens and closes again.
@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects:UserWarning")
@pytest.mark.parametrize("strict", [False, True])
def test_a_graph_that_has_to_compute_its_matrices_does_so_in_single_precision(strict):
    net, size = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)), (3, 32, 40)
    model = VideoWrap(net, "none", genotype="translate_x(0.1) > rotate(12)", T=2, input_size=size).eval()
    program = exported(model, size, axes=(0,) if strict else (0, 2, 3), strict=strict)
    assert not doubles(program)
    assert_equal_for_batches(program.module(), model, size, (2, 5))
    if not strict:
        assert_equal_for_batches(program.module(), model, (3, 48, 32), (2, 5))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize(
    ("net", "fusion"),
    [("tokens", "gsf"), ("channels last", GSFConfig(padding="circular")), ("tokens", "gsm"), ("maps", Conv3dConfig())],
)
def test_vmap_over_images_and_their_gradients(net, fusion):
    model, size = wrapped(net, fusion)
    parameters, buffers, batch = dict(model.named_parameters()), dict(model.named_buffers()), images(2, size)

    def of_one(parameters, image):
        return functional_call(model, (parameters, buffers), (image[None],))[0]

    torch.testing.assert_close(vmap(of_one, (None, 0))(parameters, batch), model(batch), atol=1e-3, rtol=1e-4)
    found = vmap(grad(lambda p, image: of_one(p, image).sum()), (None, 0))(parameters, batch)
    model(batch[1:]).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name][1], parameter.grad, atol=1e-2, rtol=1e-3, msg=name)


def test_symbolic_traces_and_scripts_are_refused_with_what_works():
    model, _ = wrapped()
    for call in (lambda: torch.fx.symbolic_trace(model), lambda: torch.fx.symbolic_trace(GSF(8), {"T": 3})):
        with pytest.raises(UnsupportedError, match=r"torch.fx.symbolic_trace cannot follow .*use torch.export.export"):
            call()


@LIKE_A_TRACER
@pytest.mark.parametrize("make", [lambda: wrapped()[0], lambda: wrapped()[0].fusion, lambda: GSF(8)])
def test_scripts_are_refused_with_what_works(make):
    with pytest.raises(UnsupportedError, match=r"torch.jit.script cannot compile .*use torch.export.export"):
        torch.jit.script(make())


def test_the_chain_of_an_evaluation_is_exported_and_drawn_clips_are_refused():
    source = RandomClips(("rotate(10)", "scale(1.1)"), T=3, seed=2)
    model = VideoWrap(backbone(), "none", frames=source).eval()
    program = exported(model, (3, 32, 40))
    assert not doubles(program)
    assert_equal_for_batches(program.module(), model, (3, 32, 40))
    with pytest.raises(UnsupportedError, match=r"RandomClips draws .*model.eval\(\)"):
        exported(model.train(), (3, 32, 40))


# From here on with packages that the library itself has no use for.


def onnx_session(model, size, *, dynamo, path, axes=(0,)):
    """Export with dynamic axes, check the file in full, and return a function that runs it."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    onnx, runtime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    names = {axis: f"axis{axis}" for axis in axes}
    dynamic = {"dynamic_shapes": (names,)} if dynamo else {"dynamic_axes": {"images": names}}
    with torch.no_grad():
        torch.onnx.export(
            model, (images(2, size),), str(path), dynamo=dynamo, input_names=["images"], verbose=False, **dynamic
        )
    onnx.checker.check_model(str(path), full_check=True)
    assert not onnx_doubles(onnx.load(path).graph)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda batch: [torch.from_numpy(out) for out in session.run(None, {"images": batch.numpy()})]


def onnx_doubles(graph):
    double = importlib.import_module("onnx").TensorProto.DOUBLE
    found = [i.name for i in graph.initializer if i.data_type == double]
    found += [v.name for v in (*graph.value_info, *graph.output) if v.type.tensor_type.elem_type == double]
    for node in graph.node:
        for attribute in node.attribute:
            cast = node.op_type == "Cast" and attribute.name == "to" and attribute.i == double
            if cast or attribute.t.data_type == double:
                found.append(node.name)
    return found


@LIKE_A_TRACER
@pytest.mark.parametrize(
    "fusion",
    # Without fusion it is the test below.
    [pytest.param("none", marks=pytest.mark.slow), *ALL_FUSIONS[1:], TSMConfig(padding="replicate")],
    ids=str,
)
@pytest.mark.parametrize("net", ["maps", *(pytest.param(net, marks=pytest.mark.slow) for net in NETS if net != "maps")])
def test_the_torchscript_exporter_of_onnx(net, fusion, tmp_path):
    model, size = wrapped(net, fusion)
    run = onnx_session(model, size, dynamo=False, path=tmp_path / "model.onnx")
    assert_equal_for_batches(run, model, size)


@LIKE_A_TRACER
@pytest.mark.parametrize("case", OUTPUTS)
def test_the_torchscript_exporter_of_onnx_with_other_outputs(case, tmp_path):
    model, size = wrapped(fusion="none", **OUTPUTS[case])
    run = onnx_session(model, size, dynamo=False, path=tmp_path / "model.onnx")
    assert_equal_for_batches(run, model, size)


@LIKE_A_TRACER
def test_the_torchscript_exporter_of_onnx_with_other_sizes_and_threads(tmp_path):
    model, size = wrapped()
    threads = torch.get_num_threads()
    torch.set_num_threads(4)  # with more threads than frames an eager clip is made in groups of images
    try:
        run = onnx_session(model, size, dynamo=False, path=tmp_path / "model.onnx", axes=(0, 2, 3))
    finally:
        torch.set_num_threads(threads)
    assert_equal_for_batches(run, model, size)
    assert_equal_for_batches(run, model, (3, 48, 32))


@LIKE_A_TRACER
@pytest.mark.parametrize("fusion", ALL_FUSIONS)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.slow
def test_the_exporter_of_onnx(net, fusion, tmp_path):
    model, size = wrapped(net, fusion)
    run = onnx_session(model, size, dynamo=True, path=tmp_path / "model.onnx")
    assert_equal_for_batches(run, model, size)


@LIKE_A_TRACER
@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["none", "gsf"])
def test_eight_bits(fusion):
    pytest.importorskip("torchao")
    pt2e = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    x86 = importlib.import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    model, size = wrapped("maps", fusion)
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    with torch.no_grad():
        prepared = pt2e.prepare_pt2e(exported(model, size).module(), quantizer)
        for seed in range(3):
            prepared(images(4, size, seed=seed))
        found, expected = pt2e.convert_pt2e(prepared)(images(4, size, seed=9)), model(images(4, size, seed=9))
    assert (found - expected).norm() < 0.05 * expected.norm()
