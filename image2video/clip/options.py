"""How clips are made, whatever the genotype: one frozen object in place of loose arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from image2video.clip.checks import check_choice, check_frames
from image2video.clip.colours import Colours, Values
from image2video.clip.sampling import INTERPOLATIONS, PADDINGS
from image2video.clip.schedules import SCHEDULES, schedule_steps


@dataclass(frozen=True)
class ClipOptions:
    """The options of a clip: what `Image2Video`, `VideoWrap`, rankings and searches know beside the genotype.

    Wrappers and rankings of trained networks have defaults of their own, `WRAP_CLIP`.

    Attributes:
        T: frames of a clip, at least 1.
        schedule: the power of each frame: `from_zero`, `ramp`, `centred` or `mirror` (see `schedule_steps`).
        padding: what stands outside the image: `zeros` (the mean colour of normalised images), `border` or
            `reflection`.
        interpolation: how frames are sampled: `bilinear`, `nearest` or `bicubic`.
        mean: of the images' normalisation, a number or one per channel; photometric ops need it, with `std`.
        std: of the images' normalisation.
        colours: mean and std together, as photometric ops take them; None where they are not known. It is worked out
            from the two and no argument.

    Raises:
        InputError: a T below 1, an unknown choice, or only one of mean and std.
        InputTypeError: a T that is no integer, or a mean or std that holds no numbers.

    >>> ClipOptions(T=3, schedule="from_zero").steps
    (0.0, 1.0, 2.0)
    """

    T: int = 5
    schedule: str = "from_zero"
    padding: str = "zeros"
    interpolation: str = "bilinear"
    mean: Values = None
    std: Values = None
    # Kept, not computed on demand: a compiled model reads it in its graph.
    colours: Colours | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_frames(self.T)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("padding", self.padding, PADDINGS)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        colours = Colours.coerce(self.mean, self.std)
        object.__setattr__(self, "colours", colours)
        if colours is not None:  # plain tuples: equal options compare equal, however mean and std were given
            object.__setattr__(self, "mean", colours.mean)
            object.__setattr__(self, "std", colours.std)

    @classmethod
    def found_with(
        cls,
        provenance: Mapping[str, Any] | None,
        default: ClipOptions | None = None,
        *,
        T: int | None = None,
        schedule: str | None = None,
        padding: str | None = None,
        interpolation: str | None = None,
        mean: Values = None,
        std: Values = None,
    ) -> ClipOptions:
        """The options that are given, the rest as a genotype was found with them, or those of `default`.

        Args:
            provenance: of the genotype: what a search or a ranking wrote. Earlier versions wrote no padding; they
                searched with zeros.
            default: what neither says; None stands for `ClipOptions()`.
            T: frames of a clip.
            schedule: the power of each frame.
            padding: what stands outside the image.
            interpolation: how frames are sampled.
            mean: of the images' normalisation.
            std: of the images' normalisation.

        Returns:
            The options.
        """
        found = dict(provenance or {})
        if "T" in found and "schedule" in found:
            found.setdefault("padding", "zeros")
        given = {"T": T, "schedule": schedule, "padding": padding, "interpolation": interpolation}
        for name, value in given.items():
            # A provenance is free text of whoever wrote it: what is no such option is none.
            if value is None and type(found.get(name)) is type(getattr(cls, name)):
                given[name] = found[name]
        known = {name: value for name, value in given.items() if value is not None}
        return (default or cls()).replace(**known, mean=mean, std=std)

    @property
    def steps(self) -> tuple[float, ...]:
        """The power s(t) of every frame."""
        return schedule_steps(self.schedule, self.T)

    def replace(self, **changes: Any) -> ClipOptions:
        """Return the same options with some of them changed.

        Args:
            **changes: new values by the names of the attributes.

        Returns:
            The new options, checked as new ones are.
        """
        return dataclasses.replace(self, **changes)

    def with_colours(self, colours: Colours | None) -> ClipOptions:
        """Return the same options for images that are normalised so.

        Args:
            colours: the mean and std; None where they are not known.

        Returns:
            The new options.
        """
        if colours is None:
            return self.replace(mean=None, std=None)
        return self.replace(mean=colours.mean, std=colours.std)

    def with_colours_of(self, backbone: object) -> ClipOptions:
        """Fill in mean and std from the backbone's own config, where the options have none.

        Args:
            backbone: what the images are for; see `Colours.of`.

        Returns:
            The new options, without mean and std where the backbone's config has none either.
        """
        return self if self.colours is not None else self.with_colours(Colours.of(backbone))

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON values, for files.

        Returns:
            What `arguments` gives, with lists in place of tuples.
        """
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self.arguments().items()}

    def arguments(self) -> dict[str, Any]:
        """The options by name, as `Image2Video(genotype, …)` and `VideoWrap(backbone, …)` take them.

        Returns:
            A new dictionary with all six.
        """
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}


WRAP_CLIP = ClipOptions(T=3, schedule="centred", padding="reflection")
"""The clip of `VideoWrap` where nothing else is said (ours): it costs trained networks nothing before any training, and
was chosen for that. The paper has T = 5 or 8 and the schedule `ramp`."""
