"""The classifier of a network: its name, and how many classes its weights tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from image2video.errors import InputError
from image2video.wrap.video_wrap import VideoWrap


def head_names(model: nn.Module) -> tuple[str, ...]:
    """The tensors of the classifier in the model's state dict; none where the model does not say which module it is.

    timm's config names it, and `get_classifier()` gives it; a wrapper's is its backbone's.
    """
    bare = model.backbone if isinstance(model, VideoWrap) else model
    start = "backbone." if isinstance(model, VideoWrap) else ""
    modules = _declared(bare) or _returned(bare)
    prefixes = tuple(f"{start}{name}." for name in modules)
    return tuple(name for name in model.state_dict() if prefixes and name.startswith(prefixes))


def head_classes(names: Iterable[str], state: Mapping[str, Tensor]) -> int | None:
    """How many classes the weights of a classifier tell apart: the outputs of its last matrix; None without one."""
    sizes = [len(state[name]) for name in names if name in state and state[name].ndim > 1]
    return sizes[-1] if sizes else None


def without_head(model: nn.Module, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The weights `state` of a bare or a wrapped model, with the model's own classifier in place of theirs.

    Raises `InputError` where the model does not say which of its modules is the classifier.
    """
    names, own = head_names(model), model.state_dict()
    if not names:
        raise InputError(
            f"{type(model).__name__} does not say which of its modules is the classifier (by pretrained_cfg or "
            f"get_classifier()), so it cannot be left out of {source}; load the other weights by load_state_dict"
        )
    wrapped_file = any(name.startswith("backbone.") for name in state)
    start = "" if wrapped_file else "backbone."
    heads = {name.removeprefix(start) if isinstance(model, VideoWrap) else name: own[name] for name in names}
    prefixes = tuple({name.rpartition(".")[0] + "." for name in heads})
    kept = {name: value for name, value in state.items() if not name.startswith(prefixes)}
    return kept | heads


def _declared(model: nn.Module) -> tuple[str, ...]:
    """The modules that timm's config calls the classifier and that are there."""
    config = getattr(model, "pretrained_cfg", None) or {}
    names = config.get("classifier") if isinstance(config, Mapping) else getattr(config, "classifier", None)
    listed = (names,) if isinstance(names, str) else tuple(names or ())
    there = {name for name, module in model.named_modules() if any(True for _ in module.parameters())}
    return tuple(name for name in listed if name in there)


def _returned(model: nn.Module) -> tuple[str, ...]:
    """The modules that `get_classifier()` returns."""
    method = getattr(model, "get_classifier", None)
    found = method() if callable(method) else ()
    heads = found if isinstance(found, tuple | list) else (found,)
    ids = {id(head) for head in heads if isinstance(head, nn.Module) and any(True for _ in head.parameters())}
    return tuple(name for name, module in model.named_modules() if id(module) in ids and name)
