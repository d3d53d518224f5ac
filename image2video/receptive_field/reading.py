"""Reads the value of one unit from what a module or a model returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from image2video.errors import InputError
from image2video.receptive_field.target import Target
from image2video.trace.trace import tensors_of
from image2video.wrap.video_wrap import VideoWrap
from image2video.wrap.ways import way_back, way_behind


class Reading:
    """The value of one unit, image by image, in one forward after another.

    Attributes:
        target: the unit.
        values: `(B,)` of the running forward, once the unit's module has run.
    """

    def __init__(self, target: Target, wrapper: VideoWrap | None, seed: int) -> None:
        self.target = target
        self.values: Tensor | None = None
        self._wrapper = wrapper
        self._generator = torch.Generator().manual_seed(seed)
        self._signs: Tensor | None = None
        self._left = 0

    @property
    def of_outputs(self) -> bool:
        """Whether the unit belongs to what the model returns for images, after all frames are aggregated."""
        return self.target.unit.layer is None and self.target.unit.frame is None

    def begin(self, images: Tensor) -> None:
        """Get ready for a forward with these images; draws the signs of a sum over channels."""
        self.values = None
        # A module may run several times in a forward (shared weights); its unit is that of the last time.
        self._left = max(1, self.target.runs)
        if self.target.unit.channels == "all":
            signs = torch.randint(2, (images.shape[0], self.target.channels), generator=self._generator) * 2 - 1
            self._signs = signs.to(images)

    def module(self, bare: nn.Module) -> nn.Module:
        """The module whose output has the unit, below the bare network."""
        layer = self.target.unit.layer
        if layer is None:
            return bare
        # A name of the wrapper begins with `backbone.`.
        known = layer in dict(bare.named_modules(remove_duplicate=False))
        return bare.get_submodule(layer if known else layer.removeprefix("backbone."))

    def leave(self, outputs: Any) -> None:
        """Take the value where the module has run for the last time in this forward."""
        self._left -= 1
        if self._left == 0:
            self.values = self.read(outputs, aggregated=False)

    def taken(self) -> Tensor:
        """The values of the forward that has ended; raises `InputError` where the module did not run in it."""
        if self.values is None:
            layer = self.target.unit.layer
            raise InputError(f"layer {layer!r} ran in the trace but not in this forward; name a layer that always runs")
        values, self.values = self.values, None
        return values

    def read(self, outputs: Any, *, aggregated: bool) -> Tensor:
        """The value of the unit for every image, `(B,)`."""
        tensors = dict(tensors_of(outputs))
        # The path is that of the trace. A single tensor needs none, however it is packed this time.
        tensor = tensors.get(self.target.path)
        if tensor is None and len(tensors) == 1:
            tensor = next(iter(tensors.values()))
        if tensor is None or tensor.ndim not in (1, 2, 3, 4):
            shapes = {path: tuple(value.shape) for path, value in tensors.items()}
            raise InputError(f"the tensor of {self.target.described} must be among what came, got {shapes}")
        frame, T = self.target.unit.frame, self.target.T
        if aggregated or T is None:
            values = self._place(tensor)
        elif frame is not None:
            values = self._place(tensor[frame::T])
        else:
            values = self._aggregate(tensor, T)
        return self._channel(values)

    def _place(self, tensor: Tensor) -> Tensor:
        """The channels of the unit: `(B, K)`."""
        layout = self.target.layout
        if layout is None:
            return tensor.reshape(len(tensor), -1)
        y, x = self._position
        return layout.to_maps(layout.split_prefix(tensor)[1])[:, :, y, x]

    def _aggregate(self, tensor: Tensor, T: int) -> Tensor:
        """The channels of the unit in the average over the frames, maps brought back to the image."""
        layout = self.target.layout
        if layout is None:
            return tensor.reshape(-1, T, self.target.channels).mean(1)
        assert self._wrapper is not None, "a model without frames has nothing to aggregate"
        maps = layout.to_maps(layout.split_prefix(tensor)[1])
        y, x = self._position
        video, sites, size = self._wrapper.to_video, self._wrapper.plan.clip_sites, self.target.size
        if self._wrapper.plan.later_sites:  # a layer between the places goes back by those before it
            back = way_behind(video, sites, size, self.target.passed)
        else:
            back = way_back(video, sites, size)
        return back.unwarped_mean(maps, self.target.size, T)[:, :, y, x]

    @property
    def _position(self) -> tuple[int, int]:
        """(row, column) of the unit."""
        position = self.target.unit.position
        assert isinstance(position, tuple), "a target's position is filled in"
        return position

    def _channel(self, values: Tensor) -> Tensor:
        """The unit's channel of `(B, K)`, or what stands for all of them: `(B,)`."""
        channel = self.target.unit.channels
        if channel == "all":
            assert self._signs is not None
            return (values * self._signs).sum(1)
        if channel == "largest":
            return values.gather(1, values.detach().argmax(1, keepdim=True))[:, 0]
        return values[:, int(channel)]
