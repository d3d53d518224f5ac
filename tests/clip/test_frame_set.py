"""Frame sets as records: text, JSON, files, what stands in for one, and where one is refused."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from frame_set_cases import frame_sets
from hypothesis import given
from hypothesis import strategies as st

from image2video import ClipOptions, FrameSet, Genotype, Image2Video, RandomClips
from image2video.clip.any_clip import as_clip, clip_from_json, clip_in_words, options_for, parse_clip, steps_of
from image2video.clip.genotype_text import MAX_FRAMES
from image2video.errors import InputError, InputTypeError, MissingError
from image2video.search import SearchSpace

TEXT = "identity | flip_x | scale(1.2) > translate_x(0.03)"
NO_CHAIN = "expected a chain, got a frame set; VideoWrap, Image2Video and receptive fields take frame sets"


@given(frame_sets(colours=True))
def test_text_and_json_of_any_set_read_back_as_the_set(some: FrameSet) -> None:
    assert FrameSet.parse(str(some)) == parse_clip(str(some)) == some
    assert FrameSet.from_json(some.to_json()) == clip_from_json(some.to_json()) == some
    assert hash(FrameSet.parse(str(some))) == hash(some)
    assert pickle.loads(pickle.dumps(some)) == copy.deepcopy(some) == some


def test_a_set_lists_a_chain_for_each_frame() -> None:
    some = FrameSet.parse(" identity|flip_x |scale( 1.20 )>translate_x(3e-2)")
    assert str(some) == TEXT
    assert repr(some) == f"FrameSet.parse({TEXT!r})"
    assert [str(frame) for frame in some.frames] == ["identity", "flip_x", "scale(1.2) > translate_x(0.03)"]
    assert (some.T, some.is_geometric, some.label(1)) == (3, True, "flip_x")
    assert some != FrameSet.parse("flip_x | identity | scale(1.2) > translate_x(0.03)")


def test_a_set_of_one_frame_keeps_its_bar() -> None:
    assert str(FrameSet.parse("rotate(10) |")) == "rotate(10) |"
    assert as_clip("rotate(10) |") == FrameSet((Genotype.parse("rotate(10)"),))
    assert as_clip("rotate(10)") == Genotype.parse("rotate(10)")


@pytest.mark.parametrize(
    ("text", "message", "caret"),
    [
        ("| identity", r"expected an op.*found '\|'", 0),
        ("identity || flip_x", r"expected an op.*found '\|'", 10),
        ("identity | flip_x |", "expected an op.*the text ends", 19),
        ("identity | flp_x", "unknown op 'flp_x'; did you mean 'flip_x'", 11),
        ("identity > | flip_x", r"expected an op.*found '\|'", 11),
        ("identity ! flip_x", r"expected '\|' between two frames, or '>' between two ops, but found '!'", 9),
        ("identity | rotate(999)", "must lie in -180 … 180 degrees", 18),
        ("identity | flip_x(0.5)", "flip_x mirrors the image and takes no magnitude", 18),
        ("identity", r"a frame set needs a '\|' between its frames", 8),
        (" | ".join(["identity"] * (MAX_FRAMES + 1)), f"at most {MAX_FRAMES} frames", None),
        (" | ".join(["rotate(10) > translate_x(0.03) > scale(1.1234567)"] * 250), "at most 10000", None),
    ],
)
def test_a_wrong_text_is_refused_with_its_position(text: str, message: str, caret: int | None) -> None:
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        FrameSet.parse(text)
    assert len(str(caught.value)) < 500
    if caret is not None:
        assert f"at position {caret} of" in str(caught.value)


def test_json_has_a_version_of_its_own_and_names_the_place_of_what_is_wrong() -> None:
    record = json.loads(FrameSet.parse(TEXT).with_provenance({"score": 0.9}).to_json())
    assert (record["schema_version"], len(record["frames"]), record["provenance"]) == (2, 3, {"score": 0.9})
    wrong = {
        r"frames\[2\]\[0\].magnitude": ("frames", 2, 0, {"op": "scale", "magnitude": True}),
        r"frames\[1\]\[0\].op": ("frames", 1, 0, {"op": "flop_x", "magnitude": 1}),
    }
    for message, (key, frame, place, value) in wrong.items():
        broken = copy.deepcopy(record)
        broken[key][frame][place] = value
        with pytest.raises((InputError, InputTypeError), match=message):
            FrameSet.from_json(json.dumps(broken))
    for change, message in (
        ({"frames": []}, "at least one chain"),
        ({"frames": [[]] * (MAX_FRAMES + 1)}, f"at most {MAX_FRAMES}"),
        ({"frames": "identity"}, "frames must be a list"),
        ({"chain": []}, "unknown key 'chain'"),
        ({"schema_version": 1}, "unknown key 'frames'"),
    ):
        with pytest.raises((InputError, InputTypeError), match=message):
            FrameSet.from_json(json.dumps(record | change))


def test_files_hold_a_set_and_its_provenance(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    FrameSet.parse(TEXT).with_provenance({"score": [1, 2]}).save(path)
    for found in (
        FrameSet.load(path),
        as_clip(path),
        as_clip(str(path)),
        FrameSet.from_hub(tmp_path, filename=path.name),
    ):
        assert found == FrameSet.parse(TEXT)
        assert found.provenance == {"score": (1, 2)}
    with pytest.raises(InputError, match=f"set.json'.*{NO_CHAIN}.*3 frames"):
        Genotype.load(path)
    with pytest.raises(InputError, match="expected a frame set, got a chain; Genotype reads it"):
        FrameSet.from_json(Genotype.parse("rotate(3)").to_json())


def test_frames_leave_their_provenance_out() -> None:
    frame = Genotype.parse("rotate(3)").with_provenance({"T": 7})
    some = FrameSet((frame, frame), {"T": 9})
    assert [one.provenance for one in some.frames] == [None, None]
    assert options_for(some).T == 2


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        ("identity | flip_x", InputTypeError, "frames is a tuple of Genotype.*FrameSet.parse reads text"),
        (("identity",), InputTypeError, r"frames\[0\] must be a Genotype"),
        ((), InputError, "1 … 256 frames, got 0"),
    ],
)
def test_a_set_holds_genotypes(frames: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FrameSet(frames)  # type: ignore[arg-type]


def test_a_clip_is_read_in_every_form(tmp_path: Path) -> None:
    some = FrameSet.parse(TEXT)
    assert as_clip(some) is some
    assert as_clip("preset:cifar10") == Genotype.preset("cifar10")
    assert as_clip(Genotype.identity()) == Genotype.identity()
    with pytest.raises(MissingError, match="genotype file"):
        as_clip(str(tmp_path / "none.json"))
    with pytest.raises(InputTypeError, match="is given as a Genotype"):
        as_clip(3)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match=r"a list of frames is given as a text, 'identity \| flip_x', or FrameSet"):
        as_clip(["identity", "flip_x"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at position"):
        parse_clip("set.json")  # a text names no file


@pytest.mark.parametrize(
    "refuse",
    [
        lambda some: Genotype.coerce(some),
        lambda some: Genotype.parse(str(some)),
        lambda some: Genotype.from_json(some.to_json()),
        lambda some: SearchSpace("mine", (some, "identity")),
        lambda some: SearchSpace("mine", (str(some), "identity")),
        lambda some: RandomClips((some,)),
        lambda some: RandomClips((str(some), "identity")),
    ],
)
def test_where_a_chain_is_needed_one_sentence_says_so(refuse) -> None:
    with pytest.raises((InputError, InputTypeError), match=NO_CHAIN):
        refuse(FrameSet.parse(TEXT))


def test_the_options_of_a_set_are_its_frames_in_order() -> None:
    some = FrameSet.parse(TEXT).with_provenance({"T": 7, "schedule": "centred", "padding": "reflection"})
    wrap = ClipOptions(T=5, schedule="centred", padding="border")
    assert options_for(some, wrap) == ClipOptions(T=3, schedule="from_zero", padding="reflection")
    assert (
        options_for(some.with_provenance(None), wrap, T=2).to_dict()
        == wrap.replace(T=2, schedule="from_zero").to_dict()
    )
    assert steps_of(some, "from_zero", 2) == (0.0, 1.0)
    assert clip_in_words(some, 3, "from_zero") == f"{TEXT}, T = 3"
    assert clip_in_words(Genotype.parse("rotate(3)"), 3, "ramp") == "rotate(3), T = 3, ramp"


@pytest.mark.parametrize("schedule", ["ramp", "centred", "mirror"])
@pytest.mark.parametrize("T", [1, 2, 3])
def test_a_set_has_no_other_schedule(schedule: str, T: int) -> None:
    with pytest.raises(InputError, match=f"no schedule but 'from_zero'; got {schedule!r}; leave the schedule out"):
        Image2Video(TEXT, T=T, schedule=schedule)


def test_a_clip_has_at_most_the_frames_that_the_set_lists() -> None:
    message = "the frame set has 3 frames, numbered from 0, and none of number 3; use T=3 or less, or list more frames"
    to_video = Image2Video(TEXT)
    for ask in (
        lambda: Image2Video(TEXT, T=4),
        lambda: to_video.set_frames(4),
        lambda: to_video(torch.zeros(1, 3, 4, 6), T=4),
        lambda: to_video.unwarp(torch.zeros(4, 1, 4, 6), (4, 6), T=4),
        lambda: to_video.genotype.matrix(3, 4, 6),
    ):
        with pytest.raises(InputError, match=message):
            ask()
    assert to_video.T == 3
    for step in (-1, 0.5):
        with pytest.raises(InputError, match=f"none of number {step:g}"):
            to_video.genotype.frame(step)


@given(some=frame_sets(), data=st.data())
def test_a_frame_has_the_matrix_of_its_chain(some: FrameSet, data: st.DataObject) -> None:
    t = data.draw(st.integers(0, some.T - 1))
    assert torch.equal(some.matrix(t, 20, 30), some.frames[t].matrix(1, 20, 30))
    assert some.mirrored(t) == some.frames[t].mirrored(1)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("rotate(3) | flip_x | identity", 2),
        ("rotate(3) | flip_x > flip_x | identity", 1),
        ("flip_x | brightness(1.2) | identity", 2),
        ("flip_x | brightness(1.2) | rotate(1)", 1),
        ("rotate(3) | flip_y | flip_x", 1),
        ("rotate(30) | rotate(1)", 0),
    ],
)
def test_the_nearest_frame_is_the_image_else_its_mirror_image_else_the_first(text: str, nearest: int) -> None:
    to_video = Image2Video(text, mean=0, std=1)
    assert to_video.nearest_frame() == nearest
    assert to_video.keeps_image() == (to_video.genotype.mirrored(nearest) is not None)


def test_print_shows_the_chains_and_no_schedule() -> None:
    assert str(Image2Video(TEXT)) == f"Image2Video({TEXT}, T=3, padding=zeros, interpolation=bilinear)"
