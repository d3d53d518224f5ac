"""Policies in mmsegmentation's pipelines and configs, and the search for one within a budget of minutes."""

import copy
import json
import pickle
import re
from types import SimpleNamespace

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
from image2video.data.augment import FAMILIES
from image2video.errors import InputError, InputTypeError, StateError
from image2video.reproduce import Cell, Setting, segment_policies
from image2video.reproduce.augment_loop import OutOfTimeError, policies_in_order
from image2video.reproduce.policies import Policy
from image2video.reproduce.segment_augment import AugmentationPolicy, with_policy
from image2video.reproduce.segment_policies import choose_segmentation_policy

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
    with pytest.raises(InputError, match=r"no train_dataloader\.dataset"):
        with_policy(Config({"model": {}}), "trivialaugment")


# The search

STEPS = 5  # of one training, a second each
GRID = [str(policy) for policy in FAMILIES["uniformaugment"].grid()]
ORDER = [str(policy) for policy in policies_in_order("uniformaugment", seed=3)]
ALONE = SimpleNamespace(num_processes=1, is_main_process=True)


class Trainings:
    """Trainings that take a second of a clock per step; their scores."""

    def __init__(self, scores=(0.2, 0.5, 0.3), stop_at=None):
        self.scores, self.stop_at = dict(zip(GRID, scores, strict=True)), stop_at
        self.now, self.begun, self.done = 1000.0, [], []

    def __call__(self, text, watched):
        self.begun.append(text)
        for step in range(1, STEPS + 1):
            self.now += 1
            if (len(self.begun), step) == self.stop_at:
                raise KeyboardInterrupt
            watched("train", step, STEPS, loss=1.0)
        self.done.append(text)
        return self.scores[text]


@pytest.fixture
def choose(monkeypatch, tmp_path):
    def run(trainings, *, augment="search:uniformaugment", seconds=600, accelerator=ALONE, told="a config", **options):
        setting = Setting(**{"data": "scenes", "seed": 3, "augment_minutes": seconds / 60, **options})
        monkeypatch.setattr(segment_policies, "time", SimpleNamespace(monotonic=lambda: trainings.now))
        arm = Cell("arm", "an arm", augment=augment)
        shown = []
        progress = lambda *stage, **figures: shown.append(stage)  # noqa: E731
        found = choose_segmentation_policy(arm, setting, tmp_path, accelerator, told, trainings, progress)
        trainings.shown = shown
        return found

    return run


def records(folder):
    return sorted(folder.glob("uniformaugment-scenes-*.json"))


def test_the_best_policy_is_kept_and_never_searched_for_twice(choose, tmp_path):
    trainings = Trainings()
    found = choose(trainings)
    assert found == Policy(GRID[1], 3 * STEPS)
    assert trainings.done == ORDER
    assert sorted(ORDER) == GRID
    assert [stage for stage in trainings.shown if stage[0] == "policies"] == [("policies", n, 3) for n in (1, 2, 3)]
    assert [stage for stage in trainings.shown if stage[0] == "train"] == 3 * [("train", n, 5) for n in range(1, 6)]
    (path,) = records(tmp_path)
    assert json.loads(path.read_text())["scores"] == trainings.scores
    again = Trainings()
    assert choose(again) == found
    assert again.begun == []
    assert records(tmp_path) == [path]


def test_other_searches_are_kept_apart(choose, tmp_path):
    for number, changes in enumerate(({}, {"told": ["other"]}, {"seconds": 500}, {"seed": 4}, {"holdout": 0.2})):
        trainings = Trainings()
        choose(trainings, **changes)
        assert len(trainings.done) == 3
        assert len(records(tmp_path)) == number + 1


def test_ties_go_to_the_first_text(choose):
    assert choose(Trainings((0.1, 0.4, 0.4))).text == GRID[1]


