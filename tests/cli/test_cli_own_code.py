"""`--import`: a user's own ops and fusions on the command line, in config files, and in the record of a run."""

import sys

import pytest
import yaml

from image2video.cli.app import COMMANDS, build_parser, main
from image2video.cli.own_code import import_code
from image2video.clip.ops import registry
from image2video.errors import InputError, MissingError

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
