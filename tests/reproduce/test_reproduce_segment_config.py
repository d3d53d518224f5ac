"""The configs of segmentation: read and merged, a share held out, stretched, and made into those of the arms."""

from __future__ import annotations

import dataclasses
import gc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mmseg")

from mmengine.config import Config, ConfigDict
from segment_cases import BARE, CONFIG, LEARNED, LONG, MOVED, MOVING, OPTIONS, made, make_scenes, setting

from image2video.errors import InputError, MissingError, UnsupportedError
from image2video.reproduce import Cell, Setting, experiments, load_experiment
from image2video.reproduce.miniatures import make_voc
from image2video.reproduce.policies import Policy
from image2video.reproduce.segment_config import arm_config, arm_steps, plain_config
from image2video.reproduce.segment_model import arm_model
from image2video.reproduce.segment_reading import content_hash, read_config
from image2video.reproduce.segment_schedule import stretch
from image2video.reproduce.segment_split import describe, leaves, loader_leaves, split

VOC = "pspnet/pspnet_r50-d8_4xb4-40k_voc12aug-512x512.py"
CITYSCAPES = "deeplabv3/deeplabv3_xception65-d16_4xb2-80k_cityscapes-512x1024.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes"))


def written(folder: Path, text: str, base: str = CONFIG) -> str:
    """The path of a config that changes another."""
    from image2video.integrations.openmmlab import CONFIGS

    path = folder / "own_1xb2-more.py"
    path.write_text(f"_base_ = {str(CONFIGS / base)!r}\n{text}")
    return str(path)


def test_a_config_with_another_over_it():
    camvid = "camvid/pspnet_r18-d8_1xb8-20k_camvid-480x360.py"
    plain = read_config(Setting(config=camvid))
    small = read_config(Setting(config=f"{camvid} + camvid/_base_/scale_cpu.py"))
    assert (plain.train_dataloader.batch_size, small.train_dataloader.batch_size) == (8, 4)
    assert (plain.train_cfg.max_iters, small.train_cfg.max_iters) == (20000, 200)
    assert small.model.data_preprocessor.size == (96, 128)
    assert small.model.backbone == plain.model.backbone
    options = {"train_dataloader.batch_size": 3, "model.backbone.depth": 34}
    changed = read_config(Setting(config=camvid, options=options))
    assert (changed.train_dataloader.batch_size, changed.model.backbone.depth) == (3, 34)


