"""Does the clip reshape the effective receptive field as theory says, and by how much?

    export OUT=benchmarks/results/receptive_field.json
    python benchmarks/receptive_field.py --part families --out $OUT
    python benchmarks/receptive_field.py --part clips --images 8 --figures docs/figures --out $OUT
    python benchmarks/receptive_field.py --part draws --out $OUT
    python benchmarks/receptive_field.py --part trained --data npz:cifar10.npz --out $OUT
    python benchmarks/receptive_field.py --part checkpoints --checkpoints bare=BARE.pth none=NONE.pth gsf=GSF.pth \
        --folder images/test --out $OUT

Every part is a list of its own in the file; the others are kept. `families`: networks for images of 224 pixels and two
segmentors, random weights. `clips`: ResNet-50 with GSF, one genotype each. `draws`: a small network, several draws of
its weights. `trained`: small networks trained here, from scratch, with their fusions. `checkpoints`: segmentors that
mmsegmentation trained, on images of a folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from field_figures import write_erf_figures, write_fields_figure
from field_networks import AVERAGED, BARE, CLIP, FRAMES, SCHEDULE, Clip, noise, random_networks, trained_networks
from field_rows import over_draws, rows
from harness import arguments, commit, hardware, versions, write_result
from torch import nn

from image2video import VideoWrap
from image2video.cli.rf_job import read_images
from image2video.clip.genotype import Genotype
from image2video.data import load_data
from image2video.receptive_field import EffectiveField, Unit, theoretical
from image2video.receptive_field.survey import survey, survey_units
from image2video.report import ErfPanel

FAMILIES = {
    "resnet18": 224,
    "resnet50": 224,
    "convnext_tiny": 224,
    "vit_tiny_patch16_224": 224,
    "small_fcn": 48,
    "pspnet_r18": 224,
}
LAYERS = {"pspnet_r18": "backbone.layer2"}  # beside its output
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
PARTS = ("clips", "draws", "trained", "checkpoints")


def units_of(model: str, bare: nn.Module, size: tuple[int, int, int]) -> dict[str, Unit]:
    """The units of a network: of one frame and averaged; of a classifier's logit where that is cheap."""
    units = survey_units(bare, size, layer=LAYERS[model]) if model in LAYERS else {}
    units |= survey_units(bare, size)
    return units | ({"class logit": Unit()} if model in ("resnet18", "cifar_resnet8") else {})


def families(count: int, seed: int, models: Iterable[str]) -> list[dict[str, Any]]:
    """The networks of FAMILIES with random weights: no fusion, TSM, GSF."""
    found, clip = [], Clip()
    for model in models:
        images = noise(count, FAMILIES[model], seed)
        networks = random_networks(model, images, clip, ("tsm", "gsf"), seed)
        units = units_of(model, networks[BARE], (3, FAMILIES[model], FAMILIES[model]))
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
    first: dict[str, EffectiveField] = {}
    for name, genotype in CLIPS.items():
        clip = Clip(genotype)
        networks = random_networks(model, images, clip, ("gsf",), seed)
        del networks[AVERAGED]
        units = survey_units(networks[BARE], (3, size, size))
        fields = survey(networks, images, units, weights="random", seed=seed)
        chain = str(Genotype.coerce(genotype))
        found += rows(fields, clip, model=model, size=size, clip=name, genotype=chain)
        title = f"{chain}\n({genotype})" if genotype.startswith("preset:") else chain
        for unit, line in fields.items():
            panels.setdefault(unit, [ErfPanel.of(BARE, line[BARE])]).append(ErfPanel.of(title, line["GSF"]))
        first = first or {unit: line["GSF"] for unit, line in fields.items()}
        print(f"{name}: done", flush=True)
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        write_erf_figures(figures, panels, first, model=model, fusion="GSF", images="images of white noise")
        write_fields_figure(figures)
    return found


def draws(count: int, seeds: int, model: str = "cifar_resnet18", size: int = 32) -> list[dict[str, Any]]:
    """Means and standard errors over draws of the weights, of a network that is small enough for it."""
    clip, drawn = Clip(), []
    for seed in range(seeds):
        images = noise(count, size, seed)
        networks = random_networks(model, images, clip, ("tsm", "gsf"), seed, num_classes=10)
        units = survey_units(networks[BARE], (3, size, size)) | {"class logit": Unit()}
        drawn.append(rows(survey(networks, images, units, weights="random", seed=seed), clip))
    about = {"images": count, "weights": "random"}
    return [{"model": model, "size": size, **row, **about} for row in over_draws(drawn)]


def trained(
    models: Iterable[str], data: str, count: int, seed: int, epochs: int, train_images: int
) -> list[dict[str, Any]]:
    """Small networks trained from scratch, each with its own fusion: a classifier and a segmentor."""
    clip, found = Clip(T=3), []
    for model in models:
        spec, limit = (data, train_images) if model == "cifar_resnet8" else ("digit_scenes", None)
        source = load_data(spec, train_images=limit, holdout=0.1, seed=seed)
        size = (source.input_size[0], source.input_size[1], source.input_size[2])
        networks, scores = trained_networks(model, source, clip, size, epochs, seed)
        images = next(iter(source.test.batches(count).epoch(0)))[0]
        weights = f"trained on {source.short_name}, {source.train.num_images} images, {epochs} epochs"
        fields = survey(networks, images, units_of(model, networks[BARE], size), weights=weights, seed=seed)
        for row in rows(fields, clip, model=model, size=size[1], data=source.short_name):
            found.append(row | {"score": scores[row["network"]], "bare_score": scores[BARE]})
        print(f"{model}: done", flush=True)
    return found


