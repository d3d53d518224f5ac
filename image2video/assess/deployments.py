"""One trained network in several deployments: what an assessment finds there, and what else would have helped."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from image2video.assess.assessment import Assessment
from image2video.assess.driver import assess
from image2video.assess.finalists import PLAIN, Finalist
from image2video.assess.scoring import Images, Network
from image2video.clip.image_to_video import Image2Video
from image2video.data import Augmentation, DataSource
from image2video.data.memory import MemorySet
from image2video.errors import InputError
from image2video.protocols import Progress, named
from image2video.search.rank.gain import INTERVAL
from image2video.training import TrainConfig, train

Recipe = Callable[..., TrainConfig]
"""`recipe(epochs, seed, finetune=…)`: how a network is trained, from scratch or on."""

_AT_ONCE = 64


@dataclass(frozen=True)
class Pose:
    """How the images of a deployment differ from those of the training.

    Attributes:
        name: in records.
        title: for people.
        genotype: what moves every image once; None for nothing.
    """

    name: str
    title: str
    genotype: str | None = None


POSES = (
    Pose("as_trained", "as trained"),
    Pose("tilted", "tilted camera (20°)", "rotate(20)"),
    Pose("smaller", "smaller objects (0.75)", "scale(0.75)"),
    Pose("shifted", "shifted frame (20 %)", "translate_x(0.2)"),
)


@dataclass(frozen=True)
class Way:
    """One thing to do about a deployment, and what it gives on its test images.

    Attributes:
        name: `bare`, `advised`, `mirror`, `retrained` or `tuned`.
        title: for people.
        accuracy: on the test images of the deployment, 0 … 1.
        gain: over the bare network.
        gain_error: one standard error, paired over the images.
        cost: of an image in use, as a multiple of the bare network's.
        labelled: how many labelled images of the deployment it needs.
        seconds: of the work before it can be used.
    """

    name: str
    title: str
    accuracy: float
    gain: float
    gain_error: float
    cost: float
    labelled: int
    seconds: float


@dataclass(frozen=True)
class Deployment:
    """What was found in one deployment.

    Attributes:
        pose: how its images differ.
        assessment: of the bare network, on labelled images from there.
        images: how many further images from there tested the ways.
        ways: what could be done, the bare network first.
        against: gain of the advised clip over each other way, with its error, by the way's name.
    """

    pose: Pose
    assessment: Assessment
    images: int
    ways: tuple[Way, ...]
    against: Mapping[str, tuple[float, float]]

    def way(self, name: str) -> Way:
        """One way by its name.

        Args:
            name: of the way.

        Returns:
            The way.
        """
        return next(way for way in self.ways if way.name == name)

    def sentence(self) -> str:
        """What the assessment advises, what comes of it, and whether something else is decidedly better.

        Returns:
            One or two sentences.
        """
        bare, advised = self.way("bare"), self.way("advised")
        clip = self.assessment.advised.finalist
        if clip.is_bare:
            text = f"{self.pose.title}: keep the model, {100 * bare.accuracy:.1f} %."
        else:
            # The assessment saw other images than those that test, and may advise a clip for its probabilities alone.
            decided = abs(advised.gain) > INTERVAL * advised.gain_error
            what_for = ", for its probabilities" if self.assessment.verdict == "likelihood" else ""
            text = (
                f"{self.pose.title}: {100 * bare.accuracy:.1f} → {100 * advised.accuracy:.1f} % "
                f"{'' if decided else '(not decided) '}with {clip.genotype} (T = {clip.T}), "
                f"{_cost_words(clip.cost)}{what_for}."
            )
        better = [way for way in self.ways if way.name in ("mirror", "retrained", "tuned") and self._beats(way.name)]
        if better:
            best = max(better, key=lambda way: way.accuracy)
            text += f" Decidedly better: {best.title}, {100 * best.accuracy:.1f} %."
        return text

    def _beats(self, name: str) -> bool:
        """Whether a way is decidedly better than the advised clip."""
        gain, error = self.against[name]
        return gain + INTERVAL * error < 0

    def to_dict(self) -> dict[str, Any]:
        """The deployment for records.

        Returns:
            Plain JSON values.
        """
        return {
            "pose": asdict(self.pose),
            "sentence": self.sentence(),
            "images": self.images,
            "ways": [asdict(way) for way in self.ways],
            "against": {name: list(pair) for name, pair in self.against.items()},
            "assessment": self.assessment.to_dict(),
        }


def run_deployments(
    build: Callable[[int], nn.Module],
    data: DataSource,
    recipe: Recipe,
    *,
    epochs: int,
    tune_epochs: int,
    seed: int = 0,
    poses: Sequence[Pose] = POSES,
    candidates: int = 60,
    max_cost: float = 3.0,
    policy: str = "clips:pose",
    progress: Progress | None = None,
) -> tuple[Deployment, ...]:
    """Train a network, put it into several deployments, and see what helps there (ours).

    Half of the test images of each deployment are labelled ones for `assess` and for fine-tuning; the other half tests
    what comes of it, and nothing else. One further network is trained with images that the search space moves.

    Args:
        build: a fresh bare network for a seed, which is that of torch's numbers then too.
        data: images in memory, with a class each.
        recipe: how networks are trained.
        epochs: of a network from scratch.
        tune_epochs: of fine-tuning on the labelled images of a deployment.
        seed: of everything.
        poses: the deployments.
        candidates: how many chains and frames an assessment looks at.
        max_cost: the most that an image may cost.
        policy: the augmentation of the retrained network.
        progress: called as the work goes on.

    Returns:
        The deployments, in their order.

    Raises:
        InputError: images that are no memory set, or labels of pixels.
    """
    if not isinstance(data.test, MemorySet) or data.task != "classification":
        raise InputError(
            f"deployments need images in memory with a class each, got {data.name}; use digits or npz:PATH"
        )

    def trained(source: DataSource, name: str) -> tuple[nn.Module, float]:
        begun = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = build(seed)
        train(net, source, recipe(epochs, seed, finetune=False), progress=named(progress, name))
        return net.eval(), time.perf_counter() - begun

    bare, _ = trained(data, "the network")
    moved, moved_seconds = trained(data.with_policy(Augmentation.parse(policy)), "retrained with moved images")
    found = []
    for number, pose in enumerate(poses):
        if progress is not None:
            progress("deployments", number, len(poses))
        scene = _Scene(data, pose, seed)
        ways = {"bare": (bare, 0.0), "retrained": (moved, moved_seconds)}
        found.append(scene.compared(ways, recipe(tune_epochs, seed, finetune=True), candidates, max_cost, progress))
    if progress is not None:
        progress("deployments", len(poses), len(poses))
    return tuple(found)


class _Scene:
    """The images of one deployment: labelled ones, and others that test."""

    def __init__(self, data: DataSource, pose: Pose, seed: int) -> None:
        assert isinstance(data.test, MemorySet), "checked before"
        self.data, self.pose, self.seed = data, pose, seed
        count = data.test.num_images
        pixels = torch.stack([data.test.raw(number) for number in range(count)])
        if pose.genotype is not None:
            move = Image2Video(f"{pose.genotype} |", padding="zeros")
            pixels = (move(pixels.float() / 255)[:, 0] * 255).round().clamp(0, 255).to(torch.uint8)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        labels = data.test.labels
        self.labelled, self.test = (
            MemorySet(pixels[places], labels[places], mean=data.mean, std=data.std)
            for places in (order[: count // 2], order[count // 2 :])
        )

    def compared(
        self,
        networks: Mapping[str, tuple[nn.Module, float]],
        tuning: TrainConfig,
        candidates: int,
        max_cost: float,
        progress: Progress | None,
    ) -> Deployment:
        """Assess the bare network on the labelled images, and test every way on the others."""
        bare, n = networks["bare"][0], self.labelled.num_images
        begun = time.perf_counter()
        assessment = assess(
            bare, self.labelled, candidates=candidates, max_cost=max_cost, seed=self.seed, **self._colours
        )
        took = time.perf_counter() - begun
        advised = assessment.advised.finalist
        tuned, tuning_seconds = self._tuned(bare, tuning, progress)
        mirror = Finalist("mirror", "", PLAIN["mirror"][1], 2, cost=2)
        image = Finalist("bare", "")
        moved, moved_seconds = networks["retrained"]
        rows = {
            "bare": ("the network as it is", bare, image, 0, 0.0),
            "advised": ("what assess advises", bare, advised, n, took),
            "mirror": ("averaged with the mirror image", bare, mirror, 0, 0.0),
            "retrained": ("retrained with moved images", moved, image, 0, moved_seconds),
            "tuned": (f"fine-tuned on {n} images from there", tuned, image, n, tuning_seconds),
        }
        right = {name: self._right(net, clip) for name, (_, net, clip, _, _) in rows.items()}
        ways = []
        for name, (title, _, clip, labelled, seconds) in rows.items():
            gain, error = _paired(right[name], right["bare"])
            ways.append(Way(name, title, right[name].mean().item(), gain, error, clip.cost, labelled, seconds))
        against = {name: _paired(right["advised"], right[name]) for name in rows if name != "advised"}
        return Deployment(self.pose, assessment, self.test.num_images, tuple(ways), against)

    @property
    def _colours(self) -> dict[str, Any]:
        return {"mean": self.data.mean, "std": self.data.std}

    def _tuned(self, bare: nn.Module, tuning: TrainConfig, progress: Progress | None) -> tuple[nn.Module, float]:
        """A copy of the network that was trained on with the labelled images."""
        net, begun = copy.deepcopy(bare), time.perf_counter()
        source = replace(self.data, train=self.labelled, holdout=None, test=self.test)
        train(net, source, tuning, progress=named(progress, f"fine-tuned, {self.pose.title}"))
        return net.eval(), time.perf_counter() - begun

    def _right(self, net: nn.Module, clip: Finalist) -> Tensor:
        """Which test images a network under a clip gets right, 0 or 1 each."""
        read = list(self.test.batches(256).epoch(0))
        images = Images(torch.cat([x for x, _ in read]), torch.cat([y for _, y in read]))
        network = Network(net, self.data.input_size, _AT_ONCE, None, **self._colours)
        return (network.predicted(clip, images).argmax(1) == images.labels).double()


def _cost_words(cost: float) -> str:
    return "at no further cost" if cost == 1 else f"at {cost:.3g} times the cost"


def _paired(a: Tensor, b: Tensor) -> tuple[float, float]:
    """The difference of two means over the same images, and its standard error; that of one image more that changes."""
    difference = a - b
    error = (difference.var() / len(difference) + 1 / len(difference) ** 2) ** 0.5
    return difference.mean().item(), float(error)
