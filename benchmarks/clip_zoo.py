"""How many places of a network a clip may begin at: every module of timm, and families of torchvision.

    python benchmarks/clip_zoo.py --out benchmarks/results/clip_zoo.json
    python benchmarks/clip_zoo.py --only resnet swin_t            # print some of them; with --out, count those anew

Nothing is computed: networks are traced without values, at their own input size. Of timm's modules the architectures
are those of `zoo_architectures.json`. A network without a place says why: `streams` where no single map is on every
path to the outputs, `rows` where it uses the number of images, or a tensor, from before every such map.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from harness import write_result
from torch import nn
from zoo import TimmZoo, build_empty

from image2video.inject import ClipSite, clip_sites
from image2video.inject.clip_places import Places
from image2video.trace.graph import Graph
from image2video.trace.sizes import example_for
from image2video.trace.trace import trace_forward

TORCHVISION = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3 maxvit_t mnasnet0_5 mobilenet_v2 "
    "mobilenet_v3_small regnet_y_400mf resnet50 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_0 swin_t swin_v2_t "
    "vgg11 vit_b_16 fcn_resnet50 deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large"
)
OTHER_SIZES = {"inception_v3": 299}


def networks() -> Iterator[tuple[str, str, Callable[[], nn.Module], tuple[int, int, int] | None]]:
    """Family, name, how it is built, and the size of its images where it does not tell."""
    for module, choice in json.loads(TimmZoo.choice.read_text())["modules"].items():
        name = choice["architecture"]
        yield f"timm {module}", name, partial(build_empty, name), None
    for name in TORCHVISION.split():
        side = OTHER_SIZES.get(name, 224)
        yield "torchvision", name, partial(torchvision_model, name), (3, side, side)


def torchvision_model(name: str) -> nn.Module:
    """A network of torchvision without values and without weights from the net."""
    # Its inceptions draw their values slowly unless they are told not to.
    options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if any(head in name for head in ("fcn", "deeplab", "lraspp")):
        options["weights_backbone"] = None
    build = partial(torchvision.models.get_model, name, weights=None, **options)
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):  # a constructor that needs values
        return build()


def described(net: nn.Module, size: tuple[int, int, int] | None) -> dict[str, Any]:
    """The places of a network, and what frames cost from them."""
    start = time.perf_counter()
    sites = clip_sites(net.eval(), input_size=size)
    seconds = time.perf_counter() - start
    record: dict[str, Any] = {"sites": len(sites)}
    if sites:
        record |= {"first": named(sites[0]), "half": named(nearest_half(sites)), "last": named(sites[-1])}
    else:
        record["none"] = reason(net, size)
    return record | {"seconds": round(seconds, 1)}


def nearest_half(sites: tuple[ClipSite, ...]) -> ClipSite:
    """The place with nearest to half of the multiply-accumulates behind it, the first among equals."""
    return min(sites, key=lambda site: abs(site.share_after - 0.5))


def named(site: ClipSite) -> str:
    """A place with the cost of three frames from it."""
    return f"{site.name} ({site.cost(3):.2f})"


def reason(net: nn.Module, size: tuple[int, int, int] | None) -> str:
    """Why a network has no place."""
    places = Places(Graph(trace_forward(net, example_for(net, size, None))))
    known = [alike for alike in places.found() if not isinstance(places.spot(alike), str)]
    return "rows" if known else "streams"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the JSON file (default: none)")
    parser.add_argument("--only", nargs="*", help="names or families of networks (default: all)")
    options = parser.parse_args()
    done: dict[tuple[str, str], dict[str, Any]] = {}
    if options.only and options.out and options.out.exists():
        known = json.loads(options.out.read_text())["results"]
        done = {(result["family"], result["network"]): result for result in known}
    for family, name, build, size in networks():
        if options.only and not {name, family.removeprefix("timm ")} & set(options.only):
            continue
        done[family, name] = {"family": family, "network": name, **described(build(), size)}
        print(done[family, name], flush=True)
    results = list(done.values())
    payload = {"settings": {"device": "meta", "cost": "of 3 frames"}, "results": results}
    write_result(options.out, "clip_zoo", payload, columns=("family", "network", "sites", "half", "none"))


if __name__ == "__main__":
    main()
