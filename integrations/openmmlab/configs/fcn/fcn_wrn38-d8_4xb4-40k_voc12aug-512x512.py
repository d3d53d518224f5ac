# Table 2, ResNet-38 (Wu et al., "Wider or Deeper"), without video. The row's network was first trained on ImageNet and
# MS COCO; give your own weights of that kind by
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=PATH
_base_ = [
    __import__("mmseg").__path__[0] + "/.mim/configs/_base_/datasets/pascal_voc12_aug.py",
    __import__("mmseg").__path__[0] + "/.mim/configs/_base_/default_runtime.py",
    __import__("mmseg").__path__[0] + "/.mim/configs/_base_/schedules/schedule_40k.py",
]
custom_imports = dict(imports=["image2video.integrations.openmmlab"])
norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size={{_base_.crop_size}},
    ),
    backbone=dict(type="WideResNet38", norm_cfg=norm_cfg),
    decode_head=dict(
        type="FCNHead",  # the authors' classifier: two convolutions
        in_channels=4096,
        in_index=3,
        channels=512,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=21,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
