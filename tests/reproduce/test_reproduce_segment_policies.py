"""Policies in mmsegmentation's pipelines and configs."""

import copy
import pickle
import re

import pytest

pytest.importorskip("mmseg")

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import worker_init_fn
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS

from image2video.data import Augmentation
from image2video.errors import InputError, InputTypeError
from image2video.reproduce.segment_augment import AugmentationPolicy, with_policy

TEXTS = [
    "autoaugment:svhn",
    "randaugment:ops=2,magnitude=20",
    "trivialaugment",
    "uniformaugment:ops=3",
    "clips:affine5",
]
MODULE = "image2video.reproduce.segment_augment"


def results(seed=0, *, height=24, width=36, fields=("gt_seg_map",)):
    draw = np.random.default_rng(seed)
    labels = {name: draw.integers(0, 5, (height, width), dtype=np.uint8) for name in fields}
    image = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return {"img": image, "seg_fields": list(fields), "img_shape": (height, width), **labels}


def seeded(seed, function, *values):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return function(*values)


def same(first, second):
    assert set(first) == set(second)
    return all(np.array_equal(first[key], second[key]) for key in first)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(TEXTS[:4]), st.integers(0, 2**31))
def test_the_image_is_the_one_that_classification_gets_in_rgb(text, seed):
    given_, policy = results(seed), Augmentation.parse(text)
    rgb = torch.from_numpy(given_["img"][..., ::-1].copy()).permute(2, 0, 1)
    expected = seeded(seed, policy.build((0.5,), (0.25,)), rgb)
    found = seeded(seed, AugmentationPolicy(text).transform, given_)
    assert np.array_equal(found["img"][..., ::-1], expected.permute(1, 2, 0).numpy())
    assert found["img"].flags.c_contiguous
    assert (found["img"].dtype, found["gt_seg_map"].dtype) == (np.uint8, np.uint8)
    assert found["gt_seg_map"].shape == found["img_shape"] == (24, 36)


@pytest.mark.parametrize("text", TEXTS)
def test_seeds_repeat_and_workers_have_the_same_policy(text):
    transform = AugmentationPolicy(text)
    sent = pickle.loads(pickle.dumps(transform))
    assert repr(sent) == repr(transform) == f"AugmentationPolicy(policy={str(Augmentation.parse(text))!r})"
    outcomes = [seeded(seed, transform.transform, results()) for seed in range(12)]
    assert sum(same(one, outcomes[0]) for one in outcomes) < 12
    assert any((one["gt_seg_map"] == 255).any() for one in outcomes)
    for seed, outcome in enumerate(outcomes):
        assert same(outcome, seeded(seed, sent.transform, results()))


def test_mmengine_seeds_the_draws_of_its_workers():
    transform, numbers = AugmentationPolicy("randaugment:ops=3,magnitude=20"), np.random.get_state()

    def worker(number, seed):
        worker_init_fn(number, num_workers=2, rank=0, seed=seed)
        return transform.transform(results())

    try:
        with torch.random.fork_rng(devices=[]):
            first = [worker(number, seed) for number, seed in ((0, 5), (1, 5), (0, 5), (0, 8))]
    finally:
        np.random.set_state(numbers)
    assert same(first[0], first[2])
    assert not same(first[0], first[1])
    assert not same(first[0], first[3])


def test_all_label_maps_make_one_motion():
    given_ = results(fields=("gt_seg_map", "gt_other_map"))
    given_["gt_other_map"] = 100 + given_["gt_seg_map"]
    moved = 0
    for seed in range(10):
        found = seeded(seed, AugmentationPolicy("randaugment:ops=2,magnitude=20").transform, dict(given_))
        kept = found["gt_seg_map"] != 255
        assert np.array_equal(found["gt_other_map"] != 255, kept)
        assert np.array_equal(found["gt_other_map"][kept], 100 + found["gt_seg_map"][kept])
        moved += not kept.all()
    assert moved > 2


