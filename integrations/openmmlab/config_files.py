"""Where the configs for mmsegmentation stand."""

from pathlib import Path

CONFIGS: Path = Path(__file__).parent / "configs"
"""The folder of the configs that are installed with image2video, one subfolder per method or data set."""
