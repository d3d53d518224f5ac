"""Arms whose genotype is a frame set: they say their frames and their schedule themselves."""

from types import SimpleNamespace

import pytest
from report_cases import arm, result_record
from torch import nn

from image2video import ClipOptions, FrameSet
from image2video.data import load_data
from image2video.errors import InputError
from image2video.experiments import Arm, output, training_frames
from image2video.experiments.bench import wrap_arm
from image2video.experiments.candidates import parse_candidates
from image2video.experiments.genotypes import scaled, stated
from image2video.reproduce.parse import _check_genotype
from image2video.runs.folders import OutputDirectory

SET = "identity | flip_x | rotate(10)"
ROW = ClipOptions(T=5, schedule="centred", padding="border")


def test_an_arm_takes_its_frames_and_schedule_from_its_set():
    mirror = Arm("mirror", "mirror", SET, "none")
    assert (mirror.T, mirror.schedule) == (3, "from_zero")
    assert (Arm("mirror", "mirror", SET, "none", T=2).T) == 2
    for wrong in ({"T": 4}, {"schedule": "ramp"}):
        with pytest.raises(InputError, match="frame set"):
            Arm("mirror", "mirror", SET, "none", **wrong)
    assert str(scaled(FrameSet.parse("flip_x | rotate(10) > scale(2) | identity"), 2)) == (
        "flip_x | rotate(20) > scale(4) | identity"
    )
    _check_genotype(SET)


def test_the_network_of_an_arm_has_the_clip_of_its_set():
    mirror, net = Arm("mirror", "mirror", SET, "none"), nn.Conv2d(3, 4, 1)
    chosen = stated(mirror, 0, net)
    assert chosen is not None
    model = wrap_arm(net, mirror, chosen.genotype, mirror.clip(ROW), seed=0, input_size=(3, 8, 8))
    assert (str(model.genotype), model.T, model.to_video.padding) == (SET, 3, "border")
    frames = training_frames([mirror], images=10, T=5, epochs=2, finetune_epochs=1)
    assert frames == {"mirror": 60}


@pytest.mark.parametrize("text", [SET, "identity | flip_x"])
def test_a_comparison_of_searches_takes_chains(text):
    with pytest.raises(InputError, match="expected a chain, got a frame set"):
        parse_candidates(f"random,{text}")


def test_the_film_of_a_comparison_is_that_of_its_set(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        output, "film_strip", lambda images, clip, T, schedule, path, **_: drawn.update(clip=(T, schedule))
    )
    monkeypatch.setattr(output, "write_report", lambda path, result, film, opening: drawn.update(film=film))
    record = result_record([arm("mirror", [90.0], genotype=SET)], []) | {"search": None, "seconds": 1.0}
    data = load_data("digits", train_images=20)
    bench = SimpleNamespace(data=data, clip=ROW)
    with OutputDirectory(tmp_path / "out", "demo") as folder:
        output.write_outputs(folder, record, bench)
    assert drawn["clip"] == (3, "from_zero")
    titles = [axis.get_title() for axis in drawn["film"].axes[:3]]
    assert titles == ["frame 0\nidentity", "frame 1\nflip_x", "frame 2\nrotate(10)"]
