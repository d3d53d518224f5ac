"""What each of two processes does in `test_wrap_ddp.py`; in its own file, so that a worker imports no test."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from wrap_helpers import backbone, images, stir

from image2video.wrap.video_wrap import VideoWrap

FRAMES = (3, 1, 2, 1, 3)  # fusion is off at T = 1, so its parameters have no gradient in that step


def make():
    model = VideoWrap(backbone(), "gsf", T=3).train()
    for module in model.modules():  # statistics of a half batch differ from those of the whole
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    stir(model.fusion)
    return model.double()  # so that the order of sums does not matter


def train(model, batches):
    # Without momentum: where one process has no gradient, and the parameter stands still, DDP has a gradient of zeros.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for T, batch in zip(FRAMES, batches, strict=True):
        optimizer.zero_grad()
        model(batch, T=T).square().mean().backward()
        optimizer.step()


def main():
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    batches = [images(b=4, seed=s).double() for s in range(len(FRAMES))]
    model = make()
    train(DistributedDataParallel(model), [b[2 * rank : 2 * rank + 2] for b in batches])
    if rank == 0:
        reference = make()
        train(reference, batches)
        expected = dict(reference.named_parameters())
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter, expected[name], atol=1e-9, rtol=1e-9)
    dist.barrier()
    dist.destroy_process_group()
