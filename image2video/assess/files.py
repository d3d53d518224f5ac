"""The files of an assessment: the report, the record, the model, and a script that uses it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from image2video.assess.assessment import Assessment
from image2video.assess.page import page
from image2video.data.resizing import Resizing
from image2video.report.page import write_page
from image2video.runs.folders import OutputDirectory, atomic_write_json, atomic_write_text
from image2video.wrap.builders import Builder
from image2video.wrap.video_wrap import VideoWrap

MODEL, REPORT, RESULT, SCRIPT, CLASSES = "model", "report.html", "result.json", "use_it.py", "classes.txt"

Folder = Path | OutputDirectory


def write_result(folder: Folder, assessment: Assessment) -> None:
    """Write `report.html` and `result.json` into a folder."""
    write_page(folder / REPORT, page(assessment))
    atomic_write_json(folder / RESULT, assessment.to_dict())


def write_model(
    folder: Folder,
    assessment: Assessment,
    model: nn.Module,
    builder: Builder | None,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    """Write the model with the chosen clip into `model/`; `model` is wrapped for a moment, and left as it came."""
    wrapped = VideoWrap(
        model, "none", **assessment.wrap_options(), input_size=assessment.input_size, mean=mean, std=std
    )
    try:
        wrapped.builder = builder
        wrapped.save_pretrained(folder / MODEL)
    finally:
        wrapped.unwrap()


def write_script(
    folder: Folder,
    classes: Sequence[str],
    *,
    image_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    resizing: Resizing,
    own: tuple[str, str] | None = None,
) -> None:
    """Write `use_it.py`, which names the class of image files with the model, and `classes.txt`.

    own: lines that import the function of the bare network, and the expression that calls it; None for a network that
    the model's folder knows how to build.
    """
    how = ", ".join(f"{value!r}" for value in (resizing.interpolation, resizing.crop_fraction, resizing.crop_mode))
    atomic_write_text(folder / CLASSES, "".join(f"{name}\n" for name in classes))
    lines, call = ("", "") if own is None else (f"\n{own[0]}\n", f", backbone={own[1]}")
    text = _SCRIPT.format(
        lines=lines, call=call, size=image_size, mean=tuple(mean), std=tuple(std), how=how, classes=CLASSES, model=MODEL
    )
    atomic_write_text(folder / SCRIPT, text)


_SCRIPT = '''"""Name the class of images: python use_it.py IMAGE [IMAGE …]"""

import sys
from pathlib import Path

import torch

from image2video import VideoWrap
from image2video.data.image_file import read_image
from image2video.data.resizing import Resizing
from image2video.data.transforms import eval_transform
{lines}
here = Path(__file__).parent
model = VideoWrap.from_pretrained(here / "{model}"{call})
classes = (here / "{classes}").read_text(encoding="utf-8").splitlines()
prepare = eval_transform({size}, {mean}, {std}, Resizing({how}))
for path in sys.argv[1:]:
    with torch.inference_mode():
        shares = model(prepare(read_image(path))[None]).softmax(1)[0]
    best = int(shares.argmax())
    print(f"{{path}}: {{classes[best]}} ({{shares[best]:.1%}})")
'''
