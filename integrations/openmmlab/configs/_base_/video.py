# What the video configs add to the plain config beside them: as `model.video`, by `{{_base_.video}}`.
# The networks of Casarin et al. (CVPR 2024) each had a genotype of their own, searched per data set; those stand in the
# paper's supplement. The one here is the library's default. Yours: --cfg-options model.video.genotype=genotype.json
video = dict(
    genotype="translate_x(0.03)",
    T=5,  # the paper's choice
    schedule="centred",  # frame 1 is the image, so that every pixel has a valid frame; the paper's Eq. 7 is "ramp"
    padding="reflection",
    fusion="gsf",
    residual=True,  # start as the plain network that the pretrained weights are of; False for the module as published
)
