"""What is drawn beside the tables: unions of fields, fields of trained networks, predictions; whose weights stay."""

import json
import math
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from reproduce_cases import TABLE, TINY, pretended, table, worked

from image2video.cli import main
from image2video.errors import InputError
from image2video.receptive_field import measures
from image2video.report import ErfPanel, SegmentedImage, erf_figure, image_iou, segmentation_figure
from image2video.reproduce import Book, Worker, load_experiment
from image2video.reproduce.catalogue import drawn_runs
from image2video.reproduce.data import Shelf
from image2video.reproduce.figures import drawings
from image2video.reproduce.figures_unions import draw_unions, union_of
from image2video.reproduce.outcome import outcomes
from image2video.reproduce.render import write
from image2video.reproduce.spec import UnionCase

__all__ = ["pretended"]  # a fixture

CPU = torch.device("cpu")
ARMS = [
    {"name": "bare", "title": "bare"},
    {"name": "moving", "title": "moving", "genotype": "translate_x(0.1)", "fusion": "tsm"},
]
UNION = {"name": "one", "genotype": "rotate(30)", "field": [8.5, 8.5, 11.5, 11.5]}


def fields(folder, **changes):
    """A figure of fields that takes no time."""
    return table(folder, arms=ARMS, contrasts=[], figure="fields", images=4, **changes)


def texts_overlap(figure) -> list[tuple[str, str]]:
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    found = [text for axis in figure.axes for text in (*axis.texts, axis.title, axis.xaxis.label, axis.yaxis.label)]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in found if text.get_text()]
    return [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[i + 1 :] if x.overlaps(y)]


# -- figure 4


def test_the_areas_of_the_papers_example_are_those_of_unions():
    found = {case.name: union_of(case) for case in load_experiment("figure4").unions}
    areas = {
        "translation by (1, 1)": 19,
        "rotation by 30°, about the field's centre": 27 - 9 * math.sqrt(3),
        "rotation by 30°, about the field's corner": 27 - 6 * math.sqrt(3),
        "zoom by 0.5": 144,
        "zoom by 2": 9,
    }
    assert {name: one.area for name, one in found.items()} == pytest.approx(areas, abs=1e-5)
    assert {name: one.case.paper for name, one in found.items()} == dict(
        zip(areas, (19, 14.19, 14.19, 144, 144), strict=True)
    )
    assert [one.explained for one in found.values()] == [
        *("the union", "neither", "one field and its overlap with the next", "the union", "neither"),
    ]
    corner = found["rotation by 30°, about the field's corner"]
    assert corner.field + corner.overlap == pytest.approx(9 + 3 * math.sqrt(3), abs=1e-5)
    assert UnionCase("x", "identity", (0.0, 0.0, 3.0, 3.0)).paper is None
    assert union_of(UnionCase("x", "identity", (0.0, 0.0, 3.0, 3.0))).explained == ""


def test_the_unions_are_drawn_line_by_line_with_their_areas():
    drawing = draw_unions(load_experiment("figure4"))
    labels = [axis.get_xlabel() for axis in drawing.figure.axes[3::4]]
    assert [label.partition(" px²")[0] for label in labels] == ["19", "11.41", "16.61", "144", "9"]
    assert "(paper: 14.19)" in labels[1]
    assert texts_overlap(drawing.figure) == []
    (_, _, field, union, paper, explained, note) = drawing.lines[2]
    assert (field, union, paper, explained) == ("9", "16.61", "14.19", "one field and its overlap with the next")
    assert "9 + 3√3" in note
    parts = drawing.record["unions"][0]["covered_by"]
    assert parts == pytest.approx({"1": 12.0, "2": 6.0, "3": 1.0}, abs=1e-5)


