"""What a search takes from a mmsegmentation config: losses, mIoU, sites, images with seeded draws, and refusals."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mmseg")

from mmengine.config import ConfigDict
from mmseg.evaluation.metrics import IoUMetric
from mmseg_cases import CLASSES, SIZE, build, pair, samples, tiny_config, total_loss
from mmseg_search_cases import CROP, built, config

from image2video.clip.image_to_video import Image2Video
from image2video.integrations.openmmlab.search_network import DECODE, SegmentorFrames, SegmentorTask
from image2video.integrations.openmmlab.search_reading import seeded_globals
from image2video.reproduce.miniatures import make_camvid, make_voc
from image2video.search import Problem, Request, SearchConfig
from image2video.search.score.network import build_network, predictions

CHAIN = "translate_x(0.1) > rotate(10)"
pytestmark = pytest.mark.filterwarnings("ignore:``build_pixel_sampler`` would be deprecated:UserWarning")


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"), train=7)


@pytest.fixture(scope="module")
def problem(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Problem:
    return built(config(camvid), tmp_path_factory.mktemp("problem"))


def image_unwarp(video: Image2Video, size: tuple[int, int] = SIZE) -> Any:
    return lambda maps: video.unwarped_mean(maps, size)


def searched(plain: Any, wrapped: Any, *, full_size: bool = True) -> tuple[Any, SegmentorTask]:
    """The search's network and task for a plain segmentor, with the fusion parameters of a video segmentor."""
    frames = SegmentorFrames(plain, full_size=full_size)
    task = SegmentorTask(frames)
    network = build_network(frames, "gsf", residual=True, input_size=(3, *SIZE), task=task)
    network.fusion.load_state_dict(wrapped.video_fusion.state_dict())
    return network, task


OHEM = {"sampler": {"type": "OHEMPixelSampler", "thresh": 0.9, "min_kept": 100}}
WEIGHTED = {
    "loss_decode": {"type": "CrossEntropyLoss", "class_weight": [1.0, 2.0, 3.0, 0.5, 0.1], "loss_weight": 0.7},
}


# Every head once, the first at both sizes.
@pytest.mark.parametrize(
    ("decode", "head", "full_size"),
    [
        pytest.param("psp", OHEM, True, id="psp-ohem-True"),
        pytest.param("psp", OHEM, False, id="psp-ohem-False"),
        pytest.param("fcn", WEIGHTED, False, id="fcn-weighted-False"),
        pytest.param("enc", {}, True, id="enc-True"),
        pytest.param("da", {}, False, id="da-False"),
        pytest.param("knet", {}, True, id="knet-True"),
        pytest.param("ocr", {}, False, id="ocr-False"),
    ],
)
def test_the_loss_is_that_of_the_video_segmentor(decode: str, head: dict[str, Any], full_size: bool) -> None:
    options = {"genotype": CHAIN, "T": 3, "fusion": "gsf", "unwarp": "label" if full_size else "head"}
    plain_config, video_config = tiny_config(decode), tiny_config(decode, video=options)
    for one in (plain_config, video_config):
        if head:
            one["decode_head"].update(copy.deepcopy(head))
    plain, wrapped = build(plain_config), build(video_config, seed=1)
    wrapped.load_state_dict({**wrapped.state_dict(), **plain.state_dict()})
    for parameter in wrapped.video_fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    network, task = searched(plain, wrapped, full_size=full_size)
    inputs, found = samples(sizes=(SIZE,))
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in found])
    video = wrapped.to_video
    network.train()
    wrapped.train()
    out = predictions(network, video(inputs), task, image_unwarp(video))
    loss = task.loss(out, labels)
    torch.testing.assert_close(loss, total_loss(wrapped, inputs, found), rtol=1e-4, atol=1e-5)
    loss.backward()
    trained = [p.grad for p in network.parameters() if p.requires_grad and p.grad is not None]
    assert len(trained) > 30
    assert all(gradient.isfinite().all() for gradient in trained)


def test_its_miou_is_that_of_mmsegmentation() -> None:
    plain, wrapped = pair(video={"genotype": CHAIN, "T": 3, "fusion": "gsf"})
    network, task = searched(plain, wrapped)
    inputs, found = samples(4, sizes=(SIZE,))
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in found])
    network.eval()
    with torch.no_grad():
        out = predictions(network, wrapped.to_video(inputs), task, image_unwarp(wrapped.to_video))
        theirs = wrapped.predict(inputs, copy.deepcopy(found))
    assert set(out) == {DECODE, "auxiliary"}
    assert out["auxiliary"] == []
    metric = IoUMetric()
    metric.dataset_meta = {"classes": [str(number) for number in range(CLASSES)]}
    metric.process({}, [sample.to_dict() for sample in theirs])
    expected = metric.compute_metrics(metric.results)["mIoU"]
    scores = task.collect(*(x.unsqueeze(0) for x in task.per_image(out, labels)))
    assert 100 * scores.accuracy(0) == pytest.approx(expected, abs=0.01)


