# A light decoder on an encoder with ImageNet weights, at half the size of CamVid's frames: a processor trains it to
# convergence. 1 240 steps of 8 images are 30 epochs of the 330 training frames that a tenth held out leaves.
_base_ = [
    __import__("mmseg").__path__[0] + "/.mim/configs/_base_/default_runtime.py",
    "./_base_/camvid.py",
]
custom_imports = dict(imports=["image2video.integrations.openmmlab"])
default_scope = "mmseg"
frame_size = (240, 180)  # width, height
crop_size = (180, 240)  # height, width
norm_cfg = dict(type="BN", requires_grad=True)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[127.5] * 3,
        std=[127.5] * 3,
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=crop_size,
    ),
    pretrained=None,
    backbone=dict(
        type="TimmFeatures",
        model_name="tf_efficientnet_lite0",
        out_indices=(1, 2, 3, 4),  # strides 4, 8, 16, 32
        checkpoint_path="data/tf_efficientnet_lite0.safetensors",
    ),
    neck=dict(type="FPN", in_channels=[24, 40, 112, 320], out_channels=64, num_outs=4, norm_cfg=norm_cfg),
    decode_head=dict(
        type="FPNHead",
        in_channels=[64] * 4,
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=64,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=frame_size, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
# Scores are taken at the size of the labels, 480 × 360.
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=frame_size, keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.001, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=None,
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=40, by_epoch=False),
    dict(type="PolyLR", eta_min=1e-6, power=0.9, begin=40, end=1240, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=1240, val_interval=1240)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
