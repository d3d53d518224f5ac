"""A network for maps whose decoder has residual branches too."""

from torch import nn


class Branch(nn.Module):
    """A residual branch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x)


class EncoderDecoder(nn.Module):
    """What many libraries call a segmentation network: `encoder` and `decoder`."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x):
        return self.decoder(self.encoder(x))
