"""Backbones of mmsegmentation that work on tokens, in `whole` mode on images of other sizes than the planned one."""

import copy

import pytest
import torch

pytest.importorskip("mmseg")

from mmseg.registry import MODELS
from mmseg_cases import largest_difference

PLANNED = (64, 96)
BACKBONES = {
    "segformer": {"type": "MixVisionTransformer", "embed_dims": 8, "num_layers": [1] * 4, "num_heads": [1] * 4},
    "swin": {"type": "SwinTransformer", "embed_dims": 8, "depths": (1,) * 4, "num_heads": (1,) * 4, "window_size": 4},
    "vit": {"type": "VisionTransformer", "img_size": PLANNED, "patch_size": 16, "embed_dims": 16, "num_layers": 2,
            "num_heads": 2, "out_indices": (0, 1), "interpolate_mode": "bicubic"},
}  # fmt: skip


def wrapped(backbone, size):
    torch.manual_seed(0)
    video = {"T": 2, "fusion": "gsf", "genotype": "translate_x(0.1)", "input_size": size, "residual": False}
    return MODELS.build({"type": "VideoWrap", "backbone": backbone, "video": video}).eval()


# As many tokens as planned on another grid, the one turned or the other, and sizes that have to be padded.
@pytest.mark.parametrize(
    ("name", "size"),
    [("segformer", (96, 64)), ("swin", (128, 48)), ("vit", (96, 64)), *((name, (130, 70)) for name in BACKBONES)],
)
def test_features_of_other_sizes_are_those_of_a_model_planned_for_them(name, size):
    model = wrapped(copy.deepcopy(BACKBONES[name]), PLANNED)
    other = wrapped(copy.deepcopy(BACKBONES[name]), size)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        images = torch.randn(1, 3, *size)
        assert largest_difference(model(images), other(images)) < 1e-5
