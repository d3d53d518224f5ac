"""Frames that are made at several places of a network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from image2video.clip.any_clip import steps_of
from image2video.clip.checks import check_frames, check_images
from image2video.clip.deep_clip import DeepClip
from image2video.clip.deep_way_back import DeepWayBack, Sizes
from image2video.clip.frames import clip_to_frames
from image2video.clip.image_to_video import Image2Video
from image2video.clip.map_frames import check_inside, check_maps, moved_clip
from image2video.clip.memory import check_clip_memory
from image2video.clip.of_options import OfOptions
from image2video.clip.options import ClipOptions
from image2video.clip.schedules import schedule_steps
from image2video.clip.walk import Kinds, Walk, walk_of
from image2video.errors import InputError


class DeepVideo(nn.Module, OfOptions):
    """Make the frames of images at several places of a network, and bring maps of the frames back to the image (ours).

    The first place makes T frames; at every later place frame t is moved once more, by the clip of that place. Each
    place is one resampling, with the same padding and interpolation. There are no parameters and no buffers.

    Args:
        genotype: the clips at the places.
        options: the schedule, padding and interpolation of all places.

    Raises:
        InputError: an option that the clip cannot have, fewer than two frames, colours at a place inside of the
            network, or colours at the image without mean and std.
    """

    def __init__(self, genotype: DeepClip, options: ClipOptions) -> None:
        super().__init__()
        for place, clip in genotype.sites:
            if place in genotype.inner:
                check_inside(clip, f"at {place!r}")
        _check_several(options.T, genotype)
        steps_of(genotype, options.schedule, options.T)
        self.genotype = genotype
        self.options = options
        # Of an image's frames and of a map's: everything but the rows, which a walk tells.
        self.videos = nn.ModuleList(Image2Video.of(clip, options) for clip in genotype.clips)
        self._kinds = [Kinds(clip) for clip in genotype.clips]
        self._firsts = [genotype.first(count) for count in range(1, len(genotype.sites))] + [genotype]

    def place_videos(self) -> list[Image2Video]:
        """List what makes the frames at each place.

        Returns:
            One `Image2Video` for each place, in order.
        """
        return [video for video in self.videos if isinstance(video, Image2Video)]

    def set_frames(self, T: int) -> None:
        """Make clips of T frames from now on.

        Args:
            T: an integer of at least 2, and no more than frame sets list; `InputError` and `InputTypeError` refuse
                anything else.
        """
        _check_several(check_frames(T), self.genotype)
        options = self.options.replace(T=T)
        self.genotype.check_steps(options.steps)
        for video in self.place_videos():
            video.set_frames(T)
        self.options = options

    def frames_of_call(self, T: int | None = None, *, shared: int = 0) -> CallFrames:
        """Return what makes the frames of one call of the network.

        Args:
            T: frames of the clip; by default those of the module.
            shared: behind how many of the places frames that are the same up to there are one row; see `walk_of`.

        Returns:
            What the hooks at the places ask for frames.

        Raises:
            InputError: fewer than two frames, or more than frame sets list.
        """
        T = self.T if T is None else check_frames(T)
        _check_several(T, self.genotype)
        steps = schedule_steps(self.schedule, T)
        if T != self.T and not torch.compiler.is_compiling():  # the constructor has checked its own
            self.genotype.check_steps(steps)
        return CallFrames(self, T, walk_of(self._kinds, steps, shared))

    def at_maps(self, sizes: Sizes, count: int | None = None) -> DeepWayBack:
        """Return the way back of frames.

        Args:
            sizes: for each place, (h, w) of the maps there, whose cells magnitudes in cells mean; None for the image.
            count: how many of the places the frames have passed; None for all.

        Returns:
            What has `unwarp`, `unwarped_mean` and the rest of the way back.
        """
        count = len(self.genotype.sites) if count is None else count
        return DeepWayBack(self._firsts[count - 1], self.options, tuple(sizes[:count]))

    def extra_repr(self) -> str:
        """Show the options in `print(model)`.

        Returns:
            The genotype and the options.
        """
        return f"{self.genotype}, T={self.T}, padding={self.padding}, interpolation={self.interpolation}"


@dataclass(frozen=True)
class CallFrames:
    """What makes the frames of one call at every place; equal where the frames are.

    Attributes:
        video: the clips at the places.
        T: frames of the clip.
        walk: which rows stand behind each place.
    """

    video: DeepVideo
    T: int
    walk: Walk

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows per image before the first place inside of the network, and behind each of those places."""
        return self.walk.counts[int(self.begins_at_image) :]

    @property
    def begins_at_image(self) -> bool:
        """Whether the network gets frames, and not images."""
        return self.video.genotype.begins_at_image

    def image_frames(self, images: Tensor) -> Tensor:
        """Make the rows that enter the network, where the clip begins at the image.

        Args:
            images: `(B, C, H, W)`, floating point and normalised.

        Returns:
            `(B·n, C, H, W)`, of the n rows per image that stand behind the image.
        """
        check_images(images)
        check_clip_memory(images, self.walk.counts[1])
        return clip_to_frames(self.video.place_videos()[0].clip_of_steps(images, self.walk.steps[0]))

    def parents_at(self, place: int) -> tuple[int, ...]:
        """Tell which row each row behind a place is made of.

        Args:
            place: as in `place_frames`.

        Returns:
            The numbers of rows of one image.
        """
        return self.walk.parents[place + int(self.begins_at_image)]

    def place_frames(self, place: int, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Make the rows behind a place inside of the network.

        Args:
            place: the number of the place among those inside of the network.
            maps: of the rows that come in, `(B·n, C, h, w)`.
            image_size: (H, W) of the images.

        Returns:
            `(B·m, C, h, w)`, batch-major.
        """
        check_maps(maps)
        number = place + int(self.begins_at_image)
        steps, parents, count = self.walk.steps[number], self.parents_at(place), self.walk.counts[number]
        if count == 1:
            check_clip_memory(maps, len(steps))
        sources = maps.unflatten(0, (-1, count)).unbind(1)
        clip = self.video.genotype.clips[number]
        return clip_to_frames(moved_clip(sources, clip, steps, parents, image_size, self.video.options))


def _check_several(T: int, genotype: DeepClip) -> None:
    """Raise `InputError` for a clip of one frame, which no place moves."""
    if T < 2:
        raise InputError(
            f"a clip at places of a network has 2 frames or more, got T={T} for {str(genotype)!r:.200}; raise T, or "
            "call the bare backbone (model.unwrap())"
        )
