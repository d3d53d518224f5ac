"""`--import`: a user's own ops and fusions on the command line, in config files, and in the record of a run."""

import re
import sys

import pytest
import torch
import yaml

from image2video import Builder, VideoWrap, register_builder
from image2video.cli.app import COMMANDS, build_parser, main
from image2video.cli.own_code import import_code, import_model
from image2video.clip.ops import registry
from image2video.errors import InputError, MissingError
from image2video.wrap import builders

OP = """
import torch
from image2video import Op, register_op


def squeeze(magnitude, steps, height, width):
    factor, zero, one = magnitude**steps, torch.zeros_like(steps), torch.ones_like(steps)
    return torch.stack([factor, zero, zero, zero, one, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


own = Op("squeeze_own", "(factor)", default=0.9, low=0.5, high=2, neutral=1, matrix=squeeze)
register_op(own)
"""


@pytest.fixture(autouse=True)
def _own(tmp_path, monkeypatch):
    """A folder with `own_squeeze.py`; what is registered and imported is gone afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    (tmp_path / "own_squeeze.py").write_text(OP)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def test_every_command_takes_it():
    for command in COMMANDS:
        parser = build_parser(command)
        assert "--import" in parser._subparsers._group_actions[0].choices[command].format_help()


def test_an_own_op_trains_and_is_recorded(tmp_path, capsys):
    words = ["train", "--data", "digits", "--train-images", "40", "--epochs", "1", "--frames", "2", "--device", "cpu"]
    clip = ["--genotype", "squeeze_own(0.8)", "--image-size", "8"]
    assert main([*words, *clip, "--out", "without"]) == 2
    assert "squeeze_own" in capsys.readouterr().err
    assert main([*words, *clip, "--import", "own_squeeze.py", "--out", "run"]) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["import"] == "own_squeeze.py"
    # The record repeats the run.
    assert main(["train", "--config", "run/config.yaml", "--out", "again"]) == 0
    again = yaml.safe_load((tmp_path / "again" / "config.yaml").read_text())
    assert again["import"] == "own_squeeze.py"
    assert again["genotype"] == config["genotype"]


def test_a_module_of_the_working_folder_and_a_list(tmp_path):
    (tmp_path / "own_empty.py").write_text("")
    import_code(["own_squeeze", "own_empty.py"])
    assert "squeeze_own" in registry._REGISTRY
    import_code("own_squeeze, own_empty")  # once in a process: an op cannot be registered twice
    assert str(tmp_path) not in sys.path


def test_what_cannot_be_imported_is_named(tmp_path):
    (tmp_path / "own_wrong.py").write_text("x = 1\nraise ValueError('no such colour')\n")
    (tmp_path / "own_typo.py").write_text("x = = 1\n")
    (tmp_path / "own_needs.py").write_text("import own_not_installed\n")
    (tmp_path / "json.py").write_text("")
    with pytest.raises(InputError, match=r"--import own_wrong.py: own_wrong.py:2: ValueError: no such colour; mend it"):
        import_code("own_wrong.py")
    assert "own_wrong" not in sys.modules
    with pytest.raises(InputError, match=r"own_typo.py:1: SyntaxError"):
        import_code("own_typo.py")
    with pytest.raises(InputError, match=r"own_needs.py:1: ModuleNotFoundError: No module named 'own_not_installed'"):
        import_code("own_needs")
    with pytest.raises(MissingError, match=r"--import own_gone.py: no file own_gone.py; give a .py file"):
        import_code("own_gone.py")
    with pytest.raises(MissingError, match=r"--import own_gone: no module own_gone"):
        import_code("own_gone")
    with pytest.raises(InputError, match="a module 'json' is loaded already; give the file another name"):
        import_code("json.py")


def test_an_error_of_ours_keeps_its_kind(tmp_path):
    (tmp_path / "own_twice.py").write_text(OP + "register_op(own)\n")
    with pytest.raises(InputError, match=r"--import own_twice.py: .*squeeze_own"):
        import_code("own_twice.py")


NETWORK = """
from torch import nn


def build(num_classes, width=4):
    layers = [nn.Conv2d(1, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)]
    return nn.Sequential(*layers)


def nothing():
    return 3


def broken(num_classes):
    raise ValueError("no such layer")
"""


@pytest.fixture
def _network(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "_REGISTERED", {})
    (tmp_path / "own_net.py").write_text(NETWORK)


@pytest.mark.usefixtures("_network")
@pytest.mark.parametrize("name", ["own_net:build", "own_net.py:build"])
def test_a_network_of_a_function_is_trained_and_evaluated(name, tmp_path, monkeypatch, capsys):
    words = ["--data", "digits", "--train-images", "40", "--image-size", "8", "--device", "cpu"]
    train = ["train", *words, "--genotype", "none", "--epochs", "1", "--model", name, "--out", "run"]
    assert main([*train, "--model-kwargs", '{"width": 6}']) == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"] == name
    # In another process, a record alone runs no code: the network is named again.
    monkeypatch.setattr(builders, "_REGISTERED", {})
    capsys.readouterr()
    assert main(["evaluate", "--weights", "run", "--data", "digits"]) == 2
    assert f"give --model {name}" in capsys.readouterr().err
    assert main(["evaluate", "--weights", "run", "--data", "digits", "--model", name]) == 0


@pytest.mark.usefixtures("_network")
def test_a_saved_folder_of_such_a_network_loads_where_it_is_named(tmp_path, monkeypatch):
    import_model("own_net.py:build")
    builder = Builder("own_net.py:build", {"num_classes": 10})
    model = VideoWrap(builder.build(), "none", genotype="flip_x", T=2, input_size=(1, 8, 8))
    model.builder = builder
    model.save_pretrained(tmp_path / "saved")
    evaluate = ["evaluate", "--weights", str(tmp_path / "saved"), "--data", "digits", "--image-size", "8"]
    assert main([*evaluate, "--model", "own_net.py:build"]) == 0
    monkeypatch.setattr(builders, "_REGISTERED", {})
    assert main(evaluate) == 2


@pytest.mark.usefixtures("_network")
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("own_net:nothing", "own_net:nothing must return a torch.nn.Module, got int"),
        ("own_net:broken", "own_net.py:15: ValueError: no such layer; mend it"),
        ("own_net:gone", "the module has no function 'gone'"),
        ("own_gone:build", r"'own_gone' is no builder \(timm.*\), and as a module: no module own_gone"),
        ("own_gone.py:build", "no file own_gone.py"),
        ("own_net.build:tiny", "'own_net.build' must be a module or a .py file"),
    ],
)
def test_a_network_that_cannot_be_built_is_named(name, match, capsys):
    assert main(["train", "--data", "digits", "--epochs", "1", "--model", name, "--out", "run"]) == 2
    assert re.search(match, capsys.readouterr().err)


def test_a_registered_builder_is_known_to_its_process(monkeypatch):
    monkeypatch.setattr(builders, "_REGISTERED", {})
    with pytest.raises(MissingError, match="register_builder"):
        Builder("own_nets:small").build()
    register_builder("own_nets", lambda name, **kwargs: torch.nn.Linear(kwargs["width"], 2))
    assert Builder("own_nets:small", {"width": 3}).build().in_features == 3
    for name, match in (("timm", "already"), ("own_nets", "already"), ("a:b", "without a colon"), ("", "without")):
        with pytest.raises(InputError, match=match):
            register_builder(name, torch.nn.Linear)
