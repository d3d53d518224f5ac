"""Whether a clip helps a trained segmentor, on stripes whose answer is known."""

import json
import runpy
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmseg.apis import init_model
from mmseg.evaluation import IoUMetric
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from PIL import Image
from stripe_segmentor import CLASSES, SIZE, SPACE, config, made, segmentor, write_images

from image2video.assess.segmentor import SegmentorAssessment, assess_segmentor
from image2video.assess.segmentor.files import CONFIG, write_segmentor_files
from image2video.assess.segmentor.page import segmentor_page
from image2video.errors import InputError, MissingError, UnsupportedError
from image2video.integrations.openmmlab.trained import TrainedSegmentor

quiet_drawing = pytest.mark.filterwarnings("ignore:Failed to add:UserWarning")
pytestmark = pytest.mark.filterwarnings("ignore:For binary segmentation, we suggest:UserWarning")


@MODELS.register_module(force=True)
class DerivedSegmentor(EncoderDecoder):
    """A segmentor of someone's own, which no clip is known for."""


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """A folder with a config, its weights and its images, and a space of tilts."""
    folder = tmp_path_factory.mktemp("stripes")
    made(folder)
    (folder / "tilts.yaml").write_text(SPACE)
    return folder


@pytest.fixture(scope="module")
def trained(stripes):
    return TrainedSegmentor.read(stripes / "stripes.py", stripes / "stripes.pth")


@pytest.fixture(scope="module")
def tilted(stripes, trained):
    """The assessment where the camera is tilted."""
    return assess_segmentor(trained, max_cost=2, candidates=12, space=str(stripes / "tilts.yaml"))


def test_a_tilted_camera_is_found_and_decided(tilted):
    assert tilted.verdict == "better"
    assert tilted.chosen.finalist.genotype == "rotate(-45)"
    assert tilted.chosen.finalist.cost == 1  # one frame is enough, and two are worse
    assert tilted.bare.judging.accuracy < 0.4
    assert tilted.chosen.judging.accuracy > 0.97
    low, high = tilted.chosen.gain.interval
    assert 0.5 < low < tilted.chosen.gain.gain < high
    assert tilted.loader == "val_dataloader"
    done, out, line = tilted.sentences()
    assert "30 labelled images" in done
    assert "mIoU" in out
    assert line.startswith("""Use it: model = dict(type="VideoEncoderDecoder", video=dict(genotype='rotate(-45)'""")


def test_all_plain_averages_of_two_frames_stand_beside_it(tilted):
    sets = {row.finalist.genotype for row in tilted.rows if row.finalist.T == 2}
    assert {"identity | flip_x", "identity | scale(1.2)", "identity | scale(0.8333)"} <= sets
    assert {row.finalist.name for row in tilted.rows} >= {"bare", "mirror", "frame", "chain"}
    assert all(row.finalist.cost <= 2 for row in tilted.rows)


def test_upright_images_keep_the_segmentor_or_decide_little(stripes, trained):
    upright = replace(trained, loader="test_dataloader", items=_items(stripes, "test"))
    with pytest.warns(UserWarning, match="hardly anything left to gain"):
        found = assess_segmentor(upright, max_cost=1, candidates=8, space=str(stripes / "tilts.yaml"))
    assert found.verdict == "keep"
    assert found.choice == 0
    assert found.sentences()[2] == "Keep your model as it is."
    assert found.wrap_options()["T"] == 1


def _items(folder, split):
    with DefaultScope.overwrite_default_scope("mmseg"):
        return TrainedSegmentor.read(folder / "stripes.py", folder / "stripes.pth", split).items


def judged(trained, tilted, network):
    """The mIoU that mmsegmentation's own metric gives on the images that judged."""
    metric = IoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": CLASSES}
    order = torch.randperm(len(trained.items), generator=torch.Generator().manual_seed(_seed()))
    numbers = order[tilted.bare.choosing.images :].tolist()
    with torch.no_grad():
        for number in numbers:
            item = trained.items[number]
            batch = {"inputs": [item["inputs"]], "data_samples": [item["data_samples"]]}
            metric.process(batch, [sample.to_dict() for sample in network.test_step(batch)])
    return metric.evaluate(len(numbers))


