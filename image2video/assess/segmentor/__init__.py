"""Does a clip help a trained segmentor of mmsegmentation, at which cost?"""

from image2video.assess.segmentor.assessment import SegmentorAssessment
from image2video.assess.segmentor.driver import assess_segmentor

__all__ = ["SegmentorAssessment", "assess_segmentor"]
