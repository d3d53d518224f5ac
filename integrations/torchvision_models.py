"""Networks of torchvision: wrapped ones in its registry, and bare ones by name for files and the command line.

    import torchvision
    import image2video.integrations.torchvision_models

    model = torchvision.models.get_model("i2v_resnet50", weights="DEFAULT", T=3, genotype="translate_x(0.03)")

Importing this module registers `i2v_` + every network of classification and of segmentation. Arguments of `VideoWrap`
go to the wrapper, all others to torchvision's own function; `get_model_weights`, `get_weight` and `list_models` work.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torchvision
from torch import nn
from torchvision.models import get_model_builder, get_model_weights, list_models
from torchvision.models._api import register_model  # what their own functions use; there is no public name for it

from image2video.clip.checks import meant_name
from image2video.functional import Builder, InputError, InputTypeError, VideoWrap

PREFIX = "i2v_"
ROOMS = (torchvision.models, torchvision.models.segmentation)
"""Where the networks come from that take images and return scores or maps; detectors return boxes."""

SIDE = 224
"""Pixels per side where weights name no size of a crop: in segmentation, which takes images of every size."""

_WRAP_OPTIONS = {
    name
    for name, parameter in inspect.signature(VideoWrap).parameters.items()
    if name == "fusion" or parameter.kind is inspect.Parameter.KEYWORD_ONLY
}
_OF_WEIGHTS = ("weights", "weights_backbone", "progress")
_READ = ("image_size", "transform_input", "aux_logits")
"""Arguments that weights may decide, which their networks keep as attributes."""


def architectures() -> list[str]:
    """List the networks of torchvision that have a wrapped twin.

    Returns:
        Their names, in alphabetical order.
    """
    return sorted(name for room in ROOMS for name in list_models(module=room))


def build(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    pretrained: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """Build a bare network by its name: the builder `torchvision` of the entry-point group `image2video.builders`.

    Nothing is fetched unless it is asked for: `weights_backbone`, which torchvision fetches by default, is None here.

    Args:
        name: as in torchvision's registry, such as `resnet50` or `fcn_resnet50`.
        num_classes: outputs of the classifier; by default the network's own.
        in_chans: channels of the images: 3, or None.
        pretrained: take torchvision's default weights; a classifier of another `num_classes` starts fresh.
        **kwargs: further arguments of torchvision's function.

    Returns:
        The network, in training mode as torchvision makes it, with a `pretrained_cfg` as timm's networks have it.

    Raises:
        InputError: an unknown name, with the nearest known ones; other images than those of 3 channels.

    >>> build("resnet18", num_classes=10).fc.out_features
    10
    """
    _check_name(name)
    if in_chans not in (None, 3):
        raise InputError(f"torchvision's {name} takes images of 3 channels, got in_chans={in_chans}; try timm's")
    if "weights_backbone" in inspect.signature(get_model_builder(name)).parameters:
        kwargs.setdefault("weights_backbone", None)
    if num_classes is not None:
        kwargs["num_classes"] = num_classes
    weights = get_model_weights(name)["DEFAULT"] if pretrained else None
    if weights is None or num_classes in (None, len(weights.meta["categories"])):
        return _made(name, {**kwargs, **({} if weights is None else {"weights": weights})})
    model = _made(name, kwargs, weights)
    _fill(model, weights.get_state_dict(progress=False, check_hash=True), name)
    return model


def check_local(name: str, kwargs: Mapping[str, Any], source: str) -> None:
    """Refuse arguments from a file that could fetch something, or take memory without bounds.

    Args:
        name: the builder's name.
        kwargs: its arguments.
        source: names the file in messages.

    Raises:
        InputError: weights, or a value that is no bool, no whole number up to 100 000 and no fraction.
    """
    advice = "pass allow_download=True where you trust the config, or backbone=…"
    for key, value in kwargs.items():
        if key in (*_OF_WEIGHTS, "pretrained", "pretrained_backbone") and value not in (None, False):
            raise InputError(f"{source}: {name} has {key}, which fetches weights, got {value!r:.80}; {advice}")
        if value is not None and not (isinstance(value, bool | int | float) and abs(value) <= 100_000):
            raise InputError(
                f"{source}: {name} has {key}, which must be a number of at most 100000, got {value!r:.80}; {advice}"
            )


build.check_local = check_local  # type: ignore[attr-defined]  # what reads a file asks the builder for its own check


def create(architecture: str, **kwargs: Any) -> VideoWrap:
    """Build a network of torchvision and wrap it; the registered names call this.

    Args:
        architecture: the bare network's name.
        **kwargs: arguments of `VideoWrap`, and those of torchvision's function (`weights`, `num_classes`, …).

    Returns:
        The wrapped network. It takes the clip from every checkpoint that is loaded into it, but for what was given
        here. Its builder is recorded where its arguments are JSON values.

    Raises:
        InputError: an unknown name.
        InputTypeError: an argument that neither knows, with the one of `VideoWrap` that is near.
    """
    _check_name(architecture)
    _check_arguments(architecture, kwargs)
    options = {name: kwargs.pop(name) for name in list(kwargs) if name in _WRAP_OPTIONS}
    try:
        backbone = _made(architecture, kwargs)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise InputTypeError(
            f"torchvision's {architecture} refused its arguments, got {', '.join(kwargs)}: {error}; VideoWrap knows "
            f"{', '.join(sorted(_WRAP_OPTIONS))}"
        ) from error
    model = VideoWrap(backbone, **options)
    # A script of torchvision's references makes the model by its name alone, and loads a checkpoint into it.
    model.follow_clip(_WRAP_OPTIONS - options.keys())
    model.builder = _recipe(architecture, backbone, kwargs)
    return model


def register(name: str, architecture: str, **defaults: Any) -> None:
    """Register a wrapped network of your own name, for scripts that pass on no arguments but a name.

    Args:
        name: the new name in torchvision's registry.
        architecture: the bare network's name.
        **defaults: arguments of `create`, which a caller of the name may override.

    Raises:
        InputError: an unknown architecture, or a name that is taken.
        InputTypeError: an argument that is near one of `VideoWrap`, and is none.

    >>> register("resnet18_turned", "resnet18", T=3, genotype="rotate(5)")
    >>> torchvision.models.get_model("resnet18_turned", num_classes=10).T
    3
    """
    _check_name(architecture)
    if name in list_models():
        raise InputError(f"torchvision's registry has a model {name!r} already; take another name")
    _check_arguments(architecture, defaults)
    register_model(name)(_entry_point(name, architecture, defaults))


def _check_name(name: str) -> None:
    """Raise `InputError` for a name that is none of torchvision's classification or segmentation."""
    known = architectures()
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=4)
    if name in list_models():
        raise InputError(
            f"torchvision's {name!r} returns no scores or maps of images, or is quantised already; choose one of "
            "image2video.integrations.torchvision_models.architectures(), or wrap the backbone inside of it"
        )
    raise InputError(
        f"torchvision {torchvision.__version__} has no model {name!r}"
        + (f"; similar names: {', '.join(near)}" if near else "; torchvision.models.list_models() lists all")
    )


