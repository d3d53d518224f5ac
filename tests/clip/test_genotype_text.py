"""The text form: numbers, limits, and every text that is refused with its position."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from image2video.clip.genotype import Genotype, Transform
from image2video.clip.genotype_text import MAX_CHAIN, MAX_TEXT
from image2video.errors import Image2VideoError, InputError

TEXT = "translate_x(0.06) > rotate(10) > scale(1.1)"


@settings(deadline=None)
@given(st.text())
@example("(" * 5000)
@example("rotate(10) > " * 700)
@example("rotate(" + "9" * 9000 + ")")
@example("translate_x(١)")
def test_any_text_parses_or_is_refused(text: str) -> None:
    message = ""
    try:
        Genotype.parse(text)
    except Image2VideoError as error:
        message = str(error)
    assert len(message) < 1000


def test_numbers_are_printed_in_their_shortest_form() -> None:
    assert str(Genotype.parse("rotate( 10.0 )>translate_x(+6e-2)>scale(.5) > translate_y(1e-7)")) == (
        "rotate(10) > translate_x(0.06) > scale(0.5) > translate_y(1e-07)"
    )
    assert repr(Genotype.parse(TEXT)) == f"Genotype.parse('{TEXT}')"


@pytest.mark.parametrize(
    ("text", "message", "caret"),
    [
        ("", "expected an op.*but the text ends", 0),
        ("   ", "the text ends", 3),
        ("translate_x(0.06) > rotat(10)", "unknown op 'rotat'; did you mean 'rotate'", 20),
        ("rotate(10) > ", "the text ends", 13),
        ("rotate(10) rotate(5)", r"expected '>' between two ops, but found 'r'", 11),
        ("rotate(10))", "expected '>'", 10),
        ("rotate", r"expected '\(' with the magnitude of rotate, as in 'rotate\(10\)', but the text ends", 6),
        ("rotate[10]", r"expected '\('.*found '\['", 6),
        ("rotate(10", r"expected '\)' after the magnitude of rotate, but the text ends", 9),
        ("rotate(10, 5)", r"expected '\)'.*found ','", 9),
        ("rotate()", "must be one finite decimal number, got ''", 7),
        ("rotate(nan)", "finite decimal number, got 'nan'", 7),
        ("rotate(-inf)", "finite decimal number, got '-inf'", 7),
        ("rotate(1e999)", "must be finite, got inf", 7),
        ("rotate(1_0)", "finite decimal number", 7),
        ("rotate(0x10)", "finite decimal number", 7),
        ("rotate(True)", "finite decimal number", 7),
        ("rotate(--1)", "finite decimal number", 7),
        ("rotate( 200 )", "must lie in -180 … 180 degrees, got 200", 8),
        ("shear_x(80)", "ends excluded", 8),
        ("identity(1)", "must lie in 0 … 0", 9),
        ("> rotate(1)", "expected an op.*found '>'", 0),
        ("rotate(1) > (2)", r"found '\('", 12),
        ("__import__('os')", "unknown op '__import__'", 0),
    ],
)
def test_bad_text_is_refused_with_its_position(text: str, message: str, caret: int) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Genotype.parse(text)
    assert f"at position {caret} " in str(caught.value)
    shown, pointer = str(caught.value).split("\n")[-2:]
    assert shown == "  " + text
    assert pointer == " " * (caret + 2) + "^"


def test_the_caret_of_a_long_text_points_at_the_place() -> None:
    text = "rotate(10) > " * 30 + "rotatt(10)" + " > rotate(10)" * 20
    with pytest.raises(InputError) as caught:
        Genotype.parse(text)
    shown, pointer = str(caught.value).split("\n")[-2:]
    assert len(shown) < 130
    assert shown[pointer.index("^") :].startswith("rotatt")


def test_long_texts_and_chains_are_refused() -> None:
    with pytest.raises(InputError, match=rf"10000000 characters; at most {MAX_TEXT}"):
        Genotype.parse("x" * 10_000_000)
    assert len(Genotype.parse(" > ".join(["rotate(1)"] * MAX_CHAIN)).chain) == MAX_CHAIN
    with pytest.raises(InputError, match=f"at most {MAX_CHAIN} ops"):
        Genotype.parse(" > ".join(["identity"] * (MAX_CHAIN + 1)))
    with pytest.raises(InputError, match=f"{MAX_CHAIN + 1} transforms; at most {MAX_CHAIN}"):
        Genotype((Transform("rotate", 1),) * (MAX_CHAIN + 1))
