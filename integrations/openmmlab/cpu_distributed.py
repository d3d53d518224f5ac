"""Distributed training on CPUs with the stock tools: importing this module joins the process group by gloo.

mmengine's launchers take a GPU for every process. Two lines in a config give what is needed without one:

    custom_imports = dict(
        imports=["image2video.integrations.openmmlab", "image2video.integrations.openmmlab.cpu_distributed"]
    )
    model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)

Then: torchrun --nproc_per_node 2 tools/train.py CONFIG --launcher pytorch

The config's imports run before mmengine looks for a process group, and it takes the one it finds. Outside of torchrun,
and where CUDA is available, the import does nothing: the same config trains in one process, or on GPUs with nccl.
"""

from __future__ import annotations

import atexit
import gc
import os

import torch
from torch import distributed

from image2video.functional import StateError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def join() -> bool:
    """Join the process group that torchrun has prepared, by gloo.

    Does nothing without RANK in the environment, with CUDA, and where a group is there already.

    Returns:
        Whether this call has joined it.

    Raises:
        StateError: RANK is set and another variable of torchrun's is not.
    """
    if "RANK" not in os.environ or torch.cuda.is_available() or distributed.is_initialized():
        return False
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise StateError(
            f"RANK={os.environ['RANK']} is set, and {', '.join(missing)} is not: start the processes with torchrun, or "
            "unset RANK to train in one process"
        )
    distributed.init_process_group("gloo")
    atexit.register(leave)
    return True


def leave() -> None:
    """End the process group, where there is one.

    A thread of gloo that lets a tensor go while the interpreter ends aborts the process. The threads end with the
    group, which a model under DistributedDataParallel keeps: hence the garbage collection.
    """
    if distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()


join()