def _check_arguments(name: str, given: Iterable[str]) -> None:
    """Raise `InputTypeError` for a misspelt argument of `VideoWrap`."""
    builder = get_model_builder(name)
    kind = inspect.signature(builder, eval_str=True).return_annotation
    # Functions of torchvision hand on more than they name: to the class, and MobileNetV3's to one between.
    theirs = {*inspect.signature(builder).parameters, *inspect.signature(kind).parameters, "reduced_tail", "dilated"}
    for argument in given:
        near = meant_name(argument, _WRAP_OPTIONS)
        if near is not None and argument not in _WRAP_OPTIONS | theirs:
            raise InputTypeError(f"neither VideoWrap nor torchvision's {name} knows {argument}=; write {near}=")


def _made(name: str, kwargs: Mapping[str, Any], weights: Any = None) -> nn.Module:
    """Call torchvision's function, and say on the network how its images are made ready."""
    takes = inspect.signature(get_model_builder(name)).parameters
    if "init_weights" not in kwargs and name in ("googlenet", "inception_v3"):
        kwargs = {**kwargs, "init_weights": False}  # as torchvision says that it will do
    model: nn.Module = get_model_builder(name)(**kwargs)
    given = kwargs.get("weights") or weights
    described = get_model_weights(name).verify(given) if given is not None and "weights" in takes else None
    # An attribute that no network of torchvision has: our core and command line read it on timm's.
    model.pretrained_cfg = _config(name, model, described)  # type: ignore[assignment]
    return model


