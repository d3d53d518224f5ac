"""The paper's tables and figures as experiments that anyone can run, with the controls that they need."""

from image2video.reproduce.book import Book, Run
from image2video.reproduce.catalogue import experiments, load_experiment
from image2video.reproduce.data import parse_data
from image2video.reproduce.keys import run_key
from image2video.reproduce.spec import SCALES, Cell, Experiment, Row, Setting
from image2video.reproduce.work import Worker

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