def _seed():
    from image2video.data.seeds import derive_seed

    return derive_seed(0)


def test_the_figures_are_those_of_the_config_that_is_written(trained, tilted, tmp_path):
    write_segmentor_files(tmp_path, tilted, trained)
    for path, row in ((tmp_path / CONFIG, tilted.chosen), (trained.config.filename, tilted.bare)):
        network = init_model(str(path), trained.weights, device="cpu")
        found = judged(trained, tilted, network)
        assert found["mIoU"] == pytest.approx(100 * row.judging.accuracy, abs=0.006)
        assert found["aAcc"] == pytest.approx(100 * row.judging.pixel_accuracy, abs=0.006)


def test_the_runner_of_mmsegmentation_takes_the_config(trained, tilted, tmp_path):
    write_segmentor_files(tmp_path, tilted, trained)
    cfg = Config.fromfile(tmp_path / CONFIG)
    assert cfg.model.type == "VideoEncoderDecoder"
    assert set(cfg.custom_imports.imports) == {"stripe_segmentor", "image2video.integrations.openmmlab"}
    cfg.merge_from_dict(
        {
            "work_dir": str(tmp_path / "work"),
            "load_from": trained.weights,
            "test_dataloader": cfg.val_dataloader,
            "test_evaluator": cfg.val_evaluator,
            "test_cfg": {"type": "TestLoop"},
            "log_level": "ERROR",
        }
    )
    for name in ("train_dataloader", "val_dataloader", "val_evaluator", "val_cfg"):
        cfg[name] = None
    found = Runner.from_cfg(cfg).test()
    both = tilted.chosen.choosing, tilted.chosen.judging
    assert found["mIoU"] / 100 == pytest.approx(sum(f.accuracy * f.images for f in both) / 45, abs=0.01)


def test_the_assessment_survives_its_record(tilted):
    record = json.loads(json.dumps(tilted.to_dict()))
    assert record["metric"] == "mIoU"
    again = SegmentorAssessment.from_dict(record)
    assert again == tilted
    assert again.sentences() == tilted.sentences()


def test_the_page_says_what_was_measured(tilted):
    html = segmentor_page(tilted)
    assert "pixel accuracy (%)" in html
    assert "Gain in mIoU over the bare network" in html
    assert "accuracy where it was chosen" not in html.replace("mIoU where it was chosen", "")
    assert f"{100 * tilted.chosen.judging.pixel_accuracy:.2f}" in html
    assert "rotate(-45), T = 1, ramp" in html
    assert "2000 draws" in html


def test_an_assessment_is_the_same_again(stripes, trained, tilted):
    again = assess_segmentor(trained, max_cost=2, candidates=12, space=str(stripes / "tilts.yaml"))
    timeless = [replace(row, single=None, batched=None, single_ms=()) for row in again.rows]
    assert timeless == [replace(row, single=None, batched=None, single_ms=()) for row in tilted.rows]


def test_a_segmentor_that_slides_is_assessed_by_its_windows(stripes, tmp_path):
    cfg = config(stripes)
    cfg.model.test_cfg = {"mode": "slide", "crop_size": (40, 40), "stride": (40, 16)}
    cfg.dump(tmp_path / "slide.py")
    slides = TrainedSegmentor.read(tmp_path / "slide.py", stripes / "stripes.pth")
    found = assess_segmentor(slides, max_cost=1, candidates=8, space=str(stripes / "tilts.yaml"), max_images=30)
    assert found.chosen.finalist.genotype == "rotate(-45)"
    assert "windows, each a clip of its own" in found.notes[0]


def test_minutes_are_planned_before_the_work(stripes, trained):
    stages = {}

    def note(stage, done, total, **figures):
        stages[stage] = (done, total)

    asked = {"max_cost": 1, "candidates": 8, "max_images": 30, "space": str(stripes / "tilts.yaml"), "progress": note}
    with pytest.raises(InputError, match=r"minutes=0\.0001 is too little"):
        assess_segmentor(trained, minutes=1e-4, **asked)
    assert stages == {}  # not even the bare segmentor was scored
    found = assess_segmentor(trained, minutes=100, **asked)
    assert stages["bare"] == (30, 30)
    assert stages["cost"] == (6, 6)  # three rounds of the two
    assert len(found.bare.single_ms) == 3


