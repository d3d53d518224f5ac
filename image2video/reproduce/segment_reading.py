"""The plain mmsegmentation config that a setting names, as it stands in its files."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.utils import register_all_modules

from image2video.errors import InputError, MissingError
from image2video.integrations.openmmlab import CONFIGS
from image2video.integrations.openmmlab.search_config import same_images, type_name
from image2video.reproduce.segment_split import loader_leaves
from image2video.reproduce.spec import Setting

_PLACES = ("data_root", "backend_args")
_PROCESSES = re.compile(r"_(\d+)xb\d+-")  # mmsegmentation names a config by its processes and the images of each


def read_config(setting: Setting) -> Config:
    """The config that a setting names, with its options; `A + B` is A with B merged over it.

    `train_dataloader.batch_size` is that of all processes together: A's times the processes that A's name states
    (`4xb2`), or what B or the options say. Raises `MissingError` where there is no such file, and `InputError` where it
    cannot be read, or is no config of a plain segmentor that is trained by steps and tested by one `IoUMetric`.
    """
    assert setting.config is not None
    names = [name.strip() for name in setting.config.split("+")]
    config = _read(names[0])
    processes = _PROCESSES.search(Path(names[0]).name)
    try:
        config.train_dataloader.batch_size *= int(processes[1]) if processes else 1
        for name in names[1:]:
            config.merge_from_dict(_read(name).to_dict())
        config.merge_from_dict(copy.deepcopy(dict(setting.options)))
    except MissingError:
        raise
    except Exception as error:
        raise InputError(f"{setting.config} with its options: {type(error).__name__}: {error}") from error
    _check(config, setting.config)
    # Lists of thousands of images are to be written out as they are: formatting them takes longer than some runs.
    return Config(config.to_dict(), format_python_code=False)


def content_hash(setting: Setting) -> str:
    """16 hexadecimal digits for all that a setting's config says with its options, but for where the data are."""
    text = json.dumps(plain_values(read_config(setting)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain_values(value: Any) -> Any:
    """Config values as JSON holds them, without the places of data."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items() if key not in _PLACES}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else getattr(value, "__name__", str(value))


def _read(name: str) -> Config:
    """One config file: below the configs that come with the library, or anywhere."""
    path = CONFIGS / name if (CONFIGS / name).is_file() else Path(name).expanduser()
    if not path.is_file():
        raise MissingError(f"config={name!r}: there is neither a config of image2video of that name nor a file {path}")
    try:
        with DefaultScope.overwrite_default_scope("mmseg"):
            register_all_modules(init_default_scope=False)
            return Config.fromfile(str(path))
    except Exception as error:
        raise InputError(f"{path} cannot be read as a config: {type(error).__name__}: {error}") from error


def _check(config: Config, name: str) -> None:
    model, loop, evaluator = (config.get(key) or {} for key in ("model", "train_cfg", "test_evaluator"))
    kind = type_name(model.get("type"))
    if kind.startswith("Video") or "video" in model:
        raise InputError(f"{name} is the config of a video segmentor ({kind}); needed the plain one, arms add the clip")
    for key in ("load_from", "resume"):
        if config.get(key):
            raise InputError(f"{name}: {key}={config[key]!r}; arms start from `pretrained` weights or another arm's")
    for loader in ("train_dataloader", "test_dataloader"):
        loader_leaves(config, loader)
    if same_images(config.train_dataloader, config.test_dataloader):
        raise InputError(f"{name}: train_dataloader reads the files of test_dataloader")
    if type_name(loop.get("type")) != "IterBasedTrainLoop":
        raise InputError(f"{name}: train_cfg.type={loop.get('type')!r}; needed IterBasedTrainLoop, which counts steps")
    found: Any = evaluator.get("type") if hasattr(evaluator, "get") else evaluator
    if type_name(found) != "IoUMetric":
        raise InputError(f"{name}: test_evaluator.type={found!r:.80}; needed one IoUMetric")
