"""The report of a search: what it says, and that it claims nothing that is not decided."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
from quick_figures import quick_figures
from report_cases import arm, check_stands_alone, overlapping, result_record, search_record

from image2video.report import (
    ComparisonResult,
    Decision,
    RankedChain,
    SearchRecord,
    SearchReport,
    cell_figure,
    entropy_figure,
    mean_interval,
    paired_difference,
    pooled_difference,
    random_sentence,
    scores_figure,
    search_report_html,
    tau_figure,
    write_search_report,
)
from image2video.report.search import chain_in_words, decided_sentence
from image2video.report.stats import t_quantile
from image2video.report.style import short_labels
from image2video.report.verdict import verdict_sentence, verdicts

GENOTYPE = "translate_x(0.06) > rotate(10)"
PAIR = "shear_x(5) > shear_y(5)"

undrawn = pytest.fixture(quick_figures)


def decision(**changes) -> Decision:
    plain = {"where": "in → 1", "kept": "rotate(10)", "second": "identity", "gap": 1.5, "error": 0.5, "decided": True}
    return Decision(**{**plain, "images": 500, "on_path": True, **changes})


def comparison(draws: tuple[list[float], ...] = ([90.0, 91.0, 92.5], [91.0, 91.5, 93.0])) -> ComparisonResult:
    arms = [
        arm("found", [94.0, 95.5, 96.0], title="found, GSF", genotype=GENOTYPE),
        arm("bare_long", [93.0, 94.0, 96.5]),
    ]
    for number, values in enumerate(draws, start=1):
        arms.append(arm(f"random{number}", values, group="random clips", genotype="scale(1.1)") | {"pool": "random"})
    contrasts = [
        {"name": "equal_compute", "lead": "at equal compute", "a": "found", "b": "bare_long", "headline": True},
        {"name": "random", "lead": "a search instead of a draw", "a": "found", "b": "random", "headline": True},
    ]
    return ComparisonResult.from_dict(result_record(arms, contrasts))


def report(**changes) -> SearchReport:
    search = SearchRecord.from_dict(search_record())
    plain = SearchReport(
        title="digits, cifar_resnet8: a search by perturbation",
        genotype=GENOTYPE,
        selection="perturbation",
        sentence="The discretised cell has 93 %.",
        search=search,
        entropy=(1.6, 1.5, 1.4, 1.3, 1.2),
        decisions=(decision(), decision(where="into 3", gap=0.1, decided=False, on_path=False)),
        cost={"search: time": "21 s"},
        facts={"seed": 0, "weights": None},
    )
    return dataclasses.replace(plain, **changes)


def test_the_page_holds_every_part_and_needs_nothing_else(tmp_path) -> None:
    path = write_search_report(tmp_path / "report.html", report(comparison=comparison()))
    html = path.read_text()
    for piece in ("How decided is it?", "Is it better than random?", "τ over time", "Entropy of τ", "What it cost"):
        assert f"<h2>{piece}</h2>" in html
    assert html.count("<figure>") == 4  # cell, τ, scores, entropy
    check_stands_alone(html)
    assert html == search_report_html(report(comparison=comparison()))


def test_cells_at_several_places_are_drawn_one_after_the_other() -> None:
    cell = SearchRecord.from_dict(search_record())
    still = dataclasses.replace(cell, genotype="identity")
    deep = f"image: {GENOTYPE} | layer2: identity"
    html = search_report_html(report(search=None, places=(("image", cell), ("layer2", still)), genotype=deep))
    for place in ("image", "layer2"):
        for piece in ("The cell", "τ over time", "Perturbation scores"):
            assert f"<h2>{piece} at {place}</h2>" in html
    assert html.index("The cell at image") < html.index("The cell at layer2")
    assert "Chosen chain at layer2: <code>identity</code>" in html
    assert html.count("<figure>") == 7  # three of each place, and one entropy of all
    check_stands_alone(html)


def test_what_a_step_does_in_words() -> None:
    assert chain_in_words("identity") == "every frame is the image itself"
    words = chain_in_words("rotate(-10) > scale(1.1) > posterize(2)")
    assert words == "from step to step rotate by −10 degrees, then scale by a factor of 1.1, then posterize by 2 bits"


@pytest.mark.usefixtures("undrawn")
def test_decidedness_is_counted_on_the_path_and_in_all() -> None:
    text = decided_sentence(report())
    assert "1 of 2 decisions of the search are decided" in text
    assert "1 of 1 on the genotype's path" in text
    assert "could turn" not in text
    text = decided_sentence(report(decisions=(decision(decided=False), decision(gap=None, error=None, by="tau"))))
    assert "1 were read from τ" in text
    assert "could turn" in text
    html = search_report_html(report(decisions=(decision(gap=None, error=None, second=None, by="tau", decided=False),)))
    assert "read from τ</td>" in html
    assert "nan" not in html.split("<h2>The search")[0]


@pytest.mark.usefixtures("undrawn")
def test_gaps_of_the_loss_are_in_nats() -> None:
    html = search_report_html(report(unit="nats", decisions=(decision(gap=0.0123, error=0.004),)))
    assert "gap, nats" in html
    assert "+0.0123 ± 0.0040" in html
    assert "+1.50 ± 0.50" in search_report_html(report())


@pytest.mark.usefixtures("undrawn")
def test_a_ranking_shows_the_best_the_chosen_and_the_identity() -> None:
    entries = [RankedChain(f"rotate({n})", 500, 90 - n / 10, 1.0 - n / 10, 0.4, 0.3) for n in range(1, 31)]
    entries.append(RankedChain("identity", 500, 80.0, 0.0, 0.0, 0.5))
    html = search_report_html(
        report(search=None, entropy=(), decisions=(), ranking=tuple(entries), finalists=8, genotype="rotate(25)")
    )
    assert "Ranked chains" in html
    assert "rotate(25) (chosen)" in html
    assert "the reference" in html
    assert "22 of 31 chains" in html  # 20, the chosen one, the identity
    # Two errors are 0.8 points: rotate(1) gains more, rotate(19), rotate(20) and rotate(25) lose more.
    assert [html.count(f">{reading}</td>") for reading in ("better", "worse", "not decided")] == [1, 3, 17]


@pytest.mark.parametrize(
    ("random", "text"),
    [
        (([90.0, 91.0, 91.5], [90.5, 91.5, 92.0]), "Yes: +4.08 ±"),
        (([94.0, 95.0, 97.0], [95.0, 94.0, 96.0]), "Not decided: 0.00 ±"),
        (([99.0, 99.7, 99.9],), "No, it is worse: −4.37 ±"),
    ],
)
def test_the_answer_in_one_sentence(random, text) -> None:
    sentence = random_sentence(comparison(random))
    assert sentence.startswith(f"Is it better than a random clip? {text}")
    clips = "a random clip," if len(random) == 1 else "the mean of 2 random clips"
    assert clips in sentence
    assert sentence.endswith("(95 % interval, 3 seeds).")


def test_without_random_clips_nothing_is_claimed() -> None:
    for result in (None, ComparisonResult.from_dict(result_record())):
        assert "That was not measured" in random_sentence(result)
    one = comparison()
    arms = tuple(dataclasses.replace(a, runs=a.runs[:1]) for a in one.arms)
    assert "One seed does not tell" in random_sentence(dataclasses.replace(one, arms=arms))


def test_a_pool_is_compared_as_one_with_the_spread_of_seeds_and_draws() -> None:
    found = {0: 3.0, 1: 4.0, 2: 5.0}
    pool = [{0: 2.0, 1: 3.0, 2: 4.1}, {0: 0.0, 1: 1.0, 2: 2.1}]
    interval = pooled_difference(found, pool)
    over_draws = mean_interval([(1 + 1 + 0.9) / 3, (3 + 3 + 2.9) / 3])
    over_seeds = mean_interval([2.0, 2.0, 1.9])
    assert over_draws.half_width > over_seeds.half_width
    assert interval.mean == pytest.approx(over_seeds.mean)
    # The draws (1 degree of freedom) vary much more than the seeds (2), so theirs is the interval, and a little more.
    variances = (1.0**2, (0.1**2 / 3) / 3)
    assert over_draws.half_width == pytest.approx(t_quantile(1))
    assert over_seeds.half_width == pytest.approx(t_quantile(2) * math.sqrt(variances[1]))
    assert interval.half_width == pytest.approx(t_quantile(1) * math.sqrt(sum(variances)))
    assert interval.n == 3
    # Draws vary by nearly nothing: the degrees of freedom are (nearly) those of the seeds.
    alike = [{0: 2.0, 1: 1.0, 2: 5.0}, {0: 2.1, 1: 1.1, 2: 5.1}]
    by_seed = mean_interval([0.95, 2.95, -0.05])
    both = math.hypot(by_seed.half_width / t_quantile(2), 0.05)
    assert pooled_difference(found, alike).half_width == pytest.approx(t_quantile(2) * both)
    twice = pooled_difference(found, [pool[0], pool[0]])
    assert twice.half_width == pytest.approx(paired_difference(found, pool[0]).half_width)
    assert pooled_difference(found, pool[:1]) == paired_difference(found, pool[0])
    assert math.isnan(pooled_difference({0: 1.0}, pool).half_width)
    assert pooled_difference({7: 1.0}, pool) is None
    assert pooled_difference(found, []) is None


def test_the_interval_of_a_pool_covers_what_it_says() -> None:
    # As many seeds as draws, both varying alike: the wider one of two intervals would cover 88 % only.
    generator, hits, trials, count = random.Random(0), 0, 400, 12
    for _ in range(trials):
        found = {seed: generator.gauss(0, 1) for seed in range(count)}
        pool = [dict.fromkeys(range(count), generator.gauss(0, 1)) for _ in range(count)]
        interval = pooled_difference(found, pool)
        hits += interval.low < 0 < interval.high
    assert 0.93 < hits / trials < 0.985


def test_a_pool_in_verdicts() -> None:
    result = comparison()
    (_, verdict) = verdicts(result)
    assert (verdict.draws, verdict.n, verdict.b) == (2, "3 × 2", "random clips, 2 of them")
    assert "n = 3 × 2" in verdict_sentence(result)
    assert [a.name for a in result.members("random")] == ["random1", "random2"]
    assert result.members("nothing") == ()


def test_labels_are_short_only_where_they_stay_apart() -> None:
    assert short_labels([PAIR, "rotate(10)", "identity"]) == ["shear_x/y", "rotate", "identity"]
    assert short_labels(["rotate(5)", "rotate(-5)", "scale(1.1)"]) == ["rotate(5)", "rotate(-5)", "scale"]
    assert short_labels(["rotate(5) > scale(1.1)"]) == ["rotate > scale"]


def many_ops() -> SearchRecord:
    """Two inputs, 14 edges and 13 candidates, with names of full length."""
    ops = [PAIR, "translate_x(0.06) > translate_y(0.06)", *(f"op_{n}(0.{n})" for n in range(10)), "identity"]
    edges = [[i, j] for j in range(2, 6) for i in range(j)]
    rows = [[(5 * e + 3 * o) % 7 / 5 for o in range(13)] for e in range(14)]
    weights = [
        [[(1 + ((e + o) % 3) * epoch) / 13 / (1 + epoch) for o in range(13)] for e in range(14)] for epoch in (0, 1)
    ]
    chosen = [max(range(13), key=row.__getitem__) for row in rows]
    more = {"weights": weights, "drops": rows, "chosen": chosen, "path": [0, 4], "epochs": [0, 1]}
    return SearchRecord.from_dict(search_record() | more | {"ops": ops, "edges": edges, "inputs": 2})


def test_no_label_of_a_large_cell_covers_another() -> None:
    figure = cell_figure(many_ops())
    assert not overlapping(figure)
    assert len(figure.axes[0].texts) == 2 * 14 + 6 + 1


def test_scores_of_many_ops_are_turned_and_fit_the_page() -> None:
    figure = scores_figure(many_ops())
    assert not overlapping(figure)
    axis = figure.axes[0]
    assert axis.get_yticklabels()[0].get_text() == PAIR
    assert len(axis.get_xticklabels()) == 14
    assert figure.get_figwidth() < 12


@pytest.mark.usefixtures("undrawn")
def test_scores_are_named_by_their_metric() -> None:
    search = dataclasses.replace(SearchRecord.from_dict(search_record()), metric="mIoU")
    assert [axis.get_ylabel() for axis in scores_figure(search).axes][-1] == "held-out mIoU lost (points)"
    html = search_report_html(report(search=search, metric="mIoU"))
    assert "Points of held-out mIoU that masking" in html
    assert "accuracy" not in html.split("<h2>Perturbation scores</h2>")[1].split("<h2>")[0].split('alt="')[1]


def test_the_legend_of_many_ops_stays_inside_the_figure() -> None:
    figure = tau_figure(many_ops())
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent(figure.canvas.get_renderer())
    assert len(legend.get_texts()) == 13
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert box.y0 >= 0


def test_entropy_is_drawn_against_that_of_equal_weights() -> None:
    axis = entropy_figure((0, 1, 2), (1.6, 1.2, 0.9), 5).axes[0]
    equal, line = axis.lines
    assert equal.get_ydata()[0] == pytest.approx(math.log(5))
    assert list(line.get_ydata()) == [1.6, 1.2, 0.9]
    assert axis.get_ylim()[0] == 0
