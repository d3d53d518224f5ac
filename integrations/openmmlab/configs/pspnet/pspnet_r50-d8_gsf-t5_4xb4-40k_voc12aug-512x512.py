# Table 2, (Ours) PSPNet.
_base_ = ["./pspnet_r50-d8_4xb4-40k_voc12aug-512x512.py", "../_base_/video.py"]
custom_imports = dict(imports=["image2video.integrations.openmmlab"])
model = dict(type="VideoEncoderDecoder", video={{_base_.video}})
