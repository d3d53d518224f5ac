"""The files of a segmentor's assessment: the report, the record, a config, and a script that uses it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from image2video.assess.files import REPORT, RESULT, SCRIPT, Folder
from image2video.assess.segmentor.assessment import SegmentorAssessment
from image2video.assess.segmentor.page import segmentor_page
from image2video.report.page import write_page
from image2video.runs.folders import atomic_torch_save, atomic_write_json, atomic_write_text

if TYPE_CHECKING:  # mmsegmentation takes seconds to import, and may not be there
    from image2video.integrations.openmmlab.trained import TrainedSegmentor

CONFIG, CLASSES, WEIGHTS = "segmentor.py", "classes.json", "weights.pth"


def write_segmentor_files(folder: Folder, assessment: SegmentorAssessment, segmentor: TrainedSegmentor) -> None:
    """Write report, record, the config with the advised clip, and `use_it.py`, which draws the classes of images.

    The config is whole: it inherits from no file. It is that of the plain segmentor where the segmentor is to be kept.

    Args:
        folder: where they go.
        assessment: what was found.
        segmentor: that was assessed.
    """
    write_page(folder / REPORT, segmentor_page(assessment))
    atomic_write_json(folder / RESULT, assessment.to_dict())
    options = None if assessment.advised.finalist.is_bare else assessment.wrap_options()
    atomic_write_text(folder / CONFIG, segmentor.config_with(options).pretty_text)
    meta = segmentor.dataset_meta
    atomic_write_json(folder / CLASSES, meta)
    if segmentor.has_own_checkpoint:
        weights = repr(str(Path(segmentor.weights).expanduser().resolve()))
    else:
        atomic_torch_save(folder / WEIGHTS, {"meta": {"dataset_meta": meta}, "state_dict": segmentor.state_dict()})
        weights = f'str(here / "{WEIGHTS}")'
    atomic_write_text(folder / SCRIPT, _SCRIPT.format(config=CONFIG, classes=CLASSES, weights=weights))


_SCRIPT = '''"""Draw the classes of images: python use_it.py IMAGE [IMAGE …]"""

import json
import sys
from pathlib import Path

from mmseg.apis import inference_model, init_model, show_result_pyplot

here = Path(__file__).parent
model = init_model(str(here / "{config}"), {weights}, device="cpu")
model.dataset_meta = json.loads((here / "{classes}").read_text(encoding="utf-8"))
for path in sys.argv[1:]:
    result = inference_model(model, path)
    result.pred_sem_seg.data = result.pred_sem_seg.data.long()  # a head of one output answers in floats
    drawn = f"{{Path(path).stem}}_classes.png"
    show_result_pyplot(model, path, result, show=False, out_file=drawn)
    shares = result.pred_sem_seg.data.flatten().bincount().double() / result.pred_sem_seg.data.numel()
    largest = shares.argsort(descending=True)[:3].tolist()
    said = ", ".join(f"{{model.dataset_meta['classes'][k]}} {{shares[k]:.0%}}" for k in largest if shares[k] > 0)
    print(f"{{path}}: {{said}}; drawn in {{drawn}}")
'''
