"""Exported files compute what the model computes, with any number of images, and say how they were made."""

import json

import pytest
import torch
from torch import nn
from wrap_helpers import CHAIN, images, stir

from image2video.clip.random_clips import RandomClips
from image2video.export import ExportConfig, check_export, export_formats, export_model
from image2video.export.report import difference
from image2video.wrap.video_wrap import VideoWrap

SIZE = (3, 32, 40)
SLOW = {"onnx": 20, "aoti": 200, "int8": 40}
"""Seconds of those that the default run leaves out."""
NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "onnx-legacy": ("onnx", "onnxruntime"), "int8": ("torchao",)}
FORMATS = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in export_formats()]


class Tiny(nn.Module):
    """A classifier with one residual branch, which is one site."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))
        self.late, self.head = nn.Conv2d(16, 16, 3), nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(self.late(x + self.body(x)).mean((2, 3)))


def wrapped(fusion="tsm", **options):
    model = VideoWrap(Tiny(), fusion, **{"genotype": CHAIN, "T": 3, "input_size": SIZE, **options})
    stir(model.fusion)
    return model.eval()


def need(name):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)


class Maps(nn.Module):
    """A segmentor with an auxiliary output."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        return {"out": self.head(x + self.body(x)), "aux": x}


def test_every_format_is_tried_here():
    assert {"pt2", "onnx", "onnx-legacy", "aoti", "torchscript", "int8"} == set(export_formats())
    assert set(SLOW) | set(NEEDS) <= set(export_formats())


@pytest.mark.parametrize("name", FORMATS)
@torch.no_grad()
def test_a_file_computes_what_the_model_computes(name, tmp_path):
    need(name)
    model, kind = wrapped(), export_formats()[name]
    path = tmp_path / f"model{kind.suffix}"
    report = export_model(model, path, name, images=images(8, SIZE))
    assert [one.batch for one in report.differences] == [1, 2, 5]
    assert 0 <= report.largest.relative < (1e-5 if name != "int8" else 0.3)
    run = kind.load(path)
    batch = images(7, SIZE, seed=11)
    (found,), expected = run(batch), model(batch)
    assert found.shape == expected.shape == (7, 10)
    assert (found - expected).norm() < (1e-5 if name != "int8" else 0.1) * expected.norm()
    again = check_export(path)
    assert again.largest.relative <= report.tolerance
    assert again.record == json.loads((tmp_path / f"{path.name}.check.json").read_text())
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        [path.name, f"{path.name}.check.json", f"{path.name}.check.safetensors"]
    )


def test_the_record_says_how_the_file_was_made(tmp_path):
    model = wrapped(clip_at="late", genotype="scale(1.1)", fusion="none")
    report = export_model(model, tmp_path / "model.ts", "torchscript", about={"mean": [0.5]})
    record = report.record
    assert record["input"] == {"name": "images", "shape": ["batch", *SIZE], "dtype": "float32"}
    assert record["outputs"] == [{"name": "output", "shape": ["batch", 10], "dtype": "float32"}]
    clip = record["clip"]
    assert clip["text"] == "scale(1.1)"
    assert (clip["T"], clip["clip_at"], clip["schedule"], clip["fusion"]) == (3, "late", "centred", {"name": "none"})
    assert record["mean"] == [0.5]
    assert set(record["versions"]) == {"image2video", "torch"}
    assert "(batches of 1, 2, 5; tolerance 1e-05)" in report.sentence()


def test_a_bare_network_and_maps_with_an_auxiliary_output(tmp_path):
    report = export_model(Tiny().eval(), tmp_path / "bare.ts", "torchscript", images=images(1, SIZE))
    assert report.record["clip"] is None
    model = VideoWrap(Maps().eval(), "none", genotype="rotate(12)", T=3, input_size=SIZE).eval()
    report = export_model(model, tmp_path / "maps.pt2", images=images(2, SIZE))
    shapes = {output["name"]: output["shape"] for output in report.record["outputs"]}
    assert shapes == {"output_0": ["batch", 5, 16, 20], "output_1": ["batch", 8, 16, 20]}
    assert report.largest.relative < 1e-5


def test_a_fixed_batch_is_the_only_one(tmp_path):
    path = tmp_path / "model.pt2"
    report = export_model(wrapped("none"), path, ExportConfig("pt2", batch_size=1), images=images(3, SIZE))
    assert report.record["input"]["shape"] == [1, *SIZE]
    assert [one.batch for one in report.differences] == [1]
    run = export_formats()["pt2"].load(path)
    with pytest.raises(Exception, match=r"shape|size"):
        run(images(2, SIZE))


