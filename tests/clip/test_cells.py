"""Magnitudes in cells: their texts and files, and what they mean at the image and at maps inside a network."""

import dataclasses
import json
import pickle

import pytest
import torch
from clip_cases import noise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from image2video.clip.any_clip import as_clip, clip_from_json
from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import Genotype, Transform
from image2video.clip.genotype_json import CELL_VERSION
from image2video.clip.image_to_video import Image2Video
from image2video.clip.random_clips import RandomClips
from image2video.clip.sampling import PADDINGS
from image2video.errors import Image2VideoError, InputError, InputTypeError
from image2video.experiments.genotypes import scaled
from image2video.integrations.timm_backbones import build
from image2video.report.search import chain_in_words
from image2video.report.table import genotype_text
from image2video.search import SearchSpace
from image2video.search.rank.candidates import frames_key
from image2video.wrap.video_wrap import VideoWrap

TEXT = "translate_x(1 cell) > rotate(10) > translate_y(-2 cells) > translate_x(0.1)"
SET = "identity | translate_x(1 cell) | flip_x > translate_y(-2 cells)"
IMAGE, MAP = (48, 64), (6, 8)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("translate_x(1 cell)", "translate_x(1 cell)"),
        ("translate_x( +1.0  cells )", "translate_x(1 cell)"),
        ("translate_y(-1 cells)", "translate_y(-1 cell)"),
        ("translate_y(-2 cell)", "translate_y(-2 cells)"),
        ("translate_x(.5\tcells)", "translate_x(0.5 cells)"),
        ("translate_x(0 cells) > rotate(5)", "rotate(5)"),
        (TEXT, TEXT),
        (SET, SET),
    ],
)
def test_texts(text: str, printed: str) -> None:
    assert str(as_clip(text)) == printed
    assert as_clip(printed) == as_clip(text)


@pytest.mark.parametrize(
    ("text", "message", "caret"),
    [
        ("rotate(1 cell)", "rotate has no magnitude in cells, which count shifts .translate_x, translate_y.", 7),
        ("flip_x(1 cell)", "flip_x has no magnitude in cells", 7),
        ("shear_x(2 cells)", "shear_x has no magnitude in cells.*-80 … 80 degrees", 8),
        ("translate_x(1 px)", r"decimal number, or a number of cells, as in 'translate_x\(1 cell\)', got '1 px'", 12),
        ("translate_x(1cell)", "got '1cell'", 12),
        ("translate_x(1 Cells)", "got '1 Cells'", 12),
        ("translate_x(cell)", "got 'cell'", 12),
        ("translate_x(1 cell 2)", "got '1 cell 2'", 12),
        ("translate_x(1e999 cells)", "must be finite, got inf", 12),
        ("rotate(1 px)", "must be one finite decimal number, got '1 px'", 7),
        ("identity | translate_y(1 row)", "got '1 row'", 23),
    ],
)
def test_wrong_texts_name_their_place(text: str, message: str, caret: int) -> None:
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        as_clip(text)
    assert f"at position {caret} of" in str(caught.value)


def test_a_unit_is_part_of_a_transform() -> None:
    cell, fraction = Transform("translate_x", 1, "cell"), Transform("translate_x", 1)
    assert cell != fraction
    assert len({cell, fraction, Transform("translate_x", 1.0, "cell")}) == 2
    assert Genotype((cell,)) != Genotype((fraction,))
    assert pickle.loads(pickle.dumps(cell)) == cell
    assert Transform("translate_x", -0.0, "cell").is_identity
    for unit in ("pixel", "cells", "Cell", 1, None):
        with pytest.raises(InputError, match=r"unit of a magnitude must be '' .* or 'cell', got"):
            Transform("translate_x", 1, unit)
    with pytest.raises(InputError, match="rotate has no magnitude in cells"):
        Transform("rotate", 1, "cell")
    with pytest.raises(InputTypeError, match="must be a number, got '1'"):
        Transform("translate_x", "1", "cell")


def test_pairs_would_lose_the_unit() -> None:
    g = Genotype.parse(TEXT)
    assert g.has_cells
    assert g.items[0] == ("translate_x", 1.0, "cell")
    assert Genotype.of_items(g.items) == g
    with pytest.raises(InputError, match=r"translate_x\(1 cell\), and pairs of op and magnitude have no units"):
        _ = g.pairs
    assert g.resolved((10, 8)).pairs[0] == ("translate_x", 0.125)
    assert not Genotype.parse("translate_x(0.1)").has_cells


