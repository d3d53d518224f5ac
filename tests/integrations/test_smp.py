"""segmentation_models.pytorch: every architecture wrapped, with maps brought back; small encoders without weights."""

import copy

import pytest
import torch
from imagenet_sample import needs_sample, network_and_images
from wrap_helpers import enliven, images, stir

from image2video import VideoWrap, plan
from image2video.errors import StateError

smp = pytest.importorskip("segmentation_models_pytorch")

SIZES = {"PAN": (3, 128, 160), "DPT": (3, 64, 64)}
VIT = {"encoder_name": "tu-test_vit", "encoder_depth": 3, "decoder_intermediate_channels": (16, 16, 16)}
VIT |= {"decoder_fusion_channels": 16, "dynamic_img_size": True}
DECODERS = ["DPT", "DeepLabV3", "DeepLabV3Plus", "FPN", "Linknet", "MAnet", "PAN", "PSPNet", "Segformer", "UPerNet"]
DECODERS += ["Unet", "UnetPlusPlus"]


def network(name):
    torch.manual_seed(0)
    options = VIT if name == "DPT" else {"encoder_name": "tu-test_resnet"}
    made = getattr(smp, name)(encoder_weights=None, classes=3, **options).eval()
    enliven(made)
    return made


def size(name):
    return SIZES.get(name, (3, 64, 96))


@pytest.mark.parametrize("name", DECODERS)
def test_maps_come_back_and_sites_stay_in_the_encoder(name):
    bare, batch = network(name), images(size=size(name))
    model = VideoWrap(copy.deepcopy(bare), genotype="identity | flip_x", input_size=size(name)).eval()
    assert model.plan.sites
    assert all(site.startswith("encoder.") for site in model.plan.names)
    with torch.no_grad():
        expected = (bare(batch) + bare(batch.flip(-1)).flip(-1)) / 2
        torch.testing.assert_close(model(batch), expected, atol=1e-5, rtol=1e-5)
        stir(model.fusion)
        assert not torch.allclose(model(batch), expected, atol=1e-5)
        # One image by itself, without fusion, is tests/wrap/'s; that the network is given back as it was is of each.
        torch.testing.assert_close(model.unwrap()(batch), bare(batch), atol=0, rtol=0)


@pytest.mark.parametrize("name", ["MAnet", "DPT"])
def test_decoders_can_be_asked_for(name):
    found = plan(network(name), sites=r"decoder\..*", input_size=size(name))
    assert found.sites


def test_the_encoder_alone_is_the_bare_part_or_is_wrapped_alone():
    """The page said that it is the bare part with fusions too, which refuse a call without frames."""
    bare, batch = network("FPN"), images(size=size("FPN"))
    options = {"genotype": "identity | flip_x", "input_size": size("FPN")}
    with torch.no_grad():
        expected, mirrored = bare.encoder(batch), bare.encoder(batch.flip(-1))
        plain = VideoWrap(copy.deepcopy(bare), fusion="none", **options).eval()
        model = VideoWrap(copy.deepcopy(bare), **options).eval()
        with pytest.raises(StateError, match=r"'encoder\..* was called outside of its wrapper.* call wrapper\.unwrap"):
            model.encoder(batch)
        for encoder in (plain.encoder, model.unwrap().encoder):
            torch.testing.assert_close(encoder(batch), expected, atol=0, rtol=0)
        maps = VideoWrap(bare.encoder, **options).eval()(batch)
    assert len(maps) == len(expected) == 6
    for own, one, other in zip(maps, expected, mirrored, strict=True):
        torch.testing.assert_close(own, (one + other.flip(-1)) / 2, atol=1e-5, rtol=1e-5)


def test_predict_sees_the_clip_and_begins_evaluation():
    model = VideoWrap(network("FPN"), T=3, genotype="rotate(5)", input_size=size("FPN"))
    stir(model.fusion)
    batch = images(size=size("FPN"))
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(batch)
    torch.testing.assert_close(model.train().predict(batch), expected, atol=1e-5, rtol=1e-5)
    assert not any(module.training for module in model.modules())


def test_an_auxiliary_head_for_labels_is_averaged():
    torch.manual_seed(0)
    bare = smp.Unet("tu-test_resnet", encoder_weights=None, classes=3, aux_params={"classes": 4, "dropout": 0.1}).eval()
    model = VideoWrap(copy.deepcopy(bare), fusion="none", genotype="identity | flip_x", input_size=size("Unet"))
    batch = images(size=size("Unet"))
    with torch.no_grad():
        (maps, labels), (one, first), (other, second) = model(batch), bare(batch), bare(batch.flip(-1))
    torch.testing.assert_close(maps, (one + other.flip(-1)) / 2, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(labels, (first + second) / 2, atol=1e-5, rtol=1e-5)


def test_a_step_with_dice_loss():
    model = VideoWrap(network("Unet"), T=2, genotype="rotate(5)", input_size=size("Unet")).train()
    target = torch.randint(0, 3, (2, 64, 96))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss = smp.losses.DiceLoss("multiclass")
    found = []
    for _ in range(3):
        value = loss(model(images(size=size("Unet"))), target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        found.append(value.item())
    assert found[-1] < found[0]
    assert all(p.grad is not None for p in model.fusion.parameters())


@pytest.mark.data
@needs_sample
def test_a_trained_encoder_gives_the_average_of_real_images():
    trained, batch, _ = network_and_images(slice(0, 8))
    torch.manual_seed(0)
    bare = smp.FPN("tu-tf_efficientnet_lite0", encoder_weights=None, classes=3).eval()
    kept = bare.encoder.model.load_state_dict(trained.state_dict(), strict=False)
    assert not kept.missing_keys
    model = VideoWrap(copy.deepcopy(bare), genotype="identity | flip_x", input_size=(3, 160, 160)).eval()
    with torch.no_grad():
        expected = (bare(batch) + bare(batch.flip(-1)).flip(-1)) / 2
        torch.testing.assert_close(model(batch), expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(model.predict(batch), model(batch))
