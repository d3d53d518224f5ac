"""Data sources named by one text, small images in memory, image files through workers."""

from image2video.data.augment import Augmentation, AutoAugment, Clips, RandAugment, TrivialAugment, UniformAugment
from image2video.data.augmented_frames import AugmentedFrames
from image2video.data.folder import LoadedBatches, LoadedSet
from image2video.data.memory import CropFlip, MemoryBatches, MemorySet
from image2video.data.seeds import derive_seed, seeded_generator
from image2video.data.source import DataSource
from image2video.data.sources import load_data

__all__ = [
    "Augmentation",
    "AugmentedFrames",
    "AutoAugment",
    "Clips",
    "CropFlip",
    "DataSource",
    "LoadedBatches",
    "LoadedSet",
    "MemoryBatches",
    "MemorySet",
    "RandAugment",
    "TrivialAugment",
    "UniformAugment",
    "derive_seed",
    "load_data",
    "seeded_generator",
]
