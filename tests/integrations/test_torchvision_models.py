"""`i2v_` + every torchvision network of classification and segmentation, as torchvision's own references use them."""

import copy
import json

import pytest
import torch
import torchvision
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel
from torchvision.models import get_model, get_model_weights, list_models
from wrap_helpers import bare_mean, enliven, images, stir

from image2video import ClipWarning, VideoWrap
from image2video.cli import main
from image2video.errors import InputError, InputTypeError
from image2video.integrations import torchvision_models as ours
from image2video.wrap.builders import Builder

SMALL = {"input_size": (3, 64, 64), "weights_backbone": None}


def segmenter(**options):
    torch.manual_seed(0)
    options = {"T": 3, "genotype": "rotate(8)"} | SMALL | options
    made = get_model("i2v_lraspp_mobilenet_v3_large", num_classes=4, **options)
    enliven(made.backbone)
    return made.eval()


def test_the_registry_has_a_twin_of_every_network_of_images_and_none_of_others():
    twins = {name.removeprefix("i2v_") for name in list_models(include="i2v_*")}
    bare = {name for module in ours.ROOMS for name in list_models(module=module)}
    assert twins == bare == set(ours.architectures())
    assert len(twins) == 86
    for name in ("resnet50", "vit_b_16", "fcn_resnet50", "lraspp_mobilenet_v3_large"):
        assert get_model_weights("i2v_" + name) is get_model_weights(name)


def test_arguments_are_split_and_the_plan_is_made_at_the_size_of_the_weights():
    model = get_model("i2v_mobilenet_v3_small", num_classes=7, T=4, fusion="tsm", genotype="rotate(5)", residual=False)
    assert isinstance(model, VideoWrap)
    assert (model.T, model.plan.fusion.name, str(model.genotype)) == (4, "tsm", "rotate(5)")
    assert model.plan.input_size == (3, 224, 224)
    assert model(images()).shape == (2, 7)
    vit = get_model("i2v_vit_b_32", image_size=32, num_classes=3, fusion="none")
    assert vit.plan.input_size == (3, 32, 32)
    assert "mean=(0.485, 0.456, 0.406)" in str(
        get_model("i2v_mobilenet_v3_small", fusion="none", genotype="contrast(1.2)")
    )


def test_maps_by_name_are_those_of_the_bare_network_brought_back():
    model = segmenter(fusion="none", genotype="identity")
    bare = copy.deepcopy(model).unwrap()
    batch = images(size=(3, 64, 96))
    with torch.no_grad():
        torch.testing.assert_close(model(batch)["out"], bare(batch)["out"], atol=1e-6, rtol=0)
        mirrored = VideoWrap(model.unwrap(), fusion="none", genotype="identity | flip_x")
        by_hand = (bare(batch)["out"] + bare(batch.flip(-1))["out"].flip(-1)) / 2
        torch.testing.assert_close(mirrored(batch)["out"], by_hand, atol=1e-5, rtol=0)


def test_without_fusion_a_classifier_is_the_average_over_the_frames():
    model = get_model("i2v_mobilenet_v3_small", num_classes=5, fusion="none", genotype="rotate(8)").eval()
    bare, batch = copy.deepcopy(model).unwrap(), images()
    with torch.no_grad():
        torch.testing.assert_close(model(batch), bare_mean(bare, model.to_video, batch), atol=1e-6, rtol=0)


class ExponentialMovingAverage(AveragedModel):
    """As `references/classification/utils.py` has it."""

    def __init__(self, model, decay, device="cpu"):
        super().__init__(model, device, lambda old, new, _: decay * old + (1 - decay) * new, use_buffers=True)


def test_a_classifier_trains_with_smoothed_labels_and_a_moving_average(tmp_path):
    torch.manual_seed(0)
    model = get_model("i2v_mobilenet_v3_small", num_classes=5, T=2, input_size=(3, 64, 64)).train()
    ema = ExponentialMovingAverage(model, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    before = {name: value.clone() for name, value in model.named_parameters()}
    batch, labels = images(4, (3, 64, 64)), torch.tensor([0, 1, 2, 3])
    for _ in range(2):
        loss = cross_entropy(model(batch), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update_parameters(model)
    moved = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    scales = [name for name in before if name.endswith("gsf.scale")]
    assert {*scales, "backbone.classifier.3.weight", "backbone.features.0.0.weight"} <= set(moved)
    assert len(scales) == len(model.plan.sites) == 6
    torch.save({"model": model.state_dict(), "model_ema": ema.state_dict()}, tmp_path / "model_0.pth")

    saved = torch.load(tmp_path / "model_0.pth", weights_only=True)
    again = get_model("i2v_mobilenet_v3_small", num_classes=5, input_size=(3, 64, 64))
    again.load_state_dict(saved["model"])
    averaged = ExponentialMovingAverage(again, 0.5)
    averaged.load_state_dict(saved["model_ema"])
    assert again.T == averaged.module.T == 2  # the checkpoint's, though 3 is the default
    with torch.no_grad():
        assert torch.equal(again.eval()(batch), model.eval()(batch))
        assert torch.equal(averaged.eval()(batch), ema.eval()(batch))


def test_a_segmenter_trains_with_its_auxiliary_loss():
    torch.manual_seed(0)
    model = get_model("i2v_deeplabv3_mobilenet_v3_large", num_classes=3, aux_loss=True, T=2, **SMALL).train()
    target = torch.randint(0, 3, (2, 64, 80))
    target[:, :8] = 255
    losses = {
        name: cross_entropy(maps, target, ignore_index=255) for name, maps in model(images(size=(3, 64, 80))).items()
    }
    assert list(losses) == ["out", "aux"]
    (losses["out"] + 0.5 * losses["aux"]).backward()
    assert all(p.grad is not None for p in model.backbone.parameters())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_files_build_the_network_again_and_fetch_nothing(tmp_path):
    model = segmenter()
    stir(model.fusion)
    model.save_pretrained(tmp_path)
    again = VideoWrap.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(images())["out"], model(images())["out"])
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["builder"] == {"name": "torchvision:lraspp_mobilenet_v3_large", "kwargs": {"num_classes": 4}}
    for key, value in (("weights", "DEFAULT"), ("weights_backbone", "DEFAULT"), ("num_classes", 10**9), ("x", "a/b")):
        config["builder"]["kwargs"] = {key: value}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=rf"torchvision:lraspp_mobilenet_v3_large has {key}"):
            VideoWrap.from_pretrained(tmp_path)


