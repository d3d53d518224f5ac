# Three to six handwritten digits on a canvas of 48 × 48, and the class of every pixel; a network that trains in
# seconds, to see whether everything runs. `image2video reproduce table2` writes the files.
default_scope = "mmseg"
custom_imports = dict(imports=["image2video.integrations.openmmlab"])
crop_size = (48, 48)
norm_cfg = dict(type="BN", requires_grad=True)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[36.0] * 3,
        std=[76.0] * 3,
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=crop_size,
    ),
    pretrained=None,
    backbone=dict(
        type="ResNetV1c",
        depth=18,
        base_channels=8,
        stem_channels=8,
        num_stages=3,
        out_indices=(0, 1, 2),
        dilations=(1, 1, 2),
        strides=(1, 2, 1),
        norm_cfg=norm_cfg,
        norm_eval=False,
        style="pytorch",
        contract_dilation=True,
    ),
    decode_head=dict(
        type="FCNHead",
        in_channels=32,
        in_index=2,
        channels=16,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        # Nine pixels of ten are background: with equal weights, a few steps learn that and no more.
        loss_decode=dict(type="CrossEntropyLoss", class_weight=[0.05] + [1.0] * 10, loss_weight=5.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
dataset = dict(
    type="BaseSegDataset",
    data_root="data/digit_scenes",
    img_suffix=".png",
    metainfo=dict(
        classes=("background", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
        palette=[
            *([0, 0, 0], [214, 39, 40], [31, 119, 180], [44, 160, 44], [255, 127, 14], [148, 103, 189]),
            *([140, 86, 75], [227, 119, 194], [127, 127, 127], [188, 189, 34], [23, 190, 207]),
        ],
    ),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(48, 48), ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=1.0),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        data_prefix=dict(img_path="images/train", seg_map_path="labels/train"), pipeline=train_pipeline, **dataset
    ),
)
test_dataloader = dict(
    batch_size=10,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path="images/test", seg_map_path="labels/test"),
        pipeline=test_pipeline,
        indices=60,  # enough to see whether it runs
        **dataset,
    ),
)
test_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.0005))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type="PolyLR", eta_min=1e-4, power=0.9, begin=20, end=200, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=200, val_interval=200)
default_hooks = dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=200))
log_processor = dict(by_epoch=False)
