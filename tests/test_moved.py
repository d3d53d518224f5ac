"""Module paths of earlier versions: what was public there is still found, and is the same object."""

import importlib
import re

import pytest

from image2video.moved import MOVED, PACKAGES

# Old path, names that it had: those that the package had given out from there.
NAMES = {
    "image2video.builders": ["Builder"],
    "image2video.checkpoint": ["FreshFusionWarning"],
    "image2video.colours": ["Colours"],
    "image2video.frame_sources": ["FrameSource"],
    "image2video.genotype": ["DEFAULT_GENOTYPE", "Genotype", "Transform"],
    "image2video.layout": ["NCHW", "NHWC", "NLC", "Layout"],
    "image2video.op": ["Op"],
    "image2video.ops": ["register_op"],
    "image2video.optim": ["param_groups"],
    "image2video.random_clips": ["RandomClips"],
    "image2video.search.candidates": ["candidate_chains"],
    "image2video.search.chain_scores": ["chain_score_by_perturbation", "chain_score_by_tau", "score_chains"],
    "image2video.search.config": ["SearchConfig"],
    "image2video.search.fixed_weights": ["rank_genotypes"],
    "image2video.search.ranking": ["RankedGenotype", "Ranking"],
    "image2video.search.scores": ["PairedScores", "Scores"],
    "image2video.search.task": ["ClassificationTask", "SegmentationTask", "Task", "get_task"],
    "image2video.search.topology": ["Decisions", "random_decisions", "random_genotype", "random_share"],
    "image2video.demo": ["DemoConfig", "run_demo"],
}
IN_PLACE = {  # modules that are rooms now, under their old names
    "image2video.clip": ["Image2Video", "clip_to_frames", "frames_to_clip"],
    "image2video.wrap": ["VideoWrap"],
    "image2video.search.cell": ["Cell"],
    "image2video.search.space": ["SearchSpace", "get_space", "register_space", "space_names"],
}


def test_every_moved_path_is_tested() -> None:
    assert set(NAMES) == set(MOVED)
    assert set(PACKAGES) == set(MOVED.values())


@pytest.mark.parametrize("old", NAMES)
def test_public_names_are_found_at_their_old_path(old: str) -> None:
    package = importlib.import_module(MOVED[old])
    module = importlib.import_module(old)
    for name in NAMES[old]:
        with pytest.warns(DeprecationWarning, match=re.escape(f"{old} has moved: from {MOVED[old]} import {name}")):
            assert getattr(module, name) is getattr(package, name)


@pytest.mark.parametrize("old", IN_PLACE)
def test_rooms_give_out_what_the_file_of_that_name_had(old: str) -> None:
    module = importlib.import_module(old)
    assert set(IN_PLACE[old]) <= set(module.__all__)


def test_from_import_of_an_old_path() -> None:
    with pytest.warns(DeprecationWarning, match="image2video.genotype has moved"):
        from image2video.genotype import Genotype
    assert str(Genotype.parse("rotate(10)")) == "rotate(10)"


def test_what_was_private_is_not_found() -> None:
    module = importlib.import_module("image2video.genotype")
    with pytest.raises(AttributeError, match=r"no attribute 'freeze'; the public names are those of image2video"):
        _ = module.freeze
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("image2video.chain_law")
