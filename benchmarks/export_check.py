"""How far exported files are from a trained network, on real images, format by format.

    python benchmarks/export_check.py --sample FOLDER --out benchmarks/results/export_check.json

FOLDER holds `images/`, `labels.json` (a list of file and class) and `tf_efficientnet_lite0.safetensors`. The clip is
`scale(1.1)` with T = 3, averaged, fused by a fresh GSF, or beginning inside of the network. Each file is read again by
its own runtime and given the images; `int8` takes its ranges from other images of the folder.
"""

import copy
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import timm
import torch
from harness import arguments, measure_pair, ratio_fields, write_result
from PIL import Image
from torch import Tensor

from image2video import VideoWrap
from image2video.errors import Image2VideoError
from image2video.export import ExportConfig, export_formats, export_model
from image2video.training import load_weights

NETWORK = "tf_efficientnet_lite0"
CASES: dict[str, dict[str, Any]] = {
    "averaged": {"fusion": "none"},
    "GSF": {"fusion": "gsf"},
    "inside, at blocks.3": {"fusion": "none", "clip_at": "blocks.3"},
}
FORMATS = ("pt2", "onnx", "onnx-legacy", "torchscript", "int8", "aoti")


def read(folder: Path, size: int, start: int, count: int) -> tuple[Tensor, Tensor]:
    """Images `(count, 3, size, size)` as the network takes them, and their classes."""
    config = timm.data.resolve_data_config({"input_size": (3, size, size)}, model=timm.create_model(NETWORK))
    transform = timm.data.create_transform(**config)
    listed = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    chosen = listed[start :: len(listed) // count][:count]
    images = [transform(Image.open(folder / "images" / one["file"]).convert("RGB")) for one in chosen]
    return torch.stack(images), torch.tensor([one["class"] for one in chosen])


def wrapped(folder: Path, size: int, case: str) -> VideoWrap:
    """The trained network with the clip of a case."""
    network = timm.create_model(NETWORK)
    load_weights(network, folder / f"{NETWORK}.safetensors")
    return VideoWrap(network, genotype="scale(1.1)", T=3, input_size=(3, size, size), **CASES[case]).eval()


@torch.no_grad()
def row(model: VideoWrap, config: ExportConfig, images: Tensor, labels: Tensor, ranges: Tensor) -> dict[str, Any]:
    """One file, compared on all images."""
    expected = model(images)
    fields: dict[str, Any] = {"format": config.format, "dtype": config.dtype}
    if config.kind.calibrated:
        fields["dtype"] = "int8"
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{config.kind.suffix}"
        calibration = ranges if config.kind.calibrated else None
        try:
            report = export_model(model, path, config, images=images, calibration=calibration)
        except Image2VideoError as error:
            return fields | {"error": str(error)}
        seconds = time.perf_counter() - begin
        found = config.kind.load(path)(images)[0].float()
        difference = float((found - expected).abs().max())
        return fields | {
            "difference": difference,
            "of_the_largest": difference / float(expected.abs().max()),
            "same_class": f"{int((found.argmax(1) == expected.argmax(1)).sum())} of {len(images)}",
            "right": int((found.argmax(1) == labels).sum()),
            "right_in_torch": int((expected.argmax(1) == labels).sum()),
            "MiB": path.stat().st_size / 2**20,
            "opset": report.record.get("opset"),
            "seconds": round(seconds, 1),
            "runtime": {name: report.record["versions"][name] for name in config.kind.packages},
        }


@torch.no_grad()
def speed(model: VideoWrap, images: Tensor, repeats: int) -> dict[str, Any]:
    """The processor time of the model in bfloat16 as a share of that in float32, without a file."""
    half, images = copy.deepcopy(model).to(torch.bfloat16), images[:4]
    pair = measure_pair(
        lambda: half(images.to(torch.bfloat16)), lambda: model(images), repeats, warmup=1, clock=time.process_time
    )
    return {"clip": "averaged", "images": len(images), **ratio_fields(pair)}


def main() -> None:
    parser = arguments(__doc__ or "", repeats=7)
    parser.add_argument("--sample", type=Path, required=True, help="the folder of the network and its images")
    parser.add_argument("--formats", nargs="*", default=FORMATS, help="which of the formats")
    parser.add_argument("--count", type=int, default=16, help="images to compare on")
    parser.add_argument("--size", type=int, default=160, help="pixels per side")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images, labels = read(args.sample, args.size, 0, args.count)
    ranges, _ = read(args.sample, args.size, 1, 64)
    results = []
    kinds = export_formats()
    for name in args.formats:
        for dtype in kinds[name].dtypes:
            for case in CASES:
                model = wrapped(args.sample, args.size, case)
                # A comparison, not a gate: every difference is written down.
                config = ExportConfig(name, dtype=dtype, tolerance=1e6)
                results.append({"clip": case, **row(model, config, images, labels, ranges)})
                print(results[-1], flush=True)
    settings = {"network": NETWORK, "size": args.size, "images": args.count, "threads": args.threads}
    bf16 = [speed(wrapped(args.sample, args.size, "averaged"), images, args.repeats)]
    write_result(args.out, "export_check", {"settings": settings, "results": results, "bf16": bf16})


if __name__ == "__main__":
    main()
