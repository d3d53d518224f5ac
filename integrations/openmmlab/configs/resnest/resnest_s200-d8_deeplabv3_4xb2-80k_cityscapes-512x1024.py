# Table 3, DeepLab-v3 ResNeSt 200: the stock config of ResNeSt 101, deeper.
_base_ = [
    __import__("mmseg").__path__[0] + "/.mim/configs/resnest/resnest_s101-d8_deeplabv3_4xb2-80k_cityscapes-512x1024.py"
]
model = dict(pretrained="open-mmlab://resnest200", backbone=dict(depth=200))
