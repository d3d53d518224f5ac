"""Every kind of file and text that the library reads, with seeds and with the door that reads it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import yaml
from fuzz_mutator import VALUES, mutated_bytes, mutated_value
from report_cases import result_record
from safetensors.torch import save
from torch import nn

from image2video.cli import main
from image2video.clip.any_clip import any_clip_from_json, as_any_clip, parse_any_clip
from image2video.clip.deep_clip import DeepClip
from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import Genotype
from image2video.data import Augmentation, load_data
from image2video.data.scan import tiny_imagenet_val
from image2video.errors import Image2VideoError
from image2video.experiments.candidates import parse_candidates
from image2video.export.check import read_check
from image2video.integrations import timm_models  # noqa: F401 (registers the wrapped models)
from image2video.report import ComparisonResult
from image2video.reproduce import load_experiment
from image2video.reproduce.data import parse_data
from image2video.reproduce.names import FOLDER as TABLES
from image2video.runs.folders import OutputDirectory, add_to_run
from image2video.runs.texts import parse_json
from image2video.runs.yaml_text import parse_yaml
from image2video.search import SearchConfig, get_space
from image2video.training import TrainConfig, load_weights, train
from image2video.wrap.clip_record import ClipWarning
from image2video.wrap.pretrained_config import check_local, read_config
from image2video.wrap.video_wrap import VideoWrap


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        seeds: whole files, or values where `write` makes the bytes.
        read: what takes the bytes, and an empty folder of its own to put them into.
        write: makes bytes of a value; None where there are bytes alone to mutate.
        quick: mutations of the quick profile.
        share: of the mutations of the long profile, in parts.
        values: what takes the place of a value.
    """

    seeds: tuple[Any, ...]
    read: Callable[[bytes, Path], object]
    write: Callable[[Any], bytes] | None = None
    quick: int = 60
    share: float = 1.0
    values: tuple[Any, ...] = VALUES

    def mutation(self, seed: str) -> bytes:
        """The bytes of one mutation."""
        draw = random.Random(seed)
        chosen = draw.choice(self.seeds)
        if self.write is not None and draw.random() < 0.6:
            return self.write(mutated_value(chosen, draw, self.values))
        whole = self.seeds if self.write is None else tuple(map(self.write, self.seeds))
        return mutated_bytes(chosen if self.write is None else self.write(chosen), whole, draw)


@dataclass
class Report:
    """What the mutations of one format came to."""

    name: str
    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def mutations(self) -> int:
        """All of them."""
        return self.read + self.refused + len(self.failures)

    def line(self) -> str:
        """A line of a table."""
        return (
            f"{self.name:24} {self.mutations:9} mutations {self.read:9} read {self.refused:9} refused "
            f"{len(self.failures):4} foreign, slowest {self.slowest:.2f} s"
        )


PATIENCE = 60
"""Seconds after which a reader is taken to hang; whole trainings among the formats take a few."""


class NoAnswer(BaseException):
    """A reader has taken too long; no `except Exception` of its own makes an error of ours of it."""


def _out_of_patience(*_: object) -> None:
    raise NoAnswer(f"no answer after {PATIENCE} s")


def fuzz(name: str, count: int, folder: Path, *, seed: int = 0, seconds: float = float("inf")) -> Report:
    """Read `count` mutations of a format; an error that is not ours, or no answer in time, is a failure."""
    report, kind, began = Report(name), FORMATS[name], time.monotonic()
    former = signal.signal(signal.SIGALRM, _out_of_patience)
    for index in range(count):
        if time.monotonic() - began > seconds:
            break
        data = kind.mutation(f"{name}/{seed}/{index}")
        start = time.perf_counter()
        signal.alarm(PATIENCE)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kind.read(data, folder)
            report.read += 1
        except Image2VideoError as error:
            report.refused += 1
            if len(str(error)) > 20_000:
                report.failures.append(
                    f"{name}/{seed}/{index}: a message of {len(str(error))} characters: {data!r:.300}"
                )
        except (Exception, NoAnswer):
            report.failures.append(f"{name}/{seed}/{index}: {data!r:.2000}\n{traceback.format_exc(limit=-8)}")
        finally:
            signal.alarm(0)
        report.slowest = max(report.slowest, time.perf_counter() - start)
    signal.signal(signal.SIGALRM, former)
    return report


def _put(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=False).encode()


def _text(read: Callable[[str], object]) -> Callable[[bytes, Path], object]:
    """A door that takes a text: as the command line gives it, where bytes that are no UTF-8 are halves."""
    return lambda data, folder: read(os.fsdecode(data))