def test_a_segmentor_without_memory_for_its_times_is_assessed(stripes, trained, monkeypatch):
    def full(*args, **how):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("image2video.assess.segmentor.network.measure_cost", full)
    found = assess_segmentor(trained, max_cost=1, candidates=8, max_images=30, space=str(stripes / "tilts.yaml"))
    assert found.bare.single is None
    assert found.notes[-1].startswith("The time of an image was not measured")
    assert "rotate(-45)" in segmentor_page(found)
    assert SegmentorAssessment.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_segmentor_that_cannot_take_whole_images_is_refused_at_once(stripes, tmp_path, monkeypatch):
    cfg = config(stripes)
    cfg.model.test_cfg = {"mode": "slide", "crop_size": (40, 40), "stride": (40, 16)}
    cfg.dump(tmp_path / "slide.py")
    slides = TrainedSegmentor.read(tmp_path / "slide.py", stripes / "stripes.pth")
    forward = slides.plain.backbone.forward

    def windows_alone(images):
        assert images.shape[2:] == (40, 40), "windows alone"
        return forward(images)

    monkeypatch.setattr(slides.plain.backbone, "forward", windows_alone)
    monkeypatch.setattr(type(slides), "pixels", None)  # nothing is scored before
    with pytest.raises(UnsupportedError, match=r"cannot take one of 56×40 pixels \(AssertionError: windows alone"):
        assess_segmentor(slides, max_cost=1, candidates=8)


