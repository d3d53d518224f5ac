"""The images of a config's own pipeline: any sizes, padded as the data preprocessor pads them in tests."""

from pathlib import Path

import pytest
import torch
from mmseg_search_cases import config
from stripe_segmentor import SIZE, made

from image2video.assess.segmentor.assessment import video_options
from image2video.assess.segmentor.finalists import phases_of_backbone
from image2video.assess.segmentor.searches import PixelSearches
from image2video.functional import InputError
from image2video.integrations.openmmlab.own_images import OwnImages
from image2video.integrations.openmmlab.trained import Inference, TrainedSegmentor
from image2video.protocols import ImageSet
from image2video.reproduce.miniatures import make_camvid
from image2video.search.score.network import macs_per_frame

pytestmark = pytest.mark.filterwarnings("ignore:For binary segmentation, we suggest:UserWarning")


class Pictures:
    """Readings of two sizes in turn, as a pipeline gives them."""

    def __init__(self, count, prepare):
        self.items, self.prepare = range(count), prepare

    def __call__(self, index, seed):
        size = (8, 6) if index % 4 < 2 else (5, 9)
        return torch.full((3, *size), float(index)), torch.full((16, 12), index % 3)


class Prepare:
    pad_val, ignore_index = -1.0, 255


def test_a_batch_holds_images_of_one_size():
    images = OwnImages(Pictures(8, Prepare()))
    assert isinstance(images, ImageSet)
    batches = list(images.batches(3).epoch(0))
    assert all(len(x) == len(y) for x, y in batches)
    assert [int(n) for x, _ in batches for n in x[:, 0, 0, 0]] == list(range(8))
    assert max(len(x) for x, _ in batches) == 2  # of three in a row at most two are alike
    first, second = images.split(0.25, seed=1)
    assert sorted([*first.index.tolist(), *second.index.tolist()]) == list(range(8))
    assert len(images.take(3, seed=2).index.unique()) == 3
    shuffled = [
        [int(n) for x, _ in images.batches(3, shuffle=True, seed=s).epoch(0) for n in x[:, 0, 0, 0]] for s in (1, 1, 2)
    ]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    with pytest.raises(InputError, match="cannot draw 9 images out of 8"):
        images.take(9, seed=0)
    with pytest.raises(InputError, match="not augmented"):
        images.batches(2, augment=True)


@pytest.mark.parametrize(("test_cfg", "size"), [({"size_divisor": 4}, (8, 8)), ({"size": (10, 12)}, (10, 12))])
def test_padding_in_tests_has_no_labels(test_cfg, size):
    image, label = OwnImages(Pictures(1, Prepare()), test_cfg).read(0, 0)
    assert image.shape[1:] == label.shape == size
    assert bool((image[:, :8, :6] == 0).all() and (image[:, 8:] == -1).all() and (image[:, :, 6:] == -1).all())
    assert bool((label[:8, :6] == 0).all() and (label[8:] == 255).all() and (label[:, 6:] == 255).all())


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> TrainedSegmentor:
    """A ResNet with strides, whose decode head takes the last features alone."""
    folder = tmp_path_factory.mktemp("resnet")
    data = make_camvid(folder / "camvid", train=1, val=4, test=1)
    cfg = config(Path(data), "psp", auxiliary=False)
    cfg.dump(folder / "tiny.py")
    from mmseg_cases import build

    torch.save({"state_dict": build(cfg.model).state_dict()}, folder / "tiny.pth")
    return TrainedSegmentor.read(folder / "tiny.py", folder / "tiny.pth")


def macs(segmentor, example):
    with torch.no_grad():
        return macs_per_frame(Inference(segmentor), example)


def test_the_cost_of_a_clip_inside_counts_the_heads(resnet):
    searches = PixelSearches(resnet, resnet.images(), "pose", 0, 2.0, 8, None, None)
    places = searches._places()
    assert len(places) > 1
    example = next(resnet.images().batches(1).epoch(0))[0]
    bare = macs(resnet.plain, example)
    for place in (places[0], places[-1]):
        options = {"genotype": "flip_x", "T": 2, "schedule": "from_zero", "fusion": "none", "clip_at": place.name}
        cost = macs(resnet.with_clip(options), example) / bare
        assert searches._costs[place.name] == pytest.approx(cost, rel=0.01)
        assert 1 < cost < 2
    cheap = PixelSearches(resnet, resnet.images(), "pose", 0, cost - 0.001, 8, None, None)
    assert place.name not in [one.name for one in cheap._places()]


def test_the_phases_of_a_backbone_cost_what_they_say(resnet):
    example = next(resnet.images().batches(1).epoch(0))[0]
    bare = macs(resnet.plain, example)
    (clip,) = phases_of_backbone(resnet, example, 3.0)
    assert clip.T == 3
    assert clip.cost == pytest.approx(macs(resnet.with_clip(video_options(clip)), example) / bare)
    assert 1 < clip.cost <= 3
    assert phases_of_backbone(resnet, example, 1.0) == []


def test_a_clip_is_over_the_very_weights(tmp_path):
    path, weights = made(tmp_path, val=1, test=0, train=0)
    trained = TrainedSegmentor.read(path, weights)
    clip = trained.with_clip({"genotype": "flip_x", "T": 2, "fusion": "none"})
    own = dict(trained.plain.named_parameters())
    assert all(own[name].data_ptr() == value.data_ptr() for name, value in clip.named_parameters())
    assert trained.pixels(clip, 0).logits.shape == (SIZE[0] * (SIZE[1] - 2), 2)
    assert "test_pipeline" in trained.config_with({"T": 2})
    assert trained.config.model.type == "EncoderDecoder"  # the config itself stays
