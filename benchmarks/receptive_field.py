"""Does the clip reshape the effective receptive field as theory says, and by how much?

    export OUT=benchmarks/results/receptive_field.json
    python benchmarks/receptive_field.py --part families --out $OUT
    python benchmarks/receptive_field.py --part clips --images 8 --figures docs/figures --out $OUT
    python benchmarks/receptive_field.py --part borders --images 8 --out $OUT
    python benchmarks/receptive_field.py --part draws --out $OUT
    python benchmarks/receptive_field.py --part trained --data npz:cifar10.npz --out $OUT

Every part is a list of its own in the file; the others are kept. `families`: networks for images of 224 pixels and a
segmentor, random weights. `clips`: ResNet-50 with GSF, one genotype each. `borders`: ConvNeXt with GSF and two paddings
of the frames. `draws`: a small network, several draws of its weights. `trained`: small networks trained here, from
scratch, with their fusions.
"""

from __future__ import annotations

import copy
import io
import json
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely
import torch
from harness import arguments, commit, hardware, versions, write_result
from PIL import Image
from torch import Tensor, nn

from image2video import VideoWrap
from image2video.data import DataSource, load_data
from image2video.genotype import Genotype
from image2video.integrations.timm_backbones import build
from image2video.receptive_field import EffectiveField, Unit, prepare_random, theoretical
from image2video.receptive_field.expected import Shares, expected, shares_of
from image2video.receptive_field.survey import Survey, survey, survey_units
from image2video.report import ErfPanel, erf_caption, erf_figure, fields_figure
from image2video.report.style import png_bytes, svg_text
from image2video.training import TrainConfig, train

CLIP = "translate_x(0.06) > rotate(10)"
FRAMES, SCHEDULE = 5, "from_zero"
FAMILIES = {"resnet18": 224, "resnet50": 224, "convnext_tiny": 224, "vit_tiny_patch16_224": 224, "small_fcn": 48}
CLIPS = {
    "identity": "identity",
    "translation": "translate_x(0.06)",
    "rotation": "rotate(10)",
    "zoom in": "scale(1.1)",
    "zoom out": "scale(0.9)",
    "translation > rotation": CLIP,
    "translation > rotation > zoom": f"{CLIP} > scale(1.1)",
    "preset:cifar10": "preset:cifar10",
}
TRAINED = ("cifar_resnet8", "small_fcn")
COLUMNS = ("model", "unit", "network", "times_bare", "spread", "expected_spread", "axes", "expected_axes", "angle")
CALIBRATION = 4
BARE, AVERAGED = "bare", "no fusion"


@dataclass(frozen=True)
class Clip:
    """What makes the frames."""

    genotype: str = CLIP
    T: int = FRAMES
    schedule: str = SCHEDULE
    padding: str = "zeros"

    def wrap(self, bare: nn.Module, fusion: str, size: tuple[int, int, int], seed: int) -> VideoWrap:
        """A copy of the bare network as a video network, its fusions as published."""
        torch.manual_seed(seed)
        chain = Genotype.coerce(self.genotype)
        options: dict[str, Any] = {"genotype": chain, "T": self.T, "schedule": self.schedule, "residual": False}
        options |= {"padding": self.padding}
        return VideoWrap(copy.deepcopy(bare), fusion, input_size=size, **options).eval()


def random_networks(
    model: str, images: Tensor, clip: Clip, fusions: Iterable[str], seed: int, **kwargs: Any
) -> dict[str, nn.Module]:
    """The bare network with random weights, beside copies of it: without fusion, and with each of the fusions."""
    size = (images.shape[1], images.shape[2], images.shape[3])
    torch.manual_seed(seed)
    bare = prepare_random(build(model, **kwargs), images[:CALIBRATION], seed=seed)
    found: dict[str, nn.Module] = {BARE: bare, AVERAGED: clip.wrap(bare, "none", size, seed)}
    for fusion in fusions:
        wrapped = clip.wrap(bare, fusion, size, seed)
        found[fusion.upper()] = prepare_random(wrapped, images[:CALIBRATION], batch_size=2, seed=seed)
    return found


