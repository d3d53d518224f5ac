"""The largest amount of memory that a call keeps for its backward passes at one time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def saved_bytes(call: Callable[[], object], ignored: Iterable[Tensor]) -> int:
    """The most that autograd keeps for backward passes at one time during a call; storages of `ignored` do not count.

    What a checkpointed block saves while it is computed again does not count either.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in ignored}
    kept: Counter[int] = Counter()
    now = peak = 0

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal now, peak
            self.tensor, self.key = tensor, tensor.untyped_storage().data_ptr()
            kept[self.key] += 1
            if kept[self.key] == 1 and self.key not in known:
                now += tensor.untyped_storage().nbytes()
                peak = max(peak, now)

        def __del__(self) -> None:
            nonlocal now
            kept[self.key] -= 1
            if kept[self.key] == 0 and self.key not in known:
                now -= self.tensor.untyped_storage().nbytes()

    with saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        call()
    return peak
