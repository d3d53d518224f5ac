"""mmcv's `fuse_conv_bn` on a video segmentor: exact or refused, never another network without a word."""

import pytest
import torch

pytest.importorskip("mmseg")

from mmcv.cnn import fuse_conv_bn
from mmseg_cases import largest_difference, pair, predictions, samples

from image2video.errors import StateError

MOVING = {"genotype": "translate_x(0.06)", "T": 3}


def moving(fusion):
    """A segmentor whose fusions mix the frames, a batch, and what it predicts."""
    _, model = pair(video={**MOVING, "fusion": fusion})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.video_fusion.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    batch = samples(2, test=True)
    return model, batch, predictions(model, *batch)


def test_norms_folded_behind_fusions_are_refused():
    model, batch, _ = moving("gsf")
    fuse_conv_bn(model)
    with pytest.raises(StateError, match=r"norms behind 8 sites were folded .*layer1\.0\.conv2"):
        predictions(model, *batch)


@pytest.mark.parametrize(("fusion", "part"), [("tsm", lambda model: model), ("gsf", lambda model: model.decode_head)])
def test_norms_with_no_fusion_before_them_may_be_folded(fusion, part):
    model, batch, expected = moving(fusion)
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    fuse_conv_bn(part(model))
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()) < norms
    assert largest_difference(predictions(model, *batch), expected) < 1e-3
