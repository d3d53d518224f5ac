# A genotype drawn from the search space: what a search has to beat.
_base_ = "./pspnet_r18-d8_1xb8-20k_camvid-480x360.py"
model = dict(
    type="VideoEncoderDecoder",
    video=dict(
        genotype="{{ fileDirname }}/random.json",
        T=3,
        schedule="from_zero",
        padding="zeros",
        fusion="gsf",
        residual=False,
    ),
)
