"""Mutations of every kind of file: each is read or refused by an error of ours, never by one of another library.

The quick profile runs with all tests. The long one is run by hand, with as many mutations as are asked for:

    IMAGE2VIDEO_FUZZ=1000000 python -m pytest tests/fuzz -m slow -s

`IMAGE2VIDEO_FUZZ_SEED` chooses others. A failure names its format, seed and number; `Format.mutation` makes it again.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz_formats import FORMATS, fuzz, slow_formats

CHEAP = tuple(FORMATS)
COSTLY = (
    *("pretrained config", "pretrained folder", "pretrained weights", "training checkpoint"),
    *("train --config", "search --config", "spaces FILE"),
)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of anybody is in reach by a relative name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def costly() -> Iterator[None]:
    made = slow_formats()
    assert tuple(made) == COSTLY
    FORMATS.update(made)
    yield
    for name in made:
        del FORMATS[name]


@pytest.mark.parametrize("name", CHEAP)
def test_a_few_mutations(name: str, tmp_path: Path) -> None:
    check(name, FORMATS[name].quick, tmp_path)


@pytest.mark.parametrize("name", COSTLY)
def test_a_few_mutations_of_models_and_commands(name: str, tmp_path: Path, costly: None) -> None:
    check(name, FORMATS[name].quick, tmp_path)


@pytest.mark.parametrize("name", [*CHEAP, *COSTLY])
def test_seeds_are_read(name: str, tmp_path: Path, costly: None) -> None:
    """What the mutations start from is whole: else every one would be refused for the same reason."""
    if name in ("data source text", "train --config", "search --config"):
        pytest.skip("they name data that are not there, so that nothing is trained")
    kind = FORMATS[name]
    assert kind.seeds
    for seed in kind.seeds:
        kind.read(seed if kind.write is None else kind.write(seed), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CHEAP, *COSTLY])
def test_many_mutations(name: str, tmp_path: Path, costly: None) -> None:
    total, seed = int(os.environ.get("IMAGE2VIDEO_FUZZ", "10000")), int(os.environ.get("IMAGE2VIDEO_FUZZ_SEED", "1"))
    count = round(total * FORMATS[name].share / sum(kind.share for kind in FORMATS.values()))
    check(name, count, tmp_path, seed=seed)


def check(name: str, count: int, folder: Path, *, seed: int = 0) -> None:
    """Fail with the first failures of a format, and print its figures."""
    report = fuzz(name, count, folder, seed=seed)
    print(f"\n{report.line()}")
    assert not report.failures, "\n\n".join(report.failures[:5])
    assert report.mutations == count
    assert report.refused
