"""Progress bars with speed and remaining time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from image2video.protocols import Progress as ProgressCall

_SHOWN = ("loss", "accuracy")


@contextmanager
def progress_bars(*, show: bool = True) -> Iterator[ProgressCall | None]:
    """Bars on the error stream, one per stage, for as long as the block runs; `show=False` yields None.

    A stage that begins anew restarts its bar.
    """
    if not show:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[figures]}"),
    )
    progress = Progress(*columns, console=Console(stderr=True))
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
        speed = next((value for name, value in figures.items() if name.endswith("_per_second")), None)
        text = "  ".join(f"{name} {value:.3f}" for name, value in figures.items() if name in _SHOWN)
        self._progress.update(task.id, completed=done, total=total, figures=text, speed=speed)


class _Speed(ProgressColumn):
    """What the work reports as its speed (images or frames per second), else steps per second."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        if task.fields["speed"] is not None:
            return Text(f"{task.fields['speed']:,.0f}/s")
        return Text("" if task.speed is None else f"{task.speed:,.1f} steps/s")
