"""Does a clip help a trained model, at which cost? One call that answers, with what it would say to a user."""

from image2video.assess.assessment import Assessment, Row, Tuning
from image2video.assess.driver import assess
from image2video.assess.figures import Figures, PixelFigures
from image2video.assess.finalists import Finalist
from image2video.assess.segmentor import SegmentorAssessment, assess_segmentor

__all__ = [
    "Assessment",
    "Figures",
    "Finalist",
    "PixelFigures",
    "Row",
    "SegmentorAssessment",
    "Tuning",
    "assess",
    "assess_segmentor",
]