def test_files_with_cells_have_a_version_of_their_own() -> None:
    g = Genotype.parse(TEXT).with_provenance({"seed": 1})
    record = json.loads(g.to_json())
    assert record["schema_version"] == CELL_VERSION == 3
    assert record["chain"][0] == {"op": "translate_x", "magnitude": 1.0, "unit": "cell"}
    assert record["chain"][1] == {"op": "rotate", "magnitude": 10.0}
    again = Genotype.from_json(g.to_json())
    assert (again, again.provenance) == (g, g.provenance)
    frames = FrameSet.parse(SET)
    assert json.loads(frames.to_json())["schema_version"] == CELL_VERSION
    assert FrameSet.from_json(frames.to_json()) == frames == clip_from_json(frames.to_json())
    assert clip_from_json(g.to_json()) == g
    # What holds no cells is what earlier versions read.
    assert json.loads(Genotype.parse("translate_x(0.1)").to_json())["schema_version"] == 1
    assert json.loads(FrameSet.parse("identity | flip_x").to_json())["schema_version"] == 2


def test_wrong_files_name_their_place() -> None:
    chain = [{"op": "translate_x", "magnitude": 1, "unit": "cell"}]
    cases = [
        ({"schema_version": 1, "chain": chain}, r"chain\[0\] has the unknown key 'unit'"),
        ({"schema_version": 2, "frames": [chain]}, r"frames\[0\]\[0\] has the unknown key 'unit'"),
        ({"schema_version": 3, "chain": [{**chain[0], "unit": ""}]}, r"chain\[0\]\.unit must be 'cell', got ''"),
        ({"schema_version": 3, "chain": [{**chain[0], "unit": ["cell"]}]}, r"chain\[0\]\.unit must be 'cell', got \["),
        ({"schema_version": 3, "frames": [[{**chain[0], "op": "rotate"}]]}, r"frames\[0\]\[0\]\.magnitude: rotate has"),
        ({"schema_version": 3, "chain": chain, "frames": [chain]}, "unknown key 'chain'"),
        ({"schema_version": 3}, "needs the key 'chain'"),
        ({"schema_version": 4, "chain": chain}, "got one with places of a network"),
        ({"schema_version": 5, "chain": chain}, "must be 1 … 4 for this image2video, got 5; a newer image2video"),
    ]
    for value, message in cases:
        with pytest.raises(Image2VideoError, match=message):
            clip_from_json(json.dumps(value))


def test_resolved_for_a_map() -> None:
    g = Genotype.parse(TEXT).with_provenance({"seed": 1})
    resolved = g.resolved((10, 8))
    assert str(resolved) == "translate_x(0.125) > rotate(10) > translate_y(-0.2) > translate_x(0.1)"
    assert resolved.provenance == g.provenance
    assert resolved.resolved((3, 3)) is resolved
    assert str(FrameSet.parse(SET).resolved((10, 8))) == "identity | translate_x(0.125) | flip_x > translate_y(-0.2)"
    plain = FrameSet.parse("identity | flip_x")
    assert plain.resolved((10, 8)) is plain
    with pytest.raises(InputError, match=r"translate_y\(-2 cells\) is a shift by 2 of a map of 1×8 cells; .* -1 … 1"):
        g.resolved((1, 8))
    assert str(g.resolved((2, 1)).chain[2]) == "translate_y(-1)", "the end of the range counts"
    with pytest.raises(InputError, match="map_size must be"):
        plain.resolved((8,))


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(2, 40), st.integers(2, 40)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.floats(-40, 40),
)
def test_matrices_are_those_of_the_resolved_genotype(
    map_size: tuple[int, int], cell: tuple[int, int], across: float, down: float, angle: float
) -> None:
    """In pixels of the image, whatever the size of a cell; without a map a cell is a pixel."""
    g = Genotype(
        (Transform("translate_x", across, "cell"), Transform("rotate", angle), Transform("translate_y", down, "cell"))
    )
    height, width = map_size[0] * cell[0], map_size[1] * cell[1]
    steps = (0.0, 1.0, -1.0, 2.0)
    expected = g.resolved(map_size).step_matrices(steps, height, width)
    assert torch.allclose(g.step_matrices(steps, height, width, cells=map_size), expected, atol=1e-9)
    pixels = g.resolved((height, width)).step_matrices(steps, height, width)
    assert torch.allclose(g.step_matrices(steps, height, width), pixels, atol=1e-9)
    frames = FrameSet((g, Genotype.identity()))
    both = frames.step_matrices((0.0, 1.0), height, width, cells=map_size)
    assert torch.equal(both[0], g.step_matrices((1.0,), height, width, cells=map_size)[0])


