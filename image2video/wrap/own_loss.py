"""The loss that a backbone itself computes from labels, of outputs that are aggregated over the frames.

A network that is called with labels computes its loss within its forward, behind its last modules, and every network in
its own way: auxiliary heads, ignored classes, maps that are enlarged to the labels'. So its own code is used. The
frames run without labels, and what the parts of the network return is written down. Then the forward runs once more, on
the images and with the labels, in a copy whose parts return what is written down, the scores aggregated: this computes
nothing but what stands between the parts, and the loss.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from image2video.errors import Image2VideoError, UnsupportedError
from image2video.wrap.keywords import Call

_ADVICE = "compute the loss from what the model returns, outside of it"


class Part(NamedTuple):
    """What a part of a backbone returned.

    Args:
        module: the part.
        output: what it returned.
    """

    module: nn.Module
    output: Any


class Parts:
    """Within `with`, writes down what the parts of a backbone return in this thread."""

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        self._thread = threading.get_ident()
        self._handles: list[Any] = []
        self.calls: list[Part] = []

    def __enter__(self) -> Parts:
        self._handles = [part.register_forward_hook(self._note) for part in _parts(self._backbone)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _note(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if threading.get_ident() == self._thread:
            self.calls.append(Part(module, output))


def with_own_loss(
    backbone: nn.Module, calls: list[Part], outputs: Any, call: Call, of_images: Callable[[Any], Any]
) -> Any:
    """Return the outputs of images with the loss that the backbone computes from them.

    Args:
        backbone: the backbone; it stays as it is.
        calls: what its parts returned for the frames, in the order of the calls.
        outputs: what it returned for the frames.
        call: the call of the wrapper.
        of_images: aggregates outputs over the frames.

    Raises:
        UnsupportedError: a backbone whose loss does not follow from the scores that its parts return.
    """
    name = type(backbone).__name__
    result = of_images(outputs)
    of_frames, scores = scores_of(outputs), scores_of(result)
    if of_frames is None or scores is None or scores.shape[0] != call.images.shape[0] or scores.ndim != of_frames.ndim:
        raise UnsupportedError(
            f"got labels=, and a loss needs one row of scores per image; {name} with this aggregate returns none: "
            f"{_ADVICE}"
        )

    def alike(others: Tensor) -> Tensor:
        return scores_of(of_images(_in_place_of_scores(outputs, others)))  # type: ignore[return-value]

    for own in (True, False):
        returned = _aggregated(calls, of_frames, scores if own else None, alike)
        joined, again = _joined(_told(backbone, returned, call), result)
        if again is None:
            raise UnsupportedError(f"got labels=, and {name} returned no loss for them; {_ADVICE}")
        if torch.allclose(again, scores, rtol=1e-4, atol=1e-5, equal_nan=True):
            if call.images.shape[0] == 1:
                _check_twice(backbone, returned, of_frames.shape[0], call)
            return joined
    raise UnsupportedError(
        f"got labels=, and the loss of {name} is not computed from scores that one of its modules returns; {_ADVICE}"
    )


def _told(backbone: nn.Module, returned: Mapping[int, list[Any]], call: Call) -> Any:
    """Return what the forward returns for labels, where its parts return what they are told."""
    try:
        return _copy_of(backbone, returned, call.loss["labels"])(call.images, **call.flags, **call.loss)
    except Image2VideoError:
        raise
    except Exception as error:
        raise UnsupportedError(
            f"got labels= {_shape(call.loss['labels'])} for {call.images.shape[0]} images, and the forward of "
            f"{type(backbone).__name__} could not compute its loss from them ({type(error).__name__}: {error}); check "
            f"the labels, or {_ADVICE}"
        ) from error


@torch.no_grad()
def _check_twice(backbone: nn.Module, returned: Mapping[int, list[Any]], frames: int, call: Call) -> None:
    """Refuse for one image what is refused for two: frames that meet labels, which one label broadcasts to.

    Raises:
        UnsupportedError: a loss that is computed from what the frames have, beside the scores.
    """

    def twice(value: Any) -> Any:
        rows = value.shape[0] if isinstance(value, Tensor) and value.ndim else 0
        return torch.cat([value, value]) if rows in (1, frames) else value

    parts = {part: [tree_map(twice, output) for output in outputs] for part, outputs in returned.items()}
    _told(backbone, parts, Call(twice(call.images), call.flags, tree_map(twice, call.loss)))


def _in_place_of_scores(outputs: Any, scores: Tensor) -> Any:
    """Return outputs that hold nothing but these scores, where the network's own stand."""
    if isinstance(outputs, Mapping):
        return {"logits": scores}
    return [scores] if isinstance(outputs, tuple | list) else scores


