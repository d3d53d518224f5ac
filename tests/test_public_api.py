"""The public names: importable, documented in their docstrings and in docs/api.md."""

import importlib
import inspect
import runpy
import typing
from pathlib import Path

import pytest
import timm
import torch

from image2video import Genotype, GSFConfig, Image2Video, VideoWrap, inject_, plan
from image2video.fusion import GSF, GSM, TSM, Conv3d

ROOT = Path(__file__).parent.parent
PUBLIC = [
    "image2video",
    "image2video.fusion",
    "image2video.search",
    "image2video.receptive_field",
    "image2video.data",
    "image2video.training",
    "image2video.assess",
    "image2video.export",
    "image2video.report",
]
NAMES = [(module, name) for module in PUBLIC for name in importlib.import_module(module).__all__]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_public_name_has_a_docstring(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) or inspect.isroutine(value):
        doc = inspect.getdoc(value) or ""
        assert len(doc.split()) >= 5, f"{module}.{name} says too little: {doc!r}"
        assert not doc.startswith(f"{name}("), f"{module}.{name} has only the docstring that dataclass makes"


def test_the_reference_page_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["page"]()
    assert page == (ROOT / "docs" / "api.md").read_text(), "run: python docs/make_api.py"
    assert all(f"`{name}" in page for _, name in NAMES)


@pytest.mark.parametrize(("module", "name"), [pair for pair in NAMES if pair[0] == "image2video"])
def test_public_callables_are_typed(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    function = value.__init__ if inspect.isclass(value) else value
    if inspect.isfunction(function):
        missing = [
            p.name
            for p in inspect.signature(function).parameters.values()
            if p.annotation is p.empty and p.name not in ("self", "cls")
        ]
        assert not missing, f"{module}.{name}: no type for {missing}"
        assert typing.get_type_hints(function) is not None


def test_a_genotype_and_its_clip(tmp_path: Path) -> None:
    g = Genotype.parse("translate_x(0.06) > rotate(10) > scale(1.1)")
    g.save(tmp_path / "file.json")
    assert g == Genotype.load(tmp_path / "file.json") == Genotype.parse(str(g))
    assert str(Genotype.identity()) == "identity"
    assert g.matrix(2, 224, 128).shape == (3, 3)
    to_video = Image2Video(g, T=5)
    assert to_video(torch.randn(2, 3, 20, 28)).shape == (2, 5, 3, 20, 28)
    assert to_video.unwarp(torch.randn(10, 4, 5, 7), (20, 28)).shape == (2, 5, 4, 5, 7)
    assert to_video.valid_mask((5, 7), (20, 28)).shape == (5, 1, 5, 7)


@torch.no_grad()
def test_a_wrapper_its_plan_and_its_injection() -> None:
    backbone, images = timm.create_model("test_resnet", num_classes=4).eval(), torch.randn(2, 3, 40, 56)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    for fusion in ("tsm", "gsf", "conv3d", "none", GSFConfig(ratio=0.25)):
        model = VideoWrap(
            backbone,
            fusion=fusion,
            genotype="rotate(5)",
            T=5,
            schedule="from_zero",
            aggregate="auto",
            residual=True,
            sites=None,
            input_size=None,
            freeze_bn=False,
        )
        assert model(images).shape == model(images, T=8).shape == (2, 4)
        model.set_frames(8)
        assert model.T == 8
        assert model.unwrap() is backbone
        assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    p = plan(backbone, fusion="gsf", input_size=(3, 224, 224))
    injection = inject_(backbone, p)
    with injection.frames(3):
        assert backbone(torch.randn(6, 3, 40, 56)).shape == (6, 4)
    injection.remove_()


def test_fusions_by_position() -> None:
    frames = torch.randn(6, 16, 5, 7)
    for module in (GSF(16, 0.5, True), GSM(16), TSM(16), Conv3d(16, 16, 3)):
        assert isinstance(module(frames, 3), torch.Tensor)
