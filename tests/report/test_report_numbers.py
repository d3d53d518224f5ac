"""Intervals, the table and the sentence: the numbers that a reader takes away."""

from __future__ import annotations

import io
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_cases import arm, result_record
from rich.console import Console

from image2video.errors import InputError, MissingError
from image2video.report import (
    ComparisonResult,
    arm_rows,
    mean_interval,
    paired_difference,
    render_table,
    report_html,
    verdicts,
)
from image2video.report.stats import t_quantile
from image2video.report.table import count_text, genotype_text, html_table
from image2video.report.verdict import html_verdicts, signed, verdict_sentence

TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 9: 2.2622, 10: 2.2281, 29: 2.0452, 30: 2.0423}


@pytest.mark.parametrize(("dof", "quantile"), TABLE.items())
def test_t_quantile_is_the_tables(dof: int, quantile: float) -> None:
    assert t_quantile(dof) == pytest.approx(quantile, abs=6e-5)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=8))
def test_interval_against_the_statistics_module(values: list[float]) -> None:
    interval = mean_interval(values)
    half = t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    assert interval.mean == pytest.approx(statistics.fmean(values))
    assert interval.half_width == pytest.approx(half, abs=1e-9)
    assert (interval.low, interval.high) == (interval.mean - interval.half_width, interval.mean + interval.half_width)


def test_one_value_has_no_interval() -> None:
    interval = mean_interval([97.0])
    assert math.isnan(interval.half_width)
    assert not interval.decided


def test_differences_are_paired_by_seed() -> None:
    # Seeds differ by 10 points, the arms by 1 on each: paired, the spread between the seeds cancels.
    a, b = {0: 71.0, 1: 81.2, 2: 90.9, 7: 0.0}, {0: 70.0, 1: 80.0, 2: 90.0, 9: 99.0}
    difference = paired_difference(a, b)
    assert difference is not None
    assert difference.n == 3
    assert difference.mean == pytest.approx((1.0 + 1.2 + 0.9) / 3)
    assert difference.half_width < 0.5
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_table_numbers() -> None:
    rows = {row.name: row for row in arm_rows(ComparisonResult.from_dict(result_record()))}
    assert list(rows) == ["bare", "bare_long", "searched", "tuned"]
    assert rows["searched"].cells() == (
        "searched + GSF",
        "translate_x(0.06) > rotate(10)",
        "94.5 ± 1.4",
        "3",
        "2.35 M",
        "0.050",
        "78.0 k",
        "9.00 k",
    )
    assert rows["tuned"].frames == 3000 + 9000  # what its start has seen counts


def test_rich_table_fits_80_columns() -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(render_table(ComparisonResult.from_dict(result_record())))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    for piece in ("94.5 ± 1.4", "bare, 3 × the epochs", "(n = 3)", "2.35 M", "translate_x(0.06)"):
        assert piece in text


def test_unfinished_arms_are_left_out_and_unequal_seeds_are_told() -> None:
    arms = [arm("bare", [90.0, 91.0]), arm("none", []), arm("searched", [92.0])]
    result = ComparisonResult.from_dict(result_record(arms))
    assert [(row.name, row.accuracy.n) for row in arm_rows(result)] == [("bare", 2), ("searched", 1)]
    console = Console(width=80, file=io.StringIO())
    console.print(render_table(result))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "92.0 ±" not in text
    assert "n = 2, 1" in text


def test_html_table_escapes_and_names_every_genotype() -> None:
    record = result_record([arm("random", [90.0, 91.0], "random <b>")])
    for run, genotype in zip(record["arms"][0]["runs"], ("rotate(10)", "scale(1.1) > rotate(10)"), strict=True):
        run["genotype"] = genotype
    html = html_table(ComparisonResult.from_dict(record))
    assert "random &lt;b&gt;" in html
    assert "rotate(10); scale(1.1) &gt; rotate(10)" in html


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (999, "999"),
        (999.7, "1.00 k"),
        (78_042, "78.0 k"),
        (2.35e6, "2.35 M"),
        (4.11e9, "4.11 G"),
        (350e3, "350 k"),
    ],
)
def test_counts(value: float, text: str) -> None:
    assert count_text(value) == text


def contrast_of(a: list[float], b: list[float]) -> ComparisonResult:
    contrasts = [{"name": "c", "lead": "at equal compute", "a": "a", "b": "b", "headline": True}]
    return ComparisonResult.from_dict(result_record([arm("a", a, "wrapped"), arm("b", b, "bare")], contrasts))


