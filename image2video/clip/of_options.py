"""The options of a clip, readable from what makes its frames."""

from __future__ import annotations

from image2video.clip.colours import Colours
from image2video.clip.options import ClipOptions


class OfOptions:
    """What has `ClipOptions` shows them under their own names.

    Attributes:
        options: how the frames are made.
    """

    options: ClipOptions

    @property
    def T(self) -> int:  # noqa: N802 (the field's name for the number of frames)
        """The number of frames of a clip; `set_frames` changes it."""
        return self.options.T

    @property
    def schedule(self) -> str:
        """The schedule, which gives every frame its power, at all places of a network."""
        return self.options.schedule

    @property
    def padding(self) -> str:
        """What stands outside the image and outside of maps."""
        return self.options.padding

    @property
    def interpolation(self) -> str:
        """How frames are sampled."""
        return self.options.interpolation

    @property
    def colours(self) -> Colours | None:
        """How the images are normalised; None where that is not known."""
        return self.options.colours
