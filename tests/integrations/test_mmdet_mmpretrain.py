"""A detector and a classifier of OpenMMLab's forks over a `VideoWrap`; run by hand, with their packages.

onedl-mmdetection needs mmcv's compiled operators when it is imported, and its wheel has none: a stand-in takes their
place, whose operators raise, but for non-maximum suppression, which is torchvision's. onedl-mmpretrain 1.3.6 cannot be
imported beside transformers 5 where pycocotools is installed, which mmdetection needs: install one of the two.
"""

import importlib.util
import sys
import types

import pytest
import torch
import torchvision

from image2video.errors import InputError

pytestmark = pytest.mark.slow
SIZE = (3, 64, 96)
CLIP = {"genotype": "translate_x(0.02)", "T": 3, "fusion": "gsf"}
NORMS = {"mean": [123.0, 116.0, 103.0], "std": [58.0, 57.0, 57.0]}


def missing(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def operators():
    """Stand for mmcv's compiled operators where they are not there."""
    if "mmcv._ext" in sys.modules or importlib.util.find_spec("mmcv._ext") is not None:
        return
    found = types.ModuleType("mmcv._ext")

    def operator(name):
        if name.startswith("__"):
            raise AttributeError(name)

        def absent(*args, **words):
            raise RuntimeError(f"mmcv has no compiled operator {name}")

        return absent

    found.__getattr__ = operator
    found.nms = lambda boxes, scores, iou_threshold, offset: torchvision.ops.nms(boxes, scores, iou_threshold)
    sys.modules["mmcv._ext"] = found


def resnet(video, **options):
    inner = {"type": "ResNet", "depth": 18, "norm_cfg": {"type": "BN"}, "style": "pytorch", **options}
    return inner if video is None else {"type": "VideoWrap", "backbone": inner, "video": video}


def detector(video):
    anchors = {"octave_base_scale": 4, "scales_per_octave": 3, "ratios": [0.5, 1.0, 2.0]}
    head = {
        "type": "RetinaHead",
        "num_classes": 3,
        "in_channels": 32,
        "stacked_convs": 1,
        "feat_channels": 32,
        "anchor_generator": {"type": "AnchorGenerator", "strides": [8, 16, 32, 64, 128], **anchors},
        "bbox_coder": {"type": "DeltaXYWHBBoxCoder"},
        "loss_cls": {"type": "FocalLoss", "use_sigmoid": True},
        "loss_bbox": {"type": "L1Loss"},
    }
    assigner = {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "min_pos_iou": 0}
    neck = {"type": "FPN", "in_channels": [64, 128, 256, 512], "out_channels": 32, "start_level": 1, "num_outs": 5}
    return {
        "type": "RetinaNet",
        "data_preprocessor": {"type": "DetDataPreprocessor", "bgr_to_rgb": True, "pad_size_divisor": 32, **NORMS},
        "backbone": resnet(video, out_indices=(0, 1, 2, 3)),
        "neck": {**neck, "add_extra_convs": "on_input"},
        "bbox_head": head,
        "train_cfg": {"assigner": assigner, "sampler": {"type": "PseudoSampler"}, "allowed_border": -1}
        | {"pos_weight": -1, "debug": False},
        "test_cfg": {"nms_pre": 50, "min_bbox_size": 0, "score_thr": 0.0, "max_per_img": 5}
        | {"nms": {"type": "nms", "iou_threshold": 0.5}},
    }


def pictures():
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(0, 255, SIZE, dtype=torch.uint8, generator=draw) for _ in range(2)]


def scenes():
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    samples = []
    for label in range(2):
        sample = DetDataSample()
        shape = dict.fromkeys(("img_shape", "pad_shape", "ori_shape", "batch_input_shape"), SIZE[1:])
        sample.set_metainfo({**shape, "scale_factor": (1.0, 1.0)})
        boxes = torch.tensor([[10.0, 10.0, 50.0, 40.0]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([label]))
        samples.append(sample)
    return {"inputs": pictures(), "data_samples": samples}


def made(registry, config):
    from mmengine import Config

    torch.manual_seed(0)
    model = registry.build(Config({"model": config}).model)
    model.init_weights()
    return model


def trained(model, batch):
    """Train three steps; the losses of each."""
    from mmengine.optim import OptimWrapper

    optimizer = OptimWrapper(torch.optim.SGD(model.train().parameters(), lr=1e-3))
    return [float(model.train_step(batch(), optimizer)["loss"]) for _ in range(3)]


@pytest.fixture
def detectors():
    operators()
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    import image2video.integrations.openmmlab  # noqa: F401

    return MODELS


@missing("mmdet")
@pytest.mark.filterwarnings("default")  # theirs
def test_a_detector_trains_and_finds_boxes_over_a_wrapped_backbone(detectors):
    model = made(detectors, detector(CLIP))
    assert type(model.backbone).__name__ == "VideoBackbone"
    assert len(model.backbone.fusion.plan.sites) == 8
    before = {name: value.clone() for name, value in model.backbone.fusion.named_parameters()}
    losses = trained(model, scenes)
    assert losses[-1] < losses[0]
    assert any(not torch.equal(value, before[name]) for name, value in model.backbone.fusion.named_parameters())
    with torch.no_grad():
        (first, _) = model.eval().test_step(scenes())
    assert first.pred_instances.bboxes.shape == (5, 4)


@missing("mmdet")
@pytest.mark.filterwarnings("default")
def test_a_clip_of_the_image_alone_detects_what_the_bare_backbone_does(detectors):
    bare = made(detectors, detector(None)).eval()
    model = made(detectors, detector({"genotype": "identity", "T": 1, "fusion": "none"})).eval()
    state = {name.replace("backbone.", "backbone.backbone.", 1): value for name, value in bare.state_dict().items()}
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    with torch.no_grad():
        one, other = (net.test_step(scenes())[0].pred_instances for net in (bare, model))
    torch.testing.assert_close(other.bboxes, one.bboxes, atol=1e-4, rtol=0)
    torch.testing.assert_close(other.scores, one.scores, atol=1e-6, rtol=0)


@missing("mmpretrain")
@pytest.mark.filterwarnings("default")
def test_a_classifier_of_mmpretrain_trains_over_a_wrapped_backbone():
    from mmpretrain.registry import MODELS
    from mmpretrain.structures import DataSample
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    import image2video.integrations.openmmlab  # noqa: F401

    head = {"type": "LinearClsHead", "num_classes": 3, "in_channels": 512, "loss": {"type": "CrossEntropyLoss"}}
    config = {
        "type": "ImageClassifier",
        "data_preprocessor": {"type": "ClsDataPreprocessor", "to_rgb": True, **NORMS},
        "backbone": resnet(CLIP),
        "neck": {"type": "GlobalAveragePooling"},
        "head": head,
    }
    model = made(MODELS, config)

    def labelled():
        return {"inputs": torch.stack(pictures()), "data_samples": [DataSample().set_gt_label(n) for n in range(2)]}

    losses = trained(model, labelled)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        assert model.eval().test_step(labelled())[0].pred_score.shape == (3,)
    with pytest.raises(InputError, match=r"unwarp is of VideoEncoderDecoder"):
        MODELS.build(resnet({**CLIP, "unwarp": True}))
