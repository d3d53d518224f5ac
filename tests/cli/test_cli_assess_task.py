"""`image2video assess --task mmseg:CONFIG`: from a config and a checkpoint to a report, a config and a script."""

import json
import runpy
import sys

import pytest
from quick_costs import quick_costs
from quick_figures import quick_figures
from stripe_segmentor import SPACE, made

from image2video.assess import SegmentorAssessment
from image2video.cli.app import main

quick = pytest.fixture(autouse=True, scope="module")(quick_costs)
undrawn = pytest.fixture(autouse=True, scope="module")(quick_figures)
pytestmark = pytest.mark.filterwarnings(
    "ignore:For binary segmentation, we suggest:UserWarning", "ignore:Failed to add:UserWarning"
)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A folder with a config, weights and images, and a space of tilts."""
    folder = tmp_path_factory.mktemp("stripes")
    made(folder, val=30, test=0, train=0)
    (folder / "tilts.yaml").write_text(SPACE)
    return folder


def command(case, *more):
    asked = ["--task", f"mmseg:{case / 'stripes.py'}", "--weights", str(case / "stripes.pth")]
    return [
        "assess",
        *asked,
        "--device",
        "cpu",
        "--max-cost",
        "1",
        "--candidates",
        "8",
        "--space",
        f"{case}/tilts.yaml",
        *more,
    ]


def test_from_a_config_to_a_script_that_runs(case, capsys, monkeypatch, tmp_path):
    out = tmp_path / "out"
    assert main(command(case, "--out", str(out))) == 0
    printed = " ".join(capsys.readouterr().out.split())
    record = json.loads((out / "result.json").read_text())
    assert all(" ".join(sentence.split()) in printed for sentence in record["sentences"])
    assert "mIoU %" in printed
    found = SegmentorAssessment.from_dict(record)
    assert found.verdict == "better"
    assert found.chosen.finalist.genotype == "rotate(-45)"
    assert record["about"]["data"] == "val_dataloader"
    assert "<h1>Does a clip help this model?</h1>" in (out / "report.html").read_text()
    written = (out / "segmentor.py").read_text()
    assert "VideoEncoderDecoder" in written
    assert "rotate(-45)" in written
    assert str((case / "stripes.pth").resolve()) in (out / "use_it.py").read_text()
    image = case / "images" / "val" / "003.png"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["use_it.py", str(image)])
    runpy.run_path(str(out / "use_it.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert f"{image}: " in said
    assert "upright" in said or "level" in said
    assert (tmp_path / "003_classes.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["--task", "other:stripes.py"], "give --task mmseg:CONFIG"),
        (["--task", "mmseg:nowhere.py"], "no config there"),
        (["--weights", "nowhere.pth"], "no weights at nowhere.pth"),
        (
            ["--data", "digits", "--image-size", "24", "--model", "resnet18"],
            "--image-size, --model: no effect with --task",
        ),
        (["--part", "holdout"], "--part: no effect with --task"),
        (["--finetune", "2"], "cfg-options load_from=CHECKPOINT model.video.fusion=gsf"),
        (["--max-cost", "0.5"], "max_cost must be at least 1"),
        (["--candidates", "4"], "candidates must be at least 8"),
        (["--space", "poses"], "unknown search space"),
        (["--task-images", "test"], "holds no image"),
    ],
)
def test_what_cannot_be_assessed(case, tmp_path, capsys, more, match):
    out = tmp_path / "out"
    assert main(command(case, "--out", str(out), *more)) == 2
    assert match in capsys.readouterr().err
    assert not (out / "result.json").exists()


def test_options_of_a_config_need_one(case, tmp_path, capsys):
    weights = ["--weights", str(case / "stripes.pth")]
    assert main(["assess", *weights, "--task-images", "val", "--out", str(tmp_path / "out")]) == 2
    assert "--task-images: no effect without --task mmseg:CONFIG" in capsys.readouterr().err
    assert main(["assess", "--task", f"mmseg:{case / 'stripes.py'}", "--out", str(tmp_path / "out")]) == 2
    assert "--task without --weights CHECKPOINT is a random segmentor" in capsys.readouterr().err