def noise(count: int, size: int, seed: int) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def rows(fields: Survey, clip: Clip, **more: Any) -> list[dict[str, Any]]:
    """One row per unit and wrapped network: measured, beside what theory expects of the frames' measured shares.

    The bare network's spread stands in every row. Where a network has its very field (a frame at step 0 without
    fusion), there is no row.
    """
    found = []
    for name, line in fields.items():
        bare = line[BARE]
        for network, field in line.items():
            if field is bare:
                continue
            ratio, error = ErfPanel.of(network, field).growth(ErfPanel.of(BARE, bare))
            shares = shares_of(field, [other[network] for other in fields.values()])
            row = {**more, "unit": name, "network": network, "half_px": round(field.measures.area[0.5], 1)}
            row |= {"times_bare": round(ratio, 3), "times_bare_error": _round(error)}
            row |= {"bare_spread": round(bare.measures.spread, 3), "bare_axes": round(bare.measures.anisotropy, 3)}
            row |= _numbers(field) | _expected(bare, shares, clip)
            found.append(row | {"weights": field.weights, "images": field.images, "described": field.described})
    return found


def _numbers(field: EffectiveField) -> dict[str, Any]:
    m, e = field.measures, field.errors
    shares = None if field.frame_shares is None else [round(share, 4) for share in field.frame_shares]
    numbers = {"spread": round(m.spread, 3), "spread_error": None if e is None else _round(e.spread)}
    numbers |= {"axes": round(m.anisotropy, 3), "axes_error": None if e is None else _round(e.anisotropy)}
    turned = ErfPanel.of("", field).turned
    numbers |= {"angle": round(m.angle % 180, 1) if turned else None, "area_99_px": round(m.area[0.99], 1)}
    return numbers | {"frame_shares": shares}


def _expected(bare: EffectiveField, shares: Shares | None, clip: Clip) -> dict[str, Any]:
    if shares is None:
        return {"expected_times_bare": None, "expected_spread": None, "expected_axes": None, "expected_angle": None}
    found, m = expected(bare, clip.genotype, clip.schedule, shares)
    turned = ErfPanel("", found.numpy(), m).turned
    return {
        "expected_times_bare": round(m.area[0.5] / bare.measures.area[0.5], 3),
        "expected_spread": round(m.spread, 3),
        "expected_axes": round(m.anisotropy, 3),
        "expected_angle": round(m.angle % 180, 1) if turned else None,
    }


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def families(count: int, seed: int, models: Iterable[str]) -> list[dict[str, Any]]:
    """The networks of FAMILIES with random weights: no fusion, TSM, GSF."""
    found, clip = [], Clip()
    for model in models:
        images = noise(count, FAMILIES[model], seed)
        networks = random_networks(model, images, clip, ("tsm", "gsf"), seed)
        units = survey_units(networks[BARE], (3, FAMILIES[model], FAMILIES[model]))
        if model == "resnet18":
            units |= {"class logit": Unit()}
        fields = survey(networks, images, units, weights="random", seed=seed)
        layer = next(iter(units.values())).layer
        theory = str(theoretical(networks[BARE], layer=layer, input_size=tuple(images.shape[1:])))
        found += rows(fields, clip, model=model, size=FAMILIES[model], layer=layer or "output", theory=theory)
        print(f"{model}: done", flush=True)
    return found


def clips(count: int, seed: int, figures: Path | None, model: str = "resnet50") -> list[dict[str, Any]]:
    """One network with GSF under several genotypes; the pictures of the paper's Fig. 1b and Fig. 4."""
    size = FAMILIES[model]
    images = noise(count, size, seed)
    found: list[dict[str, Any]] = []
    panels: dict[str, list[ErfPanel]] = {}
    captioned: list[EffectiveField] = []
    for name, genotype in CLIPS.items():
        clip = Clip(genotype)
        networks = random_networks(model, images, clip, ("gsf",), seed)
        del networks[AVERAGED]
        units = survey_units(networks[BARE], (3, size, size))
        fields = survey(networks, images, units, weights="random", seed=seed)
        chain = str(Genotype.coerce(genotype))
        found += rows(fields, clip, model=model, size=size, clip=name, genotype=chain)
        for unit, line in fields.items():
            panels.setdefault(unit, [ErfPanel.of(BARE, line[BARE])]).append(ErfPanel.of(genotype, line["GSF"]))
        captioned = captioned or [line["GSF"] for line in fields.values()]
        print(f"{name}: done", flush=True)
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        for unit, row in panels.items():
            stem = "erf_frame" if "frame" in unit else "erf_averaged"
            field = next(f for f in captioned if ("frame 0" in f.described) == ("frame" in unit))
            made = f"T = {FRAMES}, {SCHEDULE}; the genotype stands above each"
            caption = erf_caption([field], model=f"{model} with GSF", images="images of white noise", clip=made)
            drawn = erf_figure({"": row}, columns=3, caption=caption, width=8.0)
            _write_small(figures / f"{stem}.png", png_bytes(drawn, dpi=100))
        _fields_figure(figures)
    return found


