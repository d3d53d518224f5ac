"""Methods of the backbone that are called through the wrapper see the clip, or are refused by name."""

import copy
import inspect

import pytest
import torch
from torch import nn
from wrap_helpers import images, stir

from image2video import RandomClips, VideoWrap
from image2video.errors import InputError, InputTypeError, UnsupportedError

PAIR = "identity | flip_x"


class Towers(nn.Module):
    """A network of images and texts with the methods that such networks have."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.visual = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.words = nn.Embedding(10, 8)

    def forward(self, image):
        return self.encode_image(image)

    def encode_image(self, image, normalize=False):
        """Vectors of images."""
        found = self.visual(image).mean((2, 3))
        return found / found.norm(dim=-1, keepdim=True) if normalize else found

    def maps(self, image):
        return {"maps": [self.visual(image)]}

    def encode_text(self, text):
        return self.words(text).mean(1)

    def both(self, image, text):
        return self.encode_image(image) @ self.encode_text(text).T

    def training_step(self, batch):
        return self.encode_image(batch[0]).mean()

    def ranks(self, image):
        return self.encode_image(image).argmax(-1)

    def decode(self, features):
        return features.mean((2, 3))

    @torch.inference_mode()
    def predict(self, x):
        if self.training:
            self.eval()
        return self(x)


def towers(fusion="none", genotype=PAIR, **options):
    bare = Towers().eval()
    return bare, VideoWrap(copy.deepcopy(bare), fusion, genotype=genotype, input_size=(3, 24, 40), **options)


def test_vectors_are_averaged_over_the_frames():
    bare, model = towers()
    batch = images(size=(3, 24, 40))
    with torch.no_grad():
        for words in ({}, {"normalize": True}):
            expected = (bare.encode_image(batch, **words) + bare.encode_image(batch.flip(-1), **words)) / 2
            for found in (model.encode_image(batch, **words), model.encode_image(image=batch, **words)):
                torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        assert torch.equal(model.encode_image(batch), model(batch))


def test_maps_are_brought_back():
    bare, model = towers()
    batch = images(size=(3, 24, 40))
    with torch.no_grad():
        expected = (bare.maps(batch)["maps"][0] + bare.maps(batch.flip(-1))["maps"][0].flip(-1)) / 2
        torch.testing.assert_close(model.maps(batch)["maps"][0], expected, atol=1e-6, rtol=0)


def test_fusions_see_the_frames_too():
    _, model = towers("gsf", "rotate(8)", sites=["visual.3"])
    stir(model.fusion)
    batch = images(size=(3, 24, 40))
    with torch.no_grad():
        fused = model.eval()(batch)
        assert torch.equal(model.encode_image(batch), fused)
        model.set_frames(5)
        assert not torch.allclose(model.encode_image(batch), fused)


@pytest.mark.parametrize("genotype", ["rotate(8)", {"image": "rotate(3)", "visual.3": "translate_x(0.1)"}])
def test_clips_that_begin_elsewhere(genotype):
    place = {} if isinstance(genotype, dict) else {"clip_at": "visual.3"}
    _, model = towers(genotype=genotype, **place)
    batch = images(size=(3, 24, 40))
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(batch), model(batch), atol=1e-6, rtol=0)
        assert model.maps(batch)["maps"][0].shape == (2, 8, 22, 38)


def test_a_method_that_begins_evaluation_by_itself_takes_all_of_the_wrapper_with_it():
    _, model = towers("gsf", "rotate(8)", sites=["visual.3"])
    stir(model.fusion)
    batch = images(size=(3, 24, 40))
    expected = copy.deepcopy(model).eval()(batch)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.testing.assert_close(model.predict(batch), expected, atol=1e-6, rtol=0)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Predicts(nn.Module):
    """A network whose methods change its mode by themselves."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return self.body(self.stem(x)).mean((2, 3))

    def predict(self, x):
        was = self.training
        self.eval()
        out = self(x)
        self.train(was)
        return out

    def predict_by_parts(self, x):
        was = self.training
        self.eval()
        out = self.body(self.stem(x)).mean((2, 3))
        self.train(was)
        return out

    def fails(self, x):
        self.eval()
        raise ValueError("on purpose")

    def once_more(self, x):
        return self.predict(x) + self(x)


def predicting(**options):
    model = VideoWrap(Predicts(), "gsf", **{"T": 3} | options, input_size=(3, 24, 40), residual=False)
    stir(model.fusion)
    return model


def modes_of(model):
    return {name: module.training for name, module in model.named_modules()}


