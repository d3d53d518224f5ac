"""The benchmark of receptive fields: its rows, and mmsegmentation's segmentors with the weights of a checkpoint."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmseg")

from mmengine.config import Config
from mmseg_cases import SIZE, build, tiny_config

from image2video import VideoWrap
from image2video.receptive_field import Unit, effective, support, theoretical

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import field_rows
import field_segmentors

import receptive_field

VIDEO = {"genotype": "translate_x(0.1) > rotate(20)", "T": 3, "residual": False, "input_size": SIZE}
LAYER = "backbone.layer2"


def checkpoint(path: Path, fusion: str | None, *, seed: int = 0) -> tuple[Path, torch.nn.Module]:
    """A segmentor and the file that mmengine's runner would write of it."""
    config = tiny_config(video=None if fusion is None else VIDEO | {"fusion": fusion})
    model = build(config, seed=seed)
    meta = {"cfg": Config({"model": config.to_dict()}).pretty_text}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, path)
    return path, model


@pytest.mark.parametrize("fusion", [None, "none", "tsm", "gsf"])
def test_a_checkpoint_is_the_segmentor_whose_units_can_be_measured(fusion: str | None, tmp_path: Path) -> None:
    path, model = checkpoint(tmp_path / "last.pth", fusion)
    network = field_segmentors.from_checkpoint(path, (3, *SIZE))
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(images), model(images))
    assert isinstance(network, VideoWrap) == (fusion is not None)
    if isinstance(network, VideoWrap):
        field = effective(network, images, Unit(LAYER, frame=0))
        assert field.frame_shares is not None
        assert (min(field.frame_shares) > 0) == (fusion != "none")


def test_a_segmentor_of_mmsegmentation_has_all_three_fields() -> None:
    model = build(tiny_config())
    field = theoretical(model, layer=LAYER, input_size=(3, *SIZE))
    unit = Unit(LAYER)
    seen = support(model, SIZE, unit)
    position = seen.unit.position
    assert isinstance(position, tuple)
    assert not (seen.mask & ~field.pixels(position, SIZE)).any()
    mass = effective(model, torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)), unit).map > 0
    assert not (mass & ~seen.mask).any()
    # The pyramid pools over the whole map.
    assert theoretical(model, input_size=(3, *SIZE)).whole
    assert support(model, SIZE).area == SIZE[0] * SIZE[1]


def test_checkpoints_become_a_part_of_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{n}={checkpoint(tmp_path / f'{n}.pth', f)[0]}" for n, f in (("bare", None), ("gsf", "gsf"))]
    out = tmp_path / "results.json"
    argv = ["--part", "checkpoints", "--images", "3", "--side", "48", "--layer", LAYER, "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["x", *argv, "--out", str(out), "--checkpoints", *names])
    receptive_field.main()
    rows = json.loads(out.read_text())["checkpoints"]
    units = [f"{LAYER}, frame 0", f"{LAYER}, averaged", "output, frame 0", "output, averaged"]
    assert [(row["unit"], row["network"]) for row in rows] == [(unit, "GSF") for unit in units]
    assert {row["genotype"] for row in rows} == {VIDEO["genotype"]}
    assert all(sum(row["frame_shares"]) == pytest.approx(1, abs=1e-3) for row in rows)
    assert str(tmp_path) not in out.read_text()
    monkeypatch.setattr(sys, "argv", ["x", *argv, "--checkpoints", names[1]])
    with pytest.raises(SystemExit, match="bare=PATH first"):
        receptive_field.main()


def test_clips_are_rows_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receptive_field, "CLIPS", {"shift": "translate_x(0.1)", "preset": "preset:cifar10"})
    monkeypatch.setattr(receptive_field, "FAMILIES", {"small_fcn": 24})
    rows = receptive_field.clips(2, 0, tmp_path, model="small_fcn")
    assert [(row["clip"], row["unit"]) for row in rows] == [
        (clip, unit) for clip in ("shift", "preset") for unit in ("output, frame 0", "output, averaged")
    ]
    assert rows[2]["genotype"] == "rotate(10) > scale(1.1)"
    assert {path.name for path in tmp_path.iterdir()} == {"erf_frame.png", "erf_averaged.png", "fields.svg"}


def test_rows_of_several_draws_have_a_mean_and_an_error() -> None:
    row = dict.fromkeys(field_rows.AVERAGED_KEYS, 1.0) | {"unit": "layer1", "network": "GSF"}
    found = field_rows.over_draws([[row | {"axes": value, "expected_axes": None}] for value in (1.0, 1.2, 1.4)])
    assert len(found) == 1
    assert (found[0]["draws"], found[0]["axes"], found[0]["spread_error"]) == (3, 1.2, 0)
    assert found[0]["axes_error"] == pytest.approx(0.2 / 3**0.5, abs=1e-4)
    assert found[0]["expected_axes"] is None