def _genotype(data: bytes, folder: Path) -> object:
    found = Genotype.from_hub(_put(data, folder / "genotype.json").parent)
    assert Genotype.from_json(found.to_json()) == found
    return found


def _clip_text(text: str) -> object:
    found = parse_any_clip(text)
    assert parse_any_clip(str(found)) == found
    return found


def _clip(data: bytes, folder: Path) -> object:
    found = as_any_clip(_put(data, folder / "clip.json"))
    assert any_clip_from_json(found.to_json()) == found
    return found


def _space(suffix: str) -> Callable[[bytes, Path], object]:
    return lambda data, folder: get_space(_put(data, folder / f"space{suffix}")).size_text


def _run(data: bytes, folder: Path) -> object:
    shutil.rmtree(folder / "run", ignore_errors=True)
    (folder / "run").mkdir()
    _put(data, folder / "run" / "run.json")
    try:
        add_to_run(folder / "run", "more")
    except Image2VideoError:
        _put(data, folder / "run" / "run.json")
    with_parts = OutputDirectory(folder / "run", "search", resume=True)
    assert with_parts / "scores.json"
    return OutputDirectory(folder / "run", "search", overwrite=True).finish()


def _table(data: bytes, folder: Path) -> object:
    return load_experiment(str(_put(data, folder / "table.yaml")))


def _policy(text: str) -> object:
    policy = Augmentation.parse(text)
    assert Augmentation.parse(str(policy)) == policy
    return policy


def _config(data: bytes, folder: Path) -> object:
    path = _put(data, folder / "config.json")
    config = read_config(path)
    check_local(config, str(path), largest=64)
    return config


_EXPORTED = b"an export"


def _export_record(data: bytes, folder: Path) -> object:
    path = _put(_EXPORTED, folder / "model.pt2")
    _put(data, folder / "model.pt2.check.json")
    _put(save({"images": torch.zeros(1, 3, 4, 4), "output": torch.zeros(1, 2)}), folder / "model.pt2.check.safetensors")
    return read_check(path)


_EXPORT_RECORD = {
    "schema": 1,
    "file": "model.pt2",
    "sha256": hashlib.sha256(_EXPORTED).hexdigest(),
    "format": "pt2",
    "outputs": [{"name": "output", "shape": ["batch", 2], "dtype": "float32"}],
    "tolerance": 1e-5,
}


