"""`i2v_` + every timm architecture in timm's registry, and the launcher that makes timm's scripts see them."""

import argparse
import runpy
import subprocess
import sys
import textwrap

import pytest
import timm
import torch
from forked import module, together
from timm.models import get_pretrained_cfg, is_model_pretrained, resolve_model_input_args
from timm.utils import ParseKwargs
from wrap_helpers import backbone, images, same_state, state_of

from image2video.clip.genotype import Genotype
from image2video.errors import InputError, MissingError
from image2video.integrations import timm_models
from image2video.integrations.timm_launch import launch
from image2video.wrap.video_wrap import VideoWrap


def test_every_architecture_is_registered():
    bare = {name for name in timm.list_models() if not name.startswith("i2v_")}
    assert {"i2v_" + name for name in bare} == set(timm.list_models("i2v_*"))
    assert len(bare) > 1300
    assert timm.is_model("i2v_resnet50")
    assert timm.is_model("i2v_cifar_resnet18")
    assert not any(name.startswith("i2v_i2v_") for name in timm.list_models())


def test_registering_again_adds_nothing():
    assert timm_models.register_all() == []


def test_tags_and_configs_are_those_of_the_bare_names():
    for name in ("resnet50.a1_in1k", "resnet50", "vit_base_patch16_224.augreg_in21k", "test_vit"):
        bare, ours = get_pretrained_cfg(name), get_pretrained_cfg("i2v_" + name)
        assert ours.hf_hub_id == bare.hf_hub_id
        assert (ours.tag, ours.mean, ours.input_size) == (bare.tag, bare.mean, bare.input_size)
        assert is_model_pretrained("i2v_" + name) == is_model_pretrained(name)
    tagged = timm.list_models("i2v_resnet50*", pretrained=True)
    assert ["i2v_" + name for name in timm.list_models("resnet50*", pretrained=True)] == tagged
    with pytest.raises(RuntimeError, match=r"Invalid pretrained tag"):
        timm.create_model("i2v_resnet50.no_such_tag")


def test_star_import_works():
    space = {}
    exec("from image2video.integrations.timm_models import *", space)
    assert callable(space["i2v_resnet18"])


def test_create_model_splits_its_arguments():
    model = timm.create_model(
        "i2v_test_resnet.r160_in1k", T=4, fusion="tsm", genotype="rotate(5)", num_classes=7, in_chans=1, residual=False
    )
    assert isinstance(model, VideoWrap)
    assert (model.T, model.plan.fusion.name, str(model.genotype)) == (4, "tsm", "rotate(5)")
    assert model(torch.randn(2, 1, 64, 64)).shape == (2, 7)
    assert model.pretrained_cfg["tag"] == "r160_in1k"
    assert model.pretrained_cfg["architecture"] == "test_resnet"
    assert model.builder.name == "timm:test_resnet.r160_in1k"
    assert model.builder.kwargs == {"num_classes": 7, "in_chans": 1}
    assert timm.create_model("i2v_test_vit", img_size=64).plan.input_size == (3, 64, 64)


def test_pretrained_weights_come_through_the_usual_options(tmp_path):
    bare = backbone("test_resnet", seed=4)
    path = tmp_path / "weights.pth"
    torch.save(bare.state_dict(), path)
    model = timm.create_model(
        "i2v_test_resnet", pretrained=True, pretrained_cfg_overlay={"file": str(path)}, num_classes=10, T=2
    )
    assert model.num_classes == 10
    same = {n: v for n, v in bare.state_dict().items() if not n.startswith("fc.")}
    assert all(torch.equal(model.backbone.state_dict()[n], v) for n, v in same.items())
    whole = timm.create_model("i2v_test_resnet", pretrained=True, pretrained_cfg_overlay={"file": str(path)}, T=2)
    assert same_state(state_of(whole.backbone), state_of(bare))
    with pytest.warns(UserWarning, match="none of the"):
        loaded = timm.create_model("i2v_test_resnet", checkpoint_path=str(path), T=2)
    assert same_state(state_of(loaded.backbone), state_of(bare))


def test_features_only():
    model = timm.create_model("i2v_cifar_resnet8", features_only=True, out_indices=(1, 3), T=2)
    assert [tuple(m.shape) for m in model(images())] == [(2, 16, 32, 40), (2, 64, 8, 10)]


def test_arguments_that_json_cannot_hold_leave_no_builder():
    model = timm.create_model("i2v_cifar_resnet8", act_layer=torch.nn.SiLU, T=2)
    assert model.builder is None


def test_timm_resolves_input_arguments_for_wrapped_names():
    arguments = resolve_model_input_args("i2v_test_vit", {"img_size": 96}, T=2)
    model = timm.create_model(**arguments)
    assert isinstance(model, VideoWrap)
    assert model.plan.input_size[1:] == (96, 96)
    assert model.pretrained_cfg["architecture"] == "test_vit"