@pytest.mark.parametrize(("seconds", "finished"), [(4.5, 1), (5, 1), (6, 1), (9, 1), (9.5, 2), (10, 2), (14, 2)])
def test_the_budget_is_kept_to_within_a_step(choose, tmp_path, seconds, finished):
    trainings = Trainings()
    found = choose(trainings, seconds=seconds)
    assert trainings.done == ORDER[:finished]
    assert seconds <= trainings.now - 1000 < seconds + 1
    assert found.text == max(ORDER[:finished], key=lambda text: trainings.scores[text])
    assert found.seconds == trainings.now - 1000
    assert set(json.loads(records(tmp_path)[0].read_text())["scores"]) == set(ORDER[:finished])


def test_too_little_time_is_an_error_that_says_so(choose):
    message = "none of the 3 policies of 'uniformaugment' was done within 0.05 minutes; allow for more"
    for _ in range(2):
        with pytest.raises(StateError, match=message):
            choose(Trainings(), seconds=3)


def test_a_killed_search_goes_on(choose, tmp_path):
    whole = choose(Trainings())
    records(tmp_path)[0].unlink()
    with pytest.raises(KeyboardInterrupt):
        choose(Trainings(stop_at=(2, 3)))
    (path,) = records(tmp_path)
    record = json.loads(path.read_text())
    assert (record["policy"], record["seconds"], list(record["scores"])) == (None, STEPS, ORDER[:1])
    rest = Trainings()
    assert choose(rest) == whole
    assert rest.done == ORDER[1:]


def test_time_counts_over_all_parts(choose):
    with pytest.raises(KeyboardInterrupt):
        choose(Trainings(stop_at=(2, 1)), seconds=2 * STEPS)
    rest = Trainings()
    choose(rest, seconds=2 * STEPS)
    assert rest.done == ORDER[1:2]


def test_stated_policies_are_not_searched_for(choose, tmp_path):
    trainings = Trainings()
    assert choose(trainings, augment=None, holdout=0.0) == Policy(None)
    assert choose(trainings, augment="clips:affine5", holdout=0.0) == Policy("clips:affine5")
    assert (trainings.begun, list(tmp_path.iterdir())) == ([], [])


def test_what_cannot_be_searched_for_is_refused(choose, tmp_path):
    trainings = Trainings((float("nan"),) * 3)
    with pytest.raises(InputError, match="unknown family of augmentations 'mixup'; known: autoaugment, randaugment"):
        choose(trainings, augment="search:mixup")
    with pytest.raises(InputError, match="compared on held-out images; set holdout above 0"):
        choose(trainings, holdout=0.0)
    assert (trainings.begun, list(tmp_path.iterdir())) == ([], [])
    with pytest.raises(StateError, match=re.escape(f"the held-out score of {ORDER[0]} is nan")):
        choose(trainings)


def test_the_clock_of_the_main_process_counts_for_all(choose, monkeypatch, tmp_path):
    sent = []
    monkeypatch.setattr(segment_policies, "broadcast_object_list", lambda values: sent.append(values[0]) or values)
    main = Trainings()
    both = [SimpleNamespace(num_processes=2, is_main_process=first) for first in (True, False)]
    found = choose(main, seconds=8, accelerator=both[0])
    path = records(tmp_path)[0]
    path.unlink()
    monkeypatch.setattr(segment_policies, "broadcast_object_list", lambda values: [sent.pop(0)])
    slow = Trainings((0.9, 0.0, 0.9))
    slow.now = 5e6
    assert choose(slow, seconds=8, accelerator=both[1]) == found
    assert (slow.begun, slow.done) == (main.begun, main.done)
    assert sent == []
    assert records(tmp_path) == []


def test_a_search_ends_a_training_by_an_exception(choose):
    seen = []

    class Careful(Trainings):
        def __call__(self, text, watched):
            try:
                return super().__call__(text, watched)
            except OutOfTimeError:
                seen.append(text)
                raise

    choose(Careful(), seconds=STEPS + 2)
    assert seen == [ORDER[1]]
