"""save_pretrained and from_pretrained round-trip the wrapper."""

import json

import pytest
import timm
import torch
from decoder_nets import Branch, EncoderDecoder
from safetensors.torch import load_file
from torch import nn
from wrap_helpers import CHAIN, COLOURFUL, backbone, images, same_state, state_of, stir, wrapped

from image2video.clip.genotype import Genotype
from image2video.errors import InputError, InputTypeError, MissingError
from image2video.fusion import Conv3dConfig, GSFConfig, GSMConfig, NoFusionConfig, TSMConfig
from image2video.inject import planning
from image2video.integrations import timm_models  # noqa: F401 (registers the wrapped models)
from image2video.wrap.video_wrap import VideoWrap


@pytest.mark.parametrize("fusion", [GSFConfig(ratio=0.5), GSMConfig(), TSMConfig(), Conv3dConfig(), NoFusionConfig()])
@torch.no_grad()
def test_round_trip(fusion, tmp_path):
    options = {"schedule": "centred", "padding": "border", "interpolation": "bicubic", "aggregate": "mean_prob"}
    model = wrapped(fusion, stirred=True, residual=False, freeze_bn=True, **options)
    model.save_pretrained(tmp_path / "saved")
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == ["config.json", "model.safetensors"]
    twin = VideoWrap.from_pretrained(tmp_path / "saved", backbone=backbone(seed=9))
    assert torch.equal(twin(images()), model(images()))
    assert same_state(state_of(twin), state_of(model))
    assert twin.plan == model.plan
    assert (twin.T, twin.genotype, twin.residual, twin.freeze_bn) == (3, model.genotype, False, True)
    video = twin.to_video
    assert (video.schedule, video.padding, video.interpolation, twin.aggregate) == tuple(options.values())
    assert not twin.training


@torch.no_grad()
def test_without_a_backbone_the_recorded_builder_is_used(tmp_path):
    model = timm.create_model("i2v_cifar_resnet8", num_classes=7, in_chans=1, T=2, genotype="rotate(4)").eval()
    stir(model.fusion)
    model.save_pretrained(tmp_path)
    twin = VideoWrap.from_pretrained(tmp_path)
    batch = images(size=(1, 32, 32))
    assert torch.equal(twin(batch), model(batch))
    assert twin.builder == model.builder
    twin.save_pretrained(tmp_path / "again")
    assert torch.equal(VideoWrap.from_pretrained(tmp_path / "again")(batch), model(batch))


@torch.no_grad()
def test_a_classifier_that_was_reset_is_rebuilt(tmp_path):
    model = timm.create_model("i2v_cifar_resnet8", T=2).eval()
    model.reset_classifier(5)
    model.save_pretrained(tmp_path)
    assert torch.equal(VideoWrap.from_pretrained(tmp_path)(images()), model(images()))
    model.reset_classifier(0, global_pool="")  # features now: maps of the image
    model.save_pretrained(tmp_path)
    twin = VideoWrap.from_pretrained(tmp_path)
    assert twin(images()).shape == (2, 64, 8, 10)
    assert torch.equal(twin(images()), model(images()))


def test_without_a_builder_a_backbone_is_needed(tmp_path):
    wrapped(stirred=True).save_pretrained(tmp_path)
    with pytest.raises(MissingError, match=r"names no builder.*pass from_pretrained\(path, backbone=…\)"):
        VideoWrap.from_pretrained(tmp_path)


@torch.no_grad()
def test_chosen_sites_are_kept(tmp_path):
    model = wrapped("gsf", stirred=True, sites=r"layer[13]\..*")
    assert len(model.plan.sites) == 2
    model.save_pretrained(tmp_path)
    twin = VideoWrap.from_pretrained(tmp_path, backbone=backbone())
    assert twin.plan.names == model.plan.names
    assert torch.equal(twin(images()), model(images()))


def test_other_sites_are_an_error_that_lists_both(tmp_path):
    wrapped(stirred=True).save_pretrained(tmp_path)
    before = timm.create_model("cifar_resnet18")
    with pytest.raises(InputError) as error:
        VideoWrap.from_pretrained(tmp_path, backbone=before)
    text = str(error.value)
    assert "saved (3): layer1.0.conv2 (after, 16 channels)" in text
    assert "found (8): layer1.0.conv2 (after, 64 channels)" in text
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in before.modules())


def test_the_config_says_everything(tmp_path):
    wrapped(stirred=True).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["library"] == "image2video"
    assert config["schema_version"] == 1
    assert Genotype.from_json(json.dumps(config["genotype"])) == Genotype.parse(CHAIN)
    assert config["fusion"] == {"name": "gsf", "ratio": 0.25, "padding": "zeros"}
    assert [site["name"] for site in config["sites"]] == ["layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2"]
    assert set(config["versions"]) == {"image2video", "torch"}
    assert config["builder"] is None
    assert str(tmp_path) not in json.dumps(config)


