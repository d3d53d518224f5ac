"""The global generators: what is put back goes on as it would have."""

import random

import numpy as np
import torch

from image2video.runs.folders import atomic_torch_save, torch_load
from image2video.runs.random_state import random_state, set_random_state


def draws() -> tuple[float, float, float, float, float]:
    return (random.gauss(), np.random.normal(), np.random.rand(), float(torch.rand(())), float(torch.randn(())))


def test_draws_go_on_after_a_round_trip_through_a_file(tmp_path) -> None:
    draws()  # now both normal generators hold their second draw
    atomic_torch_save(tmp_path / "state.pt", random_state())
    wanted = [draws() for _ in range(3)]
    assert draws() not in wanted
    set_random_state(torch_load(tmp_path / "state.pt"))
    assert [draws() for _ in range(3)] == wanted
