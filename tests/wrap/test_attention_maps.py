"""Attention matrices are no maps of the image: they are refused, not brought back as if they were."""

import pytest
import torch
from torch import nn

from image2video import VideoWrap
from image2video.errors import UnsupportedError
from image2video.inject.planning import plan

SIZE = (3, 32, 48)


class Attending(nn.Module):
    """Patches of 8 pixels, with or without a class token, and the attention between them."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.prefix = nn.Parameter(torch.randn(1, prefix, 8)) if prefix else None
        self.queries, self.keys, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        if self.prefix is not None:
            tokens = torch.cat([self.prefix.expand(len(x), -1, -1), tokens], dim=1)
        queries, keys = (layer(tokens).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.queries, self.keys))
        attention = (queries @ keys.transpose(-2, -1)).softmax(-1)
        return {"logits": self.head(tokens.mean(1)), "attention": attention}


@pytest.mark.parametrize("prefix", [0, 1])
def test_attention_is_not_unwarped(prefix: int) -> None:
    torch.manual_seed(0)
    network = Attending(prefix).eval()
    layouts = {output.path: output.layout for output in plan(network, fusion="none", input_size=SIZE).outputs}
    assert layouts["['attention']"].spatial != "map"
    model = VideoWrap(network, "none", genotype="translate_x(0.2)", T=3, input_size=SIZE)
    with pytest.raises(UnsupportedError, match=r"out\['attention'\]|out\[\"attention\"\]"):
        model(torch.randn(2, *SIZE))
    model.aggregate = "mean"
    rows = model(torch.randn(2, *SIZE))["attention"].sum(-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))
