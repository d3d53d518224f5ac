# Table 3, DeepLab-v3 ResNeSt 101: the stock config.
_base_ = [
    __import__("mmseg").__path__[0] + "/.mim/configs/resnest/resnest_s101-d8_deeplabv3_4xb2-80k_cityscapes-512x1024.py"
]