def test_frames_have_the_mean_colour_outside():
    transform = AugmentationPolicy("clips:affine5", mean=(10.0, 20.0, 30.0), std=(50.0, 60.0, 70.0))
    found = [seeded(seed, transform.transform, results()) for seed in range(10)]
    corners = [one["img"][0, 0].tolist() for one in found if one["gt_seg_map"][:3, :3].min() == 255]
    assert corners
    assert all(corner == [30, 20, 10] for corner in corners)


def test_it_is_built_from_a_config_and_packed():
    init_default_scope("mmseg")
    steps = [{"type": "AugmentationPolicy", "policy": "uniformaugment"}, {"type": "PackSegInputs", "meta_keys": ()}]
    packed = seeded(3, Compose([TRANSFORMS.build(step) for step in steps]), results())
    alone = seeded(3, AugmentationPolicy("uniformaugment").transform, results())
    assert np.array_equal(packed["inputs"].permute(1, 2, 0).numpy(), alone["img"])
    assert np.array_equal(packed["data_samples"].gt_sem_seg.data[0].numpy(), alone["gt_seg_map"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img": None}, "needs an image (H, W, C) uint8, got None; put it after the loading"),
        ({"img": np.zeros((24, 36, 3), np.float32)}, "got (24, 36, 3) float32; put it after the loading and before"),
        ({"img": np.zeros((24, 36), np.uint8)}, "needs an image (H, W, C) uint8, got (24, 36) uint8"),
        ({"img": np.zeros((24, 36, 4), np.uint8)}, "works on images of 1 or 3 channels; these have 4"),
        ({"seg_fields": []}, "moves labels with the image, and there are none; put it after their loading"),
        ({"gt_seg_map": np.zeros((24, 35), np.uint8)}, "needs gt_seg_map (24, 36) uint8, got (24, 35) uint8"),
        ({"gt_seg_map": np.zeros((24, 36), np.int64)}, "needs gt_seg_map (24, 36) uint8, got (24, 36) int64"),
        ({"seg_fields": ["gt_seg_map", "gt_depth_map"]}, "needs gt_depth_map (24, 36) uint8, got None"),
    ],
)
def test_what_is_no_image_with_labels_is_refused(changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        AugmentationPolicy("randaugment").transform(results() | changes)


def test_policies_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="unknown augmentation 'mixup'"):
        AugmentationPolicy("mixup")
    with pytest.raises(InputError, match="unknown search space 'nowhere'"):
        AugmentationPolicy("clips:nowhere")
    with pytest.raises(InputTypeError, match="an augmentation is named by a text"):
        AugmentationPolicy(None)
    with pytest.raises(InputError, match="every std must be above 0"):
        AugmentationPolicy("clips:affine5", std=(0.0, 1.0, 1.0))


# Configs

LOAD, PACK, EDGES = {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}, {"type": "GenerateEdge"}


