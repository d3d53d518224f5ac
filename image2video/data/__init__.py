"""Data sources named by one text, small images in memory, image files through workers."""

from image2video.data.folder import LoadedBatches, LoadedSet
from image2video.data.memory import CropFlip, MemoryBatches, MemorySet
from image2video.data.seeds import derive_seed, seeded_generator
from image2video.data.source import DataSource
from image2video.data.sources import load_data

__all__ = [
    "CropFlip",
    "DataSource",
    "LoadedBatches",
    "LoadedSet",
    "MemoryBatches",
    "MemorySet",
    "derive_seed",
    "load_data",
    "seeded_generator",
]
