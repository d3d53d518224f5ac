# Table 3, (Ours) DeepLab-v3 ResNet-101.
_base_ = ["./deeplabv3_r101-d8_4xb2-80k_cityscapes-512x1024.py", "../_base_/video.py"]
custom_imports = dict(imports=["image2video.integrations.openmmlab"])
model = dict(type="VideoEncoderDecoder", video={{_base_.video}})
