"""The code fits the original mmsegmentation 1.2.2 (mmcv 2.1.0, mmengine 0.10.7) as well as the fork that is installed.

The two share their import names. What the code takes from them stands in `ORIGINAL` and `OVERRIDDEN`: the main ones
were read in sources and API pages of the 1.x series, not all of them in the releases named above; a name that is new in
the code has to be looked up and added.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

pytest.importorskip("mmseg")

ROOT = Path(__file__).parents[2]
# The reproduction of the paper's tables runs on the maintained fork alone.
SOURCES = [
    path
    for folder in (ROOT / "integrations", ROOT / "image2video")
    for path in sorted(folder.rglob("*.py"))
    if "reproduce" not in path.parts
]
LIBRARIES = ("mmseg", "mmcv", "mmengine")
FORK = "one" + "dl"

ORIGINAL = {
    "mmcv": {"imresize"},
    "mmcv.cnn": {"build_norm_layer"},
    "mmcv.transforms": {"BaseTransform"},
    "mmengine.config": {"Config", "ConfigDict"},
    "mmengine.dataset": {"pseudo_collate"},
    "mmengine.dist": {"all_gather_object", "get_rank", "get_world_size"},
    "mmengine.fileio": {"exists", "isdir"},
    "mmengine.hooks": {"CheckpointHook", "Hook"},
    "mmengine.logging": {"MMLogger", "print_log"},
    "mmengine.model": {"BaseModule", "constant_init", "kaiming_init", "revert_sync_batchnorm"},
    "mmengine.registry": {"HOOKS", "MODELS", "DefaultScope", "init_default_scope"},
    "mmengine.runner": {"CheckpointLoader", "Runner"},
    "mmengine.structures": {"PixelData"},
    "mmseg.datasets": {"BaseSegDataset"},
    "mmseg.evaluation": {"IoUMetric"},
    "mmseg.models": {"SegDataPreProcessor"},
    "mmseg.models.decode_heads.cascade_decode_head": {"BaseCascadeDecodeHead"},
    "mmseg.models.decode_heads.decode_head": {"BaseDecodeHead"},
    "mmseg.models.decode_heads.point_head": {"calculate_uncertainty"},
    "mmseg.models.segmentors": {"CascadeEncoderDecoder", "EncoderDecoder"},
    "mmseg.models.utils": {"resize"},
    "mmseg.registry": {"DATASETS", "METRICS", "MODELS"},
    "mmseg.structures": {"SegDataSample"},
    "mmseg.utils": {"add_prefix", "register_all_modules"},
}
"""module -> the names that the code imports from it."""

OVERRIDDEN = {
    ("mmseg.models.segmentors", "EncoderDecoder"): {
        "loss": ["inputs", "data_samples"],
        "encode_decode": ["inputs", "batch_img_metas"],
        "slide_inference": ["inputs", "batch_img_metas"],
        "_forward": ["inputs", "data_samples"],
        "extract_feat": ["inputs"],
    },
    ("mmseg.models.segmentors", "CascadeEncoderDecoder"): {
        "encode_decode": ["inputs", "batch_img_metas"],
        "_forward": ["inputs", "data_samples"],
    },
    ("mmseg.models.decode_heads.decode_head", "BaseDecodeHead"): {
        "loss": ["inputs", "batch_data_samples", "train_cfg"],
        "predict": ["inputs", "batch_img_metas", "test_cfg"],
        "loss_by_feat": ["seg_logits", "batch_data_samples"],
        "predict_by_feat": ["seg_logits", "batch_img_metas"],
    },
    ("mmseg.models.decode_heads.cascade_decode_head", "BaseCascadeDecodeHead"): {
        "forward": ["inputs", "prev_output"],
        "loss": ["inputs", "prev_output", "batch_data_samples", "train_cfg"],
    },
    ("mmengine.hooks", "Hook"): {
        "after_load_checkpoint": ["runner", "checkpoint"],
        "before_save_checkpoint": ["runner", "checkpoint"],
        "before_train": ["runner"],
        "after_train_iter": ["runner", "batch_idx", "data_batch", "outputs"],
        "after_train_epoch": ["runner"],
        "before_val": ["runner"],
        "after_val": ["runner"],
        "every_n_train_iters": ["runner", "n", "start"],
        "is_last_train_iter": ["runner"],
    },
}
"""(module, class) -> its methods that the code overrides or calls, with their parameters in the original."""


def imports() -> list[tuple[Path, str, str | None]]:
    """(file, module, name) of everything that the code takes from the three libraries; name None: the module.

    What it takes of a module that it imports whole, `mmcv.imresize`, counts as imported from it.
    """
    found: list[tuple[Path, str, str | None]] = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
                found += [(path, str(node.module), alias.name) for alias in node.names]
            elif isinstance(node, ast.Import):
                found += [(path, alias.name, None) for alias in node.names if alias.name.split(".")[0] in LIBRARIES]
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in LIBRARIES:
                found.append((path, ast.unparse(node.value), node.attr))
    return found


def test_every_import_is_one_of_the_originals() -> None:
    found = imports()
    assert len(found) > 15
    for path, module, name in found:
        if name == "__path__":
            continue
        assert module in ORIGINAL, f"{path.name} imports {module}: is it in mmsegmentation 1.2.2?"
        assert name is None or name in ORIGINAL[module], f"{path.name} imports {name} from {module}: is it in 1.2.2?"


def test_the_installed_libraries_have_them_too() -> None:
    for module, names in ORIGINAL.items():
        there = importlib.import_module(module)
        assert [name for name in names if not hasattr(there, name)] == [], module


@pytest.mark.parametrize(("module", "name"), OVERRIDDEN, ids=lambda value: value)
def test_methods_take_what_the_originals_take(module: str, name: str) -> None:
    kind = getattr(importlib.import_module(module), name)
    for method, expected in OVERRIDDEN[module, name].items():
        assert list(inspect.signature(getattr(kind, method)).parameters)[1:] == expected, method


def test_our_overrides_take_what_the_originals_take() -> None:
    from image2video.integrations.openmmlab import ExactResumeHook, VideoCascadeEncoderDecoder, VideoEncoderDecoder

    ours = {
        VideoEncoderDecoder: ("mmseg.models.segmentors", "EncoderDecoder"),
        VideoCascadeEncoderDecoder: ("mmseg.models.segmentors", "CascadeEncoderDecoder"),
        ExactResumeHook: ("mmengine.hooks", "Hook"),
    }
    for kind, original in ours.items():
        for method, expected in OVERRIDDEN[original].items():
            assert list(inspect.signature(getattr(kind, method)).parameters)[1:] == expected, (kind, method)


def test_nothing_names_the_fork() -> None:
    named = [path.relative_to(ROOT) for path in SOURCES if FORK in path.read_text().lower()]
    assert named == []
    assert FORK in (ROOT / "setup.cfg").read_text()
