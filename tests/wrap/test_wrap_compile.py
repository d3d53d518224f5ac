"""torch.compile and torch.export of wrapped models; the limit of T under compilation.

The backend "eager" tells of graphs and their breaks in half of the time; gradients go through "aot_eager".
"""

import copy

import pytest
import torch
from inject_cases import seeded_net
from wrap_helpers import CHAIN, COLOURFUL, backbone, images, stir

from image2video.wrap.video_wrap import VideoWrap

SIZE = (3, 64, 48)
RESNET = pytest.param("cifar_resnet8", {}, id="cifar_resnet8")
VIT = pytest.param("vit_tiny_patch16_224", {"img_size": SIZE[1:], "depth": 1}, id="vit_tiny")


def wrapped(name, options=None, fusion="gsf"):
    model = VideoWrap(backbone(name, num_classes=5, **(options or {})), fusion, genotype=CHAIN, T=5)
    stir(model.fusion)
    return model


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@torch.no_grad()
def test_tokens_are_compiled_without_breaks():
    model = wrapped(*VIT.values)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    batch = images(size=SIZE)
    torch.testing.assert_close(compiled(batch, T=3), model(batch, T=3), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_frames_that_change_colours_compile_without_breaks():
    model = VideoWrap(backbone(), "tsm", genotype=COLOURFUL, T=3)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images()), model(images()), atol=1e-4, rtol=1e-4)


# Gradients of a compiled TSM by itself are test_fusion_compile.py's.
@pytest.mark.parametrize("fusion", ["gsf", pytest.param("tsm", marks=pytest.mark.slow)])
def test_compiled_gradients_are_eager_gradients(fusion):
    batch, gradients = images(size=(3, 32, 40)), []
    first = VideoWrap(seeded_net(blocks=1).float(), fusion, genotype=CHAIN, T=5, input_size=(3, 32, 40))
    stir(first.fusion)
    for wrap in (lambda m: m, lambda m: torch.compile(m, fullgraph=True, backend="aot_eager")):
        model = copy.deepcopy(first).train()
        wrap(model)(batch, T=2).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-3, rtol=1e-3, msg=name)


@torch.no_grad()
def test_the_compile_method_of_a_module_without_breaks_for_every_t():
    """Maps, with a T of the call and one that was set; a compiled TSM in a wrapper is test_clip_at.py's."""
    model = wrapped("cifar_resnet8")
    expected = {T: model(images(), T=T) for T in (2, 3)}
    model.compile(fullgraph=True, backend="eager")
    torch.testing.assert_close(model(images(), T=2), expected[2], atol=1e-4, rtol=1e-4)
    model.set_frames(3)
    torch.testing.assert_close(model(images()), expected[3], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "options"), [RESNET, VIT])
@torch.no_grad()
def test_export_with_a_dynamic_batch(name, options):
    size = (3, 32, 40) if name == "cifar_resnet8" else SIZE
    model = VideoWrap(backbone(name, **options), "gsf", genotype=CHAIN, T=3)
    stir(model.fusion)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (images(3, size),), dynamic_shapes=({0: batch},))
    for b in (2, 5):
        torch.testing.assert_close(program.module()(images(b, size)), model(images(b, size)), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [RESNET, VIT])
@torch.no_grad()
def test_inductor(name, options):
    model = wrapped(name, options)
    compiled = torch.compile(model, fullgraph=True)
    for T in (5, 3, 8):
        torch.testing.assert_close(
            compiled(images(size=SIZE), T=T), model(images(size=SIZE), T=T), atol=1e-3, rtol=1e-3
        )
