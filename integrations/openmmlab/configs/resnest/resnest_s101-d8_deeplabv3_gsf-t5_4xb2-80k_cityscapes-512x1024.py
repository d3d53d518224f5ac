# Table 3, DeepLab-v3 ResNeSt 101, as video (the paper has no such row).
_base_ = ["./resnest_s101-d8_deeplabv3_4xb2-80k_cityscapes-512x1024.py", "../_base_/video.py"]
custom_imports = dict(imports=["image2video.integrations.openmmlab"])
model = dict(type="VideoEncoderDecoder", video={{_base_.video}})
