_base_ = [
    __import__("mmseg").__path__[0] + "/.mim/configs/_base_/models/pspnet_r50-d8.py",
    __import__("mmseg").__path__[0] + "/.mim/configs/_base_/default_runtime.py",
    "./_base_/camvid.py",
    "./_base_/from_scratch_20k.py",
]
custom_imports = dict(imports=["image2video.integrations.openmmlab"])
norm_cfg = dict(type="BN", requires_grad=True)  # eight images of this size fit one device
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    pretrained=None,
    backbone=dict(depth=18, norm_cfg=norm_cfg),
    decode_head=dict(
        in_channels=512, channels=128, num_classes=11, norm_cfg=norm_cfg, loss_decode=dict(avg_non_ignore=True)
    ),
    auxiliary_head=dict(
        in_channels=256, channels=64, num_classes=11, norm_cfg=norm_cfg, loss_decode=dict(avg_non_ignore=True)
    ),
)
