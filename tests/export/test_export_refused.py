"""What cannot be exported is refused before anything is written, and a file that is off is not left behind."""

import configparser
import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from wrap_helpers import images

from image2video.data import Augmentation, AugmentedFrames
from image2video.errors import (
    ExistsError,
    InputError,
    InputTypeError,
    MissingError,
    StateError,
    UnsupportedError,
)
from image2video.export import ExportConfig, ExportFormat, check, check_export, export_model, formats, register_format
from image2video.wrap.video_wrap import VideoWrap

SIZE = (3, 16, 24)


class Small(nn.Module):
    """A classifier of few numbers."""

    def __init__(self, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.scale = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), scale

    def forward(self, x):
        return self.layers(x) * self.scale


def small():
    return VideoWrap(Small(), "none", genotype="rotate(5)", T=3, input_size=SIZE).eval()


@pytest.fixture
def off(monkeypatch):
    """A format whose file computes `off["runs"]`."""
    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))
    does = {"writes": lambda model, path: path.write_text("a file"), "runs": None, "details": {}}

    @register_format
    class Off(ExportFormat):
        """Whatever a test wants."""

        name = "off"
        suffix = ".off"

        def write(self, model, request, path):
            does["writes"](model, path)
            return does["details"]

        def load(self, path):
            assert path.read_text() == "a file"
            return does["runs"]

    return does


def test_a_file_that_differs_is_not_left_behind(off, tmp_path):
    model, path = small(), tmp_path / "model.off"
    off["runs"] = lambda batch: [model(batch) + 1]
    with pytest.raises(StateError, match=r"off file differs from the model by .* for 1 images.*model.off was not"):
        export_model(model, path, "off")
    off["runs"] = lambda batch: [model(batch)[:, :2]]
    with pytest.raises(
        StateError, match=r"file returns tensors of shapes \[\(1, 2\)\] for 1 images, the model \[\(1, 4"
    ):
        export_model(model, path, "off")
    off["runs"] = lambda batch: [model(batch) * float("nan")]
    with pytest.raises(StateError, match="by nan of"):
        export_model(model, path, "off")
    off["runs"] = lambda batch: [model(batch)] if len(batch) < 5 else 1 / 0
    with pytest.raises(StateError, match=r"does not run for 5 images \(division by zero\), so it was deleted"):
        export_model(model, path, "off")

    off["writes"] = lambda model, path: path.write_text("another file")
    with pytest.raises(StateError, match=r"the off file cannot be read again \(.*\), so it was deleted"):
        export_model(model, path, "off")

    def half(model, path):
        path.write_text("half")
        raise RuntimeError("an operator\nis missing")

    off["writes"] = half
    with pytest.raises(UnsupportedError, match=r"format off could not write this model \(an operator is missing\)"):
        export_model(model, path, "off")
    assert not [*tmp_path.iterdir()]


def test_a_tolerance_decides(off, tmp_path):
    model = small()
    off["runs"] = lambda batch: [model(batch) * 1.01]
    with pytest.raises(StateError, match=r"got more than the tolerance of 0\.001"):
        export_model(model, tmp_path / "model.off", ExportConfig("off", tolerance=1e-3))
    report = export_model(model, tmp_path / "model.off", ExportConfig("off", tolerance=0.02))
    assert report.largest.relative == pytest.approx(0.01, rel=1e-3)


