"""Tiny networks of transformers with random weights, by family; transformers is imported when one is made."""

import functools
import importlib

import torch

STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
VIT = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    **{"image_size": 32, "patch_size": 8},
}
SWIN = {
    **{"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2]},
    "window_size": 4,
}
SEGFORMER = {**STAGES, "num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
UPERNET = {"hidden_size": 16, "auxiliary_in_channels": 16, "auxiliary_channels": 8}
MASK2FORMER = {
    **{"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "encoder_feedforward_dim": 16},
    **{"dim_feedforward": 16, "encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "num_queries": 4},
}

CLASSIFIERS = {
    "ViT": VIT,
    "Dinov2": {key: value for key, value in VIT.items() if key != "intermediate_size"} | {"mlp_ratio": 2},
    "ConvNext": STAGES,
    "Swin": SWIN,
    "ResNet": RESNET,
    "Segformer": SEGFORMER,
}


@functools.cache
def library():
    return importlib.import_module("transformers")


def classifier(family="ViT", **options):
    """`<family>ForImageClassification` with 5 classes, in eval mode."""
    return _made(f"{family}ForImageClassification", _config(family, **CLASSIFIERS[family], **options))


def segmentor(family="Segformer"):
    """A network for semantic segmentation with 5 classes."""
    if family == "Segformer":
        return _made("SegformerForSemanticSegmentation", _config("Segformer", **SEGFORMER))
    inner = _config("ConvNext", **STAGES, out_features=["stage1", "stage2", "stage3", "stage4"])
    return _made("UperNetForSemanticSegmentation", _config("UperNet", backbone_config=inner, **UPERNET))


def backbone(family="Dinov2", out_indices=(1, 2)):
    """`<family>Backbone`, which returns maps."""
    return _made(f"{family}Backbone", _config(family, **CLASSIFIERS[family], out_indices=list(out_indices)))


def timm_wrapper():
    """A network of timm in one of transformers."""
    return _made("TimmWrapperForImageClassification", _config("TimmWrapper", architecture="test_resnet"))


def mask2former():
    """A network that predicts a set of masks."""
    options = {**SWIN, "patch_size": 4, "depths": [1] * 4, "num_heads": [1, 1, 2, 2]}
    inner = _config("Swin", **options, out_features=["stage1", "stage2", "stage3", "stage4"])
    return _made("Mask2FormerForUniversalSegmentation", _config("Mask2Former", backbone_config=inner, **MASK2FORMER))


def _config(family, **options):
    return getattr(library(), f"{family}Config")(**{"num_labels": 5} | options)


def _made(name, config):
    torch.manual_seed(0)
    return getattr(library(), name)(config).eval()
