"""A table as Markdown, HTML, JSON and figures: what stands where, what failed, and what the differences say."""

import json
import re

import pytest
from reproduce_cases import TABLE, TINY, pretended, rows, table, worked

from image2video.errors import InputError
from image2video.report import ComparisonResult
from image2video.report.arms import arms_figure
from image2video.reproduce import load_experiment
from image2video.reproduce.outcome import outcomes
from image2video.reproduce.render import COLUMNS, html, markdown, overview, sentences, write

__all__ = ["pretended"]  # a fixture


def found(path, out, **options):
    """The experiment and what came out of it."""
    _, book, runs = worked(path, out, **options)
    experiment = load_experiment(str(path))
    return experiment, outcomes(experiment, "smoke", runs, book)


def markdown_rows(text):
    """The cells of the table's lines, by arm."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines]


def test_the_columns_of_a_table(tmp_path, pretended):
    experiment, result = found(table(tmp_path), tmp_path / "out")
    header, rule, *lines = markdown_rows(markdown(experiment, "smoke", result))
    assert tuple(header) == COLUMNS
    assert rule[:3] == ["---", "---", "---:"]
    by_arm = {line[0]: dict(zip(COLUMNS, line, strict=True)) for line in lines}
    bare, averaged = by_arm["bare network"], by_arm["averaged at test time"]
    assert (bare["paper"], bare["ours"], bare["n"]) == ("90.00", "54.50 ± 6.35", "2")  # t of one degree is 12.706
    assert (bare["epochs"], bare["images seen"], bare["frames"]) == ("1", "45", "45")
    assert (bare["MACs / image"], bare["ms / image"], bare["peak MiB / image"]) == ("1.00 M", "0.5", "")
    assert (averaged["epochs"], averaged["frames"], averaged["paper"]) == ("2", "90", "")  # those of its weights
    assert averaged["MACs / image"] == "2.00 M"
    assert by_arm["translation, TSM"]["frames"] == "90"


def test_what_the_differences_say(tmp_path, pretended):
    experiment, (row,) = found(table(tmp_path), tmp_path / "out")
    (sentence,) = sentences(row)
    text = "At equal compute, “translation, TSM” against “bare network, T times the epochs” is not decided: −3.0 points"
    assert sentence.startswith(text)
    assert sentence in html(experiment, "smoke", [row])
    assert f"- {sentence}" in markdown(experiment, "smoke", [row])
    _, (row,) = found(table(tmp_path, rows=rows(seeds=1)), tmp_path / "other")
    assert "one seed (−3.0 points) has no interval" in sentences(row)[0]


def test_a_search_against_random_clips_says_what_its_interval_covers(tmp_path, pretended):
    fused = {"fusion": "gsf"}
    arms = [
        {"name": "bare", "title": "bare network"},
        {"name": "searched", "title": "searched clip", "genotype": "searched", **fused},
        *(
            {
                "name": f"r{n}",
                "title": f"random {n}",
                "genotype": f"random:{n}",
                **fused,
                "pool": "random",
                "group": "random clips",
            }
            for n in (1, 2)
        ),
    ]
    contrasts = [
        {"name": "search", "lead": "a search instead of a draw", "a": "searched", "b": "random"},
        {"name": "equal", "lead": "at equal epochs", "a": "searched", "b": "bare"},
    ]
    _, (row,) = found(table(tmp_path, arms=arms, contrasts=contrasts), tmp_path / "out")
    search, equal = sentences(row)
    assert search.startswith("A search instead of a draw, “searched clip”")
    assert search.endswith(
        "this holds for the one clip that one search found, since the interval covers trainings and random draws, and "
        "not the spread between searches."
    )
    assert "one search" not in equal


def test_failures_stand_in_the_table_and_below_it(tmp_path, pretended):
    pretended.failing = {"moving"}
    experiment, result = found(table(tmp_path), tmp_path / "out")
    text = markdown(experiment, "smoke", result)
    lines = {line[0]: line for line in markdown_rows(text)}
    assert lines["translation, TSM"][3:5] == ["failed", "0"]
    assert "Failed: translation, TSM, seed 1: RuntimeError: no luck with moving <b>& (reproduce_cases.py:" in text
    page = html(experiment, "smoke", result)
    assert "no luck with moving &lt;b&gt;&amp; (" in page
    assert "<b>&" not in page
    assert "No headline comparison has both of its arms finished." in page
    assert result[0].lines[3].errors[0].startswith("seed 0: RuntimeError")


def test_a_seed_that_failed_is_said_beside_the_others(tmp_path, pretended):
    path = table(tmp_path)
    _, book, runs = worked(path, tmp_path / "out")
    book.write(runs[-1], {"error": "RuntimeError: x", "environment": {}})
    experiment = load_experiment(str(path))
    text = markdown(experiment, "smoke", outcomes(experiment, "smoke", runs, book))
    assert {line[0]: line for line in markdown_rows(text)}["translation, TSM"][3:5] == ["56.00 (1 failed)", "1"]


def test_before_and_amid_the_runs(tmp_path, pretended):
    path = table(tmp_path)
    pretended.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        worked(path, tmp_path / "out")
    experiment, result = found(path, tmp_path / "out", max_minutes=1e-9)
    text = markdown(experiment, "smoke", result)
    assert [line[3] for line in markdown_rows(text)[2:]] == ["54.00", "not run", "not run", "not run"]
    assert "7 runs are missing." in text
    experiment, result = found(path, tmp_path / "nothing", max_minutes=1e-9)
    assert "Nothing is finished yet." in html(experiment, "smoke", result)
    assert not list(tmp_path.glob("nothing/*.png"))
    files = write(experiment, "smoke", result, tmp_path / "nothing")
    assert set(files) == {"md", "html", "json"}


def test_every_machine_is_named_once(tmp_path, pretended):
    path = table(tmp_path)
    _, book, runs = worked(path, tmp_path / "out")
    record = book.read(runs[0])
    told = {"image2video": "0.1.0", "torch": "2.11", "device": "cuda (a card)", "threads": 4}
    book.write(runs[0], record | {"environment": told})
    experiment = load_experiment(str(path))
    text = markdown(experiment, "smoke", outcomes(experiment, "smoke", runs, book))
    made = [line for line in text.splitlines() if line.startswith("Made with")]
    assert made[0] == "Made with image2video 0.1.0, torch 2.11, cuda (a card), threads: 4."
    assert len(made) == 2


def test_texts_cannot_break_the_table_or_the_page(tmp_path, pretended):
    arms = [{**TABLE["arms"][0], "title": "a | b\n<i>c</i>"}, *TABLE["arms"][1:]]
    experiment, result = found(table(tmp_path, arms=arms, notes="x < y & z"), tmp_path / "out")
    header, _, first, *_ = markdown_rows(markdown(experiment, "smoke", result))
    assert len(first) == len(header)
    assert first[0] == "a \\| b <i>c</i>"
    page = html(experiment, "smoke", result)
    assert "x &lt; y &amp; z" in page
    assert "<i>" not in page


def test_the_files_of_a_table(tmp_path, pretended):
    two = [*TABLE["rows"], {"name": "deeper", "scales": {"smoke": {**TINY, "model": "cifar_resnet14"}}}]
    experiment, result = found(table(tmp_path, rows=two, figure="depth"), tmp_path / "out")
    files = write(experiment, "smoke", result, tmp_path / "out")
    assert set(files) == {"md", "html", "json", "png", "png-2", "png-all"}
    record = json.loads(files["json"].read_text())
    assert [row["model"] for row in record["rows"]] == ["cifar_resnet8", "cifar_resnet14"]
    (bare, *_) = record["rows"][0]["arms"]
    assert bare["score"] == {"mean": 54.5, "half_width_95": pytest.approx(6.353, abs=1e-3), "n": 2}
    assert bare["by_seed"] == {"0": 54.0, "1": 55.0}
    assert (bare["paper"], bare["epochs"], bare["missing"], bare["errors"]) == (90.0, 1, 0, [])
    for kind in ("png", "png-2", "png-all"):
        assert files[kind].read_bytes()[:4] == b"\x89PNG"
        assert "<svg" in files[kind].with_suffix(".svg").read_text()
    page = files["html"].read_text()
    assert page.count("<figure>") == 3
    assert "http" not in re.sub(r"data:[^\"]*", "", page)
    before = {path: path.read_bytes() for path in files.values()}
    write(experiment, "smoke", result, tmp_path / "out")
    assert {path: path.read_bytes() for path in files.values()} == before
    assert overview(experiment, result[:1]) is None


def comparison(*scores, name="bare"):
    run = {"genotype": "none", "loss": 1.0, "epochs": 1, "frames": 1, "start_frames": 0, "parameters": 1}
    arm = {"name": name, "title": name, "group": "", "genotype": "none", "fusion": None, "start": None}
    arm["runs"] = [{**run, "seed": seed, "accuracy": score} for seed, score in enumerate(scores)]
    record = {"kind": "comparison", "schema_version": 1, "title": "t", "data": {}, "model": "m", "settings": {}}
    return ComparisonResult.from_dict({**record, "arms": [arm]})


def texts(figure):
    (axis,) = figure.axes
    return [text.get_text() for text in axis.texts]


def test_published_numbers_are_drawn_where_they_fit_and_written_always():
    near, far = (arms_figure(comparison(70.0, 71.0, 70.5), {"bare": number}) for number in (72.0, 94.12))
    assert texts(near) == ["published", "72.00"]
    assert texts(far) == ["published", "94.12  (not drawn)"]
    assert near.axes[0].get_xlim()[1] > 72
    assert far.axes[0].get_xlim()[1] < 76  # our interval stays to be seen
    assert texts(arms_figure(comparison(70.0))) == []
    assert arms_figure(comparison(70.0)).axes[0].get_xlim()[0] < 70
    with pytest.raises(InputError, match="no arm has a finished run"):
        arms_figure(comparison())


def test_one_seed_is_not_drawn_as_an_interval():
    def named(figure):
        (legend,) = figure.legends
        return [text.get_text() for text in legend.get_texts()]

    assert named(arms_figure(comparison(70.0))) == ["one seed, no interval"]
    assert sorted(named(arms_figure(comparison(70.0, 71.0)))) == ["ours, 95 % interval", "seeds"]
    one = arms_figure(comparison(70.0)).axes[0]
    assert not one.containers, "no caps"
