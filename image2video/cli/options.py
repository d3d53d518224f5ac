"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from image2video.errors import InputError, MissingError
from image2video.runs.texts import read_text

if TYPE_CHECKING:
    from image2video.data import DataSource
    from image2video.data.preparation import Preparation


@dataclass(frozen=True)
class DataOptions:
    """Which images.

    Attributes:
        data: data set: digits, digit_scenes (segmentation), npz:PATH, folder:PATH or torchvision:NAME@ROOT
        train_images: how many labelled images to use, the held-out ones included (default: all)
        holdout: share of the training images that is held out to choose an epoch or a genotype
        image_size: pixels per side (default: as the weights' run or published config says, else the data's own, 224
            for image files)
        mean: per channel in 0 … 1, to normalise with, as [0.5,0.5,0.5] (default: likewise, else the data's own)
        std: deviation per channel, to normalise with, as [0.2,0.2,0.2] (default: likewise, else the data's own)
        resize: interpolation with which images are resized: bilinear, bicubic, nearest, or for files lanczos (default:
            likewise, else bilinear)
        crop_fraction: of image files, the side of the image over the side that it is resized to before the crop
            (default: likewise, else 0.875)
        crop_mode: of image files: center, squash or border, as in timm (default: likewise, else center)
        classes: file with the names of the network's outputs in their order, one a line, or their number for data
            whose classes are numbers (default: as the weights' run says, else the data's own)
        flip: mirror images in training (default: yes, except for digits and their scenes)
        augment: what else changes every training image: autoaugment, autoaugment:cifar10, randaugment,
            randaugment:ops=2,magnitude=9, trivialaugment, uniformaugment, or clips:SPACE for random frames of a search
            space (default: nothing)
        workers: worker processes that read image files (default: one less than CPUs, at most 8)
    """

    data: str = "digits"
    train_images: int | None = None
    holdout: float = 0.1
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: str | None = None
    crop_fraction: float | None = None
    crop_mode: str | None = None
    classes: str | None = None
    flip: bool | None = None
    augment: str | None = None
    workers: int | None = None

    def load(
        self,
        seed: int,
        *,
        known: Preparation | None = None,
        classes: Sequence[str] | None = None,
        parts: Sequence[str] = ("train", "test"),
    ) -> DataSource:
        """The data set, with the parts that `seed` draws, for a network of which `known` and `classes` are known."""
        from image2video.data import load_data  # it brings torch, which help needs not

        options = asdict(self)
        asked = options.pop("classes")
        named = _class_names(asked) if asked is not None else classes
        return load_data(options.pop("data"), seed=seed, model=known, classes=named, parts=parts, **options)


def _class_names(text: str) -> Sequence[str] | int:
    """The names in a file, or a number."""
    if text.isdecimal():
        return int(text)
    try:
        names = [line.strip() for line in read_text(text, "file of class names").splitlines()]
    except (InputError, MissingError) as error:
        raise InputError(f"--classes {text}: it must be a text file of class names, or a number ({error})") from error
    return [name for name in names if name]


@dataclass(frozen=True)
class BackboneOptions:
    """Which bare network.

    Attributes:
        model: timm model, such as resnet18 or cifar_resnet18 (segmentation: small_fcn); another builder's model as
            BUILDER:NAME, a function of your own that returns a network as module:function or file.py:function
        model_kwargs: further arguments of the model as JSON, such as {"img_size": 32}
        pretrained: load timm's weights for this model
        weights: trained weights to start from: .safetensors or a torch file; the folder of a run, or of
            save_pretrained. What their run recorded is the default of all options
        head: keep the classifier of trained weights, which must fit, or drop it for a fresh one (default: drop it
            where its number of classes is not that of the data, and say so)
    """

    model: str = "cifar_resnet8"
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    weights: str | None = None
    head: Literal["keep", "drop"] | None = None

    def __post_init__(self) -> None:
        if self.head is not None and self.weights is None and not self.pretrained:
            raise InputError(f"--head {self.head}: no effect without trained weights; give --weights or --pretrained")


@dataclass(frozen=True)
class TaskOptions:
    """A network with its images and losses that another library's config describes.

    Attributes:
        task: in place of --data and --model, mmseg:CONFIG for the model, the training images and the losses of a
            mmsegmentation config, with mIoU as the measure
        task_validation: where a task's held-out images come from: train (a part of its training images) or val (the
            config's val_dataloader, unless that is its test set)
        task_size: height and width of a task's held-out images, as [360,480] (default: those of its training crops)
    """

    task: str | None = None
    task_validation: Literal["train", "val"] = "train"
    task_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class WrapOptions:
    """How the network sees an image as a video.

    Attributes:
        genotype: text such as "translate_x(0.06) > rotate(10)", "identity | flip_x" for a frame set, or "image:
            scale(1.1) | layer3: rotate(10)" for several places of the network; a .json file, preset:NAME, identity, or
            none for the bare network (default: the small shift of VideoWrap)
        frame_source: frames drawn at random in place of a genotype's: clips:SPACE for a new random chain of a search
            space per batch, or a policy as for --augment, for copies that are each augmented on their own
        frames: frames of the clip, T (default: as the genotype's file was found with, else 3; all of a frame set)
        clip_at: module at whose input the clip begins, one that `image2video sites --clip-sites` lists, or image
            (default: as the genotype's file was found with, else image)
        fusion: how frames mix; a name from `fusion_names()`
        schedule: power of each frame: from_zero, ramp, centred or mirror (default: as the genotype's file was found
            with, else centred)
        padding: what lies outside the image: zeros, border or reflection (default: likewise, else reflection)
        interpolation: how frames are sampled: bilinear, nearest or bicubic (default: likewise, else bilinear)
        residual: start as the average over the frames instead of the fusion as published (default: when there are
            trained weights)
        sites: regular expression on module names, for where fusions sit (default: all that the rule finds)
        aggregate: how the frames' outputs become the image's, such as auto, mean, mean_prob or first
        freeze_bn: keep the statistics of the network's batch norms
    """

    genotype: str | None = None
    frame_source: str | None = None
    frames: int | None = None
    clip_at: str | None = None
    fusion: str = "gsf"
    schedule: str | None = None
    padding: str | None = None
    interpolation: str | None = None
    residual: bool | None = None
    sites: str | None = None
    aggregate: str = "auto"
    freeze_bn: bool = False


@dataclass(frozen=True)
class MachineOptions:
    """Which device and which random numbers.

    Attributes:
        seed: of the data's parts, the first weights, batches and augmentation
        device: auto, cpu, cuda or mps
    """

    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


@dataclass(frozen=True)
class OutputOptions:
    """Where results go.

    Attributes:
        out: folder of the results
        resume: go on with the run in this folder
        overwrite: replace the run in this folder
    """

    out: str
    resume: bool = False
    overwrite: bool = False
