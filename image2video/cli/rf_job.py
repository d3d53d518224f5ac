"""The networks and the images of `image2video rf`."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor, nn

from image2video.cli.arguments import dashed
from image2video.cli.commands.rf import RfOptions
from image2video.cli.follow import NETWORK, follow_run
from image2video.clip.any_clip import AnyClip, clip_in_words, options_for
from image2video.clip.deep_clip import DeepClip
from image2video.clip.deep_video import DeepVideo
from image2video.clip.image_to_video import Image2Video
from image2video.clip.memory import check_memory
from image2video.clip.options import WRAP_CLIP, ClipOptions
from image2video.data.folder import ImageFiles
from image2video.data.preparation import Preparation, preparation_sentence
from image2video.data.resizing import Resizing
from image2video.data.scan import image_files
from image2video.data.source import IMAGENET_MEAN, IMAGENET_STD
from image2video.data.transforms import eval_transform
from image2video.errors import InputError, MissingError
from image2video.receptive_field import prepare_random
from image2video.trace.places import IMAGE
from image2video.trace.sizes import nominal_size
from image2video.training import load_weights, read_weights
from image2video.training.head import head_classes, head_names
from image2video.training.trained import PRETRAINED, TrainedRun
from image2video.wrap.builders import Builder
from image2video.wrap.phases import phases
from image2video.wrap.steps import found_at, wanted_clip
from image2video.wrap.video_wrap import VideoWrap

BARE = "bare"
AVERAGED = "no fusion"
_CALIBRATION = 4  # images that calibrate the batch norms of random networks

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Networks:
    """The networks by name, bare first, with equal weights where they share a module, in evaluation mode.

    Attributes:
        models: the networks.
        size: (C, H, W) of their images.
        weights: `random` or `trained`, with what must be said beside.
        genotype: of the wrapped ones.
        clip: how the wrapped ones make their frames.
        name: of the bare network.
    """

    models: dict[str, nn.Module]
    size: Size
    weights: str
    genotype: AnyClip
    clip: ClipOptions
    name: str

    @property
    def place(self) -> str | None:
        """The module at whose input the clips begin; None for the image, and for a genotype that names its places."""
        return self.wrapped.clip_at

    @property
    def moves_inside(self) -> bool:
        """Whether maps are moved inside of the network."""
        return bool(self.wrapped.plan.clip_sites)

    @property
    def clip_at(self) -> str | list[str]:
        """The place where the clip begins, `image` for the image, or all places where its genotype names several."""
        plan = self.wrapped.plan
        return [*plan.places] if plan.later_sites else plan.places[0]

    @property
    def wrapped(self) -> VideoWrap:
        """One of the wrapped networks."""
        return next(model for model in self.models.values() if isinstance(model, VideoWrap))

    @property
    def bare(self) -> nn.Module:
        """The bare network."""
        return self.models[BARE]

    @property
    def clip_text(self) -> str:
        """The clip in words, for captions."""
        text = clip_in_words(self.genotype, self.clip.T, self.clip.schedule)
        return text if self.place is None else f"{text}, beginning at {self.place}"

    @property
    def still_frame(self) -> int:
        """The frame that is the image itself, or moves least."""
        return self.genotype.nearest(self.clip.steps)

    def calibrated(self, images: Tensor, seed: int) -> Networks:
        """Random networks as they can be measured: no branch is zero, batch norms fit the images (`prepare_random`).

        Without fusion, a wrapper keeps the bare network's norms; with it, they are calibrated on its own clips.
        """
        clips = images[:_CALIBRATION]
        models = {BARE: prepare_random(self.bare, clips, seed=seed)}
        for name, model in self.models.items():
            if isinstance(model, VideoWrap):
                model.backbone.load_state_dict(models[BARE].state_dict())
                fused = bool(model.plan.sites)
                models[name] = prepare_random(model, clips, batch_size=2, seed=seed) if fused else model
        return replace(self, models=models)


def follow_weights(options: Namespace) -> tuple[Namespace, TrainedRun | None, list[str]]:
    """The options with what the run behind `--weights` recorded; a wrapped run stands for its `pretrained` folder."""
    run = None if options.weights in (None, "none") else TrainedRun.of(options.weights)
    if run is not None and run.network.get("genotype") is not None and (run.folder / PRETRAINED).is_dir():
        options = Namespace(**vars(options))
        options.weights = str(run.folder / PRETRAINED)
    saved = run is None or run.network.get("genotype") is not None
    return follow_run(options, () if saved else NETWORK)


def build_networks(options: RfOptions, seed: int, device: torch.device, *, run: TrainedRun | None = None) -> Networks:
    """The bare network that the options name, its clip without fusion, and with it; random ones as they are drawn.

    run: what the weights come from.
    """
    if options.weights != "none" and Path(options.weights).is_dir():
        return _saved(options, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bare = _bare(options, run)
        side = options.size
        if side is None and run is not None:
            known = Preparation.of(options.weights)
            side = None if known is None else known.image_size
        size = image_size(bare, side)
        genotype, place = wanted_clip(options.genotype, options.clip_at, partial(phases, bare, input_size=size))
        clip = options_for(genotype, WRAP_CLIP, T=options.frames, schedule=options.schedule)
        if run is not None:  # photometric ops see the colours that the images have
            _, mean, std, _ = _preparation(bare, options.weights)
            clip = clip.replace(mean=mean, std=std)
        if options.frame is not None and options.frame >= clip.T:
            raise InputError(f"--frame {options.frame} is not one of --frames {clip.T}: they count from 0")
        place = place or found_at(genotype)
        fusions = ["none"] if options.fusion == "none" else ["none", options.fusion]
        models: dict[str, nn.Module] = {BARE: bare}
        for fusion in fusions:
            name = AVERAGED if fusion == "none" else fusion.upper()
            models[name] = _wrapped(bare, fusion, genotype, clip, size, place)
    kind = "random"
    if options.pretrained or options.weights != "none":
        kind = "trained" if options.fusion in ("none", "tsm") else f"trained (those of {options.fusion.upper()} random)"
    models = {name: model.to(device) for name, model in models.items()}
    return Networks(models, size, kind, genotype, clip, name=options.model)


def _bare(options: RfOptions, run: TrainedRun | None) -> nn.Module:
    """The bare network with its weights, for as many classes and channels as these have."""
    if options.weights != "none" and not Path(options.weights).exists():
        raise MissingError(f"no weights at {options.weights}; give a file, a folder of save_pretrained, or none")
    name = options.model if ":" in options.model else f"timm:{options.model}"
    builder = Builder(name, dict(options.model_kwargs))
    model = (builder.with_kwargs(pretrained=True) if options.pretrained else builder).build()
    if options.weights != "none":
        if any(key.startswith("backbone.") for key in read_weights(options.weights)):
            raise InputError(
                f"{options.weights} holds a wrapped model's weights; give the folder of its save_pretrained "
                "(`pretrained` in the folder of a training run), which says how it is wrapped"
            )
        count = head_classes(head_names(model), read_weights(options.weights))
        found = {"num_classes": count, "in_chans": None if run is None else run.channels}
        missing = {name: value for name, value in found.items() if value and name not in options.model_kwargs}
        model = builder.with_kwargs(**missing).build() if missing else model
        load_weights(model, options.weights)
    return model.eval()


def _wrapped(
    bare: nn.Module,
    fusion: str,
    genotype: AnyClip,
    clip: ClipOptions,
    size: Size,
    place: str | tuple[str, ...] | None,
) -> VideoWrap:
    """A copy of the bare network as a video network; its fusions are as published, else they would not be seen."""
    options: dict[str, Any] = {"genotype": genotype, **clip.arguments(), "residual": False, "input_size": size}
    # A genotype that names several places says itself where they are.
    at = None if isinstance(genotype, DeepClip) else place or IMAGE
    return VideoWrap(copy.deepcopy(bare), fusion, **options, clip_at=at).eval()  # type: ignore[arg-type]


def _saved(options: RfOptions, device: torch.device) -> Networks:
    """The networks of a folder of `save_pretrained`, which says itself what is wrapped how."""
    fresh = type(options)()
    named = ("model", "model_kwargs", "genotype", "fusion", "frames", "schedule", "clip_at", "pretrained")
    given = [dashed(name) for name in named if getattr(options, name) != getattr(fresh, name)]
    if given:
        raise InputError(f"{options.weights} says itself how its model is wrapped; leave out {', '.join(given)}")
    model = VideoWrap.from_pretrained(options.weights)
    if not isinstance(model.to_video, Image2Video | DeepVideo):
        raise InputError(f"a field needs frames of a fixed shape; the model in {options.weights} draws them at random")
    made = model.plan.input_size  # of the images that it was wrapped for, which may be others than its family's
    if options.size is None and min(made) > 0:
        size = (made[0], made[1], made[2])
    else:
        size = image_size(model.backbone, options.size)
    models = {name: one.to(device) for name, one in beside(model, size).items()}
    name = type(model.backbone).__name__ if model.builder is None else model.builder.name.partition(":")[2]
    return Networks(models, size, "trained", model.to_video.genotype, _clip_of(model.to_video), name=name)


def beside(model: VideoWrap, size: Size) -> dict[str, nn.Module]:
    """A trained wrapper beside its backbone alone, and beside its clip without fusion; all are copies but itself."""
    bare = copy.deepcopy(model).unwrap().eval()
    assert isinstance(model.to_video, Image2Video | DeepVideo), "callers refuse frames that are drawn at random"
    averaged = _wrapped(bare, "none", model.to_video.genotype, _clip_of(model.to_video), size, model.clip_at)
    found: dict[str, nn.Module] = {BARE: bare, AVERAGED: averaged}
    if model.plan.sites:
        found[model.plan.fusion.name.upper()] = model.eval()
    return found


def _clip_of(to_video: Image2Video | DeepVideo) -> ClipOptions:
    """How a wrapper makes its frames."""
    colours = to_video.colours
    return ClipOptions(
        T=to_video.T,
        schedule=str(to_video.schedule),
        padding=to_video.padding,
        interpolation=to_video.interpolation,
        mean=None if colours is None else colours.mean,
        std=None if colours is None else colours.std,
    )


def image_size(bare: nn.Module, side: int | None) -> Size:
    """(C, H, W) of the images: the model's own, or squares of `side` pixels.

    Raises `InputError` where neither is known.
    """
    known = nominal_size(bare)
    if side is not None:
        return (3 if known is None else known[0], side, side)
    if known is None or len(known) != 3:
        raise InputError(f"{type(bare).__name__} does not say which images it takes; give --size PIXELS")
    return known[0], known[1], known[2]


@dataclass(frozen=True)
class Pictures:
    """The images `(N, C, H, W)`, normalised, what they are in words, and their mean and std where they are pictures.

    prepared: how they were made ready, in a line; empty for noise.
    """

    images: Tensor
    about: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    prepared: str = ""


def read_images(
    folder: str, count: int, size: Size, bare: nn.Module, seed: int, *, weights: str | None = None
) -> Pictures:
    """Noise drawn by `seed`, or the first files of a folder, made ready as the run of `weights` had its images.

    Weights of no run that is known are taken for the published ones, as their config says. Raises `MissingError` where
    there is no folder, `InputError` where it holds too few images.
    """
    channels, height, width = size
    what = f"--count {count}: {count} images of {channels}×{height}×{width}"
    check_memory(4 * count * channels * height * width, what, "lower --count or --size")
    if folder == "random":
        generator = torch.Generator().manual_seed(seed)
        return Pictures(torch.randn(count, channels, height, width, generator=generator), "images of white noise")
    if not Path(folder).is_dir():
        raise MissingError(f"no folder {folder}; give a folder of image files, or --images random")
    paths = image_files(Path(folder))
    if len(paths) < count:
        raise InputError(f"{folder} holds {len(paths)} image files, --count asks for {count}; lower it or add images")
    if channels != 3 or height != width:
        raise InputError(f"image files are read as square colour images; this model takes {channels}×{height}×{width}")
    known, mean, std, own = _preparation(bare, weights)
    transform = eval_transform(height, mean, std, own)
    files = ImageFiles(tuple(paths[:count]))
    images = torch.stack([transform(files[index]) for index in range(count)])
    line = preparation_sentence((channels, height, width), mean, std, own, asked={}, known=known)
    return Pictures(images, f"images (the first files of {Path(folder).resolve().name})", mean, std, line)


def _preparation(
    bare: nn.Module, weights: str | None
) -> tuple[Preparation | None, tuple[float, ...], tuple[float, ...], Resizing]:
    """What is known of a network's images, and mean, std and crops of them; a random network's are its config's."""
    config = getattr(bare, "pretrained_cfg", None) or {}
    known, published = None if weights in (None, "none") else Preparation.of(str(weights)), Preparation.of(bare)
    known = published if known is None else known.or_else(published)
    own = Resizing(crop_fraction=config.get("crop_pct") or Resizing().crop_fraction)
    mean, std = tuple(config.get("mean") or IMAGENET_MEAN), tuple(config.get("std") or IMAGENET_STD)
    if known is None:
        return None, mean, std, own
    crop = known.crop_fraction or own.crop_fraction
    resizing = Resizing(known.resize or own.interpolation, crop, known.crop_mode or own.crop_mode)
    return known, known.mean or mean, known.std or std, resizing
