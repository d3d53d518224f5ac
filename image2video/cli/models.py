"""The network that the options ask for: built, loaded, wrapped."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from image2video.cli.arguments import dashed, plain_values
from image2video.cli.heads import load_weights_file, published_head, wrapped_head
from image2video.cli.images import bare_builder
from image2video.cli.options import BackboneOptions, WrapOptions
from image2video.clip.any_clip import as_any_clip
from image2video.clip.frame_sources import FrameSource
from image2video.clip.genotype import DEFAULT_GENOTYPE
from image2video.clip.random_clips import RandomClips
from image2video.data import Augmentation, AugmentedFrames, Clips, DataSource
from image2video.errors import InputError
from image2video.search import get_space
from image2video.trace.places import IMAGE
from image2video.training import read_weights
from image2video.wrap.builders import Builder
from image2video.wrap.phases import PHASES
from image2video.wrap.steps import found_at
from image2video.wrap.video_wrap import VideoWrap

DEFAULT_FRAMES = 3
_HOW = ("schedule", "padding", "interpolation")
"""The options of a clip beside T that a genotype's file may say."""


def bare_model(backbone: BackboneOptions, data: DataSource, seed: int) -> tuple[nn.Module, Builder]:
    """The bare network with one output per class, and its recipe; its first weights are drawn by `seed`.

    Raises `InputError` where weights of a wrapped model are given, or ones that do not fit.
    """
    builder = bare_builder(backbone, {"num_classes": data.num_classes, "in_chans": data.input_size[0]})
    torch.manual_seed(seed)
    fresh = builder.with_kwargs(pretrained=True) if backbone.pretrained and backbone.weights is None else builder
    return fresh.build(), builder


def build_model(
    backbone: BackboneOptions,
    wrap: WrapOptions,
    data: DataSource,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    evaluated: bool = False,
) -> tuple[nn.Module, list[str]]:
    """The network that the options describe, with its weights, bare (`--genotype none`) or wrapped, and what to say.

    evaluated: it is used as it is, so that its classifier must be that of the weights. Raises `InputError` where
    options contradict each other or weights do not fit.
    """
    if backbone.weights is not None and Path(backbone.weights).is_dir():
        saved = _from_folder(backbone.weights, wrap, data)
        return saved.to(device), _lines(wrapped_head(saved, backbone, data, needed=evaluated))
    model, builder = bare_model(backbone, data, seed)
    wrapped_weights = backbone.weights is not None and _is_wrapped(backbone.weights)
    note = None
    if backbone.weights is not None and not wrapped_weights:
        note = load_weights_file(model, backbone, data, needed=evaluated)
    elif backbone.weights is None and backbone.pretrained:
        note = published_head(model, backbone, data, needed=evaluated)
    bare = wrap.genotype == "none" and wrap.frame_source is None
    if wrap.clip_at not in (None, IMAGE) and (bare or wrap.frame_source is not None):
        other = "--genotype none" if bare else "--frame-source"
        raise InputError(
            f"--clip-at {wrap.clip_at}: no effect with {other}, which makes no frames inside of the network; leave it "
            "out, or give a genotype"
        )
    if bare:
        if wrapped_weights:
            raise InputError(f"{backbone.weights} holds a wrapped model's weights; --genotype none asks for a bare one")
        return model.to(device), _lines(note)
    trained = backbone.weights is not None or backbone.pretrained
    clip = _clip_options(wrap, data, seed)
    genotype = clip.get("genotype")
    place = None if wrap.clip_at is not None or genotype is None else found_at(genotype)
    wrapped = VideoWrap(
        model,
        wrap.fusion,
        **clip,
        clip_at=place or wrap.clip_at,
        residual=trained if wrap.residual is None else wrap.residual,
        sites=wrap.sites,
        aggregate=wrap.aggregate,
        freeze_bn=wrap.freeze_bn,
        input_size=data.input_size,
    )
    wrapped.builder = builder
    if wrapped_weights:
        note = load_weights_file(wrapped, backbone, data, needed=evaluated)
    begins = None if place is None else f"the clip begins at {place}, as {wrap.genotype} was found"
    return wrapped.to(device), _lines(note, begins)


