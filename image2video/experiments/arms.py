"""The arms of a fair comparison as data: which clip, which fusion, how much training, and from which weights.

A clip of T frames costs T times the compute of the image, so every claim has its control at equal epochs and at equal
compute (`standard_arms`), and every question about two arms is a `Contrast` that the report answers by paired seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from image2video.clip.any_clip import options_for
from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype_text import FRAME_BAR
from image2video.clip.options import ClipOptions
from image2video.errors import InputError
from image2video.report import Contrast

Budget = Literal["scratch", "finetune", "none"]


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison.

    Attributes:
        name: of folders and records.
        title: of tables and figures.
        genotype: `none` (the bare network), `identity` (the image T times), `random` (drawn by the seed from the
            search's space), `random:K` (draw K of that space, the same for every seed), `searched`, `fixed_weights`
            (chosen for the weights that the arm starts from, on held-out images), or the text of a genotype or a
            frame set.
        fusion: a fusion's name; `none` averages over the frames; None for the bare network.
        budget: `scratch` (the comparison's `epochs`), `finetune` (its `finetune_epochs`) or `none` (no training).
        epochs_factor: multiplies the budget's epochs; T gives the bare network equal compute.
        start: name of the arm, bare, whose last weights of the same seed this one starts from.
        group: heading under which tables list it.
        pool: name under which contrasts take several arms as one, such as all random draws.
        T: frames, where they are not the comparison's. A frame set says them itself.
        schedule: the power of each frame, where it is not the comparison's; likewise.
        magnitude: factor on every magnitude of the genotype.
        equal_compute: multiplies the epochs by T, whatever it is: the bare network then sees as many frames as a clip.

    Raises:
        InputError: a bare arm with a fusion or the reverse; a start that the budget or the genotype contradicts; a T or
            a schedule that a frame set cannot have.
    """

    name: str
    title: str
    genotype: str = "none"
    fusion: str | None = None
    budget: Budget = "scratch"
    epochs_factor: int = 1
    start: str | None = None
    group: str = "from scratch"
    pool: str | None = None
    T: int | None = None
    schedule: str | None = None
    magnitude: float = 1.0
    equal_compute: bool = False

    def __post_init__(self) -> None:
        if (self.genotype == "none") != (self.fusion is None):
            raise InputError(
                f"arm {self.name!r} got genotype={self.genotype!r:.200} and fusion={self.fusion!r}; the bare network "
                "has genotype='none' and fusion=None, a wrapped one has both"
            )
        lacks_weights = self.genotype == "fixed_weights" and self.needed is None
        if lacks_weights or (self.start is None and self.budget != "scratch"):
            raise InputError(f"arm {self.name!r} needs start=, the arm whose weights it takes")
        if self.epochs_factor < 1:
            raise InputError(f"arm {self.name!r}: epochs_factor must be at least 1, got {self.epochs_factor}")
        if FRAME_BAR in self.genotype:
            options = options_for(FrameSet.parse(self.genotype), T=self.T, schedule=self.schedule)
            object.__setattr__(self, "T", options.T)
            object.__setattr__(self, "schedule", options.schedule)

    @property
    def needed(self) -> str | None:
        """The arm whose weights it needs."""
        return self.start

    def epochs(self, epochs: int, finetune_epochs: int, T: int = 1) -> int:
        """All epochs of the arm.

        Args:
            epochs: of an arm from scratch.
            finetune_epochs: of an arm that starts from another.
            T: frames of the arm's clip; they count for `equal_compute`.

        Returns:
            The epochs; 0 where the arm is not trained.
        """
        factor = self.epochs_factor * (T if self.equal_compute else 1)
        return factor * {"scratch": epochs, "finetune": finetune_epochs, "none": 0}[self.budget]

    def frames_per_image(self, T: int) -> int:
        """How many frames one image costs.

        Args:
            T: frames of a clip.

        Returns:
            `T`, or 1 for the bare network.
        """
        return 1 if self.fusion is None else T

    def clip(self, options: ClipOptions) -> ClipOptions:
        """The clip of this arm.

        Args:
            options: those of the comparison.

        Returns:
            The same options with the arm's own T and schedule.
        """
        own = {"T": self.T, "schedule": self.schedule}
        return options.replace(**{name: value for name, value in own.items() if value is not None})


def standard_arms(T: int, fusion: str = "gsf", translation: str | None = None) -> tuple[Arm, ...]:
    """The arms of `image2video demo`.

    Args:
        T: frames of a clip.
        fusion: of the clips that are not averaged.
        translation: genotype of one more arm, None for none.

    Returns:
        The arms; those that start from another come after it.
    """
    name = fusion.upper()
    extra = [] if translation is None else [Arm("translation", f"one translation, {name}", translation, fusion)]
    return (
        Arm("bare", "bare network"),
        Arm("bare_long", f"bare network, {T}× epochs", epochs_factor=T),
        Arm("none", "searched clip, averaged", "searched", "none"),
        Arm("replica", f"copies (replica), {name}", "identity", fusion),
        Arm("random", f"random clip, {name}", "random", fusion),
        *extra,
        Arm("searched", f"searched clip, {name}", "searched", fusion),
        *_from_trained(T, fusion, name),
    )


