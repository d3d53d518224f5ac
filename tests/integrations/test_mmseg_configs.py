"""The configs of the paper's segmentation tables: each is its plain twin plus the video, and trains."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("mmseg")

import mmseg
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import MODELS

from image2video.integrations.openmmlab import CONFIGS
from image2video.reproduce.miniatures import make_cityscapes, make_voc

STOCK = Path(mmseg.__path__[0]) / ".mim" / "configs"
PAGE = Path(__file__).parents[2] / "docs" / "mmseg_configs.md"
VIDEO_TAG = "_gsf-t5"
CROP = (32, 48)
ITERATIONS = 3  # the norms that start at zero move in the first, the fusions' scales behind them next, then their rest
NAMES = sorted(
    path.relative_to(CONFIGS).as_posix()
    for path in CONFIGS.glob("*/*.py")
    if path.parent.name not in ("_base_", "camvid", "digit_scenes")
)
VIDEOS = [name for name in NAMES if VIDEO_TAG in name]
PAIRS = {name: name.replace(VIDEO_TAG, "") for name in VIDEOS}
NETWORKS = {  # file -> (head, backbone, depth) of the paper's row
    "pspnet/pspnet_r50-d8_4xb4-40k_voc12aug-512x512.py": ("PSPHead", "ResNetV1c", 50),
    "deeplabv3/deeplabv3_r101-d8_4xb4-40k_voc12aug-512x512.py": ("ASPPHead", "ResNetV1c", 101),
    "fcn/fcn_wrn38-d8_4xb4-40k_voc12aug-512x512.py": ("FCNHead", "WideResNet38", None),
    "pspnet/pspnet_r50-d8_4xb2-80k_cityscapes-512x1024.py": ("PSPHead", "ResNetV1c", 50),
    "deeplabv3/deeplabv3_r101-d8_4xb2-80k_cityscapes-512x1024.py": ("ASPPHead", "ResNetV1c", 101),
    "deeplabv3/deeplabv3_xception65-d16_4xb2-80k_cityscapes-512x1024.py": ("ASPPHead", "TimmFeatures", None),
    "resnest/resnest_s101-d8_deeplabv3_4xb2-80k_cityscapes-512x1024.py": ("ASPPHead", "ResNeSt", 101),
    "resnest/resnest_s200-d8_deeplabv3_4xb2-80k_cityscapes-512x1024.py": ("ASPPHead", "ResNeSt", 200),
}
NARROW = {  # backbone -> (options of a narrow, shallow one, its channels where the head and the auxiliary head read)
    "ResNetV1c": ({"depth": 50, "base_channels": 8, "stem_channels": 8}, (256, 128)),
    "ResNeSt": ({"depth": 50, "base_channels": 8, "stem_channels": 8}, (256, 128)),
    "WideResNet38": ({"base_channels": 4}, (256, 128)),
    "TimmFeatures": ({"model_name": "xception41"}, (2048, 1024)),  # Xceptions have one width
}


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / name)


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """All dicts in a config, whatever their nesting."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from nodes(part)


def shrink(cfg: Config, root: Path, *, narrow: bool) -> Config:
    """A few iterations on tiny crops of the data at root, without workers or weights; `narrow`: a small net."""
    for node in nodes(cfg._cfg_dict):
        if "data_root" in node:
            node["data_root"] = str(root)
        if "num_workers" in node:
            node.update(num_workers=0, persistent_workers=False)
        match node.get("type"):
            case "RandomResize" | "Resize" if "scale" in node:
                node["scale"] = (64, 48)
            case "RandomCrop":
                node["crop_size"] = CROP
            case "Pad":
                node["size"] = CROP
    cfg.merge_from_dict(
        {
            "model.pretrained": None,
            "model.data_preprocessor.size": CROP,
            "train_dataloader.batch_size": 2,
            "train_cfg.max_iters": ITERATIONS,
            "train_cfg.val_interval": ITERATIONS,
            "optim_wrapper.optimizer.weight_decay": 0,  # what moves then has a gradient
            "default_hooks.logger.interval": 1,
            "default_hooks.checkpoint.save_last": False,
            "randomness": {"seed": 0},
            "log_level": "ERROR",
        }
    )
    cfg.default_hooks.pop("visualization")  # it draws nothing unless asked, and warns of it
    if cfg.model.backbone.type == "TimmFeatures":
        cfg.model.backbone.pretrained = False
    if narrow:
        options, channels = NARROW[cfg.model.backbone.type]
        cfg.model.backbone.update(options)
        for head, width in zip(("decode_head", "auxiliary_head"), channels, strict=True):
            if head in cfg.model:
                cfg.model[head].update(in_channels=width, channels=16)
    return cfg


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {"voc12aug": make_voc(folder / "voc", val=1), "cityscapes": make_cityscapes(folder / "cityscapes", val=1)}