def test_one_logit_for_two_classes_is_cut_at_the_heads_threshold() -> None:
    chosen = tiny_config("fcn", auxiliary=False)
    chosen["decode_head"].update(num_classes=2, out_channels=1, threshold=0.8)
    chosen["decode_head"]["loss_decode"] = {"type": "CrossEntropyLoss", "use_sigmoid": True}
    task = SegmentorTask(SegmentorFrames(build(chosen)))
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 1, 4)  # sigmoid: 0.5, 0.73, 0.88, 0.95
    counts, loss = task.per_image({DECODE: [logits]}, torch.tensor([[[0, 0, 1, 1]]]))
    assert counts[0].tolist() == [[2, 2], [2, 2]]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.flatten(), torch.tensor([0.0, 0.0, 1.0, 1.0]), reduction="sum"
    )
    assert loss[0].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("fusion", ["gsf", "tsm", "conv3d"])
def test_the_sites_are_those_of_the_video_segmentor(fusion: str) -> None:
    plain, wrapped = pair(video={"T": 3, "fusion": fusion})
    frames = SegmentorFrames(plain)
    network = build_network(frames, fusion, residual=True, input_size=(3, *SIZE), task=SegmentorTask(frames))
    own = [(site.name, site.placement, site.channels) for site in network.fusion.plan.sites]
    assert own == [(site.name, site.placement, site.channels) for site in wrapped.video_fusion.plan.sites]
    assert len(own) > 7
    assert list(network.fusion.state_dict()) == list(wrapped.video_fusion.state_dict())


def test_sites_of_a_video_config_hold(camvid: Path, tmp_path: Path) -> None:
    video = {"genotype": "not-there.json", "T": 5, "fusion": "gsf", "sites": r"layer4\..*", "unwarp": "head"}
    problem = built(config(camvid, video=video), tmp_path)
    _, plan = problem.task.plan(problem.network, SearchConfig().fusion, (3, *CROP))
    assert {site.name.split(".")[0] for site in plan.sites} == {"layer4"}
    assert not problem.network.full_size
    assert any("T: 3 here, 5 there" in note for note in problem.notes)


def test_a_batch_is_what_the_data_preprocessor_makes(problem: Problem) -> None:
    batches = problem.train.batches(3, augment=True, shuffle=True, seed=5)
    images, labels = next(iter(batches.epoch(1)))
    assert (len(batches), batches.num_images) == (3, 7)
    assert images.shape == (3, 3, *CROP) or images.shape == (2, 3, *CROP)
    assert labels.shape == (len(images), *CROP)
    assert labels.dtype == torch.int64
    # The same items through the preprocessor itself.
    reading = problem.train._train
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    item = int(order[0])
    with seeded_globals(11):
        raw = reading.items[item]
    image, label = reading(item, 11)
    data = {"inputs": [raw["inputs"]], "data_samples": [raw["data_samples"]]}
    theirs = problem.network.segmentor.data_preprocessor(data, training=True)
    torch.testing.assert_close(image, theirs["inputs"][0])
    assert torch.equal(label, theirs["data_samples"][0].gt_sem_seg.data[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_draws_depend_on_seed_epoch_and_image_alone(problem: Problem, workers: int) -> None:
    first, second = problem.train.split(0.5, seed=3)
    assert sorted([*first._index.tolist(), *second._index.tolist()]) == list(range(7))
    # dataclass fields of the set itself: the same images, read by other processes
    other = type(first)(first._train, first._held_out, workers, first._index)

    def drawn(images: Any, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        parts = list(images.batches(2, augment=True, shuffle=True, seed=9).epoch(epoch))
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    torch.manual_seed(0)
    one = drawn(first, 0)
    torch.manual_seed(1)
    np.random.seed(5)
    random.seed(7)
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    again = drawn(other, 0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], drawn(other, 1)[0])


def test_held_out_images_keep_their_shape_and_their_labels(tmp_path: Path) -> None:
    data = make_camvid(tmp_path / "data", train=3, size=(48, 64))
    problem = built(config(data), tmp_path, Request(SearchConfig(T=3), size=(40, 40), workers=0))
    images, labels = next(iter(problem.train.batches(3).epoch(0)))
    assert images.shape == (3, 3, 40, 40)  # 48 × 64 became 30 × 40
    assert not images[:, :, 30:].any()
    assert (labels[:, 30:] == 255).all()
    assert (labels[:, :30] != 255).float().mean() > 0.8
    # The same colours lie under the same labels: image and labels were resized alike.
    for image, label in zip(images, labels, strict=True):
        for kind in label[label != 255].unique():
            inside = image[:, label == kind]
            assert inside.std(dim=1).mean() < 0.75
    assert problem.input_size == (3, 40, 40)


def test_repeated_data_sets_count_once_and_joined_ones_are_joined(tmp_path: Path) -> None:
    voc = make_voc(tmp_path / "voc")
    chosen = config(tmp_path, "fcn", auxiliary=False)
    chosen.model.decode_head.num_classes = 21
    part = {
        "type": "PascalVOCDataset",
        "data_root": str(voc),
        "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
        "ann_file": "ImageSets/Segmentation/train.txt",
        "pipeline": chosen.train_dataloader.dataset.pipeline,
    }
    aug = {**part, "ann_file": "ImageSets/Segmentation/aug.txt"}
    aug["data_prefix"] = {"img_path": "JPEGImages", "seg_map_path": "SegmentationClassAug"}
    joined = {"type": "ConcatDataset", "datasets": [part, aug]}
    chosen.train_dataloader.dataset = ConfigDict({"type": "RepeatDataset", "times": 50, "dataset": joined})
    problem = built(chosen, tmp_path)
    assert problem.train.num_images == 10
    assert len(problem.classes) == 21
    images, _ = next(iter(problem.train.batches(10).epoch(0)))
    assert images.shape == (10, 3, *CROP)
