"""What an assessment of a segmentor found, and the line of its config that uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from image2video.assess.assessment import Assessment, Verdict
from image2video.assess.finalists import Finalist


@dataclass(frozen=True)
class SegmentorAssessment(Assessment):
    """Whether a clip helps a trained segmentor, on which images, and at which cost.

    `Figures.accuracy` of its rows, and so every gain, is of the mIoU; they are `PixelFigures`, with the pixel accuracy
    beside it.

    Attributes:
        video_type: the type of the segmentor with the clip, as a config names it.
        loader: the data loader of the config whose images were taken.
        resamples: how often the images that judge were drawn anew for the intervals.
    """

    video_type: str = "VideoEncoderDecoder"
    loader: str = "val_dataloader"
    resamples: int = 0

    metric: ClassVar[str] = "mIoU"
    kind: ClassVar[str] = "assessment of a segmentor"
    verdicts: ClassVar[Mapping[Verdict, str]] = {
        "better": "decidedly better in mIoU",
        "likelihood": "decidedly better in its probabilities, undecided in mIoU",
        "undecided": "not decidedly better",
        "keep": "decidedly worse on the images that chose nothing",
    }

    def wrap_options(self) -> dict[str, Any]:
        """What makes the advised clip of the config: `model = dict(type=…, video=dict(**options))`.

        Returns:
            The options of `model.video`; those of one frame, the image itself, where the segmentor is to be kept.
        """
        return video_options(self.advised.finalist)

    def line(self) -> str:
        """What makes the chosen clip of the segmentor, as a line of its config.

        Returns:
            The line.
        """
        words = ", ".join(f"{name}={value!r}" for name, value in video_options(self.chosen.finalist).items())
        return f'model = dict(type="{self.video_type}", video=dict({words}))'

    def to_dict(self) -> dict[str, Any]:
        """The assessment for records.

        Returns:
            Plain JSON values.
        """
        own = {"metric": self.metric, "video_type": self.video_type, "loader": self.loader}
        return super().to_dict() | own | {"resamples": self.resamples}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SegmentorAssessment:
        """The assessment that `to_dict` gave.

        Args:
            record: what it gave.

        Returns:
            An equal assessment.
        """
        found = super().from_dict({name: value for name, value in record.items() if name != "metric"})
        assert isinstance(found, SegmentorAssessment), "made by the class itself"
        return found


def video_options(finalist: Finalist) -> dict[str, Any]:
    """What `model.video` of a config says for a clip whose frames do not mix.

    Args:
        finalist: the clip.

    Returns:
        Genotype, T, schedule, padding, interpolation, `clip_at` for a clip inside of the backbone, and no fusion.
    """
    options = {**finalist.wrap_options(), "genotype": finalist.genotype, "fusion": "none"}
    del options["aggregate"]  # maps are brought back and averaged, whatever is said
    return options