def config(dataset, **more):
    preprocessor = {"type": "SegDataPreProcessor", "mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0], "bgr_to_rgb": True}
    return Config({"model": {"data_preprocessor": preprocessor}, "train_dataloader": {"dataset": dataset}, **more})


def leaf(*pipeline):
    return {"type": "BaseSegDataset", "pipeline": list(pipeline or (LOAD, PACK))}


def kinds(dataset):
    return [step["type"] for step in dataset["pipeline"]]


def test_the_policy_stands_before_the_packing():
    plain = config(leaf())
    before = copy.deepcopy(plain.to_dict())
    changed = with_policy(plain, "randaugment:magnitude=5")
    assert plain.to_dict() == before
    pipeline = changed.train_dataloader.dataset.pipeline
    assert kinds(changed.train_dataloader.dataset) == ["LoadAnnotations", "AugmentationPolicy", "PackSegInputs"]
    assert pipeline[1].policy == "randaugment:ops=2,magnitude=5"
    assert (list(pipeline[1].mean), list(pipeline[1].std)) == ([1, 2, 3], [4, 5, 6])
    assert TRANSFORMS.build(pipeline[1]).colours.mean == pytest.approx((1 / 255, 2 / 255, 3 / 255))
    assert with_policy(plain, None).to_dict() == before
    assert with_policy(plain, None) is not plain


def test_edges_and_padding_come_after_the_policy():
    pad, crop = {"type": "Pad", "size": (8, 8)}, {"type": "RandomCrop", "crop_size": (8, 8)}
    pipeline = [LOAD, pad, crop, EDGES, pad, {**PACK, "type": "mmseg.PackSegInputs"}]
    changed = with_policy(config(leaf(*pipeline)), "trivialaugment")
    expected = [step["type"] for step in pipeline[:3]] + ["AugmentationPolicy"] + [s["type"] for s in pipeline[3:]]
    assert kinds(changed.train_dataloader.dataset) == expected


def test_data_sets_inside_others_are_found():
    shared = leaf()
    joined = {"type": "ConcatDataset", "datasets": [shared, leaf(), shared]}
    mosaic = {"type": "MultiImageMixDataset", "dataset": leaf(LOAD), "pipeline": [{"type": "RandomMosaic"}, PACK]}
    changed = with_policy(config({"type": "RepeatDataset", "times": 2, "dataset": joined}), "trivialaugment")
    for one in changed.train_dataloader.dataset.dataset.datasets:
        assert kinds(one) == ["LoadAnnotations", "AugmentationPolicy", "PackSegInputs"]
    changed = with_policy(config(mosaic), "trivialaugment").train_dataloader.dataset
    assert kinds(changed) == ["RandomMosaic", "AugmentationPolicy", "PackSegInputs"]
    assert kinds(changed.dataset) == ["LoadAnnotations"]


def test_colours_are_told_in_rgb():
    told = config(leaf())
    told.model.data_preprocessor.bgr_to_rgb = False
    assert list(with_policy(told, "clips:affine5").train_dataloader.dataset.pipeline[1].mean) == [3, 2, 1]
    told.model.data_preprocessor.mean = None
    step = with_policy(told, "clips:affine5").train_dataloader.dataset.pipeline[1]
    assert (list(step.mean), list(step.std)) == ([0], [255])


def test_a_config_that_is_written_out_can_be_read(tmp_path):
    for number, imports in enumerate(
        ({}, {"imports": "math"}, {"imports": ["math", MODULE], "allow_failed_imports": False})
    ):
        path = tmp_path / f"config{number}.py"
        with_policy(config(leaf(), custom_imports=imports), "uniformaugment").dump(path)
        read = Config.fromfile(path)
        assert read.custom_imports.imports == [*(["math"] if imports else []), MODULE]
        assert read.train_dataloader.dataset.pipeline[1].policy == "uniformaugment:ops=2"


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (leaf(LOAD), "train_dataloader.dataset has no PackSegInputs in its pipeline"),
        ({"type": "RepeatDataset", "dataset": leaf(LOAD)}, "train_dataloader.dataset.dataset has no PackSegInputs"),
        ({"datasets": [leaf(), leaf(LOAD)]}, "train_dataloader.dataset.datasets[1] has no PackSegInputs"),
    ],
)
def test_a_pipeline_that_does_not_pack_is_refused(dataset, message):
    with pytest.raises(InputError, match=re.escape(message)):
        with_policy(config(dataset), "trivialaugment")


def test_what_no_config_can_have_is_refused():
    with pytest.raises(InputError, match="unknown augmentation 'cutmix'"):
        with_policy(config(leaf()), "cutmix")
    with pytest.raises(InputError, match="unknown search space 'nowhere'"):
        with_policy(config(leaf()), "clips:nowhere")
    with pytest.raises(InputError, match=r"train_dataloader\.dataset: the config must have one"):
        with_policy(Config({"model": {}}), "trivialaugment")