@pytest.mark.parametrize("method", ["predict", "predict_by_parts"])
def test_a_method_that_ends_its_evaluation_moves_no_norm(method):
    model, batch = predicting(), images(size=(3, 24, 40))
    expected = model.eval()(batch)
    model.train()
    modes = modes_of(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.testing.assert_close(getattr(model, method)(batch), expected, atol=1e-6, rtol=0)
    assert modes_of(model) == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fusions_train_again_where_the_method_goes_on_training():
    model, batch = predicting(), images(size=(3, 24, 40))
    expected = model.eval()(batch)
    model.train()
    counts = [value.item() for name, value in model.fusion.named_buffers() if name.endswith("num_batches_tracked")]
    expected = expected + copy.deepcopy(model)(batch)
    torch.testing.assert_close(model.once_more(batch), expected, atol=1e-6, rtol=0)
    after = [value.item() for name, value in model.fusion.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts
    assert after == [count + 1 for count in counts]


def test_a_method_that_fails_leaves_one_mode():
    model = predicting().train()
    with pytest.raises(ValueError, match="on purpose"):
        model.fails(images(size=(3, 24, 40)))
    assert not any(modes_of(model).values())


def test_drawn_frames_are_those_of_evaluation():
    model, batch = predicting(frames=RandomClips(("rotate(10)", "scale(1.3)"), T=3), T=None), images(size=(3, 24, 40))
    expected = model.eval()(batch)
    model.train()
    torch.testing.assert_close(model.predict(batch), expected, atol=1e-6, rtol=0)
    assert all(modes_of(model).values())


@pytest.mark.parametrize("known", [True, False], ids=["planned", "not planned yet"])
def test_methods_without_images_run_as_they_are(known):
    bare, model = towers()
    if not known:
        model = VideoWrap(copy.deepcopy(bare), fusion="none", genotype=PAIR)
    text, features = torch.tensor([[1, 2], [3, 4]]), torch.randn(2, 8, 5, 5)
    assert torch.equal(model.encode_text(text), bare.encode_text(text))
    assert torch.equal(model.decode(features), bare.decode(features))
    assert str(inspect.signature(model.encode_image)) == "(image, normalize=False)"
    assert model.encode_image.__doc__ == "Vectors of images."
    assert model.visual is model.backbone.visual


def test_what_cannot_see_the_clip_is_refused_by_name():
    _, model = towers()
    batch, text = images(size=(3, 24, 40)), torch.tensor([[1, 2]])
    with pytest.raises(UnsupportedError, match=r"both\(\) of Towers got another tensor beside the images, 1;"):
        model.both(batch, text)
    with pytest.raises(UnsupportedError, match=r"training_step\(\) of Towers got images in a tuple; .*model\.backbone"):
        model.training_step((batch, torch.zeros(2)))
    with pytest.raises(InputTypeError, match=r"out is torch\.int64, which has no mean over frames"):
        model.ranks(batch)
    _, scored = towers(aggregate="mean_prob")
    with pytest.raises(UnsupportedError, match=r"encode_image\(\) may return features; call model\(images\)"):
        scored.encode_image(batch)


@pytest.mark.parametrize("known", [True, False], ids=["planned", "not planned yet"])
def test_images_that_forward_refuses_are_refused_by_methods_too(known):
    bare, model = towers()
    if not known:
        model = VideoWrap(copy.deepcopy(bare), fusion="none", genotype=PAIR)
    pixels = torch.zeros(2, 3, 24, 40, dtype=torch.uint8)
    with pytest.raises(
        InputTypeError, match=r"encode_image\(\) of Towers: images are uint8; .*; or call model\.backbone"
    ):
        model.encode_image(pixels)
    with pytest.raises(InputTypeError, match=r"images must be floating point \(B, C, H, W\), got torch\.int64"):
        model.encode_image(image=pixels.long())
    for shape in ((2, 1, 24, 40), (2, 24, 40, 3)):
        with pytest.raises(InputError, match=rf"Towers: images have {shape[1]} channels, .* was planned for 3: pass"):
            model.encode_image(torch.zeros(shape))


def test_prefix_tokens_beside_a_map_take_the_plain_mean():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    options = {"img_size": (64, 96), "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
    net = timm.create_model("vit_tiny_patch16_224", **options).eval()
    model = VideoWrap(copy.deepcopy(net), "none", genotype="identity | flip_x", input_size=(3, 64, 96))
    batch = images(size=(3, 64, 96))
    with torch.no_grad():
        for reshape in (True, False):
            words = {"n": [0, 1], "reshape": reshape, "return_prefix_tokens": True}
            one, other = (net.get_intermediate_layers(frames, **words) for frames in (batch, batch.flip(-1)))
            for found, (_, first), (_, second) in zip(
                model.get_intermediate_layers(batch, **words), one, other, strict=True
            ):
                assert found[0].shape == ((2, 24, 4, 6) if reshape else (2, 24, 24))
                torch.testing.assert_close(found[1], (first + second) / 2, atol=1e-6, rtol=0)


def test_image_features_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 20, "max_position_embeddings": 8},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    bare = transformers.CLIPModel(config).eval()
    model = VideoWrap(copy.deepcopy(bare), fusion="none", genotype=PAIR)
    batch, text = images(size=(3, 32, 32)), torch.randint(0, 20, (3, 8))

    def vectors(net, **words):
        found = net.get_image_features(**words)
        return found if isinstance(found, torch.Tensor) else found.pooler_output

    with torch.no_grad():
        expected = (vectors(bare, pixel_values=batch) + vectors(bare, pixel_values=batch.flip(-1))) / 2
        torch.testing.assert_close(vectors(model, pixel_values=batch), expected, atol=1e-6, rtol=0)
        one, other = (net.get_text_features(input_ids=text) for net in (model, bare))
        torch.testing.assert_close(one, other, atol=0, rtol=0)