@pytest.fixture(autouse=True)
def unformatted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configs are written as they are: formatting one takes longer than the training."""
    monkeypatch.setattr(Config, "pretty_text", property(lambda self: repr(self._cfg_dict)))


def train(cfg: Config, work_dir: Path) -> Runner:
    """The runner after training and validation: losses and parameters are finite, all have had gradients."""
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = cfg.visualizer.name = work_dir.name  # mmengine keeps both by name, for the whole process
    runner = Runner.from_cfg(cfg)
    before = {name: value.clone() for name, value in runner.model.named_parameters()}
    runner.train()
    log = runner.message_hub.log_scalars
    losses = log["train/loss"].data[0]
    assert len(losses) == runner.iter == ITERATIONS
    assert all(math.isfinite(value) for value in losses)
    assert 0 <= log["val/mIoU"].current() <= 100
    after = dict(runner.model.named_parameters())
    assert all(value.isfinite().all() for value in after.values())
    # Not all that has a gradient moves: ones stay ones if a step is below their last digit.
    moved = sum(not torch.equal(value, after[name]) for name, value in before.items())
    assert moved > len(before) / 2
    steps = runner.optim_wrapper.optimizer.state
    still = [name for name, value in after.items() if not steps[value]["momentum_buffer"].any()]
    assert not still, f"{len(still)} of {len(after)} parameters never had a gradient: {still[:5]}"
    return runner


def test_the_folder_holds_the_rows_of_the_tables() -> None:
    assert set(PAIRS.values()) == set(NETWORKS)
    assert set(NAMES) == set(PAIRS) | set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_config_has_the_network_of_its_row(name: str) -> None:
    model = load(name).model
    assert (model.decode_head.type, model.backbone.type, model.backbone.get("depth")) == NETWORKS[name]
    assert model.type == "EncoderDecoder"
    classes = 21 if "voc12" in name else 19
    heads = [model.decode_head, *([model.auxiliary_head] if "auxiliary_head" in model else [])]
    assert {head.num_classes for head in heads} == {classes}


@pytest.mark.parametrize("name", NETWORKS)
def test_data_and_schedule_are_the_stock_ones(name: str) -> None:
    cfg = load(name)
    dataset, schedule = ("pascal_voc12_aug", "40k") if "voc12" in name else ("cityscapes", "80k")
    for stock in (f"datasets/{dataset}.py", f"schedules/schedule_{schedule}.py", "default_runtime.py"):
        for key, value in Config.fromfile(STOCK / "_base_" / stock).items():
            assert cfg[key] == value, f"{name}: {key} is not that of {stock}"
    assert f"-{schedule}_" in name
    assert f"4xb{cfg.train_dataloader.batch_size}-" in name
    assert "-{}x{}.py".format(*cfg.model.data_preprocessor.size) in name


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_config_is_its_plain_twin_with_another_segmentor(name: str) -> None:
    video, plain = load(name).to_dict(), load(PAIRS[name]).to_dict()
    shared = Config.fromfile(CONFIGS / "_base_" / "video.py").video
    assert video["model"].pop("type") == "VideoEncoderDecoder"
    assert video["model"].pop("video") == video.pop("video") == shared
    assert video.pop("custom_imports")["imports"] == ["image2video.integrations.openmmlab"]
    plain.pop("custom_imports", None)
    assert plain["model"].pop("type") == "EncoderDecoder"
    assert video == plain
    assert (shared.T, shared.fusion) == (5, "gsf")
    assert f"_{shared.fusion}-t{shared.T}" == VIDEO_TAG


# A plain config is its video twin without the video (above); of its own is the segmentor, which one of them trains. Of
# the videos, every head and backbone trains once, on both data sets; the narrow ResNeSt-200 is the narrow ResNeSt-101.
TRAINED = {
    "pspnet/pspnet_r50-d8_4xb4-40k_voc12aug-512x512.py",
    "pspnet/pspnet_r50-d8_gsf-t5_4xb4-40k_voc12aug-512x512.py",
    "fcn/fcn_wrn38-d8_gsf-t5_4xb4-40k_voc12aug-512x512.py",
    "deeplabv3/deeplabv3_r101-d8_gsf-t5_4xb2-80k_cityscapes-512x1024.py",
    "deeplabv3/deeplabv3_xception65-d16_gsf-t5_4xb2-80k_cityscapes-512x1024.py",
    "resnest/resnest_s101-d8_deeplabv3_gsf-t5_4xb2-80k_cityscapes-512x1024.py",
}


def test_what_trains_by_default_covers_the_heads_the_backbones_and_the_data() -> None:
    assert set(NAMES) >= TRAINED
    videos = [name for name in TRAINED if name in PAIRS]
    assert {NETWORKS[PAIRS[name]][:2] for name in videos} == {kind[:2] for kind in NETWORKS.values()}
    assert {"voc12" in name for name in videos} == {True, False}


@pytest.mark.parametrize(
    "name", [name if name in TRAINED else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_narrow_copy_trains_and_validates(name: str, data: dict[str, Path], tmp_path: Path) -> None:
    root = data["voc12aug" if "voc12" in name else "cityscapes"]
    runner = train(shrink(load(name), root, narrow=True), tmp_path)
    # Four images of aug beside the six of train.
    assert len(runner.train_dataloader.dataset) == (10 if "voc12" in name else 6)
    assert len(runner.val_dataloader.dataset) == 1
    if name in PAIRS:
        assert runner.model.to_video.T == 5
        assert len(runner.model.video_fusion.plan.sites) > 5


def commands() -> list[str]:
    """The lines of the page that start mmsegmentation's training."""
    return re.findall(r"^(?:python|torchrun) .*\$TOOLS/train\.py .*", PAGE.read_text(), flags=re.M)


