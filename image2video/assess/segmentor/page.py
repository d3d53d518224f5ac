"""The report of a segmentor's assessment: the page of every assessment, with its own words."""

from __future__ import annotations

from image2video.assess.page import page
from image2video.assess.segmentor.assessment import SegmentorAssessment


def segmentor_page(assessment: SegmentorAssessment) -> str:
    """The report of an assessment of a segmentor.

    Args:
        assessment: what was found.

    Returns:
        The HTML, with everything in it.
    """
    return page(assessment, _reading(assessment))


def _reading(assessment: SegmentorAssessment) -> list[str]:
    """What the words of the page mean."""
    return [
        "Bare network: your segmentor as it is. A clip: the frames that it sees of one image; its logits of each frame "
        "are brought back to the image and averaged where the frames show it. The best single frame: one moved image, "
        "which costs no more than the image. The best chain: the best of those that were ranked, over numbers of "
        "frames, schedules and paddings. The best clip inside of the backbone: its frames begin at a map, so that what "
        "lies before runs once.",
        "mIoU: intersection over union, summed over all images, mean over the classes that occur. Cost: "
        "multiply-accumulates for one image, as a multiple of the bare network's. Cross-entropy in nats, mean over "
        "labelled pixels, lower is better. Calibration error: how far the confidence of the answers is from how often "
        "they are right (expected calibration error over labelled pixels, 15 bins). Pixels that the data set ignores "
        "count nowhere.",
        "Temperature scaling divides the logits by one number, which was fitted on pixels of the images that chose: "
        f"{assessment.temperature:.3f} for the bare network. It costs nothing, changes no answer, and is the fair "
        "control of a gain in cross-entropy.",
        f"The images that chose: {assessment.bare.choosing.images}; those that judged: {assessment.bare.gain.images}. "
        "Of all clips the cheapest was taken whose mIoU and whose cross-entropy after scaling are within one standard "
        "error of those of the one with the highest mIoU.",
        f"Intervals come from {assessment.resamples} draws of as many images with replacement, the same images for "
        "both networks. Pixels of one image are not independent, so images are drawn, not pixels. Frames of one video "
        "are not independent either: of such images the intervals are too narrow.",
    ]
