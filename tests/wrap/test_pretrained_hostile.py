"""A saved folder comes from anywhere: it fetches nothing, reads nothing outside, and what is wrong in it is named."""

import builtins
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from wrap_helpers import backbone, images, stir, wrapped

from image2video.data import AugmentedFrames
from image2video.errors import Image2VideoError, InputError, MissingError
from image2video.integrations import timm_models  # noqa: F401 (registers the wrapped models)
from image2video.wrap.video_wrap import VideoWrap


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model = timm.create_model("i2v_cifar_resnet8", num_classes=3, T=2, genotype="rotate(4)").eval()
    stir(model.fusion)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        pytest.fail("the network was reached for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in values.items():
        where: Any = config
        *parents, last = key.split("__")
        for parent in parents:
            where = where[parent]
        where[last] = value
    path.write_text(json.dumps(config))


def test_trained_weights_of_the_builder_are_not_fetched(folder: Path) -> None:
    change(folder, builder__name="timm:resnet8_of_nobody", builder__kwargs={})
    with pytest.raises(InputError, match="no model 'resnet8_of_nobody'"):
        VideoWrap.from_pretrained(folder)
    change(folder, builder__name="timm:cifar_resnet8", builder__kwargs={"num_classes": 3, "pretrained": True})
    model = VideoWrap.from_pretrained(folder)  # the file's weights take the place of all of them
    assert model.builder is not None
    assert model.builder.kwargs["pretrained"] is True


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"builder__name": "timm:hf-hub:owner/model"}, r"builder\.name must be BUILDER:MODEL without a place"),
        ({"builder__name": "timm:local-dir:/etc"}, r"builder\.name must be BUILDER:MODEL"),
        ({"builder__kwargs": {"checkpoint_path": "weights"}}, r"builder\.kwargs\.checkpoint_path may name a place"),
        ({"builder__kwargs": {"pretrained_cfg": {"file": "w"}}}, r"pretrained_cfg\.file may name a place"),
        ({"builder__kwargs": {"pretrained_cfg_overlay": {"a": ["b"]}}}, r"overlay\.a\[0\] may name a place"),
        ({"builder__kwargs": {"cache_dir": "x"}}, r"cache_dir may name a place"),
        ({"builder__kwargs": {"stem": "https://x"}}, r"builder\.kwargs\.stem may hold no place"),
        ({"builder__kwargs": {"stem": "../../etc/passwd"}}, r"builder\.kwargs\.stem may hold no place"),
        ({"builder__kwargs": {"stem": ["a.PTH"]}}, r"builder\.kwargs\.stem\[0\] may hold no place"),
        ({"builder__kwargs": {"num_classes": 10**12}}, r"num_classes must be at most 100000, .* got 1000000000000"),
        ({"builder__kwargs": {"num_classes": float("1e300")}}, r"num_classes must be at most 100000"),
    ],
)
def test_builders_that_name_a_place_are_refused_unless_asked(folder: Path, values: Any, message: str) -> None:
    change(folder, **values)
    with pytest.raises(InputError, match=rf"config\.json: .*{message}"):
        VideoWrap.from_pretrained(folder)
    model = VideoWrap.from_pretrained(folder, backbone(num_classes=3))  # nothing is built then
    assert model.plan.sites


def test_what_is_asked_for_reaches_the_builder(folder: Path, tmp_path: Path) -> None:
    trained = timm.create_model("cifar_resnet8", num_classes=3)
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    kwargs = {"num_classes": 3, "checkpoint_path": str(tmp_path / "trained.pth")}
    change(folder, builder__kwargs=kwargs)
    assert VideoWrap.from_pretrained(folder, allow_download=True).builder.kwargs == kwargs


def frames_of(**record: Any) -> dict[str, Any]:
    clip = dict.fromkeys(("genotype", "T", "schedule", "padding", "interpolation", "mean", "std"))
    return {**clip, "frames": record}


