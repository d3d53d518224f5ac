"""What runs of converged networks have that others have not: images by seed, ranked clips, late clips, poses."""

import dataclasses

import pytest
import torch
from reproduce_cases import TABLE, pretended, table, worked

from image2video import VideoWrap
from image2video.clip.genotype import Genotype
from image2video.data import load_data
from image2video.errors import InputError, UnsupportedError
from image2video.experiments.genotypes import Chosen
from image2video.reproduce import Cell, Setting, load_experiment, run_key
from image2video.reproduce.classify import choose, fresh_network, run_classification, wrapped
from image2video.reproduce.data import Shelf
from image2video.reproduce.measures import shifted, unpacked
from image2video.reproduce.poses import check_pose, posed
from image2video.training import make_accelerator

__all__ = ["pretended"]  # a fixture

SETTING = Setting(image_size=8, train_images=60, holdout=0.5, T=2, epochs=1, batch_size=16, measures=True, redraw=True)
RANKED = Cell("ranked", "ranked", "fixed_weights", "none", ranked_for="bare_long")


@pytest.fixture(scope="module")
def accelerator():
    return make_accelerator("cpu")


@pytest.fixture(scope="module")
def data():
    return load_data("digits", train_images=60, holdout=0.5, image_size=8)


def test_every_seed_has_its_own_images_where_the_setting_says_so(tmp_path):
    shelf = Shelf({}, tmp_path)
    first, second = (shelf(SETTING.divided_by(seed)) for seed in (0, 1))
    assert not torch.equal(first.train.labels, second.train.labels)
    assert torch.equal(first.test.labels, second.test.labels)
    shared = dataclasses.replace(SETTING, redraw=False)
    assert shared.divided_by(7) is shared


def ran(arm, tmp_path, accelerator, seed=0, **more):
    shelf = Shelf({}, tmp_path / "data")
    folders = {"searches": tmp_path / "searches", "training": tmp_path / f"{arm.name}-{seed}"}
    return run_classification(arm, SETTING, seed, accelerator=accelerator, load=shelf, **folders, **more)


def test_a_measured_run_and_a_clip_ranked_for_another(tmp_path, accelerator):
    record, weights = ran(Cell("bare", "bare"), tmp_path, accelerator)
    assert unpacked(record).mean() == pytest.approx(record["score"] / 100)
    assert [epoch["epoch"] for epoch in record["curve"]] == [1]
    path = tmp_path / "of-bare.pt"
    torch.save(weights, path)
    ranked, trained = ran(RANKED, tmp_path, accelerator, ranked_for=path)
    assert ranked["origin"] == "ranked on 30 held-out images"
    (kept,) = (tmp_path / "searches").glob("ranked-*.json")
    # It begins where an arm with this clip and no ranking begins, not with the weights that ranked.
    stated = Cell("stated", "stated", ranked["genotype"], "none")
    _, others = ran(stated, tmp_path, accelerator)
    assert all(torch.equal(trained[name], others[name]) for name in trained if name != "clip")
    before = kept.read_bytes()
    again, _ = ran(dataclasses.replace(RANKED, name="again", fusion="tsm"), tmp_path, accelerator, ranked_for=path)
    assert (again["genotype"], again["search_minutes"]) == (ranked["genotype"], ranked["search_minutes"])
    assert kept.read_bytes() == before


def test_rankings_for_other_weights_or_clips_are_others(tmp_path, accelerator, data):
    model = fresh_network(RANKED, SETTING, data, 0)
    for weights, setting in (
        ("a", SETTING),
        ("b", SETTING),
        ("a", dataclasses.replace(SETTING, T=3)),
        ("a", dataclasses.replace(SETTING, padding="border")),
        ("a", dataclasses.replace(SETTING, rank_space="pose")),
    ):
        choose(RANKED, setting, data, tmp_path, accelerator, load=None, model=model, weights=weights)
    assert len(list(tmp_path.glob("ranked-*.json"))) == 5


