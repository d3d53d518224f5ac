# Table 2, (Ours) ResNet-38.
_base_ = ["./fcn_wrn38-d8_4xb4-40k_voc12aug-512x512.py", "../_base_/video.py"]
custom_imports = dict(imports=["image2video.integrations.openmmlab"])
model = dict(type="VideoEncoderDecoder", video={{_base_.video}})