RANDOM = {"T": 2, "schedule": "ramp", "padding": "zeros", "interpolation": "bilinear", "mean": None, "std": None}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"genotype": "/etc/passwd.json"}, "genotype must be an object, got '/etc/passwd.json'"),
        (
            frames_of(kind="augmented_frames", policy="clips:/tmp/s.yaml,frames=3", T=2, mean=[0.0], std=[1.0], seed=0),
            r"frames\.policy may hold no path",
        ),
        (
            frames_of(kind="augmented_frames", policy="clips:s.yaml,frames=3", T=2, mean=[0.0], std=[1.0], seed=0),
            r"frames\.policy may hold no path",
        ),
        (
            frames_of(kind="random_clips", space={"candidates": ["x.json"], "inputs": 1, "nodes": 1}, **RANDOM, seed=0),
            r"frames\.space\.candidates\[0\] may hold no path",
        ),
        (
            frames_of(
                kind="random_clips", space={"candidates": ["rotate(1)"], "inputs": 1, "nodes": 10**9}, **RANDOM, seed=0
            ),
            r"inputs and nodes must be 1 … 64",
        ),
        (
            frames_of(
                kind="random_clips", space={"candidates": ["rotate(1)"] * 1001, "inputs": 1, "nodes": 1}, **RANDOM
            ),
            "at most 1000 texts",
        ),
        (frames_of(kind=["random_clips"]), "frames are made by"),
        (frames_of(kind="random_clips"), "does not fit this version"),
        ({"sites": "layer1"}, "sites must be a list of sites"),
        ({"sites": [{"name": ["a"], "placement": "after", "channels": 1, "layout": {}}]}, "sites must be a list"),
        ({"sites": ["/etc/passwd"]}, "sites must be a list of sites"),
        ({"frames": "x"}, "frames must be an object"),
        ({"frames": {"kind": "x"}}, "expected either frames or genotype"),
        ({"genotype": None}, "expected either frames or genotype, .* got null for genotype"),
        ({"T": 10**9}, "T must be a whole number, 1 … 100000, got 1000000000"),
        ({"T": True}, "T must be a whole number"),
        ({"input_size": [3, 10**6, 10**6]}, r"input_size must be \[C, H, W\] with at most"),
        ({"input_size": [3, 32]}, "input_size must be"),
        ({"residual": 1}, "residual must be true or false, got 1"),
        ({"mean": ["a"]}, "mean must be a list of numbers"),
        ({"fusion": []}, "fusion must be an object"),
        ({"schema_version": True}, "schema_version True"),
        (
            {"builder__kwargs": {"nonsense": 1}},
            r"'timm:cifar_resnet8' could not be built with the arguments .*nonsense",
        ),
        ({"builder__kwargs": {"num_classes": 7}}, r"model\.safetensors does not fit VideoWrap: size mismatch"),
    ],
)
def test_what_is_wrong_in_a_config_is_named(folder: Path, values: Any, message: str) -> None:
    change(folder, **values)
    with pytest.raises(Image2VideoError, match=message) as caught:
        VideoWrap.from_pretrained(folder)
    assert isinstance(caught.value, InputError | MissingError)


def test_only_the_two_files_are_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real_open, real_path_open = builtins.open, Path.open

    def open_(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(os.fspath(file))
        return real_open(file, *args, **kwargs)

    def path_open(self: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(str(self))
        return real_path_open(self, *args, **kwargs)

    VideoWrap.from_pretrained(folder)  # imports what it needs
    monkeypatch.setattr(builtins, "open", open_)
    monkeypatch.setattr(Path, "open", path_open)
    VideoWrap.from_pretrained(folder)
    inside = {name for name in opened if not name.endswith((".py", ".pyc", "entry_points.txt", "METADATA"))}
    assert inside == {str(folder / "config.json")}  # safetensors opens its file in Rust


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_links_out_of_the_folder_are_followed_only_where_asked(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.move(folder / name, tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"{name} is a link to .*elsewhere, outside of its folder"):
        VideoWrap.from_pretrained(folder)
    assert VideoWrap.from_pretrained(folder, allow_download=True)
    (tmp_path / "link").symlink_to(folder)  # the folder itself may be named by a link
    (folder / name).unlink()
    shutil.move(tmp_path / "elsewhere", folder / "blob")
    (folder / name).symlink_to("blob")
    assert VideoWrap.from_pretrained(tmp_path / "link")


def test_the_links_of_the_hubs_own_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--o--m" / "blobs", tmp_path / "models--o--m" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, blobs / f"hash-{name}")
        (snapshot / name).symlink_to(f"../../blobs/hash-{name}")
    assert VideoWrap.from_pretrained(snapshot)


def test_a_folder_has_no_revision(folder: Path) -> None:
    with pytest.raises(InputError, match=r"is a local folder, which has no revision='v1'; leave it out"):
        VideoWrap.from_pretrained(folder, revision="v1")


@pytest.mark.parametrize("spoil", ["int8", "bool", "nan", "cut"])
def test_weights_that_are_none_are_refused(folder: Path, spoil: str) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    name = "backbone.layer1.0.conv2.weight"
    changed = {"int8": state[name].to(torch.int8), "bool": state[name] > 0, "nan": state[name] * float("nan")}
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    else:
        save_file({**state, name: changed[spoil]}, path)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        VideoWrap.from_pretrained(folder)


@torch.no_grad()
def test_frame_sources_are_still_read(tmp_path: Path) -> None:
    source = AugmentedFrames("randaugment:ops=1,magnitude=3", T=2, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = VideoWrap(backbone(), frames=source).eval()
    model.save_pretrained(tmp_path)
    assert torch.equal(VideoWrap.from_pretrained(tmp_path, backbone())(images()), model(images()))


def test_half_precision_is_loaded(tmp_path: Path) -> None:
    wrapped(stirred=True).half().save_pretrained(tmp_path)
    assert next(VideoWrap.from_pretrained(tmp_path, backbone()).parameters()).dtype == torch.float32