def test_files_are_replaced_when_asked_and_kept_when_the_new_one_is_off(off, tmp_path):
    model, path = small(), tmp_path / "model.off"
    off["runs"] = lambda batch: [model(batch)]
    export_model(model, path, "off")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(before) == 3
    with pytest.raises(ExistsError, match=r"model.off exists; choose another name, or replace it with overwrite=True"):
        export_model(model, path, "off")
    off["runs"] = lambda batch: [model(batch) + 1]
    with pytest.raises(StateError):
        export_model(model, path, "off", overwrite=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    off["runs"] = lambda batch: [model(batch)]
    assert export_model(model, path, "off", overwrite=True).path == path
    path.unlink()
    with pytest.raises(ExistsError, match=r"check.safetensors exists"):
        export_model(model, path, "off")


def test_a_check_goes_with_its_file(off, tmp_path):
    model, path = small(), tmp_path / "model.off"
    off["runs"] = lambda batch: [model(batch)]
    export_model(model, path, "off")
    off["runs"] = lambda batch: [model(batch) + 3]
    assert check_export(path).largest.absolute == pytest.approx(3)
    path.write_text("another")
    with pytest.raises(InputError, match=r"is not the file that model.off.check.json describes; copy both again"):
        check_export(path)
    path.unlink()
    with pytest.raises(MissingError, match="no export at"):
        check_export(path)
    path.write_text("a file")
    (tmp_path / "model.off.check.json").write_text("[]")
    with pytest.raises(InputError, match="must be the record of an export, of schema 1"):
        check_export(path)


def test_models_that_cannot_be_exported(tmp_path):
    path = tmp_path / "model.pt2"
    with pytest.raises(
        StateError, match=r"in evaluation to be exported, got VideoWrap in training mode; call model.eval"
    ):
        export_model(small().train(), path)
    model = small()
    model.backbone.layers[0].train()
    with pytest.raises(StateError, match=r"got backbone.layers.0 in training mode"):
        export_model(model, path)
    source = AugmentedFrames(Augmentation.parse("trivialaugment"), T=3, mean=(0.5,) * 3, std=(0.5,) * 3, seed=0)
    with pytest.raises(UnsupportedError, match="AugmentedFrames draws its frames in evaluation too"):
        export_model(VideoWrap(Small(), "none", frames=source).eval(), path, images=images(2, SIZE))
    with pytest.raises(UnsupportedError, match=r"must be on the CPU to be exported, got meta"):
        export_model(Small().to("meta").eval(), path, images=images(2, SIZE))
    with pytest.raises(InputTypeError, match="model must be a module, got a str"):
        export_model("model", path)
    assert not [*tmp_path.iterdir()]


def test_images_that_cannot_be_used(tmp_path):
    path = tmp_path / "model.pt2"
    with pytest.raises(InputTypeError, match=r"must be a float32 tensor, got torch.float64"):
        export_model(small(), path, images=images(2, SIZE).double())
    with pytest.raises(InputError, match=r"must be \(N, C, H, W\) with N of at least 1, got \(0, 3, 16, 24\)"):
        export_model(small(), path, images=torch.zeros(0, *SIZE))
    with pytest.raises(InputError, match=r"size of the model's images is not known; give images="):
        export_model(Small().eval(), path)

    class Strict(Small):
        """A backbone that takes one size alone."""

        def forward(self, x):
            if x.shape[-1] != 24:
                raise AssertionError("width must be 24")
            return super().forward(x)

    model = VideoWrap(Strict(), "none", T=2).eval()
    with pytest.raises(
        InputError, match=r"cannot take images of shape \(2, 3, 32, 48\) \(width must be 24\); give images of its own"
    ):
        export_model(model, path, images=images(2, (3, 32, 48)))
    with pytest.raises(InputError, match="calibration: no effect on format pt2"):
        export_model(small(), path, calibration=images(2, SIZE))


def test_options_that_cannot_be_used(tmp_path):
    for options, message in (
        ({"format": "onxx"}, r"format must be one of pt2, .*got 'onxx'; did you mean 'onnx'\?"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"dtype": "float16"}, "dtype must be one of float32, bf16, got 'float16'"),
        ({"format": "onnx", "dtype": "bf16"}, "dtype='bf16' is not possible with format onnx, .* computes in float32"),
        ({"opset": 18}, "opset=18: no effect on format pt2"),
        ({"format": "onnx-legacy", "opset": 12}, "opset must be at least 16, which has GridSample, got 12"),
        ({"tolerance": float("nan")}, "tolerance must be a finite number"),
    ):
        with pytest.raises(InputError, match=message):
            ExportConfig(**options)
    with pytest.raises(InputError, match=r"a file of format onnx must end with .onnx, got 'model.pt2'"):
        export_model(small(), tmp_path / "model.pt2", "onnx")
    with pytest.raises(InputError, match="about has format, which the record says itself"):
        export_model(small(), tmp_path / "model.pt2", about={"format": "mine"})
    with pytest.raises(InputError, match="about must hold JSON values alone"):
        export_model(small(), tmp_path / "model.pt2", about={"classes": {1, 2}})
    assert not [*tmp_path.iterdir()]
    with pytest.raises(InputError, match="the format 'pt2' is registered already"):
        register_format(type("Again", (ExportFormat,), {"name": "pt2"}))