@pytest.mark.parametrize("scale", ["smoke", "paper"])
def test_figure_4_is_the_same_at_every_scale_and_trains_nothing(scale, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["reproduce", "figure4", "--scale", scale, "--out", str(out), "--device", "cpu"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "16.61 px² for rotation by 30°, about the field's corner (paper: 14.19)" in printed
    assert "mean nothing" not in printed
    assert not (out / "runs").exists()
    record = json.loads((out / f"figure4-{scale}.json").read_text())
    assert (record["rows"], len(record["drawn"][0]["unions"])) == ([], 5)
    assert f"(figure4-{scale}.png)" in (out / f"figure4-{scale}.md").read_text()
    assert (out / f"figure4-{scale}.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (out / f"figure4-{scale}.svg").read_text()
    assert main(["reproduce", "figure4", "--scale", scale, "--check"]) == 0
    assert "figure4 trains nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unions": []}, "own: unions must be a list of at least one entry"),
        ({"figure": "fields"}, "own: unions: unknown figure 'fields'; choose one of unions"),
        ({"rows": []}, "own: unknown key 'rows'"),
        ({"unions": [{**UNION, "field": [1, 2, 3]}]}, r"unions\[0\]: field must be left, top, right"),
        ({"unions": [{**UNION, "field": [3, 0, 1, 2]}]}, "must be left, top, right and bottom"),
        ({"unions": [{**UNION, "genotype": "rotat(3)"}]}, r"unions\[0\]: .*rotat"),
        ({"unions": [{**UNION, "schedule": "slow"}]}, "unknown schedule 'slow'"),
        ({"unions": [{**UNION, "T": 0}]}, "at least 1, got 0"),
        ({"unions": [{**UNION, "image_size": [0, 5]}]}, r"image_size must be height and width"),
        ({"unions": [UNION, UNION]}, "two unions are called 'one'"),
        (
            {"unions": [UNION, {**UNION, "name": "two", "T": 4}]},
            "unions: T, schedule and image_size must be those of the first",
        ),
    ],
)
def test_what_is_wrong_in_a_file_of_unions_is_said(changes, message, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"title": "t", "source": "s", "figure": "unions", "unions": [UNION], **changes}))
    with pytest.raises(InputError, match=message):
        load_experiment(str(path))


def test_a_figure_needs_an_image(tmp_path):
    for images, message in ((0, "images must be at least 1, got 0"), ("four", "images: must be a whole number")):
        path = table(tmp_path, arms=ARMS, contrasts=[], figure="fields", images=images)
        with pytest.raises(InputError, match=message):
            load_experiment(str(path))


# -- weights


def test_weights_of_the_first_seed_are_kept_for_the_figure(tmp_path, pretended):
    _, book, runs = worked(fields(tmp_path), tmp_path / "out")
    assert len(pretended.asked) == 4
    assert {(run.arm.name, run.seed) for run in runs if book.weights_path(run).is_file()} == {
        *(("bare", 0), ("moving", 0)),
    }
    assert {(run.arm.name, run.seed) for run in runs if run.drawn} == {("bare", 0), ("moving", 0)}


def test_runs_without_the_weights_that_the_figure_needs_are_missing(tmp_path, pretended):
    plain = table(tmp_path, arms=ARMS, contrasts=[])
    _, book, runs = worked(plain, tmp_path / "out")
    assert not any(book.weights_path(run).is_file() for run in runs)
    figure = fields(tmp_path)
    worked(figure, tmp_path / "out")
    assert pretended.asked[4:] == [("bare", 0), ("moving", 0)]
    worked(figure, tmp_path / "out")
    assert len(pretended.asked) == 6
    shutil.rmtree(book.folder / "weights")
    worked(table(tmp_path, arms=ARMS, contrasts=[]), tmp_path / "out")
    assert len(pretended.asked) == 6


def test_a_run_that_is_done_again_in_vain_keeps_its_record(tmp_path, pretended):
    worked(table(tmp_path, arms=ARMS, contrasts=[]), tmp_path / "out")
    records = {path: path.read_bytes() for path in (tmp_path / "out" / "runs").iterdir()}
    pretended.failing = {"moving"}
    with pytest.warns(UserWarning, match="-moving-.*was done again for its weights, and failed: RuntimeError: no luck"):
        worked(fields(tmp_path), tmp_path / "out")
    again = {path: path.read_bytes() for path in records}
    assert [path.name for path in records if again[path] != records[path] and "-moving-" in path.name] == []


