"""Clips at several places as records: text, JSON, files, what stands in for one, and where one is refused."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from frame_set_cases import chains
from hypothesis import given, settings
from hypothesis import strategies as st

from image2video import DeepClip, FrameSet, Genotype, Image2Video
from image2video.clip.any_clip import any_clip_from_json, as_any_clip, as_clip, options_for, parse_any_clip, parse_clip
from image2video.errors import Image2VideoError, InputError, InputTypeError

TEXT = "image: translate_x(0.03) | layer3: rotate(10) > scale(1.1)"
SETS = "image: [identity | flip_x] | layer3: [identity | translate_x(1 cell)]"
NO_DEEP = "expected a clip of images, got one with places of a network; VideoWrap"

NAMES = st.one_of(
    st.from_regex(r"[a-z][a-z0-9_]{0,5}(\.[0-9a-z]{1,4}){0,3}", fullmatch=True), st.text(min_size=1, max_size=12)
)


@st.composite
def deep_clips(draw: st.DrawFn) -> DeepClip:
    places = draw(st.lists(NAMES.filter(lambda name: name != "image"), min_size=1, max_size=4, unique=True))
    places = ["image", *places] if draw(st.booleans()) else places
    T = draw(st.integers(0, 3))
    if T:
        frames = st.lists(chains(colours=True), min_size=T, max_size=T).map(lambda found: FrameSet(tuple(found)))
        return DeepClip(tuple((place, draw(frames)) for place in places))
    return DeepClip(tuple((place, draw(chains(colours=True))) for place in places))


@settings(max_examples=40)
@given(deep_clips())
def test_text_and_json_of_any_deep_clip_read_back_as_it(some: DeepClip) -> None:
    assert DeepClip.parse(str(some)) == parse_any_clip(str(some)) == as_any_clip(str(some)) == some
    assert DeepClip.from_json(some.to_json()) == any_clip_from_json(some.to_json()) == some
    assert hash(DeepClip.parse(str(some))) == hash(some)
    assert pickle.loads(pickle.dumps(some)) == copy.deepcopy(some) == some
    assert str(some).isascii()


@given(st.text(alphabet='abp:|[]>"\\ .()0', max_size=40))
def test_any_text_is_read_or_refused_by_us(text: str) -> None:
    try:
        found = parse_any_clip(text)
    except Image2VideoError:
        return  # any other error fails the test
    assert parse_any_clip(str(found)) == found


def test_a_deep_clip_lists_a_clip_for_each_place() -> None:
    some = DeepClip.parse(" image :translate_x( 0.03)|layer3: rotate(10)>scale(1.1) ")
    assert str(some) == TEXT
    assert repr(some) == f"DeepClip.parse({TEXT!r})"
    assert some.places == ("image", "layer3")
    assert some.clips == (Genotype.parse("translate_x(0.03)"), Genotype.parse("rotate(10) > scale(1.1)"))
    assert (some.begins_at_image, some.inner, some.is_set, some.T) == (True, ("layer3",), False, None)
    assert DeepClip.of({"image": "translate_x(0.03)", "layer3": some.clips[1]}) == some
    assert as_any_clip({"image": "translate_x(0.03)", "layer3": "rotate(10) > scale(1.1)"}) == some
    assert some != DeepClip.of({"image": "translate_x(0.03)", "layer4": some.clips[1]})
    assert DeepClip.parse(SETS).T == options_for(DeepClip.parse(SETS)).T == 2
    assert str(DeepClip.parse("a: [rotate(3) |]")) == "a: [rotate(3) |]"


def test_names_that_are_no_plain_paths_stand_in_quotes() -> None:
    some = DeepClip.of({'a: "b" | c': "rotate(3)", "preset": "identity", "[x]": "scale(1.1)"})
    assert str(some) == r'"a: \"b\" | c": rotate(3) | "preset": identity | "[x]": scale(1.1)'
    assert DeepClip.parse(str(some)) == some


@pytest.mark.parametrize(
    ("text", "message", "caret"),
    [
        ("layer3: rotate(10) | rotate(3)", "expected a place with a colon.*a frame set stands in brackets", 21),
        ("layer3: [identity | flip_x", r"expected '\]' after the frames at 'layer3'.*the text ends", 26),
        ("layer3: identity | flip_x", "expected a place with a colon", 19),
        ("layer3: rotate(10) layer4: rotate(3)", r"expected '\|' between two places, or '>' between two ops", 19),
        ("layer3:", "expected an op.*the text ends", 7),
        ("layer3: rotat(10)", "unknown op 'rotat'; did you mean 'rotate'", 8),
        ("layer3: rotate(999)", "must lie in -180 … 180 degrees", 15),
        ("layer3: []", r"expected an op.*found '\]'", 9),
        ("layer3: [identity | | flip_x]", r"expected an op.*found '\|'", 20),
        ("layer3: rotate(1) |", "expected a place with a colon", 19),
        (r'"\x": rotate(1)', "a place in double quotes is a JSON string", 0),
        (" | ".join(f"p{n}: identity" for n in range(65)), "at most 64 places", None),
        ("a: [" + " | ".join(["identity"] * 257) + "]", "at most 256 frames", None),
        ("a: " + " " * 10_000, "at most 10000 are read", None),
        ("a: rotate(1) | a: rotate(2)", "the place 'a' is named twice; give it one chain", None),
        ("a: rotate(1) | image: rotate(2)", "the place 'image' is before the network, and comes after 'a'", None),
        ("a: rotate(1) | b: [identity | flip_x]", "got a: a chain, b: 2 frames", None),
        ("a: [identity | flip_x | identity] | b: [identity | flip_x]", "got a: 3 frames, b: 2 frames", None),
        ('"": rotate(1)', "1 … 1000 characters, got 0", None),
        (f"{'a' * 1001}: rotate(1)", "1 … 1000 characters, got 1001", None),
    ],
)
def test_a_wrong_text_is_refused_with_its_position(text: str, message: str, caret: int | None) -> None:
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        DeepClip.parse(text)
    assert len(str(caught.value)) < 600
    if caret is not None:
        assert f"at position {caret} of" in str(caught.value)


def test_json_has_version_4_and_names_the_place_of_what_is_wrong() -> None:
    record = json.loads(DeepClip.parse(SETS).with_provenance({"score": 0.9}).to_json())
    assert (record["schema_version"], record["provenance"]) == (4, {"score": 0.9})
    assert [(site["place"], len(site["frames"])) for site in record["chain"]] == [("image", 2), ("layer3", 2)]
    chain = json.loads(DeepClip.parse(TEXT).to_json())
    chain["chain"][1]["chain"][0]["magnitude"] = True
    with pytest.raises(InputTypeError, match=r"chain\[1\].chain\[0\].magnitude"):
        DeepClip.from_json(json.dumps(chain))
    site = {"place": "a", "chain": []}
    for change, message in (
        ({"chain": []}, "at least one place"),
        ({"chain": {}}, "chain must be a list"),
        ({"chain": [{**site, "place": f"p{n}"} for n in range(65)]}, "at most 64"),
        ({"chain": [site, site]}, "named twice"),
        ({"chain": [{**site, "place": 3}]}, r"chain\[0\].place must be a string"),
        ({"chain": [{**site, "frames": []}]}, r"chain\[0\] has the unknown key 'chain'"),
        ({"chain": [{"place": "a", "frames": []}]}, r"chain\[0\].frames must hold at least one chain"),
        ({"chain": [{"place": "a"}]}, r"chain\[0\] needs the key 'chain'"),
        ({"sites": []}, "unknown key 'sites'"),
        ({"schema_version": 3}, "schema_version must be 4 for clips at several places, got 3"),
        ({"schema_version": True}, "schema_version must be 4"),
    ):
        with pytest.raises((InputError, InputTypeError), match=message):
            DeepClip.from_json(json.dumps(record | change))


def test_readers_of_one_clip_refuse_the_file_and_name_who_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    some = DeepClip.parse(TEXT).with_provenance({"T": 7})
    some.save(path)
    for found in (
        DeepClip.load(path),
        as_any_clip(path),
        as_any_clip(str(path)),
        DeepClip.from_hub(tmp_path, filename="deep.json"),
    ):
        assert found == some
        assert found.provenance == {"T": 7}
    for read in (Genotype.load, FrameSet.load, as_clip):
        with pytest.raises(InputError, match=f"deep.json'.*{NO_DEEP}"):
            read(path)
    # Files of one clip keep their versions, and later versions are refused as newer.
    assert as_any_clip("rotate(3)") == Genotype.parse("rotate(3)")
    for text, version in (("rotate(3)", 1), ("identity | flip_x", 2), ("translate_x(1 cell)", 3)):
        assert json.loads(parse_any_clip(text).to_json())["schema_version"] == version
        assert any_clip_from_json(parse_any_clip(text).to_json()) == parse_clip(text)
    for key in ("chain", "anything"):
        with pytest.raises(InputError, match="got 5; a newer image2video wrote the file and reads it"):
            any_clip_from_json(json.dumps({"schema_version": 5, key: []}))


@pytest.mark.parametrize(
    ("sites", "error", "message"),
    [
        (TEXT, InputTypeError, "sites is a tuple of pairs .*DeepClip.parse a text"),
        ({"a": Genotype.identity()}, InputTypeError, "DeepClip.of reads a dict"),
        (("ab",), InputTypeError, r"sites\[0\] must be a pair"),
        (((3, Genotype.identity()),), InputTypeError, "a place is the path of a module"),
        ((("a", "rotate(3)"),), InputTypeError, "must be a Genotype or a FrameSet.*DeepClip.of reads texts"),
        ((), InputError, "1 … 64 places, got 0"),
    ],
)
def test_a_deep_clip_holds_clips_at_places(sites: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DeepClip(sites)  # type: ignore[arg-type]


def test_a_mapping_holds_clips_too(tmp_path: Path) -> None:
    Genotype.parse("rotate(3)").save(tmp_path / "chain.json")
    found = as_any_clip({"image": tmp_path / "chain.json", "a": "preset:cifar10"})
    assert found == DeepClip.of({"image": "rotate(3)", "a": Genotype.preset("cifar10")})
    for wrong, message in (("spin(3)", "unknown op"), (3, "given as a"), (["identity"], "FrameSet"), (TEXT, NO_DEEP)):
        with pytest.raises(Image2VideoError, match=f"(?s)at the place 'b': .*{message}"):
            as_any_clip({"a": "identity", "b": wrong})
    with pytest.raises(InputError, match=r"(?s)at 'b': unknown op 'spin'.*at position 0"):
        DeepClip.of({"a": "identity", "b": "spin(3)"})
    with pytest.raises(InputError, match="at 'a' must be a chain or a frame set, got places again"):
        DeepClip.of({"a": TEXT})
    with pytest.raises(InputTypeError, match="a dict from places to clips"):
        DeepClip.of("a")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "refuse",
    [
        lambda some: as_clip(some),
        lambda some: as_clip(str(some)),
        lambda some: as_clip(dict(some.sites)),
        lambda some: Image2Video(some),
        lambda some: Image2Video(str(some)),
        lambda some: Genotype.coerce(some),
        lambda some: Genotype.parse(str(some)),
        lambda some: FrameSet.parse(str(some)),
    ],
)
def test_what_needs_a_clip_of_images_says_so(refuse: object) -> None:
    with pytest.raises(Image2VideoError, match=r"got one with places of a network"):
        refuse(DeepClip.parse(TEXT))  # type: ignore[operator]


def test_matrices_are_the_product_of_those_of_the_places() -> None:
    some = DeepClip.parse("image: translate_x(0.1) > scale(1.2) | a: rotate(20) | b: translate_y(1 cell)")
    H, W, steps = 24, 40, (-1.0, 0.0, 2.0)
    first, second, third = some.clips
    cells = (6, 10)
    expected = torch.stack(
        [
            third.step_matrices([step], H, W, cells=cells)[0] @ second.matrix(step, H, W) @ first.matrix(step, H, W)
            for step in steps
        ]
    )
    found = some.step_matrices(steps, H, W, cells=(None, None, cells))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, some.first(2).step_matrices(steps, H, W))
    turned = DeepClip(tuple(reversed(some.sites[1:]))).step_matrices(steps, H, W, cells=(cells, None))
    assert not torch.allclose(turned, DeepClip(some.sites[1:]).step_matrices(steps, H, W, cells=(None, cells)))


def test_mirror_images_at_two_places_cancel() -> None:
    some = DeepClip.parse("image: [identity | flip_x | flip_x | rotate(3)] | a: [identity | flip_x | flip_y | flip_x]")
    assert [some.mirrored(n) for n in range(4)] == [(), (), (-2, -1), None]
    assert some.nearest((3.0, 2.0, 1.0)) == 2
    chain = DeepClip.parse("image: translate_x(0.1) | a: identity")
    assert chain.nearest((-2.0, -1.0, 2.0)) == 1
    with pytest.raises(InputError, match="none of number 4"):
        some.check_steps((4.0,))
