# Table 3, (Ours) Xception-65, with DeepLab-v3.
_base_ = ["./deeplabv3_xception65-d16_4xb2-80k_cityscapes-512x1024.py", "../_base_/video.py"]
custom_imports = dict(imports=["image2video.integrations.openmmlab"])
model = dict(type="VideoEncoderDecoder", video={{_base_.video}})
