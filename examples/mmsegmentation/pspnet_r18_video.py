# A stock config of mmsegmentation, PSPNet with a ResNet-18 on Cityscapes, as a video segmentor.
_base_ = [__import__("mmseg").__path__[0] + "/.mim/configs/pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py"]

custom_imports = dict(imports=["image2video.integrations.openmmlab"])
model = dict(type="VideoEncoderDecoder", video=dict(genotype="translate_x(0.02) > scale(1.05)", T=5, fusion="gsf"))
