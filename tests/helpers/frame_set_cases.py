"""Random chains and frame sets for property tests."""

from hypothesis import strategies as st

from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import Genotype, Transform

_GEOMETRIC = {
    "translate_x": (-0.2, 0.2),
    "translate_y": (-0.2, 0.2),
    "rotate": (-40.0, 40.0),
    "scale": (0.7, 1.4),
    "shear_x": (-15.0, 15.0),
}
_COLOURS = {"brightness": (0.6, 1.5), "contrast": (0.6, 1.5)}


def _transforms(ranges):
    moves = [st.floats(*ends).map(lambda m, op=op: Transform(op, m)) for op, ends in ranges.items()]
    return st.one_of(*moves, st.sampled_from(["flip_x", "flip_y"]).map(lambda op: Genotype.parse(op).chain[0]))


def chains(*, colours=False, most=3):
    ranges = _GEOMETRIC | _COLOURS if colours else _GEOMETRIC
    return st.lists(_transforms(ranges), max_size=most).map(lambda chain: Genotype(tuple(chain)))


def frame_sets(*, colours=False, most=5):
    return st.lists(chains(colours=colours), min_size=1, max_size=most).map(lambda frames: FrameSet(tuple(frames)))
