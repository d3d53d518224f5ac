"""Clips at several places from the command line: trained, recorded, resumed, evaluated, listed and measured."""

import json
from pathlib import Path

import pytest
from test_cli_clip_at import CPU, command, data, evaluated  # noqa: F401 (fixtures)

from image2video import DeepClip
from image2video.cli import main
from image2video.wrap.video_wrap import VideoWrap

CLIP = DeepClip.of({"image": "translate_x(0.1)", "layer2": "rotate(9)", "layer3": "flip_x"})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("genotype") / "deep.json"
    CLIP.with_provenance({"T": 2, "schedule": "from_zero"}).save(path)
    return str(path)


@pytest.fixture(scope="module")
def run(command: list[str], file: str, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    out = tmp_path_factory.mktemp("deep") / "run"
    assert main([*command, "--genotype", file, "--fusion", "tsm", "--out", str(out)]) == 0
    return out


def test_a_run_records_all_places_and_goes_on(run: Path, command: list[str], file: str, capsys) -> None:  # noqa: F811
    network = json.loads((run / "run.json").read_text())["network"]
    assert (network["genotype"], network["T"], network["clip_at"]) == (str(CLIP), 2, None)
    saved = VideoWrap.from_pretrained(run / "pretrained")
    assert saved.genotype == CLIP
    assert saved.plan.places == CLIP.places
    again = [*command, "--genotype", file, "--fusion", "tsm", "--resume", "--out", str(run)]
    assert main(again) == 0
    assert main([*again, "--genotype", "image: translate_x(0.1) | layer3: flip_x"]) == 2
    assert "genotype: " in capsys.readouterr().err
    # What later commands on the weights go by is that of the run, and not of what was refused.
    assert json.loads((run / "run.json").read_text())["network"] == network


@pytest.mark.parametrize("part", ["", "best.safetensors", "pretrained"])
def test_the_weights_alone_evaluate_to_what_the_run_found(run: Path, part: str, capsys) -> None:
    found, _ = evaluated(capsys, "--weights", str(run / part))
    assert found["loss"] == pytest.approx(json.loads((run / "result.json").read_text())["test_best"]["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clip-at", "layer2"], "the genotype names its places, image, layer2, layer3, got clip_at='layer2'"),
        (["--frames", "1"], "2 frames or more, got T=1"),
        (["--genotype", "layer2: flip_x | layer9: flip_x"], "clip_at='layer9' must name a module that runs once"),
    ],
)
def test_what_cannot_be_is_refused_before_the_folder(
    command: list[str],  # noqa: F811
    file: str,
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys,
) -> None:
    assert main([*command, "--genotype", file, "--fusion", "none", *options, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_fields_of_a_file_and_of_a_saved_network(run: Path, file: str, tmp_path: Path, monkeypatch, capsys) -> None:
    from image2video.cli import rf

    monkeypatch.setattr(rf, "save_figure", lambda figure, path: [])
    rest = ["--size", "16", "--count", "2", "--device", "cpu"]
    named = ["--model", "cifar_resnet8", "--model-kwargs", '{"num_classes": 3}', "--fusion", "none"]
    for number, which in enumerate((["--weights", str(run)], [*named, "--genotype", file])):
        out = tmp_path / str(number)
        assert main(["rf", *which, *rest, "--out", str(out)]) == 0
        record = json.loads((out / "rf.json").read_text())
        assert (record["genotype"], record["clip_at"]) == (str(CLIP), [*CLIP.places])
        assert {row["row"] for row in record["fields"]} == {"layer3, frame 0", "layer3, averaged"}
        page = " ".join((out / "rf.html").read_text().split())
        assert "The frames are moved at image, layer2, layer3, last in a map of 8×8 cells" in page
        assert not (out / "fields.png").exists()
    capsys.readouterr()
    assert main(["rf", *named, "--genotype", file, "--clip-at", "layer2", *rest, "--out", str(tmp_path / "no")]) == 2
    assert "the genotype names its places" in capsys.readouterr().err
