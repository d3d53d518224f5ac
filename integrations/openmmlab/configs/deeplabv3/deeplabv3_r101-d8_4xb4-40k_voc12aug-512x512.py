# Table 2, DeepLabv3, without video: the stock config.
_base_ = [__import__("mmseg").__path__[0] + "/.mim/configs/deeplabv3/deeplabv3_r101-d8_4xb4-40k_voc12aug-512x512.py"]