def test_an_arm_that_is_ranked_for_another_waits_for_its_weights(tmp_path, pretended):
    arm = {"name": "ranked", "title": "ranked", "genotype": "fixed_weights", "fusion": "gsf", "ranked_for": "moved"}
    with pytest.raises(InputError, match="'ranked' is ranked for 'moved'; that must be a bare arm listed before it"):
        load_experiment(str(table(tmp_path, arms=[*TABLE["arms"], arm])))
    arm["ranked_for"] = "bare_long"
    path = table(tmp_path, arms=[*TABLE["arms"], arm])
    pretended.failing = {"bare_long"}
    _, book, runs = worked(path, tmp_path / "out")
    (run,) = (run for run in runs if (run.arm.name, run.seed) == ("ranked", 1))
    assert "its clip is ranked for 'bare_long', seed 1, which has no weights" in book.read(run)["error"]
    pretended.failing = set()
    _, book, runs = worked(path, tmp_path / "out", retry=True)
    assert all("error" not in book.read(run) for run in runs)


def test_what_a_clip_is_ranked_for_counts_and_is_no_start():
    start = dataclasses.replace(RANKED, ranked_for=None, start="bare_long")
    keys = [run_key(SETTING, RANKED, key) for key in ("a", "b")] + [run_key(SETTING, start, "a")]
    assert len(set(keys)) == 3
    renamed = dataclasses.replace(RANKED, ranked_for="other_name")
    assert run_key(SETTING, renamed, "a") == keys[0]
    for wrong in ({"start": "bare"}, {"genotype": "rotate(3)"}):
        with pytest.raises(InputError, match="it goes with genotype='fixed_weights' and without start"):
            dataclasses.replace(RANKED, **wrong)


def test_new_fields_count_where_they_are_set():
    bare = Cell("bare", "bare")
    plain = Setting()
    for change in (
        {"weights": "w"},
        {"padding": "border"},
        {"rank_space": "pose"},
        {"redraw": True},
        {"measures": True},
    ):
        assert run_key(dataclasses.replace(plain, **change), bare) != run_key(plain, bare)
    for change in ({"clip_at": "layer3"}, {"pose": "rotate(20)"}):
        assert run_key(plain, dataclasses.replace(bare, **change)) != run_key(plain, bare)


def test_a_clip_inside_the_network(data):
    arm = Cell("late", "late", "translate_x(1 cell)", "gsf", clip_at="layer3")
    chosen = Chosen(Genotype.parse("translate_x(1 cell)"), "stated")
    model = wrapped(fresh_network(arm, SETTING, data, 0), arm, SETTING, data, 0, chosen)
    assert isinstance(model, VideoWrap)
    assert model.plan.clip_site.name == "layer3"


def test_padding_of_clips_is_that_of_the_setting(data):
    arm, chosen = Cell("a", "a", "rotate(3)", "none"), Chosen(Genotype.parse("rotate(3)"), "stated")
    for padding in (None, "border"):
        setting = dataclasses.replace(SETTING, padding=padding)
        model = wrapped(fresh_network(arm, setting, data, 0), arm, setting, data, 0, chosen)
        assert model.to_video.options.padding == (padding or "zeros")


def test_a_pose_moves_what_is_tested_and_what_chooses(data):
    moved = posed(data, "translate_x(0.25) > translate_y(0.25)", "reflection")
    assert moved.train is data.train
    for part in ("holdout", "test"):
        before, after = (getattr(one, part) for one in (data, moved))
        assert torch.equal(before.labels, after.labels)
        expected = shifted(before.raw(3)[None].float(), 2)[0]
        # The border of `shifted` leaves out the edge pixel, that of clips repeats it: inside they agree.
        assert torch.equal(after.raw(3)[:, 2:, 2:].float(), expected[:, 2:, 2:])


def test_poses_take_turns(data):
    moved = posed(data, "identity | flip_x | flip_y", "zeros")
    for index in range(6):
        dims = {0: [], 1: [-1], 2: [-2]}[index % 3]
        assert torch.equal(moved.test.raw(index), data.test.raw(index).flip(dims))


def test_poses_that_cannot_be(data):
    with pytest.raises(InputError, match="rotat"):
        check_pose("rotat(10)")
    with pytest.raises(UnsupportedError, match="moves images in memory, got object"):
        posed(dataclasses.replace(data, test=object()), "rotate(10)", "zeros")
