"""What each of two processes does in `test_wrap_ddp.py`; in its own file, so that a worker imports no test."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from wrap_helpers import backbone, images, stir

from image2video.wrap.video_wrap import VideoWrap

RUNS = (
    ({}, (3, 1, 2, 1, 3)),  # fusion is off at T = 1, so its parameters have no gradient in that step
    ({"clip_at": "layer2"}, (3, 2, 4)),  # a clip inside of the backbone has two frames or more
    ({"genotype": {"image": "translate_x(0.1)", "layer2": "rotate(9)", "layer3": "scale(1.1)"}}, (3, 2, 4)),
)


def make(options):
    model = VideoWrap(backbone(), "gsf", T=3, **options).train()
    for module in model.modules():  # statistics of a half batch differ from those of the whole
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    stir(model.fusion)
    return model.double()  # so that the order of sums does not matter


def train(model, frames, batches):
    # Without momentum: where one process has no gradient, and the parameter stands still, DDP has a gradient of zeros.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for T, batch in zip(frames, batches, strict=True):
        optimizer.zero_grad()
        model(batch, T=T).square().mean().backward()
        optimizer.step()


def main():
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for options, frames in RUNS:
        batches = [images(b=4, seed=s).double() for s in range(len(frames))]
        model = make(options)
        train(DistributedDataParallel(model), frames, [b[2 * rank : 2 * rank + 2] for b in batches])
        if rank == 0:
            reference = make(options)
            train(reference, frames, batches)
            expected = dict(reference.named_parameters())
            for name, parameter in model.named_parameters():
                torch.testing.assert_close(parameter, expected[name], atol=1e-9, rtol=1e-9)
    dist.barrier()
    dist.destroy_process_group()
