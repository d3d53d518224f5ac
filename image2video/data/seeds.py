"""Numbers in, independent random streams out: every draw depends on the numbers alone."""

from __future__ import annotations

import numpy as np
import torch

from image2video.errors import InputError


def derive_seed(*numbers: int) -> int:
    """Make one seed of several whole numbers; different tuples give independent streams.

    Args:
        numbers: from 0, such as seed, epoch and worker.

    Returns:
        A seed of 63 bits.

    Raises:
        InputError: a number is negative.

    """
    if any(number < 0 for number in numbers):
        raise InputError(f"the numbers of a seed must be at least 0, got {numbers}")
    return int(np.random.SeedSequence([len(numbers), *numbers]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seeded_generator(*numbers: int) -> torch.Generator:
    """Make a generator on the CPU, so that every device sees the same draws.

    Args:
        numbers: what `derive_seed` makes its seed of.

    Returns:
        The generator.

    """
    return torch.Generator().manual_seed(derive_seed(*numbers))