def test_at_the_image_a_cell_is_a_pixel() -> None:
    images = noise(1, 2, 10, 14)
    clip = Image2Video("translate_x(3 cells)", T=3)(images)
    for t in range(3):
        assert (clip[0, t, :, :, 3 * t :] - images[0, :, :, : 14 - 3 * t]).abs().max() < 1e-5
    Image2Video("translate_x(14 cells)", T=1)(images)
    with pytest.raises(InputError, match=r"translate_x\(15 cells\) is a shift by 1\.07 of a map of 10×14 cells"):
        Image2Video("translate_x(15 cells)", T=1)(images)
    colours = Image2Video("translate_x(15 cells) > brightness(1.2)", T=2, mean=0, std=1)
    with pytest.raises(InputError, match="is a shift by"):
        colours(images)


def test_huge_shifts_are_refused_where_their_map_is_known() -> None:
    g = Genotype.parse(" > ".join(["translate_x(1e308 cells)", "scale(4)", "translate_x(1e308 cells)"]))
    with pytest.raises(InputError, match=r"is a shift by 1\.25e\+307 of a map"):
        g.resolved(MAP)
    assert g.whole_shift(2.0, *MAP) is None
    assert Genotype.parse("translate_x(1e308 cells)").whole_shift(2.0, *MAP) is None
    with pytest.raises(InputError, match="is singular"):
        Genotype.parse(" > ".join(["translate_x(1 cell)", *["scale(0.25)"] * 30]))


@pytest.mark.parametrize("padding", PADDINGS)
def test_in_a_network_a_cell_is_one_of_the_map(padding: str) -> None:
    """A shift by one cell is a slice at every size, and the way back undoes it."""
    for map_size in (MAP, (5, 7)):
        maps = noise(2, 3, *map_size)
        to_video = Image2Video(SET, padding=padding)
        frames = to_video.map_frames(maps, IMAGE).unflatten(0, (2, 3))
        assert torch.equal(frames[:, 1, :, :, 1:], maps[..., :-1])
        assert torch.equal(frames[:, 2, :, :-2], maps.flip(-1)[:, :, 2:])
        way = to_video.at_map(map_size)
        back = way.unwarp(frames.flatten(0, 1), IMAGE)
        mask = way.valid_mask(map_size, IMAGE)
        expected = Image2Video(to_video.genotype.resolved(map_size)).valid_mask(map_size, IMAGE)
        assert torch.allclose(mask, expected, atol=1e-6)
        assert ((back - maps[:, None]) * (mask > 0.5)).abs().max() < 1e-5
        assert (way.unwarp_frame(frames[:, 1], 1, IMAGE) - back[:, 1]).abs().max() < 1e-6
        mean = way.unwarped_mean(frames.flatten(0, 1), IMAGE)
        assert (mean - maps).abs().max() < 1e-5
        assert (way.nearest_frame(), way.keeps_image(), way.T) == (0, True, 3)
        valid = torch.ones(2, 1, *IMAGE)
        assert (way.unwarped_mean(frames.flatten(0, 1), IMAGE, valid=valid) - maps).abs().max() < 1e-5


def test_the_way_back_knows_the_map_where_the_clip_began() -> None:
    """Maps of another size than those of the site: a cell of the site is two of theirs."""
    maps = noise(1, 2, 12, 16)
    to_video = Image2Video("translate_x(1 cell)", T=2)
    frames = torch.stack([maps[0], maps[0].roll(2, -1)])
    back = to_video.at_map(MAP).unwarp(frames, IMAGE)
    assert (back[0, 1] - maps[0])[..., :-2].abs().max() < 1e-5
    assert Image2Video("translate_x(0.1)", T=2).at_map(MAP).__class__ is Image2Video
    with pytest.raises(InputError, match="map_size must be"):
        to_video.at_map((6,))


def test_too_few_cells_are_refused() -> None:
    to_video = Image2Video("translate_x(3 cells)", T=2)
    with pytest.raises(
        InputError, match=r"translate_x\(3 cells\) is a shift by 1\.5 of a map of 4×2 cells.*fewer cells"
    ):
        to_video.map_frames(noise(1, 2, 4, 2), IMAGE)