def test_tables_keep_the_weights_of_the_runs_that_a_figure_shares(tmp_path, pretended):
    drawn = drawn_runs()
    shared = [run for run in Worker.planned(load_experiment("table5"), "smoke") if (run.key, run.seed) in drawn]
    assert {(run.arm.name, run.seed) for run in shared if run.setting.config is None} == {
        *(("bare", 0), ("replica", 0), ("searched", 0)),
    }
    assert not any(run.drawn for run in shared)
    worker = Worker(tmp_path / "out", device="cpu")
    assert all(worker._keeps(run, []) for run in shared)
    assert not worker._keeps(replace(shared[0], seed=1), [])


# -- figure 1


def made(path, out, book=None):
    """The drawings of an experiment from what is in a folder."""
    experiment = load_experiment(str(path))
    runs = Worker.planned(experiment, "smoke")
    found = drawings(experiment, runs, book or Book(out), Shelf({}, out / "data"), device=CPU)
    return experiment, runs, found


@pytest.fixture(scope="module")
def trained_fields(tmp_path_factory):
    """A folder with the file of a figure of fields and its runs in `out`; who changes it, copies it."""
    folder = tmp_path_factory.mktemp("fields")
    path = fields(folder, rows=[{**TABLE["rows"][0], "scales": {"smoke": {**TINY, "seeds": 1}}}])
    assert main(["reproduce", str(path), "--scale", "smoke", "--out", str(folder / "out"), "--device", "cpu"]) == 0
    return folder


def test_fields_of_trained_networks_end_to_end(trained_fields, tmp_path, capsys):
    shutil.copytree(trained_fields, tmp_path, dirs_exist_ok=True)
    out = tmp_path / "out"
    argv = ["reproduce", str(tmp_path / "own.yaml"), "--scale", "smoke", "--out", str(out), "--device", "cpu"]
    assert main(argv) == 0  # draws again what is trained
    printed = " ".join(capsys.readouterr().out.split())
    said = "Layer1, frame 0: the area that holds half of the gradient, as a multiple of that of “bare”: moving"
    assert said in printed
    (drawn,) = json.loads((out / "own-smoke.json").read_text())["drawn"]
    assert drawn["gaps"] == []
    assert drawn["images"] == 4
    assert [row["row"] for row in drawn["rows"]] == ["layer1, frame 0", "layer1, averaged", "class score"]
    assert [row["unit"] for row in drawn["rows"]] == [
        "all channels of the centre unit of layer1, frame 0",
        "all channels of the centre unit of layer1, aggregated over frames",
        "the largest channel of the output, aggregated over frames",
    ]
    for row in drawn["rows"]:
        bare, moving = row["networks"]
        assert (bare["name"], bare["genotype"]) == ("bare", None)
        assert (moving["name"], moving["genotype"]) == ("moving", "translate_x(0.1)")
        assert {"area_50", "spread", "anisotropy", "angle"} <= set(bare["measures"]) & set(bare["errors"])
        assert bare["measures"] != moving["measures"]
    page = (out / "own-smoke.md").read_text()
    assert "4 of its test images" in page
    assert "| layer1, averaged | moving |" in page
    assert (out / "own-smoke-scores.png").is_file()
    before = {name: (out / f"own-smoke.{name}").read_bytes() for name in ("md", "html", "json", "png", "svg")}
    assert main([*argv, "--report-only"]) == 0
    assert {name: (out / f"own-smoke.{name}").read_bytes() for name in before} == before


