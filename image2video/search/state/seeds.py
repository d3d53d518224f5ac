"""The seeds of a search's draws."""

from __future__ import annotations

import torch


def seeded(seed: int, purpose: str) -> torch.Generator:
    """A generator for one purpose of a search; different purposes never share a stream."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose))


def derived_seed(seed: int, purpose: str) -> int:
    """A seed that depends on (seed, purpose) alone."""
    mixed = seed & 0xFFFFFFFFFFFF
    for byte in purpose.encode():
        mixed = (mixed * 1_000_003 ^ byte) & 0x7FFFFFFFFFFFFFFF
    return mixed
