"""Which output a receptive field belongs to: a unit of a layer or of the output, of one frame or of their aggregate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from image2video.errors import InputError, InputTypeError

CHANNELS = ("all", "largest")


@dataclass(frozen=True)
class Unit:
    """One unit of a model; `str(unit)` is a phrase for captions.

    Attributes:
        layer: the name of the module whose output it belongs to, below the backbone where the model is a `VideoWrap`;
            None for what the model returns.
        output: which tensor, where several are returned: a key, an index, or a whole path such as `"['aux'][0]"`.
        position: (row, column) in the map or grid of tokens, or "centre": (h // 2, w // 2). Vectors have none.
        channel: its index; "all" for a sum over all channels with random signs (drawn per image, so that the average
            is over channels); "largest" for the largest value, which of a class vector is the predicted class. None is
            "all" for a layer and "largest" for what the model returns.
        frame: of a `VideoWrap`, the frame whose features it belongs to, 0 … T − 1: this shows what fusion does. None
            for the aggregate over the frames (maps unwarped), where averaging reshapes the field even without fusion.

    Raises:
        InputError: a value that no model can have.
        InputTypeError: a value of another type.

    >>> str(Unit("layer4", frame=0))
    'all channels of the centre unit of layer4, frame 0'
    """

    layer: str | None = None
    output: str | int | None = None
    position: tuple[int, int] | str = "centre"
    channel: int | str | None = None
    frame: int | None = None

    def __post_init__(self) -> None:
        if self.layer is not None and not isinstance(self.layer, str):
            raise InputTypeError(f"layer must be the name of a module, got {self.layer!r:.80}")
        if self.output is not None and (isinstance(self.output, bool) or not isinstance(self.output, str | int)):
            raise InputTypeError(f"output must be a key, an index or a path, got {self.output!r:.80}")
        if isinstance(self.position, list):
            object.__setattr__(self, "position", tuple(self.position))
        is_pair = isinstance(self.position, tuple) and len(self.position) == 2 and all(map(_is_index, self.position))
        if self.position != "centre" and not is_pair:
            raise InputError(f"position must be (row, column), each 0 or more, or 'centre'; got {self.position!r:.80}")
        if not (self.channel is None or self.channel in CHANNELS or _is_index(self.channel)):
            raise InputError(f"channel must be an index of 0 or more, 'all' or 'largest'; got {self.channel!r:.80}")
        if not (self.frame is None or _is_index(self.frame)):
            raise InputError(f"frame must be 0 … T − 1, or None for the aggregate; got {self.frame!r:.80}")

    @property
    def channels(self) -> int | str:
        """The channel that is meant, with the default filled in."""
        if self.channel is not None:
            return self.channel
        return "largest" if self.layer is None else "all"

    def of_image(self) -> Unit:
        """The same unit of a model without frames.

        Returns:
            A unit whose `frame` is None.
        """
        return replace(self, frame=None)

    def phrase(self, *, vector: bool = False, aggregated: bool = True) -> str:
        """What the unit is, in words.

        Args:
            vector: whether it belongs to a vector, which has no positions.
            aggregated: whether the model has frames, so that a unit of none belongs to their aggregate.

        Returns:
            A phrase for captions.
        """
        named = {"all": "all channels", "largest": "the largest channel"}
        channel = named.get(str(self.channels), f"channel {self.channels}")
        place = self.layer or "the output"
        if self.output is not None:
            place += f" {self.output!r}"
        if not vector:
            where = "the centre unit" if self.position == "centre" else f"unit {self.position}"
            place = f"{where} of {place}"
        if self.frame is not None:
            place += f", frame {self.frame}"
        elif aggregated:
            place += ", aggregated over frames"
        return f"{channel} of {place}"

    def __str__(self) -> str:
        return self.phrase(aggregated=False)


def _is_index(value: object) -> bool:
    """Whether a value counts from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