def test_many_columns_name_the_networks_once_and_no_text_is_over_another():
    spots = [np.exp(-((np.indices((16, 16)) - 8.0) ** 2).sum(0) / (2 * s)) for s in (2.0, *[3.0] * 6)]
    names = ["bare", "copies", "translation", "rotation", "zoom in", "zoom out", "searched clip"]
    fields = [measures(torch.from_numpy(spot)) for spot in spots]
    errors = replace(fields[0], area=dict.fromkeys(fields[0].area, 0.5), anisotropy=0.01)
    panels = [ErfPanel(n, s, m, errors) for n, s, m in zip(names, spots, fields, strict=True)]
    figure = erf_figure({"layer2, frame 0": panels, "class score": panels}, width=7.5, relative=True)
    assert [axis.get_title() for axis in figure.axes[:7]] == names
    assert [axis.get_title() for axis in figure.axes[7:14]] == [""] * 7
    ratio = fields[1].area[0.5] / fields[0].area[0.5]
    assert figure.axes[1].get_xlabel().startswith(f"× {ratio:.2f} ± ")
    assert figure.axes[0].get_xlabel().startswith(f"{fields[0].area[0.5]:.1f} px")
    assert texts_overlap(figure) == []


def test_networks_without_weights_are_said_and_the_others_drawn(trained_fields, tmp_path):
    shutil.copytree(trained_fields, tmp_path, dirs_exist_ok=True)
    left, book, runs = worked(tmp_path / "own.yaml", tmp_path / "out")
    assert left == []
    bare, moving = runs
    book.weights_path(moving).unlink()
    _, _, (drawing,) = made(tmp_path / "own.yaml", tmp_path / "out")
    assert drawing.figure is not None
    (gap,) = drawing.gaps
    assert gap.startswith("No field of 'moving': its weights are not there (")
    assert "without --report-only and --rows the same command makes them again" in gap
    book.weights_path(bare).unlink()
    experiment, _, (drawing,) = made(tmp_path / "own.yaml", tmp_path / "out")
    assert drawing.figure is None
    assert drawing.gaps[-1] == "Nothing is drawn without 'bare', which the others are compared with."
    files = write(experiment, "smoke", outcomes(experiment, "smoke", runs, book), tmp_path / "out", [drawing])
    assert "png" not in files
    assert gap in files["md"].read_text()
    assert "Nothing is drawn without" in files["html"].read_text()


def test_failed_and_missing_runs_and_data_are_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, runs, (drawing,) = made(fields(tmp_path), tmp_path / "out")
    assert drawing.gaps[0] == "No field of 'bare': it has not run; run it first"
    Book(tmp_path / "out").write(runs[0], {"error": "RuntimeError: no luck"})
    _, _, (drawing,) = made(fields(tmp_path), tmp_path / "out")
    assert drawing.gaps[0] == "No field of 'bare': it failed: RuntimeError: no luck"
    row = {**TABLE["rows"][0], "scales": {"smoke": {**TINY, "data": "cifar10"}}}
    _, _, (drawing,) = made(fields(tmp_path, rows=[row]), tmp_path / "out")
    assert "for want of data: data set 'cifar10' could not be read" in drawing.gaps[0]


def test_scores_are_shown_where_mmsegmentation_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "image2video.reproduce.figures_scenes", None)
    _, _, (drawing,) = made("figure6", tmp_path / "out")
    assert "needs mmsegmentation, which cannot be imported here" in drawing.gaps[0]
    assert drawing.figure is None


# -- figure 6


def test_figure_6_shares_its_runs_with_table_3():
    for scale in ("smoke", "cpu", "gpu", "paper"):
        keys = {run.key for run in Worker.planned(load_experiment("table3"), scale)}
        assert {run.key for run in Worker.planned(load_experiment("figure6"), scale)} <= keys


SCENES = {
    **{"data": "digit_scenes", "config": "digit_scenes/fcn_small_1xb8_digit_scenes-48x48.py", "steps": 1, "seeds": 1},
    "options": {"test_dataloader.dataset.indices": 8},
}


def scenes(folder, *arms):
    """A figure of predictions after single steps."""
    rows = [{"name": "scenes", "metric": "mIoU", "scales": {"smoke": {**TINY, **SCENES, "image_size": None}}}]
    return table(folder, rows=rows, arms=[*ARMS, *arms], contrasts=[], figure="predictions", images=2)


@pytest.fixture(scope="module")
def trained_scenes(tmp_path_factory):
    """A folder with the file of a figure of predictions and its runs in `out`; who changes it, copies it."""
    pytest.importorskip("mmseg")
    folder = tmp_path_factory.mktemp("scenes")
    argv = ["reproduce", str(scenes(folder)), "--scale", "smoke", "--out", str(folder / "out"), "--device", "cpu"]
    assert main(argv) == 0
    return folder


