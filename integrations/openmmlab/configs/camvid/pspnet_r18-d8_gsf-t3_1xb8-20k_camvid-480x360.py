# The default genotype with GSF as published.
_base_ = "./pspnet_r18-d8_1xb8-20k_camvid-480x360.py"
model = dict(
    type="VideoEncoderDecoder",
    video=dict(
        genotype="translate_x(0.03) > translate_y(0.03)",
        T=3,
        schedule="from_zero",
        padding="zeros",
        fusion="gsf",
        residual=False,
    ),
)
