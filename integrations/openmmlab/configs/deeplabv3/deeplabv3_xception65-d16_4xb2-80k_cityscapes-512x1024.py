# Table 3, DeepLab-v3 Xception-65, without video. Maps of 1/16, and so half the dilations of the stock head at 1/8.
# timm downloads the weights; without a network: --cfg-options model.backbone.pretrained=False
# Batch norms of the backbone are of one process each, those of the heads synchronised: mmengine's `sync_bn="torch"`
# would take the activations out of timm's norms.
_base_ = [__import__("mmseg").__path__[0] + "/.mim/configs/deeplabv3/deeplabv3_r50-d8_4xb2-80k_cityscapes-512x1024.py"]
custom_imports = dict(imports=["image2video.integrations.openmmlab"])
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # what its weights were trained with
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        model_name="xception65",
        pretrained=True,
        output_stride=16,
        out_indices=(1, 2, 3, 4),
    ),
    decode_head=dict(in_channels=2048, dilations=(1, 6, 12, 18)),
    auxiliary_head=dict(in_channels=1024),
)
