"""How far long work is: bars with speed and remaining time on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from image2video.protocols import Progress as ProgressCall

_SHOWN = ("loss", "accuracy", "mIoU")
_PER_SECOND = "_per_second"
_SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def progress_bars(*, show: bool = True) -> Iterator[ProgressCall | None]:
    """Bars on the error stream, one per stage, for as long as the block runs; `show=False` yields None.

    A stage that begins anew restarts its bar. Where the stream is no terminal there are lines: one for each epoch, one
    at the end of a stage, and one every half minute between.
    """
    if not show:
        yield None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[figures]}"),
    )
    progress = Progress(*columns, console=console)
    try:
        yield _Bars(progress)
    finally:
        if progress.live.is_started:
            progress.stop()


class _Bars:
    """Keeps one task per stage; finished ones are hidden when another begins."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, Task] = {}

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
        self._progress.start()  # with the first step: what fails before it prints no empty bar
        task = self._tasks.get(stage)
        if task is None or done < task.completed:
            if task is not None:
                self._progress.remove_task(task.id)
                del self._tasks[stage]
            for other in self._tasks.values():  # a line per finished stage would fill the screen
                self._progress.update(other.id, visible=not other.finished)
            number = self._progress.add_task(stage, total=total, figures="", speed=None)
            task = next(t for t in self._progress.tasks if t.id == number)
            self._tasks[stage] = task
        text = "  ".join(_shown(figures))
        self._progress.update(task.id, completed=done, total=total, figures=text, speed=_speed(figures))


def _shown(figures: dict[str, float]) -> list[str]:
    """The figures that people follow."""
    return [f"{name} {value:.3f}" for name, value in figures.items() if name in _SHOWN]


def _speed(figures: dict[str, float]) -> str | None:
    """What the work reports as its speed, such as `64 images/s`."""
    for name, value in figures.items():
        if name.endswith(_PER_SECOND):
            return f"{value:,.0f} {name.removesuffix(_PER_SECOND)}/s"
    return None


@dataclass
class _Stage:
    """A stage in a log: when it began and from where, the epoch it is in, what was reported last, and if it is over.

    A stage that is over may begin anew, as the test after every epoch does.
    """

    began: float
    first: int
    epoch: float | None = None
    said: int = -1
    over: bool = False


class Lines:
    """Writes a line where an epoch or a stage ends, and every half minute; each is flushed at once.

    Args:
        write: takes a line; the error stream by default.
        clock: seconds that never go back.
    """

    def __init__(self, write: Callable[[str], None] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write or _to_the_log, clock
        self._stages: dict[str, _Stage] = {}
        self._last = clock()
        self._before: dict[str, str] = {}
        self._newest = ""

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
        """Take one report of the work."""
        now = self._clock()
        known = self._stages.get(stage)
        if known is not None and known.over:
            if done >= total and not _shown(figures):
                return  # the end was said
            known = None
        if known is None or done < known.said:
            known = self._stages[stage] = _Stage(now, done - 1)
        epoch = figures.get("epoch")
        if known.epoch is not None and epoch != known.epoch and self._before[stage] != self._newest:
            self._say(self._before[stage], now)  # the last report of the epoch that is over
        known.epoch, known.said = epoch, max(done, known.said)
        self._before[stage] = self._line(stage, done, total, figures, now - known.began, done - known.first)
        known.over = done >= total
        if known.over or now - self._last >= _SECONDS_BETWEEN_LINES:
            self._say(self._before[stage], now)

    def _say(self, line: str, now: float) -> None:
        self._write(line)
        self._last, self._newest = now, line

    @staticmethod
    def _line(stage: str, done: int, total: int, figures: dict[str, float], seconds: float, steps: int) -> str:
        parts = [f"{stage}: {done}/{total}"]
        if "epoch" in figures:
            parts.append(f"epoch {figures['epoch']:.0f}")
        parts += _shown(figures)
        speed = _speed(figures)
        if speed is not None:
            parts.append(speed)
        if done < total and steps > 0:
            parts.append(f"{_duration(seconds * (total - done) / steps)} left")
        else:
            parts.append(f"{_duration(seconds)} in all")
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds: `1:02:03`, `0:07`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _to_the_log(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


class _Speed(ProgressColumn):
    """What the work reports as its speed (images or frames per second), else steps per second."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        if task.fields["speed"] is not None:
            return Text(task.fields["speed"])
        return Text("" if task.speed is None else f"{task.speed:,.1f} steps/s")