def fetched(monkeypatch, name):
    """Let torchvision find its default weights of a network without a download: values drawn by a seed."""
    torch.manual_seed(1)
    state = get_model(name).state_dict()
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", lambda self, *args, **words: dict(state))
    return state


def test_weights_pass_through_and_the_recipe_names_none(monkeypatch):
    state = fetched(monkeypatch, "mobilenet_v3_small")
    for weights in ("DEFAULT", torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1):
        model = get_model("i2v_mobilenet_v3_small", weights=weights, T=2)
        torch.testing.assert_close(dict(model.unwrap().state_dict()), dict(state), atol=0, rtol=0)
        assert model.builder == Builder("torchvision:mobilenet_v3_small", {"num_classes": 1000})
    tuned = ours.build("mobilenet_v3_small", num_classes=5, in_chans=3, pretrained=True)
    same = [key for key, value in tuned.state_dict().items() if torch.equal(value, state[key])]
    assert set(state) - set(same) == {"classifier.3.weight", "classifier.3.bias"}
    with pytest.raises(InputError, match=r"do not fit these arguments"):
        ours.build("mobilenet_v3_small", num_classes=5, pretrained=True, width_mult=0.5)


def test_own_names_carry_a_clip_for_scripts_that_pass_none():
    ours.register("turned_resnet18", "resnet18", T=5, genotype="rotate(7)", num_classes=4)
    try:
        model = get_model("turned_resnet18", weights=None, num_classes=6)
        assert (model.T, str(model.genotype), model.backbone.fc.out_features) == (5, "rotate(7)", 6)
        with pytest.warns(ClipWarning, match=r"T=5, the checkpoint has 2"):
            model.load_state_dict(get_model("i2v_resnet18", num_classes=6, T=2, genotype="rotate(7)").state_dict())
        with pytest.raises(InputError, match="has a model 'turned_resnet18' already"):
            ours.register("turned_resnet18", "resnet18")
    finally:
        torchvision.models._api.BUILTIN_MODELS.pop("turned_resnet18")


@pytest.mark.parametrize(
    ("name", "meant"), [("genotypes", "genotype"), ("t", "T"), ("Tt", "T"), ("input_sizes", "input_size")]
)
def test_misspelt_options_are_refused_with_the_ones_that_are_near(name, meant):
    """They came as TypeErrors of torchvision's classes, and a registered name broke when it was called."""
    message = rf"neither VideoWrap nor torchvision's resnet18 knows {name}=; write {meant}="
    with pytest.raises(InputTypeError, match=message):
        get_model("i2v_resnet18", **{name: 3})
    with pytest.raises(InputTypeError, match=message):
        ours.register("misspelt_resnet18", "resnet18", **{name: 3})
    assert "misspelt_resnet18" not in list_models()


def test_arguments_of_torchvision_are_not_taken_for_misspelt_ones():
    with pytest.raises(InputTypeError, match=r"resnet18 refused its arguments, got colour: .*VideoWrap knows T, agg"):
        get_model("i2v_resnet18", colour=3)
    given = {"reduced_tail": True, "dilated": True, "width_mult": 0.5, "dropout": 0.1}
    model = get_model("i2v_mobilenet_v3_small", num_classes=3, fusion="none", **given)
    assert model.backbone.classifier[2].p == 0.1
    for name in ours.architectures():
        ours._check_arguments(name, ["weights", "num_classes", "dropout", "norm_layer", "progress"])


def test_what_is_not_of_images_is_refused_by_name():
    with pytest.raises(InputError, match=r"'raft_small' returns no scores or maps of images"):
        ours.create("raft_small")
    with pytest.raises(InputError, match=r"no model 'resnet19'; similar names: .*resnet18"):
        ours.build("resnet19")
    with pytest.raises(InputError, match=r"3 channels, got in_chans=1"):
        ours.build("resnet18", in_chans=1)


def test_the_command_line_builds_them(capsys):
    assert main(["sites", "torchvision:mobilenet_v3_small"]) in (0, None)
    assert "features.11.block" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ours.architectures())
def test_every_network_is_wrapped(name):
    """Without fusion and with one frame each equals the bare network; with fusion it has sites."""
    side = {"inception_v3": 96, "maxvit_t": 224}.get(name, 64)
    sized = {"image_size": side} if name.startswith("vit_") else {}
    if name == "vit_h_14":
        sized["image_size"] = side = 70
    torch.manual_seed(0)
    bare = ours.build(name, **sized).eval()
    batch = images(2, (3, side, side))
    with torch.no_grad():
        expected = bare(batch)
        model = VideoWrap(bare, genotype="translate_x(0.03)", T=2, input_size=(3, side, side))
        assert model.plan.sites
        model(batch)
        alone = VideoWrap(model.unwrap(), fusion="none", genotype="identity", T=1)(batch)
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)
