"""The command line: parsing, help, errors, and what is printed."""

import contextlib
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import yaml
from few_digits import TESTED, few
from forked import together
from PIL import Image

from image2video.cli import main
from image2video.cli import train as train_command
from image2video.cli.app import COMMANDS, build_parser
from image2video.data import memory_source
from image2video.training import evaluate
from image2video.version import __version__

SHARED = {
    "search": {"model", "data", "frames", "fusion", "epochs", "train_images", "seed", "out", "resume", "overwrite"},
    "train": {
        *("model", "data", "genotype", "frames", "fusion", "epochs", "train_images", "seed", "out", "resume"),
        *("overwrite", "weights", "batch_size", "lr", "device"),
    },
    "assess": {"model", "data", "seed", "weights", "device", "out", "overwrite"},
    "export": {"model", "data", "genotype", "frames", "fusion", "seed", "weights", "batch_size", "out", "overwrite"},
    "evaluate": {"model", "data", "genotype", "frames", "fusion", "train_images", "seed", "weights", "batch_size"},
    "demo": {"model", "data", "frames", "fusion", "epochs", "train_images", "seed", "out", "resume", "overwrite"},
    "show": {"image", "genotype", "frames", "out", "overwrite"},
    "sites": {"model", "fusion"},
    "rf": {"model", "weights", "genotype", "frames", "fusion", "batch_size", "seed", "device", "out", "overwrite"},
    "spaces": {"space", "ops"},
    "presets": {"name"},
    "reproduce": {"data", "out", "device", "scale", "max_minutes", "report_only", "retry", "check", "rehearse", "rows"},
}


SMALL = ("--model", "cifar_resnet8", "--size", "16")


