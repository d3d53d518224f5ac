"""The settings of a comparison; the defaults are those of `image2video demo`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from image2video.errors import InputError
from image2video.experiments.settings import warmup_epochs
from image2video.settings.training import TrainConfig

_NOT_COMPARED = ("out", "resume", "overwrite", "device", "arms", "seeds")
"""What may be other when a comparison is resumed: it may get more arms or seeds, or another machine."""


@dataclass(frozen=True)
class DemoConfig:
    """What is compared, on which images, for how long.

    Attributes:
        data: data set: digits, npz:PATH, folder:PATH or torchvision:NAME@ROOT.
        model: timm model, such as resnet18; the demo's own is a ResNet of 78 thousand parameters.
        frames: frames of a clip, T.
        fusion: how the frames of the clips mix; a name from `fusion_names()`.
        epochs: epochs of a network from scratch; the bare one at equal compute gets T times as many.
        finetune_epochs: epochs of a wrapped network that starts from trained weights; the bare one gets T times as
            many.
        train_images: how many labelled images to use, the held-out ones included (default: all).
        holdout: share of the training images that is set aside to choose genotypes; no choice sees the test set.
        image_size: pixels per side (default: the data's own).
        seed: the first seed.
        seeds: how many seeds, one after the other from the first.
        batch_size: images per training step.
        lr: peak learning rate from scratch.
        finetune_lr: peak learning rate of fine-tuning.
        space: search space, of the search and of the random genotypes; its schedule is that of all clips.
        search_epochs: epochs of the search.
        tune_epochs: epochs of tuning after each decision of the search.
        search_lr: learning rate of the weights in the search.
        tau_lr: learning rate of τ; a short search needs a larger one than the paper's long one.
        fixed_space: search space of the genotypes that are ranked for trained weights.
        fixed_candidates: how many genotypes are ranked for trained weights.
        arms: which networks to train, by name as [bare, searched], with those that they start from (default: all).
        device: auto, cpu, cuda or mps.
        checkpoints: keep a folder of every training run, so that a killed comparison goes on inside it.
        out: folder of the results.
        resume: go on with the comparison in this folder.
        overwrite: replace the comparison in this folder.

    Raises:
        InputError: a number out of range.

    """

    data: str = "digits"
    model: str = "cifar_resnet8"
    frames: int = 3
    fusion: str = "gsf"
    epochs: int = 6
    finetune_epochs: int = 2
    train_images: int | None = None
    holdout: float = 0.5
    image_size: int | None = None
    seed: int = 0
    seeds: int = 3
    batch_size: int = 32
    lr: float = 0.3
    finetune_lr: float = 0.02
    space: str = "affine5"
    search_epochs: int = 6
    tune_epochs: int = 1
    search_lr: float = 0.1
    tau_lr: float = 3e-3
    fixed_space: str = "gentle"
    fixed_candidates: int = 64
    arms: list[str] | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    checkpoints: bool = False
    out: str = "image2video-demo"
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("frames", "epochs", "finetune_epochs", "seeds", "batch_size", "search_epochs"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.tune_epochs < 0 or self.seed < 0:
            raise InputError(f"tune_epochs and seed must be at least 0, got {self.tune_epochs} and {self.seed}")
        if not 0 < self.holdout < 1:
            raise InputError(
                f"holdout must be between 0 and 1, got {self.holdout!r}; genotypes are chosen on held-out images"
            )

    @property
    def schedule(self) -> str:
        """The power of each frame in all clips: that of the search space."""
        from image2video.search import get_space  # torch comes with it, which the help of the demo needs not

        return get_space(self.space).schedule

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds, in order."""
        return tuple(range(self.seed, self.seed + self.seeds))

    def training(self, epochs: int, seed: int, *, finetune: bool) -> TrainConfig:
        """The recipe of one arm: all are alike but for epochs, seed, and the learning rate of fine-tuning.

        Args:
            epochs: of the arm.
            seed: of the run.
            finetune: whether the arm starts from trained weights.

        Returns:
            The settings of its training.
        """
        return TrainConfig(
            epochs=epochs,
            batch_size=self.batch_size,
            lr=self.finetune_lr if finetune else self.lr,
            warmup_epochs=warmup_epochs(epochs, finetune=finetune),
            seed=seed,
            device=self.device,
        )

    def settings(self) -> dict[str, Any]:
        """The fields that the figures depend on, without paths.

        Returns:
            Field -> value, ready for JSON.
        """
        return {name: value for name, value in asdict(self).items() if name not in _NOT_COMPARED}
