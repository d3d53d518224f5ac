"""What a timm training script looks for on a model, answered by the backbone within a `VideoWrap`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from torch import nn

from image2video.errors import StateError, UnsupportedError
from image2video.inject.api import Injection
from image2video.trace.capture import refuse_script
from image2video.wrap.checkpoint import BACKBONE, FUSION
from image2video.wrap.keywords import parameters_of

Ordinal = tuple[float, ...]
_UNMATCHED: Ordinal = (float("inf"),)
_AUTO_GROUP = 12  # parameters per layer where the backbone names no layers: timm's own fallback


def _of_backbone(name: str, doc: str) -> Any:
    """Make a property that reads the backbone's attribute, with AttributeError where it has none."""
    return property(lambda self: getattr(self.backbone, name), doc=doc)


class TimmLike(nn.Module):
    """The attributes and methods that timm's scripts use; the backbone answers, names are re-anchored."""

    backbone: nn.Module
    fusion: Injection

    num_classes = _of_backbone("num_classes", "Number of classes of the backbone's head.")
    num_features = _of_backbone("num_features", "Channels of the backbone's last features.")
    head_hidden_size = _of_backbone("head_hidden_size", "Channels that reach the backbone's classifier.")
    in_chans = _of_backbone("in_chans", "Channels of an input image.")
    pretrained_cfg = _of_backbone("pretrained_cfg", "The backbone's pretrained config: input size, mean, std, …")
    default_cfg = _of_backbone("default_cfg", "The backbone's `pretrained_cfg` under its older name.")
    pretrained_model_args = _of_backbone("pretrained_model_args", "Arguments that the weights were made with.")
    feature_info = _of_backbone("feature_info", "Channels and strides of the backbone's feature maps.")
    output_fmt = _of_backbone("output_fmt", "Layout of the backbone's maps, where it declares one.")
    global_pool = _of_backbone("global_pool", "The backbone's global pooling.")
    grad_checkpointing = _of_backbone("grad_checkpointing", "Whether the backbone recomputes activations.")
    _traits = _of_backbone("_traits", "Input traits that timm keeps on a model.")

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the backbone's loss takes further keywords, as transformers' Trainer asks before it passes them."""
        own = getattr(self.backbone, "accepts_loss_kwargs", None)
        if own is not None:
            return bool(own)
        return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters_of(self.backbone).values())

    def __getattr__(self, name: str) -> Any:
        """Answer with the backbone's attribute what the wrapper itself does not have (`classifier`, `config`, …).

        A method that is given images sees a clip of each, as `forward` does.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            backbone = self.__dict__.get("_modules", {}).get("backbone")
            # Private names are torch's and Python's own affair; what the class defines has failed by itself.
            if backbone is None or name.startswith("_") or hasattr(type(self), name):
                raise
        return self._of_backbone(name, getattr(backbone, name))

    def _of_backbone(self, name: str, value: Any) -> Any:
        """Return what an attribute of the backbone is when it is read through the wrapper."""
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        modules = self.__dict__.get("_modules", {})
        backbone = modules.get("backbone")
        is_part = isinstance(value, nn.Module | nn.Parameter) and backbone is not None and name not in modules
        if is_part and (name in backbone._modules or name in backbone._parameters):
            raise StateError(
                f"{name!r} must be set on the backbone, where it is used; write model.backbone.{name} = …, or replace "
                "it before wrapping"
            )
        super().__setattr__(name, value)

    def __prepare_scriptable__(self) -> NoReturn:
        refuse_script(f"a {type(self).__name__}")

    def get_classifier(self, *args: Any, **kwargs: Any) -> Any:
        """Return the backbone's classifier; the arguments are those of the backbone's own method."""
        return self._method("get_classifier")(*args, **kwargs)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, **kwargs: Any) -> None:
        """Replace the backbone's classifier by a fresh one with `num_classes` classes (0: none).

        `global_pool` replaces the pooling too (None: keep it); further arguments are those of the backbone's method.
        """
        if global_pool is not None:
            kwargs["global_pool"] = global_pool
        self._method("reset_classifier")(num_classes, **kwargs)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's activations in the backward pass, or stop doing so."""
        self._method("set_grad_checkpointing")(enable)

    def no_weight_decay(self) -> set[str]:
        """Name the parameters without weight decay (or patterns of them): the backbone's own, and each fusion's."""
        own = getattr(self.backbone, "no_weight_decay", None)
        names = {BACKBONE + name for name in own()} if callable(own) else set()
        return names | {FUSION + name for name in self.fusion._no_weight_decay()}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], Ordinal]:
        """Return a function from parameter names to layers; a fusion is in the layer of its site.

        timm's `group_parameters(model, model.group_matcher())` and with it `layer_decay` find exactly the groups of the
        bare model. Where the backbone names no layers, its parameters are grouped in order, as timm does then.
        """
        names = [name for name, _ in self.backbone.named_parameters(remove_duplicate=False)]
        own = getattr(self.backbone, "group_matcher", None)
        layer_of = _compile(own(coarse=coarse)) if callable(own) else _in_order(names, _classifier(self.backbone))

        def layer(name: str) -> Ordinal:
            if name.startswith(BACKBONE):
                return layer_of(name.removeprefix(BACKBONE))
            if name.startswith(FUSION):
                return layer_of(_host(name.removeprefix(FUSION), names))
            return _UNMATCHED

        return layer

    def _method(self, name: str) -> Callable[..., Any]:
        """Return a method of the backbone, or raise `UnsupportedError`."""
        method = getattr(self.backbone, name, None)
        if not callable(method):
            raise UnsupportedError(
                f"the backbone {type(self.backbone).__name__} has no {name}(), which the wrapper needs here; use a "
                "backbone that has it, such as timm's"
            )
        return method


