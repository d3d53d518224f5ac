# Table 3, (Ours) ResNeSt 200, with DeepLab-v3.
_base_ = ["./resnest_s200-d8_deeplabv3_4xb2-80k_cityscapes-512x1024.py", "../_base_/video.py"]
custom_imports = dict(imports=["image2video.integrations.openmmlab"])
model = dict(type="VideoEncoderDecoder", video={{_base_.video}})