def test_the_images_of_a_step_are_those_of_all_processes_that_a_name_states():
    assert read_config(Setting(config=VOC)).train_dataloader.batch_size == 16
    assert read_config(Setting(config=VOC, options={"train_dataloader.batch_size": 2})).train_dataloader.batch_size == 2
    assert read_config(Setting(config=CITYSCAPES)).train_dataloader.batch_size == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = dict(type='VideoEncoderDecoder')", "is the config of a video segmentor"),
        ("train_cfg = dict(type='EpochBasedTrainLoop')", "needed IterBasedTrainLoop"),
        ("test_evaluator = dict(type='CityscapesMetric')", "needed one IoUMetric"),
        ("train_dataloader = dict(dataset=None)", "needs train_dataloader.dataset, got none"),
        (
            "test_dataloader = dict(dataset=dict(indices=None, data_prefix=dict(img_path='images/train', "
            "seg_map_path='labels/train')))",
            "train_dataloader reads the files of test_dataloader",
        ),
        ("load_from = 'coco.pth'", "load_from='coco.pth'; arms start from `pretrained` weights"),
        ("resume = True", "resume=True"),
        ("x = 1 / 0", "cannot be read as a config: ZeroDivisionError"),
    ],
)
def test_configs_that_cannot_be_used(text, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_config(Setting(config=written(tmp_path, text)))
    with warnings.catch_warnings():  # mmengine leaves the copy of a config that it cannot run open
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_the_configs_of_all_rows_can_be_read():
    tables = [load_experiment(name) for name in experiments()]
    rows = [setting for table in tables for row in table.rows for setting in row.settings.values()]
    elsewhere = [replaced for setting in rows for replaced in setting.elsewhere.values() if replaced.get("config")]
    named = {setting.config for setting in rows if setting.config} | {replaced["config"] for replaced in elsewhere}
    assert len(named) > 8
    for name in named:
        config = read_config(Setting(config=name))
        assert config.model.type == "EncoderDecoder"
        assert config.train_dataloader.batch_size in (4, 8, 16)
        stretch(config, 7)


def test_a_config_that_is_not_there():
    with pytest.raises(MissingError, match=r"config='nowhere.py': .* of that name nor a file nowhere.py$"):
        read_config(Setting(config="nowhere.py"))
    with pytest.raises(MissingError, match="nowhere"):
        read_config(Setting(config=f"{CONFIG} + nowhere.py"))


def test_labels_of_sixteen_bits_are_refused_with_their_file(tmp_path):
    root = make_scenes(tmp_path, train=8)
    Image.fromarray(np.full((48, 48), 259, np.uint16)).save(root / "labels" / "train" / "0003.png")
    with pytest.raises(
        InputError, match=r"0003\.png must have 8 bits a channel.*the numbers of classes would be cut to 8"
    ):
        plain_config(setting(train_images=None), root)


def test_a_share_is_held_out_and_the_test_split_is_left_alone(root):
    config = plain_config(setting(train_images=None), root)
    ((_, train),), ((_, held),) = (loader_leaves(config, f"{name}_dataloader") for name in ("train", "val"))
    assert len(train["indices"]) == 15
    assert sorted(train["indices"] + held["indices"]) == list(range(20))
    assert held["pipeline"] == config.test_dataloader.dataset.pipeline != train["pipeline"]
    assert held["data_prefix"] == train["data_prefix"] != config.test_dataloader.dataset.data_prefix
    told = describe(config)
    assert (told["train_images"], told["val_images"], told["test_images"]) == (15, 5, 4)
    again, other = (
        plain_config(setting(train_images=None), root),
        plain_config(setting(seed=1, train_images=None), root),
    )
    assert again.train_dataloader.dataset["indices"] == train["indices"] != other.train_dataloader.dataset["indices"]
    assert plain_config(setting(holdout=0), root).val_dataloader is None
    with pytest.raises(InputError, match="train_images=21: there are 20 training images"):
        plain_config(setting(train_images=21), root)
    with pytest.raises(InputError, match="leaves one part empty"):
        plain_config(setting(train_images=1), root)
    with pytest.raises(InputError, match=r"train_dataloader.dataset.indices is in the way"):
        plain_config(setting(options={**OPTIONS, "train_dataloader.dataset.indices": 5}), root)


def test_parts_of_joined_data_sets_are_held_out_each(tmp_path):
    voc = make_voc(tmp_path, train=6, val=2, aug=6)
    config = plain_config(Setting(data="voc", config=VOC, holdout=0.25), voc)
    found = {}
    for name in ("train", "val"):
        for _, leaf in loader_leaves(config, f"{name}_dataloader"):
            found[name, leaf["ann_file"]] = leaf["indices"]
    assert sum(len(found["val", name]) for _, name in list(found) if ("val", name) in found) // 2 == 3
    for name in ("train", "aug"):
        file = f"ImageSets/Segmentation/{name}.txt"
        assert sorted(found["train", file] + found.get(("val", file), [])) == list(range(6))
    assert len(config.val_dataloader.dataset.get("datasets", [0])) in (1, 2)
    assert len(config.train_dataloader.dataset.datasets) == 2
    only = plain_config(Setting(data="voc", config=VOC, holdout=0.5, train_images=2), voc)
    assert sum(len(leaf["indices"]) for _, leaf in loader_leaves(only, "train_dataloader")) == 1


def test_an_image_that_two_data_sets_list_is_on_one_side():
    names = [f"{i}.png" for i in range(10)]
    kept, held = split([names, [*names[5:], "x.png"]], train_images=None, holdout=0.5, seed=0)

    def chosen(places: list[list[int]]) -> set[str]:
        return {names[i] for i in places[0]} | {[*names[5:], "x.png"][i] for i in places[1]}

    assert len(chosen(held)) == round(0.5 * 11)
    assert not chosen(kept) & chosen(held)
    assert chosen(kept) | chosen(held) == {*names, "x.png"}


def test_data_sets_inside_others():
    leaf = {"type": "BaseSegDataset"}
    nested = {"type": "RepeatDataset", "times": 3, "dataset": {"type": "ConcatDataset", "datasets": [leaf, dict(leaf)]}}
    assert [key for key, _ in leaves(nested, "d")] == ["d.dataset.datasets[0]", "d.dataset.datasets[1]"]
    with pytest.raises(UnsupportedError, match=r"d.type='MultiImageMixDataset' mixes images"):
        list(leaves({"type": "MultiImageMixDataset", "dataset": leaf}, "d"))


def schedules(*parts: Any, steps: int) -> list[Any]:
    config = Config({"train_cfg": {"max_iters": 200}, "param_scheduler": [dict(part) for part in parts]})
    stretch(config, steps)
    assert config.train_cfg.max_iters == steps
    return [dict(part) for part in config.param_scheduler]


WARMUP = {"type": "LinearLR", "start_factor": 0.1, "begin": 0, "end": 20, "by_epoch": False}
DECAY = {"type": "PolyLR", "eta_min": 1e-4, "power": 0.9, "begin": 20, "end": 200, "by_epoch": False}


@pytest.mark.parametrize(
    ("steps", "ends"), [(200, [(0, 20), (20, 200)]), (600, [(0, 60), (60, 600)]), (6, [(1, 6)]), (1, [])]
)
def test_schedules_are_stretched(steps, ends):
    assert [(part["begin"], part["end"]) for part in schedules(WARMUP, DECAY, steps=steps)] == ends


def test_other_schedules_are_stretched_too():
    parts = [
        {"type": "MultiStepLR", "milestones": [50, 100], "by_epoch": False},
        {"type": "CosineAnnealingLR", "T_max": 180, "begin": 20, "end": 200, "by_epoch": False},
        {"type": "StepLR", "step_size": 1, "by_epoch": False},
        {"type": "CosineRestartLR", "periods": [100, 100], "restart_weights": [1, 0.5], "by_epoch": False},
        {"type": "CosineAnnealingLR", "T_max": 180, "begin": 20, "by_epoch": False},
    ]
    found = schedules(*parts, steps=20)
    lengths = [part.get("milestones", part.get("periods", part.get("T_max", part.get("step_size")))) for part in found]
    assert lengths == [[5, 10], 18, 1, [10, 10], 18]
    assert found[-1]["begin"] == 2, "a part without an end goes on to the last step"
    with pytest.raises(UnsupportedError, match="MultiStepLR counts epochs"):
        schedules({"type": "MultiStepLR", "milestones": [5]}, steps=20)


def test_steps_of_the_arms(root):
    config = plain_config(setting(), root)
    tuned = Cell("tuned", "t", genotype="identity", fusion="tsm", budget="finetune", start="bare")
    averaged = Cell("averaged", "a", genotype="identity", fusion="none", budget="none", start="bare")
    asked = setting(steps=None, epochs=5, finetune_epochs=2)
    assert [arm_steps(arm, asked, config) for arm in (BARE, LONG, MOVING, tuned, averaged)] == [200, 400, 200, 80, 0]
    assert arm_steps(LONG, dataclasses.replace(asked, steps=7, T=3), config) == 21
    own = arm_config(tuned, asked, 0, config, MOVED, Policy(), work_dir=root)
    assert own.optim_wrapper.optimizer.lr == pytest.approx(0.1 * asked.finetune_lr / asked.lr)


def test_models_of_the_arms(root):
    plain = read_config(setting()).model
    assert arm_model(BARE, setting(), plain, None) == plain
    moving = arm_model(dataclasses.replace(MOVING, schedule="ramp", T=4), setting(), plain, MOVED)
    clip = {"genotype": "translate_x(0.1)", "T": 4, "schedule": "ramp", "padding": "zeros"}
    clip |= {"fusion": "gsf", "residual": False}
    assert (moving.type, moving.video) == ("VideoEncoderDecoder", clip)
    starting = dataclasses.replace(MOVING, start="bare")
    assert arm_model(starting, setting(), plain, MOVED).video.residual
    assert arm_model(MOVING, setting(), {**plain, "pretrained": "open-mmlab://resnet18_v1c"}, MOVED).video.residual
    cascade = arm_model(MOVING, setting(), {**plain, "type": "CascadeEncoderDecoder"}, MOVED)
    assert cascade.type == "VideoCascadeEncoderDecoder"
    learned = arm_model(LEARNED, setting(), plain, None)
    assert (learned.type, learned["T"]) == ("LearnedEncoderDecoder", 2)
    with pytest.raises(UnsupportedError, match="'SegTTAModel' has no twin with a clip; known are EncoderDecoder"):
        arm_model(MOVING, setting(), {"type": "SegTTAModel"}, MOVED)
    with pytest.raises(UnsupportedError, match="has layout='scrambled', which rows of segmentation do not know"):
        arm_model(dataclasses.replace(MOVING, layout="scrambled"), setting(), plain, MOVED)


def test_what_an_arm_is_trained_with(root, tmp_path):
    before = plain_config(setting(), root).to_dict()
    config = plain_config(setting(), root)
    own = arm_config(LEARNED, setting(), 3, config, None, Policy("clips:affine5"), work_dir=tmp_path / "run")
    assert config.to_dict() == before  # arms share it
    assert own.val_dataloader is own.val_cfg is own.val_evaluator is None
    assert own.optim_wrapper.paramwise_cfg.custom_keys.width.decay_mult == 0
    assert own.train_dataloader.dataset.pipeline[-2]["type"] == "AugmentationPolicy"
    assert own.test_dataloader.dataset.pipeline == config.test_dataloader.dataset.pipeline
    assert own.randomness == {"seed": 3}
    assert own.launcher == "none"


def test_paper_configs_in_one_process_and_in_several(tmp_path):
    voc = make_voc(tmp_path, train=6, val=2, aug=4)
    row = Setting(data="voc", config=VOC, holdout=0.25)
    config = plain_config(row, voc)
    one = arm_config(MOVING, row, 0, config, MOVED, Policy(), work_dir=tmp_path)
    assert (one.train_dataloader.batch_size, one.train_dataloader.num_workers) == (16, 0)
    assert not one.train_dataloader.persistent_workers
    assert one.model.pretrained is None
    assert one.model.video.residual  # the network starts from pretrained weights, though they are put in later
    assert "SyncBN" not in str(one.model)
    assert (one.train_cfg.max_iters, one.default_hooks.checkpoint.interval) == (40000, 4000)
    four = arm_config(BARE, row, 0, config, None, Policy(), work_dir=tmp_path, processes=4, device="cuda")
    assert four.train_dataloader.batch_size == 4
    assert four.launcher == "pytorch"
    assert four.model.backbone.norm_cfg.type == "SyncBN"
    assert four.get("model_wrapper_cfg") is None
    two = arm_config(BARE, row, 0, config, None, Policy(), work_dir=tmp_path, processes=2)
    assert two.model_wrapper_cfg.device_ids is None
    with pytest.raises(InputError, match="takes 16 images a step, which 3 processes cannot share"):
        arm_config(BARE, row, 0, config, None, Policy(), work_dir=tmp_path, processes=3)


def test_networks_of_timm_begin_without_their_weights():
    model = read_config(Setting(config=CITYSCAPES)).model
    assert model.backbone.pretrained is True
    from image2video.reproduce.segment_model import without_pretraining

    made = ConfigDict({**model, "neck": {"init_cfg": {"type": "Pretrained", "checkpoint": "x"}}})
    without_pretraining(made)
    assert made.backbone.pretrained is False
    assert made.neck.init_cfg is None


@pytest.mark.parametrize(
    "options", [{"optim_wrapper.type": "AmpOptimWrapper"}, {"optim_wrapper.accumulative_counts": 2}]
)
def test_the_bonus_of_learned_ranges_is_not_scaled(options, root, tmp_path):
    with pytest.raises(UnsupportedError, match="needed OptimWrapper without accumulation"):
        made(LEARNED, root, tmp_path, options={**OPTIONS, **options})
    assert made(BARE, root, tmp_path, options={**OPTIONS, **options})


def test_what_a_config_says_is_known_by_a_hash(root, tmp_path):
    name = written(tmp_path, "")
    hashes = [content_hash(setting(config=name)), content_hash(setting(config=name, options={}))]
    written(tmp_path, "optim_wrapper = dict(optimizer=dict(lr=0.5))")
    hashes += [content_hash(setting(config=name)), content_hash(setting(config=name))]
    assert len(set(hashes)) == 3
    assert hashes[2] == hashes[3]
    written(tmp_path, "data_root = 'elsewhere'\ntrain_dataloader = dict(dataset=dict(data_root='elsewhere'))")
    assert content_hash(setting(config=name, options={})) != hashes[0]
