# Table 2, PSPNet, without video: the stock config.
_base_ = [__import__("mmseg").__path__[0] + "/.mim/configs/pspnet/pspnet_r50-d8_4xb4-40k_voc12aug-512x512.py"]