def used(folder, image, monkeypatch, capsys):
    """What the script in a folder says of an image."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["use_it.py", str(image)])
    runpy.run_path(str(folder / "use_it.py"), run_name="__main__")
    return capsys.readouterr().out


@quiet_drawing
def test_one_output_for_two_classes_is_the_probability_of_the_second(stripes, tilted, tmp_path, monkeypatch, capsys):
    cfg = config(stripes)
    cfg.model.decode_head.update(
        out_channels=1, threshold=0.5, loss_decode={"type": "CrossEntropyLoss", "use_sigmoid": True}
    )
    cfg.dump(tmp_path / "one.py")
    state = segmentor().state_dict()
    weight = state["decode_head.conv_seg.weight"]
    state["decode_head.conv_seg.weight"] = weight[1:] - weight[:1]
    state["decode_head.conv_seg.bias"] = state["decode_head.conv_seg.bias"][:1]
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "one.pth")
    one = TrainedSegmentor.read(tmp_path / "one.py", tmp_path / "one.pth", "test")
    two = TrainedSegmentor.read(stripes / "stripes.py", stripes / "stripes.pth", "test")
    here, there = one.pixels(one.plain, 3), two.pixels(two.plain, 3)
    assert torch.equal(here.answers, there.answers)
    torch.testing.assert_close(here.logits.log_softmax(1), there.logits.log_softmax(1), rtol=1e-3, atol=1e-3)
    write_segmentor_files(tmp_path, tilted, one)
    said = used(tmp_path, one.items.get_data_info(3)["img_path"], monkeypatch, capsys)
    assert "upright" in said or "level" in said


def test_ignored_pixels_count_nowhere(trained):
    pixels = trained.pixels(trained.plain, 0)
    label = np.asarray(Image.open(trained.items.get_data_info(0)["seg_map_path"]))
    assert (label == 255).sum() == 2 * SIZE[0]
    assert len(pixels.labels) == (label != 255).sum()
    assert set(pixels.labels.tolist()) <= {0, 1}


def without_labels(cfg):
    cfg.val_dataloader.dataset.data_prefix.pop("seg_map_path")


def without_annotations(cfg):
    del cfg.val_dataloader.dataset.pipeline[1]


def without_loaders(cfg):
    cfg.pop("val_dataloader")
    cfg.pop("test_dataloader")


def training_images(cfg):
    cfg.val_dataloader.dataset.data_prefix = cfg.train_dataloader.dataset.data_prefix


def fused(cfg):
    cfg.custom_imports.imports.append("image2video.integrations.openmmlab")
    cfg.model.update(type="VideoEncoderDecoder", video={"genotype": "flip_x", "T": 2, "fusion": "tsm"})


def of_its_own(cfg):
    cfg.model.type = "DepthEstimator"


def derived(cfg):
    cfg.model.type = "DerivedSegmentor"


def one_class(cfg):
    cfg.model.decode_head.update(
        num_classes=1, out_channels=1, threshold=0.5, loss_decode={"type": "CrossEntropyLoss", "use_sigmoid": True}
    )


def untested(cfg):
    cfg.model.pop("test_cfg")


def listed(cfg):
    cfg.val_dataloader = [cfg.val_dataloader]


def named(cfg):
    cfg.val_dataloader.dataset = "stripes"


def three_classes(cfg):
    cfg.model.decode_head.num_classes = 3


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (without_annotations, InputError, "pipeline gives no labels; it must hold LoadAnnotations"),
        (without_labels, InputError, "images of val_dataloader have no labels; set data_prefix.seg_map_path"),
        (without_loaders, InputError, "no val_dataloader and no test_dataloader with a dataset"),
        (fused, InputError, "has the fusion tsm, whose frames depend on each other"),
        (of_its_own, UnsupportedError, "DepthEstimator"),
        (training_images, InputError, "at least 30 labelled images, got 2"),
        (derived, UnsupportedError, "'DerivedSegmentor' has no video segmentor; an assessment takes EncoderDecoder"),
        (untested, InputError, "model has no test_cfg"),
        (listed, InputError, "val_dataloader must be a dict whose dataset is a dict, got a list"),
        (named, InputError, "val_dataloader must be a dict whose dataset is a dict, got a dataset of str"),
        (three_classes, InputError, "the model needs .3, .*; give the config that these weights were trained with"),
    ],
)
def test_what_cannot_be_assessed(stripes, tmp_path, change, error, match):
    cfg = config(stripes)
    change(cfg)
    cfg.dump(tmp_path / "changed.py")
    with pytest.raises(error, match=match):
        assess_segmentor(tmp_path / "changed.py", stripes / "stripes.pth", max_cost=1, candidates=8)


def test_what_is_asked_for_wrongly(stripes, trained):
    path = stripes / "stripes.py"
    for more, match in (
        ({"max_cost": 0.5}, "max_cost must be at least 1"),
        ({"candidates": 4}, "candidates must be at least 8"),
        ({"judge": 0}, "judge must be above 0"),
        ({"minutes": 1e-6}, "minutes=1e-06 is too little for these images; give at least"),
        ({"max_images": 20}, r"at least 30 labelled images, got 20 of val_dataloader \(max_images=20 of its 45\)"),
        ({"space": "poses"}, "unknown search space 'poses'"),
    ):
        with pytest.raises(InputError, match=match):
            assess_segmentor(trained, **more)
    with pytest.raises(InputError, match="without weights the segmentor is random"):
        assess_segmentor(path)
    with pytest.raises(MissingError, match=r"no weights at nowhere\.pth; give the checkpoint"):
        assess_segmentor(path, "nowhere.pth")
    with pytest.raises(MissingError, match="no config there"):
        assess_segmentor(stripes / "other.py", stripes / "stripes.pth")
    with pytest.raises(InputError, match="images must be one of val, test, got 'train'"):
        assess_segmentor(path, stripes / "stripes.pth", images="train")


def test_a_class_alone_is_no_segmentation(stripes, tmp_path):
    cfg = config(stripes)
    one_class(cfg)
    cfg.dump(tmp_path / "one.py")
    state = segmentor().state_dict()
    for name in ("weight", "bias"):
        state[f"decode_head.conv_seg.{name}"] = state[f"decode_head.conv_seg.{name}"][:1]
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "one.pth")
    with pytest.raises(InputError, match=r"num_classes must be at least 2, got 1.* num_classes=2, out_channels=1"):
        TrainedSegmentor.read(tmp_path / "one.py", tmp_path / "one.pth")


def test_a_config_without_a_model(stripes):
    cfg = config(stripes)
    cfg.pop("model")
    with pytest.raises(InputError, match="the config has no model"):
        TrainedSegmentor.read(cfg, stripes / "stripes.pth")


@quiet_drawing
def test_a_data_set_without_names_and_labels_loaded_by_another_name(stripes, tilted, tmp_path, monkeypatch, capsys):
    cfg = config(stripes)
    cfg.val_dataloader.dataset.pop("metainfo")
    cfg.val_dataloader.dataset.pipeline[1] = {"type": "mmseg.LoadAnnotations", "imdecode_backend": "pillow"}
    cfg.dump(tmp_path / "plain.py")
    found = TrainedSegmentor.read(tmp_path / "plain.py", stripes / "stripes.pth")
    first, second = found.dataset_meta["palette"]
    assert first != second
    assert all(0 <= value <= 255 for value in (*first, *second))
    write_segmentor_files(tmp_path, tilted, found)
    used(tmp_path, found.items.get_data_info(3)["img_path"], monkeypatch, capsys)
    assert (tmp_path / "003_classes.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"out_channels": 2}, "a sigmoid for each class"),
        ({"out_channels": 1, "threshold": 0.3}, "from a probability of 0.3 on"),
    ],
)
def test_outputs_that_are_no_softmax_are_named(stripes, tmp_path, changes, match):
    cfg = config(stripes)
    cfg.model.decode_head.update(loss_decode={"type": "CrossEntropyLoss", "use_sigmoid": True}, **changes)
    cfg.dump(tmp_path / "sigmoid.py")
    state = segmentor().state_dict()
    for name in ("weight", "bias"):
        state[f"decode_head.conv_seg.{name}"] = state[f"decode_head.conv_seg.{name}"][: changes["out_channels"]]
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "sigmoid.pth")
    (note,) = TrainedSegmentor.read(tmp_path / "sigmoid.py", tmp_path / "sigmoid.pth").notes
    assert match in note


def test_images_with_hardly_any_label(stripes, tmp_path):
    write_images(tmp_path, "val", 30, tilt=0)
    for path in sorted((tmp_path / "labels" / "val").iterdir())[2:]:
        Image.new("L", (SIZE[1], SIZE[0]), 255).save(path)
    config(tmp_path, train_dataloader=None, test_dataloader=None).dump(tmp_path / "few.py")
    with pytest.raises(InputError, match=r"at least 5 images that \w+ with labelled pixels, got \d of [12]0"):
        assess_segmentor(tmp_path / "few.py", stripes / "stripes.pth", max_cost=1, candidates=8)


def test_images_of_one_class_decide_nothing(stripes, tmp_path):
    write_images(tmp_path, "val", 30, tilt=0, classes=1)
    config(tmp_path, train_dataloader=None, test_dataloader=None).dump(tmp_path / "one.py")
    with pytest.raises(InputError, match=r"labels of one class alone \(upright\) in val_dataloader"):
        assess_segmentor(tmp_path / "one.py", stripes / "stripes.pth", max_cost=1, candidates=8)


def test_images_of_the_training_are_named(stripes, tmp_path):
    cfg = config(stripes)
    cfg.train_dataloader.dataset = cfg.val_dataloader.dataset
    cfg.dump(tmp_path / "seen.py")
    with pytest.warns(UserWarning, match="val_dataloader of the config reads the same files as train_dataloader"):
        assess_segmentor(
            tmp_path / "seen.py", stripes / "stripes.pth", max_cost=1, candidates=8, space=str(stripes / "tilts.yaml")
        )


def test_a_segmentor_that_averages_is_assessed_without_its_clip(stripes, trained, tmp_path):
    cfg = config(stripes)
    cfg.custom_imports.imports.append("image2video.integrations.openmmlab")
    cfg.model.update(type="VideoEncoderDecoder", video={"genotype": "flip_x", "T": 2, "fusion": "none"})
    cfg.dump(tmp_path / "averages.py")
    averages = trained.with_clip({"genotype": "flip_x", "T": 2, "fusion": "none"})
    torch.save({"meta": {}, "state_dict": averages.state_dict()}, tmp_path / "averages.pth")
    found = TrainedSegmentor.read(tmp_path / "averages.py", tmp_path / "averages.pth")
    assert found.notes == ("The segmentor is assessed without the clip of its config, which averages already.",)
    assert torch.equal(found.pixels(found.plain, 1).logits, trained.pixels(trained.plain, 1).logits)
    assert not found.has_own_checkpoint  # it holds another clip than the one that is found
    assert "video" not in found.config_with(None).model
    assert found.config_with({"T": 3}).model.video == {"T": 3}