def _from_trained(T: int, fusion: str, name: str) -> tuple[Arm, ...]:
    """The arms that start from the bare network trained longest, the one nearest to convergence."""

    def arm(key: str, title: str, genotype: str, how: str | None, budget: Budget, factor: int = 1) -> Arm:
        return Arm(key, title, genotype, how, budget, factor, "bare_long", f"from the bare network, {T}× epochs")

    return (
        arm("averaged", "averaged frames, untuned", "fixed_weights", "none", "none"),
        arm("tuned_bare", f"fine-tuned bare, {T}× epochs", "none", None, "finetune", T),
        arm("tuned_none", "fine-tuned, averaged", "fixed_weights", "none", "finetune"),
        arm("tuned", f"fine-tuned, {name}", "fixed_weights", fusion, "finetune"),
    )


def standard_contrasts(translation: bool = False) -> tuple[Contrast, ...]:
    """The questions that `standard_arms` answer; the headline ones make the report's sentence.

    Args:
        translation: whether the arm of one translation takes part.

    Returns:
        The questions, in the report's order.
    """
    extra = [Contrast("translation", "a search instead of one translation", "searched", "translation")]
    return (
        Contrast("equal_epochs", "at equal epochs", "searched", "bare", headline=True),
        Contrast("equal_compute", "at equal compute", "searched", "bare_long", headline=True),
        Contrast("fusion", "fusion instead of averaging", "searched", "none"),
        Contrast("clip", "a moving clip instead of copies", "searched", "replica"),
        Contrast("search", "a search instead of a random draw", "searched", "random"),
        *(extra if translation else []),
        Contrast("averaging", "without any training", "averaged", "bare_long", headline=True),
        Contrast("tuning", "fine-tuning at equal compute", "tuned", "tuned_bare", headline=True),
        Contrast("tuning_fusion", "fine-tuning, fusion instead of averaging", "tuned", "tuned_none"),
    )


def check_arms(arms: Sequence[Arm], contrasts: Iterable[Contrast] = ()) -> None:
    """Refuse arms and questions that do not fit together.

    Args:
        arms: the arms, in their order.
        contrasts: the questions.

    Raises:
        InputError: a name that repeats, a start that comes later or is wrapped, or a contrast of no arm.
    """
    seen: dict[str, Arm] = {}
    for arm in arms:
        if arm.name in seen:
            raise InputError(f"two arms are called {arm.name!r}; names must differ")
        if arm.needed is not None:
            needed = seen.get(arm.needed)
            if needed is None or needed.fusion is not None:
                how = "starts from" if arm.start is not None else "is ranked for"
                raise InputError(
                    f"arm {arm.name!r} {how} {arm.needed!r}; that must be a bare arm listed before it, one of "
                    f"{', '.join(a.name for a in seen.values() if a.fusion is None) or '(none)'}"
                )
        seen[arm.name] = arm
    pools = {arm.pool for arm in arms}
    for contrast in contrasts:
        for name in (contrast.a, contrast.b):
            if name not in seen and name not in pools:
                raise InputError(f"contrast {contrast.name!r} names the arm {name!r}; the arms are {', '.join(seen)}")


def select_arms(arms: Sequence[Arm], names: Sequence[str] | None) -> tuple[Arm, ...]:
    """Some of the arms, with all that they start from.

    Args:
        arms: to choose from.
        names: of the arms; None for all.

    Returns:
        The arms, in their order.

    Raises:
        InputError: an unknown name.
    """
    if names is None:
        return tuple(arms)
    known = {arm.name: arm for arm in arms}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"unknown arm {unknown[0]!r}; the arms are {', '.join(known)}")
    wanted = set(names)
    for arm in reversed(arms):
        if arm.name in wanted and arm.needed is not None:
            wanted.add(arm.needed)
    return tuple(arm for arm in arms if arm.name in wanted)


def training_frames(arms: Iterable[Arm], *, images: int, T: int, epochs: int, finetune_epochs: int) -> dict[str, int]:
    """How many frames go forward and backward in the training of every arm, with one seed.

    Args:
        arms: the arms.
        images: training images.
        T: frames of a clip.
        epochs: of an arm from scratch.
        finetune_epochs: of an arm that starts from another.

    Returns:
        Name of an arm -> images × epochs × frames of an image.
    """
    found = {}
    for arm in arms:
        own = T if arm.T is None else arm.T
        found[arm.name] = images * arm.epochs(epochs, finetune_epochs, own) * arm.frames_per_image(own)
    return found
