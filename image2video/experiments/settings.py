"""The settings of the final networks of `image2video search --compare`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from image2video.errors import InputError
from image2video.settings.training import FINE_TUNING, TrainConfig


def warmup_epochs(epochs: int, *, finetune: bool) -> float:
    """Epochs of warm-up: a quarter of all, at most one; none where training goes on from trained weights."""
    return 0.0 if finetune else min(1.0, epochs / 4)


@dataclass(frozen=True)
class CompareConfig:
    """How the final networks of `image2video search --compare` are trained: all alike.

    Attributes:
        model: the bare network's name, for records.
        frames: T, the frames of a clip.
        schedule: the power of each frame, of the search's space.
        fusion: how frames mix.
        epochs: of every network; the bare one at equal compute gets T times as many.
        seeds: number of seeds, one after the other from `seed`.
        seed: first seed.
        batch_size: images per step.
        lr: peak learning rate; None is `train`'s default, a tenth of it for trained weights.
        trained: whether the bare network starts from trained weights.
        padding: what lies outside the image.
        interpolation: how frames are sampled.
        device: where it runs.

    Raises:
        InputError: a number out of range.
    """

    model: str
    frames: int
    schedule: str
    fusion: str = "gsf"
    epochs: int = 5
    seeds: int = 3
    seed: int = 0
    batch_size: int = 64
    lr: float | None = None
    trained: bool = False
    padding: str = "zeros"
    interpolation: str = "bilinear"
    device: str = "auto"

    def __post_init__(self) -> None:
        for option, value in (("--final-epochs", self.epochs), ("--final-seeds", self.seeds)):
            if value < 1:
                raise InputError(f"{option} must be at least 1, got {value}")
        self.training(self.epochs, self.seed, finetune=False)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds, in order."""
        return tuple(range(self.seed, self.seed + self.seeds))

    def training(self, epochs: int, seed: int, *, finetune: bool) -> TrainConfig:
        """The recipe of one network: all are alike but for epochs and seed."""
        lr = self.lr
        if lr is None and self.trained:
            lr = FINE_TUNING * TrainConfig().peak_lr
        warmup = warmup_epochs(epochs, finetune=finetune)
        return TrainConfig(epochs=epochs, batch_size=self.batch_size, lr=lr, warmup_epochs=warmup, seed=seed)

    def settings(self) -> dict[str, Any]:
        """The fields that the figures depend on, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if name not in ("device", "seeds")}
