"""A search for a mmsegmentation config over places of its backbone: cells, one-shot chains, and rankings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("mmseg")

from mmseg_cases import SIZE, build, pair, samples, tiny_config, total_loss
from mmseg_search_cases import built, config, written

from image2video import DeepClip
from image2video.cli import main
from image2video.clip.deep_video import DeepVideo
from image2video.errors import InputError
from image2video.integrations.openmmlab.search_network import SegmentorFrames, SegmentorTask
from image2video.reproduce.miniatures import make_camvid
from image2video.search import SearchConfig, SearchSpace, register_space, search
from image2video.search.cell.clip_view import clip_view
from image2video.search.score.network import build_network, predictions

register_space(SearchSpace("two steps", ("rotate(8)", "translate_x(0.05)", "identity"), nodes=1))
HOW = {"space": "two steps", "T": 2, "batch_size": 4, "epochs": 1, "tune_epochs": 0, "device": "cpu", "candidates": 4}
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*chose the identity", "ignore:``build_pixel_sampler`` would be deprecated:UserWarning"
)


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"), train=8)


@pytest.mark.parametrize(
    "genotype", [{"image": "translate_x(0.1)", "layer3": "rotate(10)"}, {"layer2": "rotate(6)", "layer3": "flip_x"}]
)
def test_the_loss_is_that_of_the_video_segmentor(genotype: dict[str, str]) -> None:
    plain, wrapped = pair("psp", video={"genotype": genotype, "T": 3, "fusion": "gsf"})
    frames = SegmentorFrames(plain, full_size=True)
    task = SegmentorTask(frames)
    places = tuple(genotype)
    network = build_network(frames, "gsf", residual=True, input_size=(3, *SIZE), task=task, places=places)
    for parameter in wrapped.video_fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    network.fusion.load_state_dict(wrapped.video_fusion.state_dict())
    inputs, found = samples(sizes=(SIZE,))
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in found])
    network.train()
    wrapped.train()
    view = clip_view(wrapped.to_video, inputs, network.clip_sites)
    loss = task.loss(predictions(network, view.inputs, task, view.unwarp, view.maker), labels)
    torch.testing.assert_close(loss, total_loss(wrapped, inputs, found), rtol=1e-4, atol=1e-5)


def test_an_auxiliary_head_from_before_the_clip_sees_the_images() -> None:
    plain, wrapped = pair("psp", video={"genotype": "rotate(8)", "T": 3, "fusion": "none", "clip_at": "layer4"})
    frames = SegmentorFrames(plain, full_size=True)
    task = SegmentorTask(frames)
    network = build_network(frames, "none", residual=True, input_size=(3, *SIZE), task=task, places=("layer4",))
    inputs, found = samples(sizes=(SIZE,))
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in found])
    network.train()
    wrapped.train()
    video = DeepVideo(DeepClip.parse("layer4: rotate(8)"), wrapped.to_video.options)
    view = clip_view(video, inputs, network.clip_sites)
    loss = task.loss(predictions(network, view.inputs, task, view.unwarp, view.maker), labels)
    torch.testing.assert_close(loss, total_loss(wrapped, inputs, found), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("selection", ["argmax", "one_shot", "fixed_weights"])
def test_every_search_finds_a_clip_that_the_config_takes(selection: str, camvid: Path, tmp_path: Path) -> None:
    clip_at: Any = [["image", "layer3"]] if selection == "fixed_weights" else ("image", "layer3")
    settings = SearchConfig(**HOW, selection=selection, clip_at=clip_at, fusion="tsm")
    problem = built(config(camvid), tmp_path)
    held_out = {"validation": problem.train} if selection == "fixed_weights" else {}
    how = {"task": problem.task, "mean": problem.mean, "std": problem.std, **held_out}
    result = search(problem.network, problem.train, settings, out=tmp_path / "out", **how)
    if selection == "fixed_weights":
        assert any(isinstance(entry.genotype, DeepClip) for entry in result.ranking.entries)
        assert result.ranking.metric == "mIoU"
        return
    assert result.genotype.places == ("image", "layer3")
    assert [entry["place"] for entry in result.front] == ["image", "layer3", None]
    video = {"genotype": str(tmp_path / "out" / "genotype.json"), "fusion": "none"}
    assert build(tiny_config(video=video)).video_fusion.plan.places == ("image", "layer3")


def test_the_command_searches_over_places(camvid: Path, tmp_path: Path, capsys) -> None:
    argv = ["search", "--task", f"mmseg:{written(config(camvid), tmp_path)}", "--clip-at", "image,layer3"]
    argv += ["--frames", "2", "--batch-size", "4", "--epochs", "1", "--tune-epochs", "0", "--device", "cpu"]
    argv += ["--workers", "0", "--selection", "one_shot", "--candidates", "3", "--space", "affine5"]
    assert main([*argv, "--out", str(tmp_path / "run")]) == 0
    assert DeepClip.load(tmp_path / "run" / "genotype.json").places == ("image", "layer3")
    assert "by where the clip begins: image (2.00 times" in " ".join(capsys.readouterr().out.split())


def test_chains_are_ranked_at_places_of_the_backbone(camvid: Path, tmp_path: Path) -> None:
    settings = SearchConfig(**HOW, selection="fixed_weights", clip_at=("image", "layer4"), max_cost=1.9)
    problem = built(config(camvid), tmp_path)
    result = search(problem.network, problem.train, settings, task=problem.task)
    assert {entry.place for entry in result.ranking.entries} == {None, "layer4"}  # the identity, and what costs less


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (("image", "layer4"), r"the auxiliary head FCNHead takes features from before 'layer4', where .* image alone"),
        (("image", "layer9"), "must name a module that runs once"),
    ],
)
def test_what_cannot_be_is_refused(places: tuple[str, ...], message: str, camvid: Path, tmp_path: Path) -> None:
    problem = built(config(camvid), tmp_path)
    settings = SearchConfig(**HOW, selection="argmax", clip_at=places)
    with pytest.raises(InputError, match=message):
        search(problem.network, problem.train, settings, task=problem.task)
