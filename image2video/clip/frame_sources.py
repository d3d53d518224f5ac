"""What makes clips with random draws, in place of one genotype: the interface, its state, and how models record it."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from image2video.clip.checks import check_frames
from image2video.clip.genotype import Genotype
from image2video.clip.memory import check_clip_memory
from image2video.errors import Image2VideoError, InputError, MissingError, StateError, UnsupportedError
from image2video.protocols import Unwarper
from image2video.trace.capture import is_exported
from image2video.trace.recompute import backward_task

STATE = "_extra_state"
EVALUATION, TRAINING = 0, 1  # the two streams of draws

# Of all sources, since a lock is in no copy and no pickle: two threads must not take the same number.
_COUNTING = threading.Lock()
_SOURCES: dict[str, type[FrameSource]] = {}
_UNCOMPILED: list[Callable[[FrameSource, Tensor, int | None], tuple[Tensor, Unwarper]]] = []


class FrameSource(nn.Module, ABC):
    """What makes clips in place of `Image2Video`, with random draws: `VideoWrap(backbone, frames=source)`.

    In training, batch n draws from the random stream (seed, n). Evaluation always draws from the same stream, so that a
    prediction depends on its image alone. The state dict holds how many batches training has drawn: a resumed run goes
    on with the same draws, and a checkpoint without that count leaves it as it is. There are no parameters. A source
    runs uncompiled within a compiled model.

    Args:
        T: frames of a clip.
        seed: of the draws, an integer of at least 0.
    """

    kind: ClassVar[str]

    def __init__(self, T: int, seed: int) -> None:
        super().__init__()
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InputError(f"seed must be an integer of at least 0, got {seed!r}")
        self.seed = seed
        self.drawn = 0
        self.set_frames(T)
        self.register_load_state_dict_pre_hook(_keep_count)
        _prepare()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        _prepare()

    @property
    def T(self) -> int:  # noqa: N802 (the field's name for the number of frames)
        """The number of frames of a clip; `set_frames` changes it."""
        return self._T

    def set_frames(self, T: int) -> None:
        """Make clips of T frames from now on.

        Args:
            T: an integer of at least 1; `InputError` and `InputTypeError` refuse anything else.
        """
        self._T = check_frames(T)

    @property
    @abstractmethod
    def genotype(self) -> Genotype | None:
        """The chain that evaluation uses; None where frames are not those of a chain."""

    @abstractmethod
    def clip(self, images: Tensor, T: int, generator: torch.Generator) -> tuple[Tensor, Unwarper]:
        """Draw a clip.

        Args:
            images: `(B, C, H, W)`, floating point and normalised.
            T: frames of the clip.
            generator: of all draws.

        Returns:
            The clip `(B, T, C, H, W)`, and what brings maps of its frames back.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Record the source for a file.

        Returns:
            The arguments of the constructor, as JSON values.
        """

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Make the source that `to_dict` recorded.

        Args:
            record: what `to_dict` returned.

        Returns:
            The new source.
        """
        return cls(**record)

    def make(self, images: Tensor, T: int | None = None) -> tuple[Tensor, Unwarper]:
        """Make the next clip in training, and the fixed one in evaluation.

        Args:
            images: `(B, C, H, W)`, floating point and normalised.
            T: frames of this clip; by default those of the module.

        Returns:
            The clip `(B, T, C, H, W)`, and what brings maps of its frames back.

        Raises:
            StateError: in training, a backward pass that recomputes the clip, since it would be another one.
            UnsupportedError: in an export, a clip that is drawn anew for every batch or is no chain's.
        """
        assert _UNCOMPILED, "made by the constructor"
        if is_exported() and (self.training or self.genotype is None):
            raise UnsupportedError(
                f"{type(self).__name__} draws its clips, and a graph without Python would repeat one draw for good; "
                "export a wrapper of one genotype (or of RandomClips after model.eval(), whose chain is then fixed)"
            )
        return _UNCOMPILED[0](self, images, T)

    def forward(self, images: Tensor, T: int | None = None) -> Tensor:
        """Make a clip as `make` does.

        Args:
            images: `(B, C, H, W)`, floating point and normalised.
            T: frames of this clip; by default those of the module.

        Returns:
            The clip `(B, T, C, H, W)` alone.
        """
        return self.make(images, T)[0]

    def unwarped_mean(self, maps: Tensor, image_size: tuple[int, int], T: int | None = None) -> Tensor:
        """Bring maps back without their clip: refused, unless a subclass has a fixed clip.

        Args:
            maps: maps of frames, `(B·T, K, h, w)`.
            image_size: (H, W) of the image.
            T: frames of the clip.

        Returns:
            Where a subclass can tell it, the mean `(B, K, h, w)` in the reference image.

        Raises:
            UnsupportedError: always here.
        """
        raise UnsupportedError(
            f"maps of frames by {type(self).__name__} cannot be brought back to the image, since its draws are not "
            'kept; use a model that returns vectors, aggregate="mean", "first" or "none", or a genotype'
        )

    def get_extra_state(self) -> Tensor:
        """Put the count of draws into the state dict.

        Returns:
            How many batches training has drawn, `()` int64.
        """
        return torch.tensor(self.drawn, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Go on after the draws of a checkpoint.

        Args:
            state: what `get_extra_state` returned.
        """
        self.drawn = int(state)

    def extra_repr(self) -> str:
        """Show the options in `print(model)`.

        Returns:
            The arguments of the constructor.
        """
        return ", ".join(f"{name}={value}" for name, value in {**self.to_dict(), "T": self.T}.items())


_Source = TypeVar("_Source", bound=type[FrameSource])


def register_frame_source(cls: _Source) -> _Source:
    """Make a `FrameSource` known to saved models under its `kind`; `InputError` where another has it."""
    if _SOURCES.get(cls.kind, cls) is not cls:
        raise InputError(f"another frame source is registered as {cls.kind!r}; choose another kind")
    _SOURCES[cls.kind] = cls
    return cls


def source_record(source: FrameSource) -> dict[str, Any]:
    """Record a frame source in a saved model's config."""
    return {"kind": source.kind, **source.to_dict()}


def source_from_record(record: Mapping[str, Any]) -> FrameSource:
    """Make the source that `source_record` recorded; `MissingError` for a kind that is not registered."""
    arguments = dict(record)
    kind = arguments.pop("kind", None)
    if not isinstance(kind, str) or kind not in _SOURCES:
        raise MissingError(
            f"the model's frames are made by {kind!r:.80}, known here: {', '.join(sorted(_SOURCES))}; import the "
            "module that registers it first (image2video.data for 'augmented_frames')"
        )
    try:
        return _SOURCES[kind].from_dict(arguments)
    except Image2VideoError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # keys or types of another version
        raise InputError(
            f"the record of {kind!r} frames does not fit this version: {error}; it has {arguments!r:.300}"
        ) from error


def stream(*numbers: int) -> torch.Generator:
    """Return a CPU generator whose draws depend on the numbers alone; other numbers give an independent stream."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def _make(source: FrameSource, images: Tensor, T: int | None) -> tuple[Tensor, Unwarper]:
    """Make the next clip of a source; see `FrameSource.make`."""
    if source.training:
        if backward_task() != -1:
            raise StateError(
                f"the backward pass recomputes the whole model, and {type(source).__name__} would draw other frames "
                "than the forward had; checkpoint blocks of the backbone only (timm: set_grad_checkpointing)"
            )
        with _COUNTING:
            source.drawn += 1
            batch = source.drawn
        generator = stream(source.seed, TRAINING, batch)
    else:
        generator = stream(source.seed, EVALUATION)
    T = source.T if T is None else check_frames(T)
    if images.ndim == 4:  # else the source refuses them
        check_clip_memory(images, T)
    return source.clip(images, T, generator)


def _prepare() -> None:
    """Keep `_make` out of compiled graphs: its draws and its count are no part of a graph."""
    # As a decorator, `disable` would import torch's compiler with this module.
    if not _UNCOMPILED:
        _UNCOMPILED.append(torch.compiler.disable(_make))


def _keep_count(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, *reports: list[str]
) -> None:
    """Keep the count of draws where a checkpoint, such as one of the bare backbone, has none."""
    if isinstance(module, FrameSource):
        state_dict.setdefault(prefix + STATE, module.get_extra_state())
