"""Networks of transformers, called as their users call them; tiny ones with random weights."""

import json

import pytest
import torch
import transformers_cases as cases
from torch.nn.functional import cross_entropy, interpolate
from wrap_helpers import images as random_images
from wrap_helpers import stir

from image2video import VideoWrap
from image2video.errors import InputError, UnsupportedError

pytest.importorskip("transformers")
CLIP = {"genotype": "translate_x(0.1) > rotate(12)", "T": 3}
SIZE = (3, 32, 32)
LABELS = torch.tensor([3, 1])


def images():
    return random_images(2, size=SIZE)


def wrapped(net, fusion="none", **options):
    model = VideoWrap(net, fusion, **{"input_size": SIZE} | CLIP | options)
    stir(model.fusion)
    return model


def frames_of(model, **words):
    """What the bare network returns for the frames."""
    with model.fusion.frames(1), torch.no_grad():
        return model.backbone(model.to_video(images()).flatten(0, 1), **words)


def tokens_to_images(model, tokens, side):
    """The mean of token sequences by hand: prefix tokens plainly, the others on their grid."""
    prefix = tokens.shape[1] - side * side
    maps = tokens[:, prefix:].transpose(1, 2).unflatten(2, (side, side))
    body = model.to_video.unwarped_mean(maps, SIZE[1:]).flatten(2).transpose(1, 2)
    return torch.cat([tokens[:, :prefix].unflatten(0, (2, 3)).mean(1), body], 1)


@pytest.mark.parametrize("family", cases.CLASSIFIERS)
def test_classifiers_are_the_average_over_the_frames_and_their_loss_is_its(family):
    model = wrapped(cases.classifier(family))
    with torch.no_grad():
        found = model(pixel_values=images(), labels=LABELS)
    expected = frames_of(model).logits.unflatten(0, (2, 3)).mean(1)
    assert list(found) == ["loss", "logits"]
    torch.testing.assert_close(found.logits, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.loss, cross_entropy(expected, LABELS))
    with torch.no_grad():
        loss, logits = model(pixel_values=images(), labels=LABELS, return_dict=False)
    torch.testing.assert_close((loss, logits), (found.loss, found.logits))


def test_a_network_of_timm_within_transformers():
    model = wrapped(cases.timm_wrapper())
    with torch.no_grad():
        found = model(pixel_values=images(), labels=LABELS)
    expected = frames_of(model).logits.unflatten(0, (2, 3)).mean(1)
    torch.testing.assert_close(found.logits, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.loss, cross_entropy(expected, LABELS))


def test_classes_that_do_not_exclude_each_other_and_counted_losses():
    model = wrapped(cases.classifier(problem_type="multi_label_classification"))
    labels = torch.tensor([[0.0, 1, 1, 0, 0], [1, 0, 0, 0, 1]])
    found = model(pixel_values=images(), labels=labels)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(found.logits, labels)
    torch.testing.assert_close(found.loss, expected)
    model = wrapped(cases.classifier())
    found = model(pixel_values=images(), labels=LABELS, num_items_in_batch=torch.tensor(8))
    torch.testing.assert_close(found.loss, cross_entropy(found.logits, LABELS, reduction="sum") / 8)
    assert model.accepts_loss_kwargs is True
    assert wrapped(cases.timm_wrapper()).accepts_loss_kwargs is False


@pytest.mark.parametrize("family", ["Segformer", "UperNet"])
def test_segmentors_are_brought_back_and_their_loss_is_of_that(family):
    model = wrapped(cases.segmentor(family))
    labels = torch.randint(0, 5, (2, 32, 32), generator=torch.Generator().manual_seed(0))
    labels[:, :4] = 255
    with torch.no_grad():
        found = model(pixel_values=images(), labels=labels)
    expected = model.to_video.unwarped_mean(frames_of(model).logits, SIZE[1:])
    torch.testing.assert_close(found.logits, expected, atol=1e-6, rtol=0)
    if family == "Segformer":  # UperNet's has an auxiliary head, as in tests/wrap/test_own_loss.py
        large = interpolate(expected, size=(32, 32), mode="bilinear")
        torch.testing.assert_close(found.loss, cross_entropy(large, labels, ignore_index=255))


