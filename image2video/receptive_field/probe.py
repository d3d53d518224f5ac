"""A model held still while the gradient of one unit is taken; it goes back to what it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from image2video.errors import InputError, UnsupportedError
from image2video.receptive_field.inside import maps_at
from image2video.receptive_field.models import bare_network, uncompiled
from image2video.receptive_field.reading import Reading
from image2video.receptive_field.target import Target
from image2video.wrap.video_wrap import VideoWrap


@dataclass(frozen=True)
class Gradients:
    """Gradients of a unit: with respect to the images `(B, C, H, W)`, and to their frames `(B, T, C, H, W)` if any.

    Frames of a clip that begins inside of the network are those of the map there, `(B, T, c, h, w)`.
    """

    images: Tensor
    frames: Tensor | None


@contextmanager
def held_still(model: nn.Module) -> Iterator[nn.Module]:
    """A model in eval mode without gradients of its parameters; both are restored for every module and parameter.

    Of a clip at several places every frame has a row of its own meanwhile, so that each has its share.
    """
    wrapper = uncompiled(model)
    injection = wrapper.fusion if isinstance(wrapper, VideoWrap) else None
    plan = None if injection is None else injection._plan
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        if injection is not None and plan is not None:
            injection._plan = replace(plan, shared=0)
        yield model
    finally:
        if injection is not None and plan is not None:
            injection._plan = plan
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


class _Reached(Exception):  # noqa: N818 (no error: what comes after the unit need not be computed)
    pass


class Probe:
    """Takes the gradients of units; the model must be held still meanwhile.

    A unit's value is read while its module runs, and the forward is left after the last of them: what comes after it
    costs nothing, and what happens to the tensor in place afterwards does not count. Several units share one forward.
    """

    def __init__(self, model: nn.Module, targets: Sequence[Target], seed: int) -> None:
        self.model = uncompiled(model)
        self.wrapper = self.model if isinstance(self.model, VideoWrap) else None
        self.bare = bare_network(self.model)
        self._site = None if self.wrapper is None else self.wrapper.plan.clip_site
        self.readings = [Reading(target, self.wrapper, seed) for target in targets]
        self._frames: Tensor | None = None

    def gradients(self, images: Tensor) -> list[Gradients]:
        """The gradients of every unit's value for each of the images, which must not depend on one another.

        Raises `UnsupportedError` where no gradient gets through, `InputError` where it is NaN or infinite.
        """
        # A caller's inference mode or no_grad would leave nothing to differentiate.
        with torch.inference_mode(False), torch.enable_grad():
            leaf = images.detach().clone().requires_grad_(True)
            values = self.values(leaf)
            last = len(values) - 1
            found = [self._of(index, one, leaf, keep=index < last) for index, one in enumerate(values)]
        self._frames = None
        return found

    def _of(self, index: int, values: Tensor, images: Tensor, *, keep: bool) -> Gradients:
        """The gradients of one unit's values; `keep` leaves the graph for another unit."""
        target = self.readings[index].target
        if self._frames is None or target.T is None:
            (gradient,) = _backward(values, [images], target.described, keep=keep)
            return Gradients(_checked(gradient, target.described), None)
        gradient, of_frames = _backward(values, [images, self._frames], target.described, keep=keep)
        if of_frames is None:  # the unit reads the images past the backbone's input
            of_frames = torch.zeros_like(self._frames)
        of_frames = of_frames.detach()
        if self._site is not None:
            of_frames = maps_at(self._site, of_frames, target.size)
        return Gradients(_checked(gradient, target.described), of_frames.unflatten(0, (-1, target.T)))

    def values(self, images: Tensor) -> list[Tensor]:
        """The value of every unit for each of the images, `(B,)`: one forward, as far as the units need it."""
        outputs = None
        for reading in self.readings:
            reading.begin(images)
        # Hooks rather than a copy of the forward: the values are read before anything changes them in place.
        with ExitStack() as stack:
            if self.wrapper is not None:
                # Behind the hook that makes the frames, where the clip begins inside.
                begin = self.bare if self._site is None else self.bare.get_submodule(self._site.module)
                stack.callback(begin.register_forward_pre_hook(self._enter).remove)
            for reading in self.readings:
                if not reading.of_outputs:
                    hook = partial(self._leave, reading)
                    stack.callback(reading.module(self.bare).register_forward_hook(hook).remove)
            with suppress(_Reached):
                # A copy: a first operation in place may change no leaf of the graph.
                outputs = self.model(images.clone())
            for reading in self.readings:
                if reading.of_outputs:
                    reading.values = reading.read(outputs, aggregated=True)
        return [reading.taken() for reading in self.readings]

    def _enter(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Note the frames where the clip begins; the network goes on with a copy that it may change in place."""
        index = 0 if self._site is None else self._site.index
        self._frames = args[index]
        return (*args[:index], args[index].clone(), *args[index + 1 :])

    def _leave(self, reading: Reading, _: nn.Module, __: tuple[Any, ...], outputs: Any) -> None:
        """Let a reading take its value; end the forward once all have theirs."""
        reading.leave(outputs)
        if all(other.values is not None for other in self.readings):
            raise _Reached


def _backward(values: Tensor, inputs: list[Tensor], described: str, *, keep: bool) -> tuple[Tensor | None, ...]:
    """The gradients of the sum of values; `UnsupportedError` where none reaches the first of the inputs."""
    if not values.requires_grad:
        raise UnsupportedError(
            f"no gradient reaches the images from {described}: the value ({values.dtype}) comes out of operations "
            "without gradient (argmax, rounding to integers, detach, no_grad, numpy); name an earlier layer"
        )
    try:
        found = torch.autograd.grad(values.sum(), inputs, allow_unused=True, retain_graph=keep)
    except (RuntimeError, NotImplementedError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise UnsupportedError(
            f"the gradient of {described} cannot be computed: {type(error).__name__}: {first:.200}; a layer before "
            "it has no derivative, or changes in place what its own derivative needs"
        ) from error
    if found[0] is None:
        raise UnsupportedError(
            f"no gradient reaches the images from {described}: between them are only operations without gradient "
            "(argmax, rounding to integers, detach, no_grad); name an earlier layer"
        )
    return found


def _checked(gradient: Tensor | None, described: str) -> Tensor:
    """A gradient whose values are all finite."""
    assert gradient is not None
    gradient = gradient.detach()
    good = torch.isfinite(gradient).flatten(1).all(1)
    if not good.all():
        bad = (~good).nonzero().flatten().tolist()
        rows = ", ".join(map(str, bad[:8])) + (", …" if len(bad) > 8 else "")
        raise InputError(
            f"the gradient of {described} is NaN or infinite for {len(bad)} of {len(good)} images of this batch "
            f"(rows {rows}); look for NaN in the images or the weights, and for √x or x/|x| at 0 in the model"
        )
    return gradient