def test_shares_of_valid_cells() -> None:
    to_video = Image2Video("translate_x(1 cell) > translate_y(-2 cells)", T=3)
    assert to_video.valid_share((5, 4), IMAGE) == pytest.approx((1, 3 / 4 * 3 / 5, 2 / 4 * 1 / 5))
    assert to_video.valid_share((5, 4), IMAGE, T=1) == (1,)
    assert Image2Video("flip_x | scale(0.5)").valid_share((8, 8), (64, 64)) == pytest.approx((1, 0.25), abs=0.1)
    # The padding of the clip changes frames, not what they show.
    assert Image2Video("translate_x(1 cell)", T=2, padding="border").valid_share((5, 4), IMAGE) == (1, 0.75)


class _Clip(nn.Module):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.to_video = Image2Video(text, padding="reflection")

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        frames = self.to_video.map_frames(maps, IMAGE)
        return self.to_video.at_map(maps.shape[-2:]).unwarped_mean(frames.relu(), IMAGE)


def test_compiles_without_graph_breaks() -> None:
    torch._dynamo.reset()
    model = _Clip("translate_x(1 cell) | rotate(5) > translate_y(-1 cell) | identity")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for size in (MAP, (5, 7)):
        maps = noise(2, 3, *size)
        assert torch.allclose(compiled(maps), model(maps), atol=1e-5)


def test_exports_for_maps_of_any_size() -> None:
    model = _Clip("translate_x(1 cell) | rotate(5) > translate_y(-1 cell) | identity")
    maps = noise(2, 3, *MAP)
    height, width = torch.export.Dim("height", min=4), torch.export.Dim("width", min=4)
    program = torch.export.export(model, (maps,), dynamic_shapes={"maps": {2: height, 3: width}})
    larger = noise(2, 3, 7, 9)
    assert torch.allclose(program.module()(larger), model(larger), atol=1e-4)


def test_readers_of_magnitudes_keep_the_unit() -> None:
    assert str(scaled(Genotype.parse("translate_x(1 cell) > scale(1.1)"), 2)) == (
        f"translate_x(2 cells) > scale({1.1**2!r})"
    )
    assert str(scaled(FrameSet.parse("flip_x | translate_y(-2 cells)"), 0.5)) == "flip_x | translate_y(-1 cell)"
    words = chain_in_words("translate_x(1 cell) > translate_y(-2 cells) > translate_x(0.1)")
    assert words == (
        "from step to step translate_x by 1 cell, then translate_y by −2 cells, then translate_x by 0.1 of the width"
    )
    assert genotype_text("translate_x(0.3333333333 cells) > rotate(5)") == "translate_x(0.3333 cells) > rotate(5)"
    assert dataclasses.replace(Transform("translate_x", 1, "cell"), magnitude=2.0).unit == "cell"


def test_chains_that_agree_at_one_size_are_told_apart() -> None:
    keys = {frames_key(Genotype.parse(text)) for text in ("translate_x(1 cell)", f"translate_x({1 / 130!r})")}
    assert len(keys) == 2
    texts = ("translate_x(2 cells)", "translate_x(1 cell) > translate_x(1 cell)")
    one, split = (frames_key(Genotype.parse(text)) for text in texts)
    assert one == split


def test_candidates_of_searches_and_of_random_chains_are_fractions() -> None:
    with pytest.raises(InputError, match=r"search spaces \('mine'\) are made of .* got 'translate_x\(1 cell\)'"):
        SearchSpace("mine", ("translate_x(1 cell)", "identity"))
    with pytest.raises(InputError, match="random chains are made of candidates that move maps of every size alike"):
        RandomClips(("rotate(10)", "translate_x(1 cell)"))


def test_a_wrapper_saves_and_loads_them() -> None:
    torch.manual_seed(0)
    model, twin = (
        VideoWrap(build("cifar_resnet8", num_classes=3), genotype=text, T=2, fusion="none")
        for text in ("translate_x(2 cells)", "translate_x(2 cells)")
    )
    twin.load_state_dict(model.state_dict())
    images = noise(1, 3, 32, 32)
    assert torch.equal(model.eval()(images), twin.eval()(images))
    fraction = VideoWrap(build("cifar_resnet8", num_classes=3), genotype="translate_x(0.0625)", T=2, fusion="none")
    with pytest.warns(
        UserWarning, match=r"genotype='translate_x\(0\.0625\)', the checkpoint has 'translate_x\(2 cells\)'"
    ):
        fraction.load_state_dict(model.state_dict())
    assert torch.allclose(fraction.eval()(images), model(images), atol=1e-5)