def _fields_figure(figures: Path) -> None:
    """The worked example of the paper: a field of 3×3 pixels in three frames of an image of 12×12."""
    chains = {
        "translation\nby (1, 1)": f"translate_x({1 / 12}) > translate_y({1 / 12})",
        "rotation\nby 30°": "rotate(30)",
        "zoom out\nto a half": "scale(0.5)",
        "zoom in\nby 2": "scale(2)",
    }
    drawn = fields_figure(shapely.box(4.5, 4.5, 7.5, 7.5), chains, image_size=(12, 12), width=7.0)
    (figures / "fields.svg").write_text(svg_text(drawn), encoding="utf-8")


def _write_small(path: Path, png: bytes) -> None:
    """Write a picture with a palette of 256 colours, a third of the size."""
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def borders(count: int, seed: int, model: str = "convnext_tiny") -> list[dict[str, Any]]:
    """A network with LayerNorm and GSF: what lies outside the image matters for where its gradient enters."""
    found = []
    for padding in ("zeros", "border"):
        clip, images = Clip(padding=padding), noise(count, FAMILIES[model], seed)
        networks = random_networks(model, images, clip, ("gsf",), seed)
        del networks[AVERAGED]
        units = survey_units(networks[BARE], (3, FAMILIES[model], FAMILIES[model]))
        fields = survey(networks, images, units, weights="random", seed=seed)
        for row in rows(fields, clip, model=model, size=FAMILIES[model], padding=padding):
            own = row["frame_shares"][0] if "frame 0" in row["unit"] else None
            found.append(row | {"own_frame": own, "largest_share": max(row["frame_shares"])})
    return found


def draws(count: int, seeds: int, model: str = "cifar_resnet18", size: int = 32) -> list[dict[str, Any]]:
    """Means and standard errors over draws of the weights, of a network that is small enough for it."""
    clip = Clip()
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed in range(seeds):
        images = noise(count, size, seed)
        networks = random_networks(model, images, clip, ("tsm", "gsf"), seed, num_classes=10)
        units = survey_units(networks[BARE], (3, size, size)) | {"class logit": Unit()}
        fields = survey(networks, images, units, weights="random", seed=seed)
        for row in rows(fields, clip):
            runs.setdefault((row["unit"], row["network"]), []).append(row)
    found = []
    for (unit, network), lines in runs.items():
        row: dict[str, Any] = {"model": model, "size": size, "unit": unit, "network": network, "draws": seeds}
        for key in (
            "times_bare",
            "bare_spread",
            "spread",
            "axes",
            "expected_times_bare",
            "expected_spread",
            "expected_axes",
        ):
            values = [line[key] for line in lines if line[key] is not None]
            row[key] = round(statistics.mean(values), 3) if values else None
            row[f"{key}_error"] = (
                round(statistics.stdev(values) / math.sqrt(len(values)), 4) if len(values) > 1 else None
            )
        found.append(row | {"images": count, "weights": "random"})
    return found


def trained(
    models: Iterable[str], data: str, count: int, seed: int, epochs: int, train_images: int
) -> list[dict[str, Any]]:
    """Small networks trained from scratch, each with its own fusion: a classifier and a segmentor."""
    clip, found = Clip(T=3), []
    for model in models:
        spec, limit = (data, train_images) if model == "cifar_resnet8" else ("digit_scenes", None)
        source = load_data(spec, train_images=limit, holdout=0.1, seed=seed)
        size = (source.input_size[0], source.input_size[1], source.input_size[2])
        networks, scores = _train_all(model, source, clip, size, epochs, seed)
        images = next(iter(source.test.batches(count).epoch(0)))[0]
        units = survey_units(networks[BARE], size)
        if model == "cifar_resnet8":
            units |= {"class logit": Unit()}
        weights = f"trained on {source.short_name}, {source.train.num_images} images, {epochs} epochs"
        fields = survey(networks, images, units, weights=weights, seed=seed)
        for row in rows(fields, clip, model=model, size=size[1], data=source.short_name):
            found.append(row | {"score": scores[row["network"]], "bare_score": scores[BARE]})
        print(f"{model}: done", flush=True)
    return found


