"""What the tests of the cell count."""

import pytest
from torch import Tensor

from image2video.search.cell import warps


@pytest.fixture
def resampled_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each call by which a cell resamples."""
    rows: list[int] = []
    resample = warps.resample

    def counted(x: Tensor, theta: Tensor, **options: str) -> Tensor:
        rows.append(len(x))
        return resample(x, theta, **options)

    monkeypatch.setattr(warps, "resample", counted)
    return rows
