"""The paper's tables and figures as experiments that anyone can run, with the controls that they need."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from image2video.reproduce.book import Book, Run
    from image2video.reproduce.catalogue import load_experiment
    from image2video.reproduce.data import parse_data
    from image2video.reproduce.keys import run_key
    from image2video.reproduce.names import experiments
    from image2video.reproduce.spec import SCALES, Cell, Experiment, Row, Setting
    from image2video.reproduce.work import Worker
else:
    from image2video.late import late

    __getattr__, __dir__ = late(
        __name__,
        {
            "book": ("Book", "Run"),
            "catalogue": ("load_experiment",),
            "data": ("parse_data",),
            "keys": ("run_key",),
            "names": ("experiments",),
            "spec": ("Cell", "Experiment", "Row", "SCALES", "Setting"),
            "work": ("Worker",),
        },
    )

__all__ = [
    "SCALES",
    "Book",
    "Cell",
    "Experiment",
    "Row",
    "Run",
    "Setting",
    "Worker",
    "experiments",
    "load_experiment",
    "parse_data",
    "run_key",
]
