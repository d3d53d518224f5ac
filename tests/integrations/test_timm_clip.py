"""timm's scripts build `i2v_` models by name and load a checkpoint: the clip is the one that it was trained with."""

import argparse

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import load_checkpoint, resume_checkpoint
from timm.utils import CheckpointSaver, ModelEmaV3, ParseKwargs
from wrap_helpers import backbone, images, state_of, stir

from image2video.integrations import timm_models  # noqa: F401 (registers the wrapped models)
from image2video.wrap.clip_record import ClipWarning
from image2video.wrap.video_wrap import VideoWrap

NAME = "i2v_cifar_resnet8"
TRAINED = {"T": 3, "genotype": "translate_x(0.1) > rotate(12)", "padding": "reflection", "schedule": "centred"}


def trained(**options):
    """A model as a training with `--model-kwargs` leaves it."""
    torch.manual_seed(1)
    model = timm.create_model(NAME, num_classes=5, **{**TRAINED, **options}).eval()
    stir(model.fusion)
    return model


@torch.no_grad()
def test_a_frame_set_comes_from_the_command_line_and_with_the_checkpoint(tmp_path):
    """`--model-kwargs "genotype=identity | flip_x"`, read as timm's scripts read it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model-kwargs", nargs="*", default={}, action=ParseKwargs)
    kwargs = parser.parse_args(["--model-kwargs", "genotype=identity | flip_x | rotate(12)"]).model_kwargs
    source = timm.create_model(NAME, num_classes=5, **kwargs).eval()
    stir(source.fusion)
    assert (source.T, str(source.genotype)) == (3, "identity | flip_x | rotate(12)")
    path = saved(source, tmp_path)
    model = timm.create_model(NAME, num_classes=5)
    load_checkpoint(model, path, False)
    assert torch.equal(answers(model), answers(source))


def saved(model, folder):
    """A checkpoint as timm's train.py writes it, with the average beside the weights and the parsed command line."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    arguments = argparse.Namespace(model=NAME)
    saver = CheckpointSaver(
        model, optimizer, arguments, ModelEmaV3(model), checkpoint_dir=str(folder), recovery_dir=str(folder)
    )
    saver.save_checkpoint(0, metric=1.0)
    return str(folder / "last.pth.tar")


@torch.no_grad()
def answers(model):
    return model.eval()(images())


# The average and the weights themselves are read by the same code: both of the default, one of each option.
@pytest.mark.parametrize(
    ("options", "averaged"),
    [
        ({}, (True, False)),
        ({"fusion": "tsm"}, (True,)),
        ({"fusion": "none"}, (False,)),
        ({"sites": r"layer[12]\..*"}, (True,)),
        ({"aggregate": "mean_prob"}, (False,)),
    ],
    ids=str,
)
def test_validation_sees_the_clip_of_training(options, averaged, tmp_path):
    """As validate.py: `create_model(name)`, then `load_checkpoint(model, path, use_ema)`."""
    source = trained(**options)
    path = saved(source, tmp_path)
    for use_ema in averaged:
        model = timm.create_model(NAME, num_classes=5)
        if "sites" in options:
            with pytest.warns(ClipWarning, match=r"made anew.*at 2 sites.*optimiser"):
                load_checkpoint(model, path, use_ema)
        else:
            load_checkpoint(model, path, use_ema)
        assert torch.equal(answers(model), answers(source))
        assert (model.T, model.genotype, model.plan.names) == (3, source.genotype, source.plan.names)


def test_exports_hold_the_clip_of_training(tmp_path):
    """As onnx_export.py: `create_model(name, checkpoint_path=path, exportable=True)`."""
    source = trained()
    save_file(state_of(source), tmp_path / "weights.safetensors")
    for path in (saved(source, tmp_path), str(tmp_path / "weights.safetensors")):
        model = timm.create_model(NAME, num_classes=5, checkpoint_path=path, exportable=True).eval()
        exported = torch.export.export(model, (images(),)).module()
        torch.testing.assert_close(exported(images()), answers(source))


def test_what_is_given_stays_and_is_said(tmp_path):
    path = saved(trained(), tmp_path)
    model = timm.create_model(NAME, num_classes=5, T=5)
    with pytest.warns(ClipWarning, match=r"clip: T=5, the checkpoint has 3\. The model keeps its own"):
        load_checkpoint(model, path)
    expected = trained()
    expected.set_frames(5)
    assert torch.equal(answers(model), answers(expected))
    model = timm.create_model(NAME, num_classes=5, genotype="rotate(3)", fusion="tsm")
    with (
        pytest.warns(ClipWarning, match=r"genotype='rotate\(3\)', the checkpoint has 'translate_x.*; fusion=\{'name'"),
        pytest.raises(RuntimeError, match=r"Unexpected key.*fusion\."),
    ):
        load_checkpoint(model, path)
    assert (str(model.genotype), model.T, model.to_video.padding) == ("rotate(3)", 3, "reflection")


def test_frames_that_are_set_stay():
    model = timm.create_model(NAME, num_classes=5)
    model.set_frames(4)
    with pytest.warns(ClipWarning, match="T=4, the checkpoint has 3"):
        model.load_state_dict(trained().state_dict())
    assert (model.T, model.genotype) == (4, trained().genotype)


def test_a_resumed_training_keeps_its_fusions_in_the_optimiser(tmp_path):
    path = saved(trained(), tmp_path)
    model = timm.create_model(NAME, num_classes=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    resume_checkpoint(model, path, optimizer)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    assert torch.equal(answers(model), answers(trained()))


def test_bare_checkpoints_leave_the_clip():
    model = timm.create_model(NAME, num_classes=5, T=2)
    with pytest.warns(UserWarning, match="fusion parameters"):
        model.load_state_dict(backbone("cifar_resnet8", num_classes=5).state_dict())
    assert model.T == 2
    # A wrapper of one's own keeps what it was made with.
    own = VideoWrap(backbone("cifar_resnet8", num_classes=5), T=2)
    with pytest.warns(ClipWarning, match="T=2, the checkpoint has 3"):
        own.load_state_dict(trained().state_dict())
    assert own.T == 2