def test_extras_that_messages_name_install_the_packages():
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[2] / "setup.cfg")
    found = [kind for kind in formats.export_formats().values() if kind.packages]
    assert len(found) >= 3
    for kind in found:
        names = re.findall(r"^[\w-]+", config["options.extras_require"][kind.extra], flags=re.M)
        assert set(kind.packages) <= set(names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 2.5}, r"batch_size must be a whole number or None, got 2\.5"),
        ({"batch_size": "3"}, "batch_size must be a whole number or None, got '3'"),
        ({"batch_size": True}, "batch_size must be a whole number or None, got True"),
        ({"format": "onnx", "opset": "18"}, "opset must be a whole number or None, got '18'"),
        ({"tolerance": "0.1"}, "tolerance must be a number or None, got '0.1'"),
        ({"format": {"format": "onnx"}}, r"format must be a name, one of pt2, .*, got \{'format': 'onnx'\}"),
        ({"format": None}, "format must be a name, one of pt2, .*, got None"),
    ],
)
def test_options_of_another_type(options, message):
    with pytest.raises(InputTypeError, match=message):
        ExportConfig(**options)


def test_arguments_of_another_type(tmp_path):
    model, path = small(), tmp_path / "model.pt2"
    for arguments, options, message in (
        ((path, model), {}, "model must be a module, got a PosixPath"),
        (
            (model, model),
            {},
            r"path must be the name of a file, got a VideoWrap; the order is export_model\(model, path",
        ),
        ((model, path, {"format": "onnx"}), {}, r"format must be a name or an ExportConfig, got \{.*; write Export"),
        ((model, path), {"images": images(2, SIZE).numpy()}, "images must be a float32 tensor, got a ndarray; convert"),
        ((model, path), {"about": ["mean"]}, "about must be a mapping of names to JSON values, got a list"),
    ):
        with pytest.raises(InputTypeError, match=message):
            export_model(*arguments, **options)
    assert not [*tmp_path.iterdir()]


def test_images_for_ranges_are_looked_at(off, tmp_path, monkeypatch):
    monkeypatch.setattr(type(formats.get_format("off")), "calibrated", True)
    model, path = small(), tmp_path / "model.off"
    off["runs"] = lambda batch: [model(batch)]
    with pytest.raises(InputTypeError, match="calibration must be a float32 tensor, got a ndarray; convert it"):
        export_model(model, path, "off", calibration=images(2, SIZE).numpy())
    with pytest.raises(InputError, match=r"calibration must be images of the size of the others, \(3, 16, 24\), got"):
        export_model(model, path, "off", calibration=images(2, (3, 24, 16)))
    assert export_model(model, path, "off", calibration=images(2, SIZE)).path == path


def test_a_check_that_cannot_be_written_leaves_what_was_there(off, tmp_path, monkeypatch):
    model, path = small(), tmp_path / "model.off"
    off["runs"] = lambda batch: [model(batch)]
    off["details"] = {"layers": 3}
    with pytest.raises(InputError, match="about has layers, which the record says itself; choose other names"):
        export_model(model, path, "off", about={"layers": 1})
    assert not [*tmp_path.iterdir()]
    export_model(model, path, "off")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    off["writes"] = lambda model, path: path.write_text("a file")
    monkeypatch.setattr(check, "_versions", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_model(model, path, "off", overwrite=True, images=images(3, SIZE))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingError, match=r"needs onnx and onnxscript and onnxruntime, .*pip install '\.\[export\]' in a"
    ):
        export_model(small(), tmp_path / "model.onnx", "onnx")
    with pytest.raises(MissingError, match=r"needs torchao, .* pip install torchao, or pip install '\.\[int8\]' in a"):
        export_model(small(), tmp_path / "model.pt2", "int8", images=images(2, SIZE))
    foreign = type("Foreign", (formats.get_format("pt2").__class__,), {"name": "foreign", "packages": ("theirs",)})
    with pytest.raises(MissingError, match=r"run pip install theirs$"):
        foreign().check_installed()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingError, match=r"format aoti needs a C\+\+ compiler"):
        export_model(small(), tmp_path / "model.pt2", "aoti")
    monkeypatch.undo()
    if importlib.util.find_spec("torchao") is not None:
        with pytest.raises(InputError, match="needs real images from which it takes the ranges"):
            export_model(small(), tmp_path / "model.pt2", "int8")