def _train_all(
    model: str, source: DataSource, clip: Clip, size: tuple[int, int, int], epochs: int, seed: int
) -> tuple[dict[str, nn.Module], dict[str, float]]:
    """Bare, without fusion, TSM and GSF from one start, each trained alike; and their test scores in percent."""
    networks: dict[str, nn.Module] = {}
    scores = {}
    for name, fusion in ((BARE, None), (AVERAGED, "none"), ("TSM", "tsm"), ("GSF", "gsf")):
        torch.manual_seed(seed)
        network: nn.Module = build(model, num_classes=source.num_classes, in_chans=size[0])
        if fusion is not None:
            network = clip.wrap(network, fusion, size, seed).train()
        result = train(network, source, TrainConfig(epochs=epochs, batch_size=64, lr=0.1, seed=seed, device="cpu"))
        networks[name], scores[name] = network.eval(), round(100 * result.test_last.score, 1)
        print(f"{model}, {name}: {scores[name]}", flush=True)
    return networks, scores


def main() -> None:
    parser = arguments(__doc__ or "", repeats=1)
    parser.add_argument("--part", choices=["families", "clips", "borders", "draws", "trained"], required=True)
    parser.add_argument("--images", type=int, default=16, help="images of every field")
    parser.add_argument("--models", nargs="*", default=None, help="of families and trained: which networks (all)")
    parser.add_argument("--seeds", type=int, default=5, help="of draws: how many draws of the weights")
    parser.add_argument("--data", default="npz:cifar10.npz", help="of trained: images of the classifier")
    parser.add_argument("--train-images", type=int, default=2500, help="of trained: images of the classifier")
    parser.add_argument("--epochs", type=int, default=5, help="of trained")
    parser.add_argument("--figures", type=Path, default=None, help="of clips: folder of the pictures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    if options.part == "families":
        found = families(options.images, options.seed, options.models or list(FAMILIES))
    elif options.part == "clips":
        found = clips(options.images, options.seed, options.figures)
    elif options.part == "borders":
        found = borders(options.images, options.seed)
    elif options.part == "draws":
        found = draws(options.images, options.seeds)
    else:
        training = (options.seed, options.epochs, options.train_images)
        found = trained(options.models or list(TRAINED), options.data, options.images, *training)
    write(options.out, options.part, found, vars(options), time.perf_counter() - began)


def write(path: Path | None, part: str, found: list[dict[str, Any]], options: dict[str, Any], seconds: float) -> None:
    """Add a part to the file; in `families` and `trained`, the rows of the measured models replace theirs."""
    earlier = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else {}
    kept = {name: earlier[name] for name in ("clips", "borders", "draws", "trained", "parts") if name in earlier}
    results = [row for row in earlier.get("results", []) if row["model"] in FAMILIES]
    if part == "families":  # a file always has `results`: until this part has run, those of another
        results = _merged(results, found, list(FAMILIES))
    else:
        kept[part] = _merged(kept.get(part, []), found, TRAINED) if part == "trained" else found
    hidden = ("device", "repeats", "out", "figures", "part")
    settings = {name: str(value) if name == "data" else value for name, value in options.items() if name not in hidden}
    stamp = {"commit": commit(), "hardware": hardware(), "versions": versions(), "seconds": round(seconds, 1)}
    kept["parts"] = {**kept.get("parts", {}), part: {"settings": settings, **stamp}}
    shared = {"clip": CLIP, "frames": FRAMES, "schedule": SCHEDULE, "part": part}
    write_result(path, "receptive_field", {"settings": shared, "results": results or found, **kept}, columns=COLUMNS)


def _merged(rows: list[dict[str, Any]], new: list[dict[str, Any]], order: Sequence[str]) -> list[dict[str, Any]]:
    measured = {row["model"] for row in new}
    return sorted(
        [row for row in rows if row["model"] not in measured] + new, key=lambda row: order.index(row["model"])
    )


if __name__ == "__main__":
    main()