@pytest.mark.parametrize("given", [{}, {"mean": 0.25, "std": (0.1, 0.2, 0.3)}])
@torch.no_grad()
def test_the_colours_are_kept(given, tmp_path):
    model = wrapped(stirred=True, genotype=COLOURFUL, **given)
    model.save_pretrained(tmp_path)
    other = backbone()
    other.pretrained_cfg = {**other.pretrained_cfg, "mean": (0.9,) * 3}  # what was saved counts
    twin = VideoWrap.from_pretrained(tmp_path, backbone=other)
    assert twin.to_video.colours == model.to_video.colours
    assert torch.equal(twin(images()), model(images()))


@torch.no_grad()
def test_a_config_of_before_there_were_colours_still_loads(tmp_path):
    model = wrapped(stirred=True)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["mean"] == list(model.to_video.colours.mean)
    for key in ("mean", "std"):
        del config[key]
    (tmp_path / "config.json").write_text(json.dumps(config))
    twin = VideoWrap.from_pretrained(tmp_path, backbone=backbone())
    assert torch.equal(twin(images()), model(images()))


def test_the_provenance_of_a_genotype_is_kept(tmp_path):
    genotype = Genotype.parse(CHAIN).with_provenance({"dataset": "digits", "seed": 3})
    wrapped(stirred=True, genotype=genotype).save_pretrained(tmp_path)
    twin = VideoWrap.from_pretrained(tmp_path, backbone=backbone())
    assert dict(twin.genotype.provenance) == {"dataset": "digits", "seed": 3}


def test_saved_weights_have_the_names_of_the_state_dict(tmp_path):
    model = wrapped(stirred=True).to(memory_format=torch.channels_last)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert same_state(saved, state_of(model))


@torch.no_grad()
def test_tied_weights(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
            self.b.weight = self.a.weight

        def forward(self, x):
            return (self.a(x) + self.b(x)).mean((2, 3))

    model = VideoWrap(Tied(), "none", T=2)
    model.save_pretrained(tmp_path)
    twin = VideoWrap.from_pretrained(tmp_path, backbone=Tied()).train(model.training)
    assert torch.equal(twin(images()), model(images()))


def test_a_callable_aggregation_cannot_be_saved(tmp_path):
    with pytest.raises(InputTypeError, match=r"callable.*JSON"):
        wrapped(stirred=True, aggregate=lambda out, T: out).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.update(library="other"), "not a config of image2video"),
        (lambda c: c.update(schema_version=99), "schema_version 99"),
        (lambda c: c.pop("sites"), "missing or unknown keys: sites"),
        (lambda c: c.update(extra=1), "missing or unknown keys: extra"),
        (lambda c: c.update(T=0), "T"),
        (lambda c: c.update(fusion={"name": "lstm"}), "lstm"),
        (lambda c: c.update(builder={"name": "timm:x"}), "builder"),
    ],
)
def test_bad_configs(change, match, tmp_path):
    wrapped(stirred=True).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=match):
        VideoWrap.from_pretrained(tmp_path, backbone=backbone())


def test_missing_files(tmp_path):
    with pytest.raises(MissingError, match=r"holds no config.json"):
        VideoWrap.from_pretrained(tmp_path)
    wrapped(stirred=True).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MissingError, match=r"holds no model.safetensors"):
        VideoWrap.from_pretrained(tmp_path, backbone=backbone())
    for path in (tmp_path / "gone", "gone", "a/b/c"):
        with pytest.raises(MissingError, match=r"there is no folder .*OWNER/NAME"):
            VideoWrap.from_pretrained(path)


@torch.no_grad()
def test_hub_ids_are_downloaded(tmp_path, monkeypatch):
    model = wrapped(stirred=True)
    model.save_pretrained(tmp_path)
    asked = []

    def download(repository, name, revision, token):
        asked.append((repository, name, revision))
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    twin = VideoWrap.from_pretrained("owner/model", backbone=backbone(), revision="v1")
    assert torch.equal(twin(images()), model(images()))
    assert asked == [("owner/model", "config.json", "v1"), ("owner/model", "model.safetensors", "v1")]

    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(MissingError, match=r"'owner/model' here, and the Hugging Face Hub gave .*no network"):
        VideoWrap.from_pretrained("owner/model")


def decoding():
    return EncoderDecoder(nn.Sequential(nn.Conv2d(3, 8, 1), Branch()), nn.Sequential(Branch()))


@torch.no_grad()
@pytest.mark.parametrize("chosen", [["encoder.1.conv", "decoder.0.conv"], r"decoder\..*", None])
def test_sites_in_a_decoder_load_again(chosen, tmp_path, monkeypatch):
    if chosen is None:  # as 0.1 planned by default
        monkeypatch.setattr(planning, "without_decoder", lambda backbone, found: (found, []))
    model = VideoWrap(decoding(), "gsf", T=3, sites=chosen, input_size=(3, 8, 12)).eval()
    assert "decoder.0.conv" in model.plan.names
    stir(model.fusion)
    model.save_pretrained(tmp_path)
    monkeypatch.undo()
    twin = VideoWrap.from_pretrained(tmp_path, backbone=decoding())
    assert twin.plan.sites == model.plan.sites
    batch = images(size=(3, 8, 12))
    assert torch.equal(twin(batch), model(batch))