def exit_of(argv):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    return stop.value.code


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_the_shared_names_and_an_example(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert exit_of([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"example:\n  image2video {command}" in text
    assert max(map(len, text.splitlines())) <= 80
    wanted = SHARED[command] | {"config"}
    found = set(re.findall(r"^  (?:--)?([a-z-]+)", text, re.M))
    assert {name.replace("_", "-") for name in wanted} <= found


@pytest.mark.parametrize("command", list(COMMANDS))
def test_the_example_parses(command):
    example = shlex.split(importlib.import_module(f"image2video.cli.commands.{command}").EXAMPLE)
    assert example[:2] == ["image2video", command]
    assert build_parser(command).parse_args(example[1:]).command == command


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("demo", "frames", 4),
        ("search", "train_images", 70),
        ("train", "genotype", "rotate(3)"),
        ("evaluate", "data", "npz:x.npz"),
        ("show", "image", "cat.jpg"),
        ("sites", "fusion", "tsm"),
        ("search", "compare", "random:2"),
    ],
)
def test_every_command_takes_a_config_file_and_the_command_line_wins(command, option, value, tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text(yaml.safe_dump({option: value}))
    argv = [command, *(["resnet18"] if command == "sites" else []), "--config", str(path)]
    assert build_parser(command).parse_args(argv)[command][option] == value
    other = type(value)(9) if isinstance(value, int) else "identity"
    argv += ["--" + option.replace("_", "-"), str(other)]
    assert build_parser(command).parse_args(argv)[command][option] == other


def test_version_and_bare_call(capsys):
    assert exit_of(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f"    {name} " in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--epoch", "3"], "unrecognized arguments: --epoch"),
        (["train", "--epochs", "three"], "--epochs must be a whole number, got three; image2video train --help"),
        (["train", "--frames", "1.5"], "--frames must be a whole number or null, got 1.5"),
        (["train", "--device", "gpu"], "--device must be one of auto, cpu, cuda, mps, got gpu"),
        (["train", "--config", "missing.yaml"], "missing.yaml"),
        (["sites"], "required: MODEL"),
        (["train", "--frobnicate", "1"], "frobnicate"),
        (["train", "--epochs", "0"], "epochs=0: it must be at least 1"),
        (["train", "--data", "cifar"], "unknown data source 'cifar'"),
        (["train", "--model", "cifar_resnet81"], "similar names: cifar_resnet8"),
        (["train", "--genotype", "rotat(10)"], "rotat"),
        (["train", "--genotype", "none", "--weights", "missing.pt"], "no weights at missing.pt"),
        (["evaluate"], "say which weights"),
        (["search", "--selection", "fixed_weights"], "give --weights FILE"),
        (["sites", "resnet1"], "similar names: resnet18"),
        (["show"], "--image"),
        (["show", "--image", "missing.jpg"], "no image at missing.jpg"),
        (["search", "--compare", "randon:5"], "unknown candidate 'randon:5'; known are random"),
        (["search", "--compare", "random:0"], "at least 1"),
        (["search", "--compare", "fixed_weights"], "--weights FILE"),
        (["search", "--final-epochs", "0"], "--final-epochs must be at least 1, got 0"),
        (["search", "--final-seeds", "0"], "--final-seeds must be at least 1, got 0"),
        (["search", "--space", "missing.yaml"], "missing.yaml"),
        (["search", "--space", "affine6"], "known spaces"),
        (["search", "--relaxation", "hard"], "single_path"),
        (["search", "--selection", "fixed_weights", "--pretrained", "--holdout", "0"], "--holdout above 0"),
        (["rf", "--count", "0"], "--count must be at least 1, got 0"),
        (["rf", "--size", "0"], "--size must be at least 1, got 0"),
        (["rf", "--frame", "3", "--frames", "3"], "--frame 3 is not one of --frames 3"),
        (["rf", "--weights", "a.safetensors", "--pretrained"], "--pretrained and --weights"),
        (["rf", *SMALL, "--layer", "layer9"], "no module 'layer9' runs"),
        (["rf", *SMALL, "--genotype", "spin(3)"], "unknown op 'spin'"),
        (["rf", *SMALL, "--images", "nowhere"], "no folder nowhere"),
        (["rf", "--model", "resnet51"], "has no model 'resnet51'"),
    ],
)
def test_errors_are_one_line_and_code_2_and_come_before_any_work(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert sum(not line.startswith("  ") for line in captured.err.splitlines()) == 1  # others point into a genotype
    assert not list(tmp_path.iterdir())


def test_debug_raises():
    with pytest.raises(ValueError, match="unknown data source"):
        main(["train", "--data", "cifar", "--debug"])


def test_sites_prints_the_plan(capsys):
    assert main(["sites", "cifar_resnet8", "--fusion", "tsm"]) == 0
    out = capsys.readouterr().out
    assert "tsm sites" in out
    assert "before" in out
    assert main(["sites", "cifar_resnet8", "--sites", "nothing", "--fusion", "tsm"]) == 2


def test_show_draws_png_and_gif(picture, tmp_path, capsys):
    genotype = "translate_x(0.06) > rotate(10)"
    for name in ("clip.png", "clip.gif"):
        out = tmp_path / name
        assert main(["show", "--image", str(picture), "--genotype", genotype, "--frames", "3", "--out", str(out)]) == 0
        assert str(out) in capsys.readouterr().out
        with Image.open(out) as drawn:
            assert drawn.format == name[-3:].upper()
            assert getattr(drawn, "n_frames", 1) == (3 if name.endswith("gif") else 1)
    before = out.read_bytes()
    assert main(["show", "--image", str(picture), "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert main(["show", "--image", str(picture), "--out", str(out), "--overwrite"]) == 0
    assert main(["show", "--image", str(picture), "--out", str(tmp_path / "clip.pdf")]) == 2
    picture.write_bytes(picture.read_bytes()[:200])
    assert main(["show", "--image", str(picture), "--out", str(tmp_path / "x.png")]) == 2
    assert "picture.jpg" in capsys.readouterr().err


TINY = ["--data", "digits", "--train-images", "60", "--holdout", "0.2", "--image-size", "8", "--device", "cpu"]
TINY += ["--batch-size", "24"]


def train(out, *argv):
    return main(["train", *TINY, "--epochs", "2", "--lr", "0.05", "--out", str(out), *argv])


def test_from_bare_training_to_a_tuned_wrapped_model(tmp_path, capsys):
    bare, found, tuned = tmp_path / "bare", tmp_path / "found", tmp_path / "tuned"
    assert train(bare, "--genotype", "none") == 0
    out, log = capsys.readouterr()
    assert re.search(r"train: 2/4, epoch 1, loss [\d.]+, [\d,]+ images/s, ", log)
    assert str(bare) in out
    assert "MACs" in out
    weights = str(bare / "best.safetensors")
    assert yaml.safe_load((bare / "config.yaml").read_text())["genotype"] == "none"

    search = ["search", *TINY, "--selection", "fixed_weights", "--weights", weights, "--frames", "2"]
    assert main([*search, "--candidates", "3", "--out", str(found)]) == 0
    out = capsys.readouterr().out
    assert str(found) in out
    assert "genotype:" in out
    assert "identity" in out
    assert " held-out images " in " ".join(out.split())
    again = tmp_path / "again"
    assert main(["search", "--config", str(found / "config.yaml"), "--out", str(again)]) == 0
    assert (again / "genotype.json").read_bytes() == (found / "genotype.json").read_bytes()
    assert "another division" not in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([*search, "--candidates", "3", "--seed", "1", "--out", str(again), "--overwrite"]) == 0
    assert "another division of digits (seed 0 then, 1 now)" in capsys.readouterr().err

    genotype = str(found / "genotype.json")
    tune = ["--weights", weights, "--genotype", genotype, "--ema", "0.5"]  # two frames, as the file says
    assert train(tuned, *tune) == 0
    capsys.readouterr()

    def evaluated(*argv):
        assert main(["evaluate", *TINY, "--json", *argv]) == 0
        return json.loads(capsys.readouterr().out)

    result = json.loads((tuned / "result.json").read_text())
    assert "pretrained" in json.loads((tuned / "run.json").read_text())["contents"]
    best = evaluated("--weights", str(tuned / "best.safetensors"), "--genotype", genotype)
    assert best["top1"] == result["test_best"]["top1"]
    assert best["n"] == TESTED
    saved = evaluated("--weights", str(tuned / "pretrained"))
    assert (saved["top1"], saved["cost"]["macs_per_image"]) == (best["top1"], best["cost"]["macs_per_image"])
    plain = evaluated("--weights", weights, "--genotype", "none")
    assert 1.99 < best["cost"]["macs_per_image"] / plain["cost"]["macs_per_image"] < 2.1
    assert plain["top1"] == json.loads((bare / "result.json").read_text())["test_best"]["top1"]
    assert main(["evaluate", *TINY, "--weights", str(tuned / "pretrained"), "--fusion", "tsm"]) == 2
    assert "leave out --fusion" in capsys.readouterr().err
    assert evaluated("--weights", str(tuned))["top1"] == best["top1"]  # a run's folder stands for its best weights
    assert main(["evaluate", *TINY, "--weights", str(tuned / "best.safetensors"), "--genotype", "none"]) == 2
    assert "wrapped" in capsys.readouterr().err


def test_an_evaluation_on_a_cpu_takes_few_frames_at_once(tmp_path, monkeypatch):
    argv = ["train", *TINY, "--epochs", "1", "--genotype", "none"]
    assert main([*argv, "--out", str(tmp_path / "bare")]) == 0
    weights = ["--weights", str(tmp_path / "bare" / "best.safetensors")]
    data, taken = TINY[: TINY.index("--batch-size")], []
    monkeypatch.setattr(
        "image2video.cli.evaluate.evaluate",
        lambda model, batches, *rest, **how: taken.append(batches.batch_size) or evaluate(model, batches, *rest, **how),
    )
    for genotype in (["--genotype", "none"], ["--genotype", "identity | flip_x", "--fusion", "none"]):
        assert main(["evaluate", *data, *weights, *genotype]) == 0
    assert main(["evaluate", *data, *weights, "--genotype", "none", "--batch-size", "7"]) == 0
    assert taken == [32, 16, 7]
    assert main(["evaluate", *data, *weights, "--genotype", "none", "--batch-size", "0"]) == 2


def test_trained_weights_start_with_a_tenth_of_the_learning_rate(tmp_path):
    argv = ["train", *TINY, "--epochs", "1", "--genotype", "none"]
    assert main([*argv, "--out", str(tmp_path / "a")]) == 0
    weights = ["--weights", str(tmp_path / "a" / "best.safetensors")]
    for name, options, lr in (("b", [], 0.01), ("c", ["--lr", "0.1"], 0.1), ("d", ["--optimizer", "adamw"], 1e-4)):
        assert main([*argv, *weights, *options, "--out", str(tmp_path / name)]) == 0
        assert yaml.safe_load((tmp_path / name / "config.yaml").read_text())["lr"] == pytest.approx(lr)
    assert yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())["lr"] is None


def test_a_run_repeats_from_its_config_file_and_refuses_its_folder(tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(first, "--genotype", "rotate(5)", "--frames", "2", "--fusion", "tsm") == 0
    assert main(["train", "--config", str(first / "config.yaml"), "--out", str(second)]) == 0
    assert (first / "best.safetensors").read_bytes() == (second / "best.safetensors").read_bytes()
    capsys.readouterr()
    assert main(["train", "--config", str(first / "config.yaml"), "--out", str(first)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (
        main(["train", "--config", str(first / "config.yaml"), "--out", str(first), "--resume", "--epochs", "3"]) == 2
    )
    assert "epochs: 2 then, 3 now" in capsys.readouterr().err
    with_typo = tmp_path / "typo.yaml"
    with_typo.write_text("epoch: 3\n")
    assert exit_of(["train", "--config", str(with_typo)]) == 2


def test_search_writes_its_folder(tmp_path, capsys):
    out = tmp_path / "run"
    argv = ["search", *TINY, "--epochs", "1", "--tune-epochs", "0", "--frames", "2", "--fusion", "tsm"]
    assert main([*argv, "--selection", "argmax", "--compare", "none", "--out", str(out)]) == 0
    assert {"genotype.json", "tau.json", "scores.json", "config.yaml"} <= {path.name for path in out.iterdir()}
    assert str(out) in capsys.readouterr().out
    assert yaml.safe_load((out / "config.yaml").read_text())["frames"] == 2


@contextlib.contextmanager
def killer(**options):
    def progress(stage, done, total, **figures):
        if stage == "train" and done == 6:  # in the third epoch of two steps each, before its checkpoint
            os.kill(os.getpid(), signal.SIGKILL)

    yield progress


def killed(*words):
    """In a process of its own: a training that is killed, on the images that the tests' own process has."""
    train_command.progress_bars = killer
    memory_source.load_digits = few
    main(list(words))


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    argv = ["train", *TINY, "--epochs", "4", "--lr", "0.05", "--genotype", "translate_x(0.1)", "--frames", "2"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*argv, "--out", str(whole)]) == 0
    (ended,) = together(tmp_path, killed, *argv, "--out", str(cut), threads=torch.get_num_threads())
    assert ended.code == -9, ended.error
    assert json.loads((cut / "run.json").read_text())["epochs_done"] == 2
    assert not (cut / "result.json").exists()
    assert main([*argv, "--out", str(cut), "--resume"]) == 0
    for name in ("best.safetensors", "last.safetensors"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    results = [json.loads((out / "result.json").read_text()) for out in (whole, cut)]
    for result in results:
        del result["seconds"]
        for epoch in result["history"]:
            del epoch["seconds"], epoch["images_per_second"]
    assert results[0] == results[1]


def test_the_help_of_show_needs_no_torch() -> None:
    code = (
        "import sys\nfrom image2video.cli.app import main\n"
        "try:\n    main(['show', '--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "slow = {'torch', 'timm', 'torchvision', 'matplotlib'} & set(sys.modules)\nassert not slow, slow\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "--genotype" in run.stdout