@pytest.mark.parametrize(
    ("a", "b", "outcome", "words"),
    [
        ([95.0, 96.1, 94.2], [93.0, 94.0, 92.1], "ahead", "“wrapped” is ahead of “bare” by 2.1 ± 0.1 points (n = 3)."),
        ([93.0, 94.0, 92.1], [95.0, 96.1, 94.2], "behind", "“wrapped” is behind “bare” by 2.1 ± 0.1 points (n = 3)."),
        ([95.0, 92.0, 94.0], [93.0, 94.0, 92.9], "undecided", "is not decided at n = 3 (+0.4 ± 5.2 points)."),
        ([95.0], [93.0], "undecided", "in points: at equal compute +2.0 (wrapped, bare)."),
        ([95.0, 96.0], [93.0, 94.0], "undecided", "+2.0 points in each of 2 seeds, which gives no interval."),
        ([95.0, 96.0], [95.0, 96.0], "undecided", "not decided at n = 2 (0.00 ± 0.00 points)."),
    ],
)
def test_sentence(a: list[float], b: list[float], outcome: str, words: str) -> None:
    result = contrast_of(a, b)
    assert [verdict.outcome for verdict in verdicts(result)] == [outcome]
    sentence = verdict_sentence(result)
    assert sentence.endswith(words)
    for side in ("ahead", "behind"):  # what is undecided claims no side
        assert (side in sentence) == (outcome == side)


def test_arms_of_one_network_have_one_time_and_its_range() -> None:
    arms = [arm("bare", [90.0, 91.0]), arm("bare_long", [92.0]), arm("moving", [93.0], genotype="rotate(10)")]
    for one, ms in zip((arms[0]["runs"][0], arms[0]["runs"][1], arms[1]["runs"][0]), (4.74, 0.069, 0.07), strict=True):
        one["ms"] = ms
    arms[2]["runs"][0]["ms"] = 0.2
    result = ComparisonResult.from_dict(result_record(arms))
    assert [(row.ms, row.ms_range) for row in arm_rows(result)] == [
        *(2 * [(0.07, (0.069, 4.74))]),
        (0.2, (0.2, 0.2)),
    ]
    assert html_table(result).count("0.070 (0.069 … 4.740)") == 2


def test_sentence_holds_headline_contrasts_only_and_survives_missing_arms() -> None:
    sentence = verdict_sentence(ComparisonResult.from_dict(result_record()))
    assert "at equal compute" in sentence
    assert "without training" not in sentence
    assert sentence.count(".") == sentence.count("0.") + sentence.count("1.") + sentence.count("2.") + 1
    assert verdict_sentence(ComparisonResult.from_dict(result_record([arm("bare", [90.0])]))).startswith(
        "No comparison"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "search"}, r"kind 'search'; a report needs one of kind 'comparison'"),
        ({"schema_version": 2}, r"schema_version 2; this version of image2video reads 1"),
        ({"arms": [{"name": "bare"}]}, r"result\.arms\[0\] has no 'title'"),
        ({"frames": "many"}, r"result\.frames must be of type int, got 'many'"),
        ({"search": 3}, r"result\.search must be an object with the keys of SearchRecord, got a int"),
    ],
)
def test_a_wrong_record_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ComparisonResult.from_dict(result_record() | change)


def test_load(tmp_path) -> None:
    with pytest.raises(MissingError, match=r"result\.json"):
        ComparisonResult.load(tmp_path / "result.json")
    (tmp_path / "result.json").write_text("[1]")
    with pytest.raises(InputError, match="must hold a JSON object, got a list"):
        ComparisonResult.load(tmp_path / "result.json")


@pytest.mark.parametrize(
    ("value", "text"), [(1.25, "+1.2"), (-0.7, "−0.7"), (0.04, "0.0"), (-0.04, "0.0"), (0.0, "0.0"), (10.0, "+10.0")]
)
def test_signed(value: float, text: str) -> None:
    assert signed(value) == text


def test_genotypes_are_shortened_for_reading() -> None:
    assert genotype_text("scale(0.9523809523809523) > rotate(5)") == "scale(0.9524) > rotate(5)"


def test_ranking_sentences_keep_their_figures(tmp_path) -> None:
    sentence = "scale(0.9523809523809523) is not decidedly better: +0.00 ± 0.24 points"
    record = result_record() | {"fixed_weights": {"bare_long-seed0": {"best": "scale(1.02)", "sentence": sentence}}}
    html = report_html(ComparisonResult.from_dict(record))
    assert "scale(0.9524) is not decidedly better: +0.00 ± 0.24 points" in html


def test_differences_without_spread_show_no_interval() -> None:
    html = html_verdicts(contrast_of([95.0, 96.0], [93.0, 94.0]))
    assert "no spread" in html
    assert "undecided" in html
    assert "−0.08 … +0.08" in html_verdicts(contrast_of([95.0, 96.0], [95.006, 95.994]))