def checkpoints(
    named: Sequence[str], folder: str, count: int, seed: int, side: int, layer: str, title: str | None = None
) -> list[dict[str, Any]]:
    """Segmentors of mmsegmentation by the checkpoints that its runner wrote, the bare one first; one clip for all."""
    from field_segmentors import from_checkpoint

    size = (3, side, side)
    names = {"bare": BARE, "none": AVERAGED}
    networks = {}
    for item in named:
        name, _, path = item.partition("=")
        networks[names.get(name, name.upper())] = from_checkpoint(Path(path), size)
    if next(iter(networks), None) != BARE or isinstance(networks[BARE], VideoWrap) or len(networks) < 2:
        raise SystemExit("--checkpoints takes bare=PATH first, then video segmentors as none=PATH, tsm=PATH, gsf=PATH")
    bare, video = networks[BARE], [model for model in networks.values() if isinstance(model, VideoWrap)]
    frames = video[0].to_video
    clip = Clip(str(frames.genotype), frames.T, str(frames.schedule), frames.padding)
    images = read_images(folder, count, size, bare, seed).images
    units = survey_units(bare, size, layer=layer) | survey_units(bare, size)
    fields = survey(networks, images, units, weights="trained", seed=seed)
    about = {"model": title or type(bare.decode_head).__name__, "size": side, "genotype": clip.genotype, "T": clip.T}
    return rows(fields, clip, **about)


def options() -> Any:
    parser = arguments(__doc__ or "", repeats=1)
    parser.add_argument("--part", choices=["families", *PARTS], required=True)
    parser.add_argument("--images", type=int, default=16, help="images of every field")
    parser.add_argument(
        "--models",
        nargs="*",
        default=None,
        help="of families and trained: which networks (all); of checkpoints: what to call theirs",
    )
    parser.add_argument("--seeds", type=int, default=5, help="of draws: how many draws of the weights")
    parser.add_argument("--data", default="npz:cifar10.npz", help="of trained: images of the classifier")
    parser.add_argument("--train-images", type=int, default=2500, help="of trained: images of the classifier")
    parser.add_argument("--epochs", type=int, default=5, help="of trained")
    parser.add_argument("--figures", type=Path, default=None, help="of clips: folder of the pictures")
    parser.add_argument("--checkpoints", nargs="*", default=(), help="of checkpoints: bare=PATH none=PATH tsm=PATH …")
    parser.add_argument("--folder", default="random", help="of checkpoints: a folder of images, or random")
    parser.add_argument("--side", type=int, default=224, help="of checkpoints: pixels per side of the images")
    parser.add_argument("--layer", default="backbone.layer2", help="of checkpoints: a layer, beside the output")
    return parser.parse_args()


def measured(given: Any) -> list[dict[str, Any]]:
    """The rows of the part that was asked for."""
    if given.part == "families":
        return families(given.images, given.seed, given.models or list(FAMILIES))
    if given.part == "clips":
        return clips(given.images, given.seed, given.figures)
    if given.part == "draws":
        return draws(given.images, given.seeds)
    if given.part == "trained":
        models = given.models or list(TRAINED)
        return trained(models, given.data, given.images, given.seed, given.epochs, given.train_images)
    title = given.models[0] if given.models else None
    shape = (given.folder, given.images, given.seed, given.side, given.layer)
    return checkpoints(given.checkpoints, *shape, title)


def main() -> None:
    given = options()
    torch.set_num_threads(given.threads)
    began = time.perf_counter()
    found = measured(given)
    write(given.out, given.part, found, vars(given), time.perf_counter() - began)


def write(path: Path | None, part: str, found: list[dict[str, Any]], given: dict[str, Any], seconds: float) -> None:
    """Add a part to the file; in `families` and `trained`, the rows of the measured models replace theirs."""
    found = [{**row, "commit": commit()} for row in found]
    earlier = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else {}
    kept = {name: earlier[name] for name in (*PARTS, "parts") if name in earlier}
    results = [row for row in earlier.get("results", []) if row["model"] in FAMILIES]
    if part == "families":
        results = _merged(results, found, list(FAMILIES))
    elif part == "trained":
        kept[part] = _merged(kept.get(part, []), found, TRAINED)
    else:
        kept[part] = found
    hidden = ("device", "repeats", "out", "figures", "part", "checkpoints", "folder")
    settings = {name: str(value) if name == "data" else value for name, value in given.items() if name not in hidden}
    measurement = {
        "settings": settings,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        "seconds": round(seconds, 1),
    }
    kept["parts"] = {**kept.get("parts", {}), "results" if part == "families" else part: measurement}
    shared = {"clip": CLIP, "frames": FRAMES, "schedule": SCHEDULE, "part": part}
    # A file always has `results`: until the families have run, they are the rows of another part.
    write_result(path, "receptive_field", {"settings": shared, "results": results or found, **kept}, columns=COLUMNS)


def _merged(old: list[dict[str, Any]], new: list[dict[str, Any]], order: Sequence[str]) -> list[dict[str, Any]]:
    """The new rows, and the old ones of models that were not measured anew, model by model."""
    anew = {row["model"] for row in new}
    rows = [row for row in old if row["model"] not in anew] + new
    return sorted(rows, key=lambda row: order.index(row["model"]))


if __name__ == "__main__":
    main()
