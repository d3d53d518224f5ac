# Table 3, DeepLab-v3 ResNet-101, without video: the stock config.
_base_ = [__import__("mmseg").__path__[0] + "/.mim/configs/deeplabv3/deeplabv3_r101-d8_4xb2-80k_cityscapes-512x1024.py"]
