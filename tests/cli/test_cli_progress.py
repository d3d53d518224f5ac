"""Progress in a log: a line per epoch and stage, at once, with what is left."""

import io
import subprocess
import sys

import pytest

from image2video.cli.progress import Lines, _duration, progress_bars


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def log():
    lines, clock = [], Clock()
    return Lines(lines.append, clock), lines, clock


def test_a_line_where_an_epoch_ends(log):
    report, lines, clock = log
    for step in range(1, 7):  # two steps in an epoch
        clock.now += 1
        report("train", step, 6, epoch=(step + 1) // 2, loss=1 / step, images_per_second=64.0)
    assert lines == [
        "train: 2/6, epoch 1, loss 0.500, 64 images/s, 0:02 left",
        "train: 4/6, epoch 2, loss 0.250, 64 images/s, 0:02 left",
        "train: 6/6, epoch 3, loss 0.167, 64 images/s, 0:05 in all",
    ]


def test_a_line_every_half_minute_and_at_the_end(log):
    report, lines, clock = log
    for step in range(1, 11):
        clock.now += 12
        report("select", step, 10)
    assert [line.split(",")[0] for line in lines] == ["select: 3/10", "select: 6/10", "select: 9/10", "select: 10/10"]


def test_a_stage_that_begins_anew_has_a_line_each_time(log):
    report, lines, _ = log
    for accuracy in (0.5, 0.75):
        report("holdout", 1, 2)
        report("holdout", 2, 2, accuracy=accuracy, loss=1.0)
    assert lines == [
        "holdout: 2/2, accuracy 0.500, loss 1.000, 0:00 in all",
        "holdout: 2/2, accuracy 0.750, loss 1.000, 0:00 in all",
    ]


def test_an_end_that_is_reported_again_is_said_once(log):
    report, lines, _ = log
    for done in (1, 2, 2, 2):
        report("rank", done, 2, frames_per_second=8.0)
    report("rank", 1, 2)  # anew
    report("rank", 2, 2)
    assert lines == ["rank: 2/2, 8 frames/s, 0:00 in all", "rank: 2/2, 0:00 in all"]


def test_a_resumed_stage_counts_from_where_it_goes_on(log):
    report, lines, clock = log
    report("train", 51, 100, epoch=1)
    clock.now += 30
    report("train", 60, 100, epoch=1)
    assert lines == ["train: 60/100, epoch 1, 2:00 left"]


def test_durations():
    assert [_duration(s) for s in (0, 59.6, 61, 3723)] == ["0:00", "1:00", "1:01", "1:02:03"]


def test_no_terminal_has_lines_and_a_terminal_bars(monkeypatch, capsys):
    with progress_bars() as report:
        assert isinstance(report, Lines)
        report("train", 1, 1)
    assert capsys.readouterr().err.endswith("train: 1/1, 0:00 in all\n")
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bars() as report:
        assert not isinstance(report, Lines)
        report("train", 1, 1)
    assert "train" in terminal.getvalue()


def test_a_line_is_there_before_the_work_goes_on():
    """In a process of its own, whose stream would keep a line back."""
    program = (
        "import sys, time\n"
        "from image2video.cli.progress import progress_bars\n"
        "with progress_bars() as report:\n"
        "    report('train', 1, 1)\n"
        "    sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as process:
        assert "train: 1/1" in process.stderr.readline()
        process.stdin.close()
