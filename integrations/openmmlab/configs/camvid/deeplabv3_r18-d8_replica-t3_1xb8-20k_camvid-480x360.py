# Three equal frames: what GSF does where there is no movement to see.
_base_ = "./deeplabv3_r18-d8_1xb8-20k_camvid-480x360.py"
model = dict(
    type="VideoEncoderDecoder",
    video=dict(genotype="identity", T=3, schedule="from_zero", padding="zeros", fusion="gsf", residual=False),
)
