"""Numbers in, independent random streams out: every draw depends on the numbers alone."""

from __future__ import annotations

import numpy as np
import torch

from image2video.errors import InputError


def derive_seed(*numbers: int) -> int:
    """A 63-bit seed from whole numbers such as (seed, epoch, worker); different tuples give independent streams.

    Raises `InputError` for a negative number.
    """
    if any(number < 0 for number in numbers):
        raise InputError(f"a seed is made of numbers from 0; received {numbers}")
    return int(np.random.SeedSequence([len(numbers), *numbers]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seeded_generator(*numbers: int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*numbers)`.

    CPU on purpose: the same draws on every device.
    """
    return torch.Generator().manual_seed(derive_seed(*numbers))