def _shape(labels: Any) -> Any:
    """Show labels in a message."""
    return tuple(labels.shape) if isinstance(labels, Tensor) else f"of type {type(labels).__name__}"


def scores_of(outputs: Any) -> Tensor | None:
    """Return the scores among the outputs of a network: its `logits`, its first output, or the only one."""
    if isinstance(outputs, Mapping):
        outputs = outputs.get("logits")
    elif isinstance(outputs, tuple | list) and outputs:
        outputs = outputs[0]
    return outputs if isinstance(outputs, Tensor) else None


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """Go through the modules that a forward calls: the children, and those of children that only hold modules."""
    for child in module.children():
        if _only_holds(child):
            yield from _parts(child)
        else:
            yield child


def _only_holds(module: nn.Module) -> bool:
    """Whether a module has no forward of its own (ModuleList, ModuleDict)."""
    return type(module).forward is nn.Module.forward


def _aggregated(
    calls: list[Part], of_frames: Tensor, scores: Tensor | None, alike: Callable[[Tensor], Tensor]
) -> dict[int, list[Any]]:
    """Return what every part shall return, by its id: what it did, but for scores, which are aggregated.

    Scores are what has the rows and the classes of the network's own. Where `scores` are given, the first ones are
    those that the network returns: where it enlarges them first, enlarging them to the size that they have changes
    nothing. Otherwise each is aggregated by itself, as for a network that returns the mean of two heads.
    """
    returned: dict[int, list[Any]] = {}
    for part in calls:
        value = part.output
        if isinstance(value, Tensor) and value.ndim == of_frames.ndim and value.shape[:2] == of_frames.shape[:2]:
            # A copy: the forward may change what a part returns in place (`z *= scale`).
            value, scores = (alike(value), None) if scores is None else (scores.clone(), None)
        returned.setdefault(id(part.module), []).append(value)
    return returned


class _Told:
    """The forward of a part that returns what it is told, call after call."""

    def __init__(self, outputs: list[Any], labels: Any) -> None:
        self._outputs, self._labels = iter(outputs), labels

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        if any(value is self._labels for value in (*args, *keywords.values())):
            raise UnsupportedError(f"got labels=, and a part of the network computes with them itself; {_ADVICE}")
        for output in self._outputs:
            return output
        raise RuntimeError("a part of the network was entered by another method than its call")


def _copy_of(module: nn.Module, returned: Mapping[int, list[Any]], labels: Any) -> nn.Module:
    """Copy a module without its hooks, whose parts return what they are told; tensors are shared."""
    twin = _shallow(module)
    if id(module) in returned:
        twin.__dict__["forward"] = _Told(
            returned[id(module)], labels
        )  # what it holds stays: networks ask for their device
    else:
        known = {id(child): _copy_of(child, returned, labels) for child in module.children()}
        twin.__dict__["_modules"] = {
            name: None if child is None else known[id(child)] for name, child in module._modules.items()
        }
    return twin


def _shallow(module: nn.Module) -> nn.Module:
    """Copy a module alone, without its hooks."""
    twin: nn.Module = type(module).__new__(type(module))
    twin.__dict__.update(module.__dict__)
    fresh = nn.Module()
    for name, value in fresh.__dict__.items():
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")):
            twin.__dict__[name] = value
    return twin


def _joined(found: Any, outputs: Any) -> tuple[Any, Tensor | None]:
    """Put the aggregated outputs into what the forward returned with labels; return it, and its own scores.

    None where it returned no loss.
    """
    if isinstance(found, Mapping) and isinstance(outputs, Mapping):
        if found.get("loss") is None:
            return None, None
        again = scores_of(found)
        result: Any = found
        for key, value in outputs.items():
            result[key] = value
        return result, again
    if isinstance(found, tuple):
        rest = outputs if isinstance(outputs, tuple) else (outputs,)
        if len(found) == len(rest) + 1 and isinstance(found[0], Tensor) and found[0].ndim == 0:
            return (found[0], *rest), found[1]
    return None, None
