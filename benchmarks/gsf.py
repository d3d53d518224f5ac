"""How many times as fast as a textbook GSF ours is, forward and backward, with equal outputs.

    python benchmarks/gsf.py --out benchmarks/results/gsf_cpu.json

The textbook version is written from the paper's steps on `(B, C, T, H, W)`: a `Conv3d` gate, permuted copies, one
operation per line. Target: 2.5 times as fast at every shape.
"""

import math

import torch
from harness import arguments, measure_pair, timing_fields, write_result
from torch import Tensor, nn

from image2video.fusion import GSF

SHAPES = ((16, 256, 56, 56), (16, 64, 32, 32), (16, 512, 28, 28))
TARGET = 2.5


class TextbookGSF(nn.Module):
    """Gate-shift-fuse (Sudhakaran, Escalera, Lanz, TPAMI 2023), step by step on `(B, C, T, H, W)`."""

    def __init__(self, channels: int, ratio: float = 0.25) -> None:
        super().__init__()
        p = min(4 * math.ceil(ratio * channels / 4), 4 * (channels // 4))
        self.p = p
        self.bn = nn.BatchNorm3d(p)
        self.conv3D = nn.Conv3d(p, 2, (3, 3, 3), padding=(1, 1, 1), groups=2)
        self.channel_conv1 = nn.Conv2d(2, 1, (3, 3), padding=(1, 1))
        self.channel_conv2 = nn.Conv2d(2, 1, (3, 3), padding=(1, 1))

    def forward(self, frames: Tensor, T: int) -> Tensor:
        """Fuse frames `(B·T, C, H, W)`."""
        _, C, H, W = frames.shape
        clip = frames.view(-1, T, C, H, W).permute(0, 2, 1, 3, 4).contiguous()
        x = clip[:, : self.p]
        gate = torch.tanh(self.conv3D(torch.relu(self.bn(x))))
        half = self.p // 2
        x1, x2 = x[:, :half], x[:, half:]
        y1, y2 = gate[:, :1] * x1, gate[:, 1:] * x2
        r1, r2 = x1 - y1, x2 - y2
        zero = torch.zeros_like(y1[:, :, :1])
        y1 = torch.cat([y1[:, :, 1:], zero], dim=2)
        y2 = torch.cat([zero, y2[:, :, :-1]], dim=2)
        out = [self._fuse(y1, r1, self.channel_conv1), self._fuse(y2, r2, self.channel_conv2)]
        out.append(clip[:, self.p :])
        return torch.cat(out, dim=1).permute(0, 2, 1, 3, 4).contiguous().view(-1, C, H, W)

    def _fuse(self, y: Tensor, r: Tensor, conv: nn.Conv2d) -> Tensor:
        B, half, T, H, W = y.shape
        maps = torch.stack([y.mean(dim=(3, 4)), r.mean(dim=(3, 4))], dim=1)
        a = torch.sigmoid(conv(maps)).view(B, half, T, 1, 1)
        out = a * y + (1 - a) * r
        return out.view(B, 2, half // 2, T, H, W).permute(0, 2, 1, 3, 4, 5).contiguous().view(B, half, T, H, W)


def main() -> None:
    parser = arguments(__doc__ or "", repeats=25)
    parser.add_argument("--frames", type=int, default=8, help="frames per clip")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = [compare(shape, options.frames, options.device, options.repeats, options.seed) for shape in SHAPES]
    settings = {
        "device": options.device,
        "dtype": "float32",
        "T": options.frames,
        "seed": options.seed,
        "what": "forward + backward in training mode, gradients of input and parameters; ratio = textbook / ours",
        "target_ratio": TARGET,
    }
    columns = ("shape", "textbook_median_ms", "ours_median_ms", "ratio", "ratio_low", "ratio_high", "output_error")
    write_result(options.out, "gsf", {"settings": settings, "results": results}, columns=columns)


def compare(shape: tuple[int, ...], T: int, device: str, repeats: int, seed: int) -> dict[str, object]:
    torch.manual_seed(seed)
    textbook = TextbookGSF(shape[1]).to(device)
    ours = GSF(shape[1]).to(device)
    ours.load_state_dict(textbook.state_dict())
    frames = torch.randn(shape, device=device, requires_grad=True)
    upstream = torch.randn(shape, device=device)

    def step(module: nn.Module) -> Tensor:
        module.zero_grad()
        frames.grad = None
        out = module(frames, T)
        out.backward(upstream)
        return out.detach()

    error = (step(textbook) - step(ours)).abs().max().item()
    step(textbook)
    expected = [frames.grad, *(parameter.grad for parameter in textbook.parameters())]
    step(ours)
    came = [frames.grad, *(parameter.grad for parameter in ours.parameters())]
    gradient_error = max(((a - b).abs().max() / a.abs().max()).item() for a, b in zip(expected, came, strict=True))
    if error > 1e-5:
        raise SystemExit(f"outputs at {shape} differ by {error:.2g}, more than 1e-5: the comparison is void.")
    pair = measure_pair(lambda: step(textbook), lambda: step(ours), repeats)
    return {
        "shape": "x".join(map(str, shape)),
        **timing_fields("textbook", pair.first),
        **timing_fields("ours", pair.second),
        "ratio": round(pair.ratio, 3),
        "ratio_low": round(pair.ratio_low, 3),
        "ratio_high": round(pair.ratio_high, 3),
        "meets_target": pair.ratio >= TARGET,
        "output_error": error,
        "gradient_error_relative": gradient_error,
    }


if __name__ == "__main__":
    main()
