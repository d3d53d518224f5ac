"""Training, evaluation and cost of networks, bare or wrapped."""

from image2video.settings.training import TrainConfig
from image2video.training.checkpoint import load_weights, read_weights, save_weights
from image2video.training.cost import Cost, measure_cost
from image2video.training.evaluate import Metrics, evaluate
from image2video.training.loop import make_accelerator, train
from image2video.training.recipe import lr_factor, make_optimizer
from image2video.training.result import EpochRecord, TrainResult

__all__ = [
    "Cost",
    "EpochRecord",
    "Metrics",
    "TrainConfig",
    "TrainResult",
    "evaluate",
    "load_weights",
    "lr_factor",
    "make_accelerator",
    "make_optimizer",
    "measure_cost",
    "read_weights",
    "save_weights",
    "train",
]
