"""Receptive fields: by the sizes of layers, by gradients, and reshaped by the frames of a clip."""

from image2video.receptive_field.clip_field import ClipField, clip_field
from image2video.receptive_field.comparison import Comparison, compare
from image2video.receptive_field.effective import EffectiveField, effective
from image2video.receptive_field.field import Field, Layer
from image2video.receptive_field.measures import Measures, measures
from image2video.receptive_field.preparation import prepare_random
from image2video.receptive_field.reshaped import Reshaped, reshaped
from image2video.receptive_field.support import Support, support
from image2video.receptive_field.theory import theoretical
from image2video.receptive_field.units import Unit

__all__ = [
    "ClipField",
    "Comparison",
    "EffectiveField",
    "Field",
    "Layer",
    "Measures",
    "Reshaped",
    "Support",
    "Unit",
    "clip_field",
    "compare",
    "effective",
    "measures",
    "prepare_random",
    "reshaped",
    "support",
    "theoretical",
]