def _lines(*notes: str | None) -> list[str]:
    """The lines to print, where there are some."""
    return [note for note in notes if note is not None]


def frame_source(text: str, data: DataSource, seed: int, frames: int | None = None) -> FrameSource:
    """The source that `--frame-source TEXT` names; `frames` overrides the number of frames.

    Raises `InputError` for a text that names none.
    """
    policy = Augmentation.parse(text)
    if isinstance(policy, Clips):
        T = policy.frames if frames is None else frames
        return RandomClips(get_space(policy.space), T=T, mean=data.mean, std=data.std, seed=seed)
    policy.check_channels(data.input_size[0])
    return AugmentedFrames(policy, T=frames or DEFAULT_FRAMES, mean=data.mean, std=data.std, seed=seed)


def _clip_options(wrap: WrapOptions, data: DataSource, seed: int) -> dict[str, Any]:
    """The arguments of `VideoWrap` that say where frames come from."""
    if wrap.frame_source is not None:
        given = [f"--{name}" for name in ("genotype", *_HOW) if getattr(wrap, name) is not None]
        if given:
            raise InputError(f"--frame-source makes the frames itself; leave out {' and '.join(given)}")
        return {"frames": frame_source(wrap.frame_source, data, seed, wrap.frames)}
    genotype = DEFAULT_GENOTYPE if wrap.genotype is None else wrap.genotype
    clip = genotype if genotype == PHASES else as_any_clip(genotype)  # which the network decides
    # What is not given is as the genotype was found with.
    how = {name: getattr(wrap, name) for name in _HOW}
    return {"genotype": clip, "T": wrap.frames, **how, "mean": data.mean, "std": data.std}


def settings(*groups: Any) -> dict[str, Any]:
    """The options that a run's result depends on, as plain values; given back to `--config` they repeat the run."""
    record: dict[str, Any] = {}
    for group in groups:
        record.update(asdict(group))
    return plain_values(record)


def _from_folder(folder: str, wrap: WrapOptions, data: DataSource) -> VideoWrap:
    """A model of `save_pretrained`: its config says how it is wrapped, only the number of frames may be changed."""
    fresh = asdict(WrapOptions())
    refused = [dashed(name) for name, value in asdict(wrap).items() if value != fresh[name] and name != "frames"]
    if refused:
        raise InputError(f"{folder} says itself how its model is wrapped; leave out {', '.join(refused)}")
    model = VideoWrap.from_pretrained(folder)
    if wrap.frames is not None:
        model.set_frames(wrap.frames)
    if model.plan.input_size[0] != data.input_size[0]:
        raise InputError(
            f"the model in {folder} needs images of {model.plan.input_size[0]} channels, "
            f"got {data.input_size[0]} from {data.short_name}"
        )
    return model


@torch.no_grad()
def check_classes(model: nn.Module, data: DataSource) -> None:
    """Refuse, as `InputError`, a model whose number of outputs is not the data's number of classes.

    One black image goes through it in eval mode: before a run's folder is replaced.
    """
    modes = {module: module.training for module in model.modules()}
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        outputs = model.eval()(torch.zeros(1, *data.input_size, device=device))
    finally:
        for module, training in modes.items():
            module.training = training
    if not isinstance(outputs, torch.Tensor) or outputs.ndim < 2:
        raise InputError(f"the model must return a tensor (B, classes, …) for one image, got {type(outputs).__name__}")
    if outputs.shape[1] != data.num_classes:
        raise InputError(
            f"the model has {outputs.shape[1]} outputs, {data.short_name} has {data.num_classes} classes; give a model "
            "or weights that fit these data"
        )


def _is_wrapped(path: str) -> bool:
    """Whether weights are those of a wrapped model."""
    return any(name.startswith("backbone.") for name in read_weights(path))
