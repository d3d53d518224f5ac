"""CamVid: the data set and its configs."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmseg")

import mmseg_cases  # noqa: F401 (silences mmengine's log)
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from image2video import Genotype
from image2video.errors import MissingError
from image2video.integrations.openmmlab import CONFIGS, CamVidDataset
from image2video.reproduce.miniatures import CAMVID_UNLABELLED, make_camvid
from image2video.search import get_space, random_genotype

FOLDER = CONFIGS / "camvid"
NAMES = sorted(path.name for path in FOLDER.glob("*.py") if "_lite0_" not in path.name)
PRETRAINED = FOLDER / "fpn_lite0_1xb8-1240_camvid-240x180.py"
NETWORKS = ("pspnet", "deeplabv3")
ARMS = ("none", "replica", "random", "searched", "tsm", "gsf")
SIZE = (48, 64)
FRAMES = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"), size=SIZE)


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope("mmseg")


def dataset(root: Path, split: str = "train", **options) -> CamVidDataset:
    return CamVidDataset(
        data_root=str(root),
        data_prefix={"img_path": f"images/{split}", "seg_map_path": f"labels/{split}"},
        pipeline=[{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}],
        **options,
    )


def test_the_three_splits_are_found_with_their_labels(data: Path) -> None:
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        frames = dataset(data, split, test_mode=split != "train")
        assert len(frames) == count
        for index in range(count):
            info = frames.get_data_info(index)
            assert Path(info["img_path"]).stem == Path(info["seg_map_path"]).stem
            assert Path(info["img_path"]).parent.name == split


def test_unlabelled_pixels_are_ignored_and_no_others(data: Path) -> None:
    frames, ignored = dataset(data), 0
    for index in range(len(frames)):
        one = frames[index]
        stored = np.asarray(Image.open(one["seg_map_path"]))
        unlabelled = stored == CAMVID_UNLABELLED
        np.testing.assert_array_equal(one["gt_seg_map"], np.where(unlabelled, 255, stored))
        ignored += int(unlabelled.sum())
    assert ignored > 0


def test_eleven_classes_have_different_colours() -> None:
    classes, palette = CamVidDataset.METAINFO["classes"], CamVidDataset.METAINFO["palette"]
    assert len(classes) == len(set(classes)) == len(palette) == len({tuple(colour) for colour in palette}) == 11
    assert classes[3] == "road"
    assert classes[10] == "bicyclist"


def test_chosen_classes_leave_the_others_ignored(data: Path) -> None:
    frames = dataset(data, metainfo={"classes": ("road", "car")})
    assert frames.metainfo["palette"] == [[128, 64, 128], [64, 0, 128]]
    seen = np.unique([frames[index]["gt_seg_map"] for index in range(len(frames))])
    assert set(seen.tolist()) <= {0, 1, 255}
    one = frames[0]
    stored = np.asarray(Image.open(one["seg_map_path"]))
    np.testing.assert_array_equal(one["gt_seg_map"] == 0, stored == 3)
    np.testing.assert_array_equal(one["gt_seg_map"] == 1, stored == 8)


def test_a_folder_that_does_not_exist_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no folder .*elsewhere.*data_prefix\.img_path.*data_root='.*elsewhere'"):
        dataset(tmp_path / "elsewhere")
    with pytest.raises(MissingError, match=r"data_prefix\.seg_map_path"):
        CamVidDataset(data_root=str(data), data_prefix={"img_path": "images/train", "seg_map_path": "masks/train"})


def test_a_folder_without_images_and_an_image_without_label_are_named(tmp_path: Path) -> None:
    root = make_camvid(tmp_path, train=2, val=1, test=1, size=SIZE)
    with pytest.raises(MissingError, match=r"no \.png file in .*images/train; set dataset\.img_suffix"):
        dataset(root, img_suffix=".png")
    label = next((root / "labels" / "train").iterdir())
    label.unlink()
    with pytest.raises(MissingError, match=rf"no label .*{label.name} for the image {label.stem}\.jpg"):
        dataset(root)


def test_every_network_has_every_arm() -> None:
    videos = {f"{net}_r18-d8_{arm}-t3_1xb8-20k_camvid-480x360.py" for net in NETWORKS for arm in ARMS}
    plain = {f"{net}_r18-d8_1xb8-20k_camvid-480x360.py" for net in NETWORKS}
    assert set(NAMES) == videos | plain


@pytest.mark.parametrize("name", NAMES)
def test_a_config_builds_and_says_what_its_name_says(name: str) -> None:
    config = Config.fromfile(FOLDER / name)
    model = MODELS.build(config.model)
    assert model.decode_head.num_classes == model.auxiliary_head.num_classes == 11
    assert type(model.decode_head).__name__ == {"p": "PSPHead", "d": "ASPPHead"}[name[0]]
    assert model.backbone.depth == 18
    arm = re.search(r"_(\w+)-t3_", name)
    if arm is None:
        assert config.model.type == "EncoderDecoder"
        return
    record = model.video_record()
    # Without sites there is nothing that could start as the identity.
    assert (record["T"], record["residual"]) == (FRAMES, None if arm[1] == "none" else False)
    assert (record["schedule"], record["padding"]) == ("from_zero", "zeros")
    assert record["fusion"]["name"] == {"tsm": "tsm", "none": "none"}.get(arm[1], "gsf")
    expected = {"replica": "identity", "random": str(Genotype.load(FOLDER / "random.json"))}
    expected["searched"] = str(Genotype.load(FOLDER / "searched.json"))
    assert record["genotype"] == expected.get(arm[1], "translate_x(0.03) > translate_y(0.03)")


def test_the_random_genotype_is_the_one_that_its_seed_draws() -> None:
    genotype = Genotype.load(FOLDER / "random.json")
    provenance = genotype.provenance
    assert provenance is not None
    generator = torch.Generator().manual_seed(provenance["seed"])
    assert genotype == random_genotype(get_space(provenance["space"]), generator)


def test_the_searched_genotype_says_how_it_was_found() -> None:
    provenance = Genotype.load(FOLDER / "searched.json").provenance
    assert provenance is not None
    assert provenance["metric"] == "mIoU"
    assert "camvid" in provenance["dataset"]
    assert provenance["T"] == FRAMES


def test_the_full_schedule_trains_in_full_size() -> None:
    config = Config.fromfile(FOLDER / NAMES[0])
    assert config.model.data_preprocessor["size"] == (360, 480)
    assert config.train_cfg.max_iters == config.param_scheduler[1].end == 20000
    assert config.model.pretrained is None
    pipelines = [step.type for step in config.train_dataloader.dataset.pipeline]
    assert pipelines.index("LoadAnnotations") < pipelines.index("RandomResize")
    splits = [config[f"{s}_dataloader"].dataset.data_prefix.img_path for s in ("train", "val", "test")]
    assert splits == ["images/train", "images/val", "images/test"]


def test_the_pretrained_network_is_plain_and_names_no_other_weights() -> None:
    config = Config.fromfile(PRETRAINED)
    backbone = config.model.backbone
    assert backbone.pop("checkpoint_path") == "data/tf_efficientnet_lite0.safetensors"
    model = MODELS.build(config.model)
    assert (config.model.type, model.decode_head.num_classes) == ("EncoderDecoder", 11)
    assert tuple(config.model.neck.in_channels) == model.backbone.channels
    assert tuple(config.model.decode_head.feature_strides) == model.backbone.strides
    assert config.train_cfg.max_iters == config.param_scheduler[1].end == 1240
    splits = [config[f"{s}_dataloader"].dataset.data_prefix.img_path for s in ("train", "val", "test")]
    assert splits == ["images/train", "images/val", "images/test"]
