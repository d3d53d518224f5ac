# Table 3, (Ours) PSPNet ResNet-50, without video: the stock config.
_base_ = [__import__("mmseg").__path__[0] + "/.mim/configs/pspnet/pspnet_r50-d8_4xb2-80k_cityscapes-512x1024.py"]