@pytest.mark.parametrize("command", commands())
def test_the_page_s_commands_name_configs_and_options_that_exist(command: str) -> None:
    name, *words = shlex.split(command.split("$CONFIGS/")[1])
    cfg = load(name)
    known = cfg.to_dict()
    for option in words[1:] if words[:1] == ["--cfg-options"] else []:
        key, value = option.split("=")
        cfg.merge_from_dict({key: value})
        *parents, last = key.split(".")
        node = known
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.get(part, {})
        # What these take is no key of the config: arguments of the backbone, which the classes' own tests hold.
        assert last in node or parents[:2] == ["model", "backbone"], f"{name} has no {key}"


def test_the_page_lists_every_video_config_with_its_fusions() -> None:
    rows = re.findall(r"^\| `([^`]+\.py)` \|.*\| ([\d.]+) M \| ([\d.]+) M \|$", PAGE.read_text(), flags=re.M)
    assert sorted(name for name, *_ in rows) == VIDEOS
    assert len(commands()) > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_network_itself_trains_and_validates(name: str, data: dict[str, Path], tmp_path: Path) -> None:
    root = data["voc12aug" if "voc12" in name else "cityscapes"]
    model = train(shrink(load(name), root, narrow=False), tmp_path).model
    if name in PAIRS:
        (stated,) = re.findall(rf"`{re.escape(name)}` \|.*\| ([\d.]+) M \| ([\d.]+) M \|", PAGE.read_text())
        fused = sum(value.numel() for value in model.video_fusion.parameters())
        plain = sum(value.numel() for value in model.parameters()) - fused
        assert (f"{plain / 1e6:.2f}", f"{fused / 1e6:.2f}") == stated


def test_the_paper_s_count_of_the_fusions_parameters() -> None:
    """Table 6: PSPNet has 51.43 M parameters with GSF, 51.32 M with the shift, which has none: 0.11 M."""
    cfg = load("pspnet/pspnet_r50-d8_gsf-t5_4xb4-40k_voc12aug-512x512.py").model
    cfg.update(pretrained=None)
    cfg.video.update(residual=False, input_size=CROP)
    model = MODELS.build(cfg)
    fused = sum(value.numel() for value in model.video_fusion.parameters())
    assert len(model.video_fusion.plan.sites) == 16
    assert round(fused / 1e6, 2) == 0.11