def test_predictions_of_trained_segmentors_end_to_end(trained_scenes, tmp_path, capsys):
    shutil.copytree(trained_scenes, tmp_path, dirs_exist_ok=True)
    out, path = tmp_path / "out", tmp_path / "own.yaml"
    argv = ["reproduce", str(path), "--scale", "smoke", "--out", str(out), "--device", "cpu"]
    assert main(argv) == 0
    assert "Mean IoU in percent over these 2 images, which decide nothing: bare " in " ".join(
        capsys.readouterr().out.split()
    )
    (drawn,) = json.loads((out / "own-smoke.json").read_text())["drawn"]
    assert drawn["gaps"] == []
    assert [image["file"] for image in drawn["images"]] == ["0000.png", "0001.png"]
    assert [list(image["iou"]) for image in drawn["images"]] == [["bare", "moving"]] * 2
    assert "The first 2 of " in drawn["caption"]
    assert (out / "own-smoke.png").is_file()
    runs = Worker.planned(load_experiment(str(path)), "smoke")
    Book(out).weights_path(runs[1]).unlink()
    assert main([*argv, "--report-only"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "No predictions of 'moving': its weights are not there" in printed
    assert "Nothing is drawn: 2 networks with weights are needed, there is bare." in printed


def test_the_weights_that_are_drawn_are_those_that_were_tested(trained_scenes):
    """The mean over all test images of what the figure's network predicts is the score of the run's record."""
    from image2video.reproduce.figures_scenes import Scenes, trained_segmentor

    path, out = trained_scenes / "own.yaml", trained_scenes / "out"
    left, book, runs = worked(path, out)
    assert left == []
    config = Worker(out, device="cpu").shelf(runs[1].setting)
    everything = Scenes(config, 10**6)
    for run in runs:
        maps = list(everything.predictions(trained_segmentor(run, book, config, CPU)))
        rows = everything.rows({"one": maps, "again": maps})
        label = np.concatenate([row.label for row in rows])
        found = np.concatenate([row.predictions["one"] for row in rows])
        assert 100 * image_iou(found, label) == pytest.approx(book.read(run)["score"], abs=0.01)


def test_iou_of_one_image():
    label = np.array([[0, 0, 1], [1, 255, 2]])
    assert image_iou(label, label) == 1
    other = np.array([[0, 1, 1], [1, 0, 1]])
    assert image_iou(other, label) == pytest.approx((1 / 2 + 2 / 4 + 0) / 3)
    assert math.isnan(image_iou(other, np.full((2, 3), 255)))
    moved = np.where(label == 255, 9, label)
    assert image_iou(other, moved, ignore_index=9) == image_iou(other, label) != image_iou(other, moved)


def test_a_picture_says_iou_and_marks_what_has_no_label():
    classes = {"road": (128, 64, 128), "car": (0, 0, 142), "sky": (70, 130, 180)}
    label = np.zeros((20, 30), np.int64)
    label[:8] = 255
    good, bad = np.zeros_like(label), np.zeros_like(label)
    bad[10:15] = 1
    row = SegmentedImage(np.zeros((20, 30, 3), np.uint8), label, {"bare network, T times the epochs": good, "b": bad})
    figure = segmentation_figure([row], classes, score="iou", width=7)
    assert figure.axes[2].get_xlabel() == "mIoU 100.0 %"
    assert figure.axes[3].get_xlabel() == f"mIoU {100 * (7 / 12) / 2:.1f} %"
    assert figure.axes[6].get_xlabel().endswith("% right")
    colours = {tuple(colour) for colour in figure.axes[1].images[0].get_array()[:8].reshape(-1, 3).tolist()}
    assert len(colours) == 2
    assert not colours & set(classes.values())
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["road", "car", "unlabelled"]
    assert "\n" in figure.axes[2].get_title()
    assert texts_overlap(figure) == []