_HEADS = ("classifier", "fc", "head", "heads", "last_linear", "logits")
"""What libraries other than timm call the classifier of a network."""


def heads_of(backbone: nn.Module) -> list[nn.Module]:
    """List the classifiers of a network: what its `get_classifier()` says, or its child of a usual name."""
    own = getattr(backbone, "get_classifier", None)
    if callable(own):
        found = own()
        return [m for m in (found if isinstance(found, tuple | list) else [found]) if isinstance(m, nn.Module)]
    children = [backbone._modules.get(name) for name in _HEADS]
    return [child for child in children if child is not None]


def _compile(matcher: Any) -> Callable[[str], Ordinal]:
    """Return the layer of a name under a timm matcher: a callable, or patterns by group with an optional suffix."""
    if callable(matcher):
        return lambda name: _ordinal(matcher(name))
    rules: list[tuple[re.Pattern[str], int, Any]] = []
    for group, spec in enumerate(matcher.values()):
        specs: Iterable[tuple[str, Any]] = [(spec, None)] if isinstance(spec, str) else spec or []
        rules += [(re.compile(pattern), group, suffix) for pattern, suffix in specs]

    def layer(name: str) -> Ordinal:
        for pattern, group, suffix in rules:
            match = pattern.match(name)
            if match:
                # As timm orders layers: by group, then by the numbers in the name, then by the suffix.
                numbers = [number for number in match.groups() if number]
                return tuple(float(part) for part in (group, *numbers, *(suffix or ())))
        return _UNMATCHED

    return layer


def _ordinal(value: Any) -> Ordinal:
    """Return a layer as a tuple, which a matcher may give as one number."""
    return tuple(value) if isinstance(value, Iterable) else (value,)


def _in_order(names: list[str], classifier: tuple[str, ...]) -> Callable[[str], Ordinal]:
    """Make layers for a backbone without a matcher: groups of its parameters in order, the classifier last.

    Without a named classifier all parameters are one layer, as in timm.
    """
    trunk = [name for name in names if classifier and not name.startswith(classifier)]
    layers = {name: (float(index // _AUTO_GROUP),) for index, name in enumerate(trunk)}
    return lambda name: layers.get(name, _UNMATCHED)


def _classifier(backbone: nn.Module) -> tuple[str, ...]:
    """Return the names of the classifier's modules, as timm's config gives them."""
    name = (getattr(backbone, "pretrained_cfg", None) or {}).get("classifier")
    if not name:
        return ()
    return (name,) if isinstance(name, str) else tuple(name)


def _host(name: str, backbone_names: list[str]) -> str:
    """Return a parameter of the backbone that stands at the site of a fusion parameter, or nearest above it."""
    for path in _parents(name):
        for candidate in backbone_names:
            if candidate.startswith(path + "."):
                return candidate
    return name


def _parents(name: str) -> Iterator[str]:
    """Go through the paths above a name, the nearest first."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