@pytest.mark.parametrize("text", ["translate_x(0.06) > rotate(10)", "scale(1.1)", "identity", "rotate(-5)", "FILE"])
def test_genotypes_pass_through_timm_command_lines(text, tmp_path):
    if text == "FILE":
        Genotype.parse("rotate(3)").save(tmp_path / "found genotype.json")
        text = str(tmp_path / "found genotype.json")
    parser = argparse.ArgumentParser()
    parser.add_argument("--model-kwargs", nargs="*", default={}, action=ParseKwargs)
    line = ["--model-kwargs", "T=3", f"genotype={text}", "fusion=tsm", "residual=False", r"sites=layer[12]\..*"]
    kwargs = parser.parse_args(line).model_kwargs
    model = timm.create_model("i2v_cifar_resnet8", **kwargs)
    assert model.genotype == Genotype.coerce(text)
    assert (model.T, model.plan.fusion.name, model.residual) == (3, "tsm", False)
    assert len(model.plan.sites) == 2


def test_presets_pass_too():
    for preset in Genotype.presets():
        model = timm.create_model("i2v_cifar_resnet8", genotype=f"preset:{preset}", fusion="none")
        assert model.genotype == Genotype.preset(preset)
    with pytest.raises(MissingError, match="unknown preset 'no_such'"):
        timm.create_model("i2v_cifar_resnet8", genotype="preset:no_such")


@pytest.mark.slow
def test_registration_is_quick():
    # Process time, not wall time: other processes must not fail it. The bound is 20 times what it takes.
    code = (
        "import time, timm, image2video.wrap.video_wrap; start = time.process_time(); "
        "import image2video.integrations.timm_models; print(time.process_time() - start)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 6.0


SCRIPT = """
import argparse, sys, pathlib
import timm, torch, helper
from timm.data import resolve_data_config
from timm.models import load_checkpoint
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3, ParseKwargs

parser = argparse.ArgumentParser()
parser.add_argument("--model")
parser.add_argument("--initial-checkpoint")
parser.add_argument("--model-kwargs", nargs="*", default={}, action=ParseKwargs)
args = parser.parse_args()
model = timm.create_model(args.model, num_classes=3, **args.model_kwargs)
config = resolve_data_config(vars(args), model=model)
load_checkpoint(model, args.initial_checkpoint)
optimizer = create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=1e-4, layer_decay=0.8)
ema = ModelEmaV3(model, decay=0.9)
x = torch.randn(4, *config["input_size"])
for _ in range(2):
    loss = torch.nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0]))
    optimizer.zero_grad(); loss.backward(); optimizer.step(); ema.update(model)
print(__name__, type(model).__name__, model.T, str(model.genotype), tuple(ema(x).shape), helper.VALUE, sys.argv[0])
torch.save({"state_dict": model.state_dict(), "state_dict_ema": ema.module.state_dict()}, "last.pth")
load_checkpoint(model, "last.pth")
"""


def test_the_launcher_runs_a_training_script(tmp_path):
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "train.py").write_text(textwrap.dedent(SCRIPT))
    (folder / "helper.py").write_text("VALUE = 42")
    torch.save(backbone("cifar_resnet8", num_classes=3).state_dict(), tmp_path / "bare.pth")
    command = ["scripts/train.py", "--model", "i2v_cifar_resnet8", "--initial-checkpoint", "bare.pth"]
    command += ["--model-kwargs", "T=2", "genotype=translate_x(0.06) > rotate(10)"]
    (ended,) = together(tmp_path, module, "image2video.integrations.timm_launch", *command)
    assert ended.code == 0, ended.error
    said = ended.out.strip()
    assert said == "__main__ VideoWrap 2 translate_x(0.06) > rotate(10) (4, 3) 42 scripts/train.py"


def test_the_launcher_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="name the script to run; got no arguments"):
        launch([])
    with pytest.raises(InputError, match="got '--model' first"):
        launch(["--model", "i2v_resnet18"])
    with pytest.raises(MissingError, match=r"no script 'train.py'"):
        launch(["train.py"])


def test_the_launcher_ends_with_a_message(monkeypatch):
    """A text given to SystemExit is printed to stderr, without a traceback, and the exit status is 1."""
    name = "image2video.integrations.timm_launch"
    monkeypatch.setattr(sys, "argv", ["timm_launch", "gone.py"])
    monkeypatch.delitem(sys.modules, name)  # as in a process of its own
    with pytest.raises(SystemExit, match=r"there is no script 'gone\.py'.*usage: python -m "):
        runpy.run_module(name, run_name="__main__")
