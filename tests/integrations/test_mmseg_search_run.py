"""`image2video search --task mmseg:CONFIG` from the config to a video segmentor."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("mmseg")

from mmengine.logging import HistoryBuffer
from mmseg_cases import build, predictions, samples, tiny_config
from mmseg_search_cases import built, config, written

from image2video.cli import main
from image2video.clip.genotype import Genotype
from image2video.errors import InputError, MissingError
from image2video.integrations.openmmlab.search_weights import load_segmentor
from image2video.reproduce.miniatures import make_camvid
from image2video.search import Request, SearchConfig, build_problem, search

SPACE = "name: small\nops: {rotate: 8, translate_x: 0.05, identity: null}\nnodes: 2\n"
SHORT = ["--frames", "2", "--batch-size", "4", "--epochs", "1", "--tune-epochs", "0", "--device", "cpu"]
SHORT += ["--workers", "0", "--fusion", "tsm"]
pytestmark = pytest.mark.filterwarnings("ignore:.*chose the identity", "ignore:the budget .* was spent before")


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"), train=8)


@pytest.fixture(scope="module")
def searched(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path, str]:
    """The arguments of one search, its folder, and what it printed."""
    folder, printed = tmp_path_factory.mktemp("searched"), io.StringIO()
    (folder / "small.yaml").write_text(SPACE)
    argv = ["search", "--task", f"mmseg:{written(config(camvid), folder)}", *SHORT, "--space", f"{folder}/small.yaml"]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        assert main([*argv, "--out", str(folder / "run")]) == 0
    return argv, folder / "run", " ".join(printed.getvalue().split())


def test_from_the_config_to_a_video_segmentor(searched) -> None:
    _, out, printed = searched
    assert "held-out images: 40×32 pixels, padded; maps are brought back at the size of the images" in printed
    assert "held-out mIoU" in printed
    assert "That was not measured; train the config with video=dict(genotype=…)" in printed
    found = Genotype.load(out / "genotype.json")
    assert found.provenance is not None
    assert {key: found.provenance[key] for key in ("dataset", "backbone", "metric", "T", "fusion")} == {
        "dataset": "mmseg:tiny",
        "backbone": "ResNetV1c, PSPHead",
        "metric": "mIoU",
        "T": 2,
        "fusion": "tsm",
    }
    scores = json.loads((out / "scores.json").read_text())
    assert [entry["images"] for entry in scores["edges"]] == [4, 4, 4]
    assert str(found).replace(">", "&gt;") in (out / "report.html").read_text()
    assert "Is it better than random?" not in (out / "report.html").read_text()
    video = {"genotype": str(out / "genotype.json"), "T": 2, "fusion": "tsm"}
    segmentor = build(tiny_config(video=video))
    assert segmentor.to_video.genotype == found
    inputs, batch = samples(1, test=True)
    assert predictions(segmentor, inputs, batch)[0].isfinite().all()


def test_a_config_file_repeats_the_run(searched, tmp_path: Path) -> None:
    _, out, _ = searched
    assert main(["search", "--config", str(out / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    for name in ("genotype.json", "scores.json", "tau.json", "task.json"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--train-images", "6"], "train_images: None then, 6 now"),
        (["--task-validation", "val"], "task_validation: 'train' then, 'val' now"),
        (["--task-size", "[16,24]"], "held_out_size: [32, 40] then, [16, 24] now"),
    ],
)
def test_a_search_does_not_go_on_with_other_images(searched, changed, message, capsys) -> None:
    argv, out, _ = searched
    assert main([*argv, *changed, "--resume", "--out", str(out)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_search_does_not_go_on_with_another_config(searched, camvid: Path, tmp_path: Path, capsys) -> None:
    argv, out, _ = searched
    other = config(camvid)
    other.model.decode_head.loss_decode.loss_weight = 2.0
    again = [*argv, "--resume", "--out", str(out)]
    again[2] = f"mmseg:{written(other, tmp_path)}"
    assert main(again) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "model.decode_head.loss_decode.loss_weight: 1.0 then, 2.0 now" in message
    again[2] = f"mmseg:{written(config(camvid), tmp_path, 'moved.py')}"
    assert main(again) == 0


@pytest.mark.parametrize(
    "way",
    [
        {"selection": "argmax", "epochs": 2, "checkpoint_activations": True, "fusion": "gsf"},
        {"selection": "one_shot", "candidates": 6, "first_images": 2, "learn_magnitudes": False},
        {"selection": "random"},
        {"selection": "perturbation", "max_images": 60, "relaxation": "single_path"},
    ],
    ids=lambda way: way["selection"],
)
def test_a_stopped_search_ends_as_one_that_was_not(camvid: Path, tmp_path: Path, way: dict[str, Any]) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    given = {"space": str(tmp_path / "small.yaml"), "T": 2, "fusion": "tsm", "batch_size": 4, "device": "cpu"}
    settings = SearchConfig(**{**given, "epochs": 1, "tune_epochs": 1, **way})
    problem = build_problem(f"mmseg:{written(config(camvid), tmp_path)}", Request(settings, workers=0))

    def run(out: Path, progress: Callable[..., None]) -> None:
        search(
            problem.network,
            problem.train,
            settings,
            task=problem.task,
            mean=problem.mean,
            std=problem.std,
            out=out,
            resume=True,
            progress=progress,
        )

    stages: list[str] = []
    run(tmp_path / "whole", lambda stage, *_, **figures: stages.append(stage))
    left = [max(1, 2 * len(stages) // 3)]

    def stop(*_: object, **figures: float) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        run(tmp_path / "stopped", stop)
    assert not stages or not (tmp_path / "stopped" / "genotype.json").exists()
    run(tmp_path / "stopped", lambda *_, **figures: None)
    for name in ("genotype.json", "tau.json", "scores.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code in a checkpoint ran",)


def saved(path: Path, state: dict[str, Any], **more: Any) -> str:
    torch.save({"meta": {"iter": 4}, "state_dict": state, **more}, path)
    return str(path)


def test_weights_of_mmengines_checkpoints_rank_chains(camvid: Path, tmp_path: Path, capsys) -> None:
    chosen = config(camvid)
    problem = built(chosen, tmp_path)
    log = HistoryBuffer([1.0, 0.5], [1, 1])
    hub = {"log_scalars": {"train/loss": log}}
    weights = saved(tmp_path / "iter_4.pth", problem.network.segmentor.state_dict(), message_hub=hub)
    argv = ["search", "--task", f"mmseg:{tmp_path}/tiny.py", *SHORT, "--selection", "fixed_weights"]
    assert main([*argv, "--out", str(tmp_path / "none")]) == 2
    assert "give --weights FILE" in capsys.readouterr().err
    argv += ["--weights", weights, "--candidates", "3", "--task-validation", "val", "--out", str(tmp_path / "run")]
    assert main(argv) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "chains ranked on 2 held-out images" in printed
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["task_validation"] == "val"
    assert HistoryBuffer([3.0, 1.0], [1, 1]).min() == 1.0  # reading the log has left the class as it was


def test_no_code_in_a_checkpoint_runs(camvid: Path, tmp_path: Path, capsys) -> None:
    segmentor = build(tiny_config())
    path = saved(tmp_path / "evil.pth", segmentor.state_dict(), message_hub=Evil())
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_segmentor(segmentor, path)
    assert "ran" not in capsys.readouterr().out
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_segmentor(segmentor, str(tmp_path / "evil.pkl"))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    segmentor = build(tiny_config())
    wrapped = saved(tmp_path / "video.pth", build(tiny_config(video={"T": 2})).state_dict())
    with pytest.raises(InputError, match="holds a video segmentor's weights"):
        load_segmentor(segmentor, wrapped)
    other = saved(tmp_path / "other.pth", build(tiny_config("fcn")).state_dict())
    with pytest.raises(InputError, match="decode_head"):
        load_segmentor(segmentor, other)
    with pytest.raises(MissingError, match=r"no weights at .*none\.pth"):
        load_segmentor(segmentor, str(tmp_path / "none.pth"))