def _config(name: str, model: nn.Module, weights: Any) -> dict[str, Any]:
    """Say in timm's words how a network's images are made ready, after its weights or else its default ones."""
    enum = get_model_weights(name)
    preset = (enum["DEFAULT"] if weights is None else weights).transforms()
    crop = getattr(preset, "crop_size", [SIDE])[0]
    side = getattr(model, "image_size", crop)
    config = {
        "architecture": name,
        "input_size": (3, side, side),
        "fixed_input_size": hasattr(model, "image_size"),
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
        "interpolation": preset.interpolation.value,
        "crop_pct": crop / preset.resize_size[0] if hasattr(preset, "crop_size") else 1.0,
    }
    if weights is not None:
        config |= {"url": weights.url, "tag": weights.name, "num_classes": len(weights.meta["categories"])}
    return config


def _fill(model: nn.Module, state: Mapping[str, Any], name: str) -> None:
    """Load weights but for the classifiers, whose last layers have another shape."""
    own = model.state_dict()
    kept = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    left = sorted({key.rpartition(".")[0] for key in own.keys() - kept.keys()})
    if len(left) > 2:  # a classifier and an auxiliary one
        raise InputError(f"the default weights of {name} do not fit these arguments; others are {', '.join(left):.200}")
    model.load_state_dict(kept, strict=False)


def _recipe(architecture: str, model: nn.Module, kwargs: Mapping[str, Any]) -> Builder | None:
    """The recipe of the bare network without its weights; None where an argument is no JSON value."""
    rest = {key: value for key, value in kwargs.items() if key not in _OF_WEIGHTS and value is not None}
    count = model.pretrained_cfg.get("num_classes")  # type: ignore[union-attr, operator]
    if count is not None:  # weights decide more than values
        rest.setdefault("num_classes", count)
        rest |= {name: getattr(model, name) for name in _READ if hasattr(model, name)}
        if hasattr(model, "aux_classifier"):
            rest["aux_loss"] = model.aux_classifier is not None
    try:
        return Builder(f"torchvision:{architecture}", rest)
    except InputTypeError:
        return None


def _entry_point(name: str, architecture: str, defaults: Mapping[str, Any]) -> Callable[..., VideoWrap]:
    """Make the function that torchvision's registry calls; it reads the enum of weights in its annotations."""

    def entry(**kwargs: Any) -> VideoWrap:
        return create(architecture, **{**defaults, **kwargs})

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"`{architecture}` in a `VideoWrap`; the arguments of both."
    own = inspect.signature(get_model_builder(architecture))
    named = [p for p in own.parameters.values() if p.name in ("weights", "weights_backbone")]
    rest = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
    entry.__signature__ = own.replace(parameters=[*named, rest])  # type: ignore[attr-defined]
    return entry


for _architecture in architectures():
    if PREFIX + _architecture not in list_models():  # a module that is loaded anew registers nothing twice
        register(PREFIX + _architecture, _architecture)