def test_bfloat16_takes_and_returns_float32_and_leaves_the_model(tmp_path):
    model = wrapped("gsf")
    report = export_model(model, tmp_path / "model.ts", ExportConfig("torchscript", dtype="bf16"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert report.record["outputs"][0]["dtype"] == "float32"
    assert 1e-4 < report.largest.relative < 0.05
    assert report.tolerance == 0.1


def test_the_chain_of_evaluation_of_drawn_clips_is_exported(tmp_path):
    model = VideoWrap(Tiny(), "none", frames=RandomClips(("rotate(10)", "scale(1.1)"), T=3, seed=2)).eval()
    report = export_model(model, tmp_path / "model.ts", "torchscript", images=images(3, SIZE))
    assert report.record["clip"]["text"] == str(model.genotype)
    assert report.largest.relative < 1e-5


def test_differences_by_hand():
    one = difference([torch.tensor([[1.0, 2.0], [5.0, 3.0]])], [torch.tensor([[1.5, 2.0], [3.0, 4.0]])], 2)
    assert (one.batch, one.absolute, one.relative, one.agreement) == (2, 2.0, 0.5, 0.5)
    nan = difference([torch.tensor([float("nan"), 0.0])], [torch.tensor([1.0, 0.0])], 2)
    assert nan.absolute != nan.absolute
    assert nan.relative != nan.relative
    assert nan.agreement is None
    empty = difference([torch.zeros(2, 0)], [torch.zeros(2, 0)], 2)
    assert empty.absolute == 0


@pytest.mark.slow
def test_a_file_of_eight_bits_keeps_no_float_weights_beside_them(tmp_path):
    need("int8")
    model = wrapped("none")
    path = export_model(model, tmp_path / "model.pt2", "int8", images=images(8, SIZE)).path
    held = torch.export.load(path).state_dict.values()
    large = [value for value in held if value.numel() >= model.backbone.stem.weight.numel()]
    assert len(large) > 3
    clip = [value for value in large if value.dtype != torch.int8]
    assert all(value.shape[-1] == 2 for value in clip)  # the points at which a clip samples


@pytest.mark.slow
def test_fewer_images_than_a_fixed_batch_give_ranges_too(tmp_path):
    need("int8")
    model = wrapped("none")
    config = ExportConfig("int8", batch_size=4)
    report = export_model(model, tmp_path / "model.pt2", config, images=images(4, SIZE), calibration=images(3, SIZE))
    assert report.largest.relative < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "onnx-legacy"])
def test_a_frozen_model_has_its_clip_as_constants_in_onnx(tmp_path, kind):
    """No matrix is computed when the file runs, nothing is in double precision: coordinates are an initializer."""
    need("onnx")
    onnx = pytest.importorskip("onnx")
    for place in (None, "late"):
        path = tmp_path / f"{place}.onnx"
        export_model(wrapped("none", clip_at=place, genotype="scale(1.1) > rotate(5)"), path, kind)
        graph = onnx.load(path).graph
        double = onnx.TensorProto.DOUBLE
        assert not [one.name for one in graph.initializer if one.data_type == double]
        assert not [value.name for value in graph.value_info if value.type.tensor_type.elem_type == double]
        made = {output: node for node in graph.node for output in node.output}
        kinds = {node.op_type for node in graph.node}
        assert not kinds & {"Sin", "Cos", "Inverse", "Det", "Einsum", "MatMul"}
        samplers = [node for node in graph.node if node.op_type == "GridSample"]
        assert samplers
        seen, rest = set(), [node.input[1] for node in samplers]
        sources = set()
        while rest:
            name = rest.pop()
            if name in made:
                # How often the points of a clip are repeated depends on the number of images, and nothing else does.
                seen.add(made[name].op_type)
                rest += made[name].input
            if name not in made or made[name].op_type == "Constant":
                sources.add(name)
        assert seen <= {"Expand", "Reshape", "Concat", "Shape", "Unsqueeze", "Tile", "Slice", "Constant", "Squeeze"}
        held = {one.name: one for one in graph.initializer}
        held |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
        assert any(name in held and max(held[name].dims, default=0) > 8 for name in sources)


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
@pytest.mark.parametrize("place", [None, "late"])
def test_a_trace_has_its_clip_as_constants(tmp_path, place):
    path = tmp_path / "traced.ts"
    export_model(wrapped("none", clip_at=place, genotype="scale(1.1) > rotate(5)"), path, "torchscript")
    graph = torch.jit.load(path).inlined_graph
    kinds = {node.kind() for node in graph.nodes()}
    assert "aten::grid_sampler" in kinds
    assert not kinds & {"aten::sin", "aten::cos", "aten::linalg_inv", "aten::matmul", "aten::einsum"}
    rest = [list(node.inputs())[1].node() for node in graph.nodes() if node.kind() == "aten::grid_sampler"]
    sources = set()
    while rest:
        node = rest.pop()
        if node.kind() == "prim::Constant" and node.output().type().kind() == "TensorType":
            sources.add(node.output().toIValue().dtype)
        elif node.kind() in ("aten::repeat", "aten::expand", "aten::to", "aten::detach"):
            rest.append(next(iter(node.inputs())).node())
        else:
            raise AssertionError(f"the points are made by {node.kind()}")
    assert sources == {torch.float32}


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_a_trace_refuses_images_of_another_size(tmp_path):
    path = tmp_path / "traced.ts"
    model = wrapped("none", genotype="scale(1.1) > rotate(5)", schedule="ramp")
    export_model(model, path, "torchscript")
    traced, (_, height, width) = torch.jit.load(path), model.plan.input_size
    assert height % 2 == 0
    with torch.no_grad():
        for size in ((height // 2, 2 * width), (height + 8, width)):  # the first has as many pixels
            with pytest.raises(RuntimeError, match="Sizes of tensors must match except in dimension 0"):
                traced(torch.zeros(2, 3, *size))