class _Saved:
    """A saved folder and what lies in it, made when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> bytes:
        if not self._made:
            import tempfile

            with tempfile.TemporaryDirectory() as place:
                torch.manual_seed(0)
                timm.create_model("i2v_cifar_resnet8", num_classes=3, T=2, genotype="rotate(4)").save_pretrained(place)
                self._made = {path.name: path.read_bytes() for path in Path(place).iterdir()}
        return self._made[name]


SAVED = _Saved()


def _folder(mutated: str, other: str) -> Callable[[bytes, Path], object]:
    def read(data: bytes, folder: Path) -> object:
        _put(SAVED[other], folder / other)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ClipWarning)  # a config of one model with the weights of another
            return VideoWrap.from_pretrained(_put(data, folder / mutated).parent)

    return read


def _network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 10))


def _weights(suffix: str) -> Callable[[bytes, Path], object]:
    def read(data: bytes, folder: Path) -> object:
        load_weights(_network(), _put(data, folder / f"weights{suffix}"))
        return None

    return read


def _torch(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _npz(compress: bool) -> bytes:
    draw = np.random.default_rng(0)
    arrays = {
        "x_train": draw.integers(0, 255, (8, 8, 8, 1), np.uint8),
        "y_train": np.arange(8) % 2,
        "x_test": draw.integers(0, 255, (4, 8, 8, 1), np.uint8),
        "y_test": np.arange(4) % 2,
        "classes": np.array(["a", "b"]),
    }
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def _labels(data: bytes, folder: Path) -> object:
    (folder / "images").mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        (folder / "images" / name).touch()
    _put(data, folder / "val_annotations.txt")
    return tiny_imagenet_val(folder, ["n01", "n02"])


class _Training:
    """A finished training, and the door that goes on from its checkpoint."""

    def __init__(self) -> None:
        self._data: Any = None

    def _load(self) -> Any:
        if self._data is None:
            self._data = load_data("digits", train_images=20, holdout=0.5, image_size=8)
        return self._data

    config = TrainConfig(epochs=1, batch_size=10, lr=0.05, warmup_epochs=0, device="cpu")

    def checkpoint(self) -> dict[str, Any]:
        """What the finished training left, with a small optimiser."""
        import tempfile

        with tempfile.TemporaryDirectory() as place:
            torch.manual_seed(0)
            train(_network(), self._load(), self.config, out=place)
            found: dict[str, Any] = torch.load(Path(place) / "checkpoint.pt", weights_only=True)
        found["random"]["python"][1] = found["random"]["python"][1]
        return found

    def read(self, data: bytes, folder: Path) -> object:
        shutil.rmtree(folder / "run", ignore_errors=True)
        record = {"kind": "train", "state": "running", "contents": ["checkpoint.pt"], "resumes": 0}
        OutputDirectory(folder / "run", "train").note(**record)
        _put(data, folder / "run" / "checkpoint.pt")
        state = torch.get_rng_state()
        try:
            return train(_network(), self._load(), self.config, out=folder / "run", resume=True)
        finally:
            torch.set_rng_state(state)


TRAINING = _Training()
_TENSORS = (
    torch.zeros(2),
    torch.full((2, 1, 3, 3), float("nan")),
    torch.ones(2).bool(),
    torch.ones((2, 1, 3, 3)).to(torch.int8),
)


def _command(*argv: str, name: str = "config.yaml") -> Callable[[bytes, Path], object]:
    """A door of the command line: exit code 0 or 2, one line of error, and no traceback."""

    def read(data: bytes, folder: Path) -> object:
        import contextlib

        path = _put(data, folder / name)
        said, printed = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
            try:
                code: Any = main([argument.replace("FILE", str(path)) for argument in argv])
            except SystemExit as ended:
                code = ended.code
        assert code in (0, 2), (code, said.getvalue())
        assert "Traceback" not in said.getvalue()
        if code == 2:
            raise Image2VideoError(said.getvalue())
        return None

    return read


def _seed_config() -> Any:
    return json.loads(SAVED["config.json"])


def _frames_config() -> Any:
    clip = dict.fromkeys(("genotype", "T", "schedule", "padding", "interpolation", "mean", "std"))
    options = {"schedule": "ramp", "padding": "zeros", "interpolation": "bilinear", "mean": None, "std": None}
    law = {"candidates": ["rotate(4)", "scale(1.1)"], "inputs": 1, "nodes": 2}
    return {**_seed_config(), **clip, "frames": {"kind": "random_clips", "space": law, "T": 2, **options, "seed": 0}}


def _set_config() -> Any:
    return {**_seed_config(), "genotype": json.loads(_SET.to_json()), "T": 2, "schedule": "from_zero"}


def _inside_config() -> Any:
    return {**_seed_config(), "schema_version": 2, "clip_at": "layer1"}


def _deep_config() -> Any:
    clip = DeepClip.of({"image": "rotate(5)", "layer1": "translate_x(0.1)"})
    return {**_seed_config(), "schema_version": 3, "genotype": json.loads(clip.to_json())}


_GENOTYPE = Genotype.parse("translate_x(0.06) > rotate(-10) > brightness(1.1)").with_provenance({"seed": 1, "a": [1.5]})
_CELLS = Genotype.parse("translate_x(1 cell) > rotate(5) > translate_y(-2 cells)").with_provenance({"seed": 1})
_CELL_SET = FrameSet.parse("identity | translate_x(1 cell) | flip_y > translate_y(-0.5 cells)")
_SET = FrameSet.parse("identity | flip_x | scale(1.2) > brightness(1.1)").with_provenance({"seed": 1})
_DEEP = DeepClip.of({"image": "translate_x(0.03)", "layer3.0": "rotate(10) > scale(1.1)"}).with_provenance({"T": 3})
_DEEP_SET = DeepClip.of({"image": "identity | flip_x", 'a "b"': "identity | translate_y(1 cell)"})
_CLIPS = (_SET, _GENOTYPE, _CELLS, _CELL_SET, _DEEP, _DEEP_SET)
_SPACES = (
    {"name": "turns", "ops": {"rotate": [5, -5], "scale": None, "identity": None}, "nodes": 2, "inputs": 1},
    {"candidates": ["translate_x(0.1) > translate_y(0.1)", "identity"], "reduce": "sum", "schedule": "centred"},
    {"ops": ["rotate", "scale"]},
)
_RUN = {"kind": "search", "state": "running", "started": "2026-01-01", "resumes": 0, "contents": ["a.json", "b"]}
_STATE = _network().state_dict()
_ALIASES = "a: &a {x: [1, 2], y: 0.5}\nb: {<<: *a, z: *a}\nc: 'text'\nd: |\n  more\n? e\n: 1:30\nf: 0x1f\n"
_OPTIONS = {k: v for k, v in TrainConfig().to_dict().items() if k not in ("device",)}
_SEARCH = {k: v for k, v in SearchConfig().to_dict().items() if k not in ("T", "device")} | {"frames": 3}

FORMATS: dict[str, Format] = {
    "YAML": Format(
        (yaml.safe_load(_ALIASES), *_SPACES), lambda d, _: parse_yaml(os.fsdecode(d), "text"), _yaml, 150, 8
    ),
    "YAML with aliases": Format(
        (_ALIASES.encode(),), lambda d, _: parse_yaml(os.fsdecode(d), "text"), quick=150, share=8
    ),
    "JSON": Format((_SPACES, _RUN), lambda d, _: parse_json(os.fsdecode(d), "text"), _json, 150, 8),
    "genotype text": Format(
        tuple(text.encode() for text in (str(_GENOTYPE), "identity", "scale( 1.1 )", str(_CELLS))),
        _text(Genotype.parse),
        share=6,
    ),
    "genotype JSON": Format((json.loads(_GENOTYPE.to_json()), json.loads(_CELLS.to_json())), _genotype, _json, share=6),
    "clip text": Format(tuple(str(clip).encode() for clip in ("rotate(5) |", *_CLIPS)), _text(_clip_text), share=6),
    "clip JSON": Format(tuple(json.loads(clip.to_json()) for clip in _CLIPS), _clip, _json, share=6),
    "space YAML": Format(_SPACES, _space(".yaml"), _yaml, share=4),
    "space JSON": Format(_SPACES, _space(".json"), _json, share=4),
    "policy text": Format(
        tuple(
            text.encode()
            for text in (
                "randaugment:ops=2,magnitude=9",
                "autoaugment:cifar10",
                "clips:affine5,frames=3",
                "trivialaugment",
            )
        ),
        _text(_policy),
        share=6,
    ),
    "data source text": Format(
        tuple(text.encode() for text in ("npz:none.npz", "folder:~/none", "torchvision:CIFAR10@none", "digits:8")),
        _text(lambda text: load_data(text, train_images=20)),
        share=2,
    ),
    "data places text": Format((b"cifar10=npz:a.npz,imagenet=folder:/data",), _text(parse_data), share=4),
    "candidates text": Format(
        (b"random:3,replica,rotate(10),preset:cifar10,frozen",), _text(parse_candidates), share=4
    ),
    "run record": Format((_RUN,), _run, _json, share=2),
    "comparison result": Format(
        (result_record(),), lambda d, f: ComparisonResult.load(_put(d, f / "result.json")), _json, share=2
    ),
    "reproduced table": Format(
        tuple(yaml.safe_load((TABLES / f"{name}.yaml").read_text()) for name in ("table5", "figure1")),
        _table,
        _yaml,
        30,
    ),
    "labels file": Format((b"a.png\tn01\t0\t0\nb.png\tn02\t0\t0\n",), _labels, share=4),
    "npz": Format((_npz(False), _npz(True)), lambda d, f: load_data(f"npz:{_put(d, f / 'a.npz')}"), share=4),
    "safetensors": Format((save(_STATE, {"format": "pt"}),), _weights(".safetensors"), share=6),
    "torch weights": Format(
        (_torch(_STATE), _torch({"state_dict": _STATE}), _pickled(_STATE)), _weights(".pt"), share=2
    ),
    "export record": Format((_EXPORT_RECORD,), _export_record, _json),
    "torch state": Format(({"model": dict(_STATE)},), _weights(".pt"), _torch, values=(*VALUES, *_TENSORS), share=2),
}
"""Those that cost little, by name."""


def slow_formats() -> dict[str, Format]:
    """Those whose seeds or doors cost more: whole models, whole commands."""
    both = (_seed_config(), _frames_config(), _set_config(), _inside_config(), _deep_config())
    weights = (SAVED["model.safetensors"],)
    checkpoint = TRAINING.checkpoint()
    values = (*VALUES, *_TENSORS)
    options = ("--data", "npz:none.npz")
    return {
        "pretrained config": Format(both, _config, _json, 100, 4),
        "pretrained folder": Format(both, _folder("config.json", "model.safetensors"), _json, 40, 0.2),
        "pretrained weights": Format(weights, _folder("model.safetensors", "config.json"), quick=12, share=0.1),
        "training checkpoint": Format((checkpoint,), TRAINING.read, _torch, 25, 0.1, values),
        "train --config": Format(
            ({**_OPTIONS, "frames": 3},), _command("train", "--config", "FILE", *options), _yaml, 10, 0.1
        ),
        "search --config": Format((_SEARCH,), _command("search", "--config", "FILE", *options), _yaml, 10, 0.1),
        "spaces FILE": Format(_SPACES, _command("spaces", "FILE", name="mine.yaml"), _yaml, 15, 0.2),
    }