@pytest.mark.parametrize("family", ["Segformer", "UperNet"])
def test_the_loss_of_copies_is_the_bare_one(family):
    net = cases.segmentor(family)
    labels = torch.randint(0, 5, (2, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bare = net(pixel_values=images(), labels=labels)
        model = wrapped(net, genotype="identity")
        found = model(pixel_values=images(), labels=labels)
    torch.testing.assert_close(found.loss, bare.loss, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.logits, bare.logits, atol=1e-6, rtol=0)


def test_maps_of_backbones_are_brought_back():
    model = wrapped(cases.backbone("Dinov2"))
    with torch.no_grad():
        found = model(pixel_values=images()).feature_maps
    frames = frames_of(model).feature_maps
    assert [tuple(maps.shape) for maps in found] == [(2, 16, 4, 4)] * 2
    for maps, of_frames in zip(found, frames, strict=True):
        torch.testing.assert_close(maps, model.to_video.unwarped_mean(of_frames, SIZE[1:]), atol=1e-6, rtol=0)


def test_hidden_states_are_brought_back():
    model = wrapped(cases.classifier("Dinov2"))
    with torch.no_grad():
        found = model(pixel_values=images(), output_hidden_states=True, labels=LABELS)
    frames = frames_of(model, output_hidden_states=True).hidden_states
    assert list(found) == ["loss", "logits", "hidden_states"]
    assert len(found.hidden_states) == len(frames) == 3
    for state, of_frames in zip(found.hidden_states, frames, strict=True):
        torch.testing.assert_close(state, tokens_to_images(model, of_frames, side=4), atol=1e-6, rtol=0)
    model = wrapped(cases.classifier("ConvNext"), "tsm")
    with torch.no_grad():
        found = model(pixel_values=images(), output_hidden_states=True)
    assert [tuple(state.shape)[:2] for state in found.hidden_states] == [(2, 8), (2, 8), (2, 8), (2, 16), (2, 16)]


def test_images_of_another_size():
    model = wrapped(cases.classifier())
    larger = random_images(2, size=(3, 48, 64))
    with torch.no_grad():
        found = model(pixel_values=larger, interpolate_pos_encoding=True).logits
        frames = model.to_video(larger).flatten(0, 1)
        with model.fusion.frames(1):
            expected = model.backbone(frames, interpolate_pos_encoding=True).logits.unflatten(0, (2, 3)).mean(1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="image size"):
        model(pixel_values=larger)


def test_what_users_read_and_switch_on_a_model():
    model = VideoWrap(cases.classifier(), "gsf", **CLIP)  # the config tells the size of the images
    assert model.plan.input_size == SIZE
    assert (model.config.model_type, model.device.type, model.dtype) == ("vit", "cpu", torch.float32)
    gradients = []
    for checkpointing in (False, True):
        model.train().zero_grad()
        if checkpointing:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        model(pixel_values=images(), labels=LABELS).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*gradients)
    assert model.bfloat16()(pixel_values=images().bfloat16(), labels=LABELS).loss.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "make",
    [
        *(lambda family=family: cases.classifier(family) for family in ("ViT", "Swin", "ResNet")),
        lambda: cases.segmentor("UperNet"),
        lambda: cases.backbone("Dinov2"),
        cases.timm_wrapper,
    ],
    ids=["ViT", "Swin", "ResNet", "UperNet", "Dinov2Backbone", "TimmWrapper"],
)
def test_a_saved_model_is_loaded_without_its_backbone(make, tmp_path):
    net = make()
    model = wrapped(net, "gsf")
    if not hasattr(net, "channels"):
        net.config.id2label = {number: f"a/{number}: b.json" for number in range(5)}  # words, whatever they look like
    model.save_pretrained(tmp_path)
    again = VideoWrap.from_pretrained(tmp_path)
    assert type(again.backbone) is type(net)
    assert again.config.id2label == net.config.id2label
    assert (again.genotype, again.T) == (model.genotype, 3)
    with torch.no_grad():
        torch.testing.assert_close(again(images()).to_tuple(), model(images()).to_tuple())


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("auto_map", {"AutoModel": "code.Model"}),
        ("backbone", "resnet50"),
        ("use_pretrained_backbone", True),
        ("some_words", "OWNER/NAME"),
        ("hidden_size", 10**9),
    ],
)
def test_a_config_that_names_a_place_is_refused(entry, value, tmp_path):
    wrapped(cases.classifier()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["builder"]["kwargs"][entry] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=rf"transformers:ViTForImageClassification has {entry}"):
        VideoWrap.from_pretrained(tmp_path)


def test_a_config_without_such_a_network_is_refused():
    from image2video.integrations.transformers_models import build

    with pytest.raises(InputError, match="has no network 'AutoConfig'; got 'vit'"):
        build("AutoConfig", model_type="vit")
    with pytest.raises(InputError, match="knows no model_type 'no_such'"):
        build("ViTModel", model_type="no_such")


def test_networks_that_predict_sets_are_refused_by_name():
    net = cases.mask2former()
    with pytest.raises(
        UnsupportedError, match=r"Mask2FormerForUniversalSegmentation predicts a set .*\.encoder = Video"
    ):
        VideoWrap(net, input_size=SIZE)
    net.__class__ = type("MyDetector", (type(net),), {})  # a class of one's own inherits the queries
    with pytest.raises(UnsupportedError, match="MyDetector predicts a set"):
        VideoWrap(net, input_size=SIZE)
    inner = net.model.pixel_level_module
    with torch.no_grad():
        expected = net(pixel_values=images())
        inner.encoder = VideoWrap(inner.encoder, "none", genotype="identity", T=3, input_size=SIZE)
        found = net(pixel_values=images())
    assert isinstance(inner.encoder, VideoWrap)
    torch.testing.assert_close(found.class_queries_logits, expected.class_queries_logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.masks_queries_logits, expected.masks_queries_logits, atol=1e-5, rtol=0)
