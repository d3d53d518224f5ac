"""The command line `image2video`."""

from image2video.cli.app import main

__all__ = ["main"]
