"""Networks that are alike are traced once, for tests of what stands around the plans.

A plan reads a forward of its network, a clip inside of the network a forward for each of its places, and an assessment
thirty of them: half of the time of many tests, which make the same small networks again and again. Two networks are
alike if their pickles are, tensors by their types and sizes in them: so every attribute counts, and what cannot be
pickled (a class of a test's own, a hook of its own) is traced as ever. Tracing itself, and that it leaves the network
as it is, are the subject of tests/trace/ and of tests/inject/, where nothing is kept.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import pytest
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from image2video.inject import clip_rows
from image2video.inject.clip_places import Place
from image2video.trace import trace as tracing
from image2video.trace.recorder import Trace

KEPT = 300
"""How many results are kept; a trace of a large network takes megabytes."""


class _Kind(pickle.Pickler):
    """Pickles a network without its numbers: a tensor is its type, its size, and which of its tensors it is."""

    def __init__(self, file: io.BytesIO, network: nn.Module) -> None:
        super().__init__(file, protocol=5)
        self.faked = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
        self.seen: dict[int, int] = {}

    def persistent_id(self, item: Any) -> Any:
        if not isinstance(item, Tensor):
            return None
        number = self.seen.setdefault(id(item), len(self.seen))
        about = (number, str(type(item)), str(item.dtype), str(item.device), tuple(item.shape), item.requires_grad)
        if id(item) in self.faked:
            return (*about, item.stride())
        return (*about, item.detach().cpu().numpy().tobytes())  # a number of the network's own is seen by its forward


def kind(network: nn.Module, example: Tensor) -> Hashable | None:
    """What a trace of a network depends on, or None where it cannot be told."""
    file = io.BytesIO()
    try:
        _Kind(file, network).dump(network)
    except Exception:  # whatever a network's own attributes raise
        return None
    # The classes themselves too: that of another test may have the same name, or have been patched.
    kinds = dict.fromkeys(kind for module in network.modules() for kind in type(module).__mro__)
    own = [kind for kind in kinds if not kind.__module__.startswith("torch.") and kind is not object]
    classes = (
        tuple(type(module) for module in network.modules()),
        tuple((name, id(value)) for kind in own for name, value in vars(kind).items()),
    )
    return hashlib.sha256(file.getvalue()).digest(), classes, tuple(example.shape[1:]), example.dtype, example.device


class Kept:
    """The last results by their keys."""

    def __init__(self) -> None:
        self.results: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the result of a key, made where there is none."""
        result = self.results.pop(key) if key in self.results else make()
        self.results[key] = result
        if len(self.results) > KEPT:
            del self.results[next(iter(self.results))]
        return result


_TRACES, _ROWS = Kept(), Kept()


def traced_alike() -> Iterator[None]:
    """The body of a fixture under which networks that are alike share one trace of fake tensors."""
    traced, foreign = tracing._traced, clip_rows.Rows.foreign

    def once(run: tracing._Run, fake: FakeTensorMode | None) -> Trace:
        key = None if fake is None or run.prepare is not None else kind(run.backbone, run.example)
        if key is None:
            return traced(run, fake)
        return _TRACES.get((key, run.images, run.as_is), lambda: traced(run, fake))

    def foreign_once(rows: clip_rows.Rows, places: Sequence[Place]) -> clip_rows.Foreign | None:
        if not hasattr(rows, "kind"):
            rows.kind = kind(rows.backbone, rows.example) if rows.graph.trace.fake else None
        if rows.kind is None:
            return foreign(rows, places)
        return _ROWS.get((rows.kind, tuple(places)), lambda: foreign(rows, places))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "_traced", once)
        patch.setattr(clip_rows.Rows, "foreign", foreign_once)
        yield
