"""Folders that `save_pretrained` of version 0.1 wrote, before the modules were moved, load and predict the same."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from image2video import VideoWrap

SAVED = Path(__file__).parent / "saved_by_0_1"


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "genotype", "T", "sites"),
    [
        ("cifar_resnet_gsf", "translate_x(0.06) > rotate(10) > brightness(1.1)", 3, 3),
        ("vit_tsm", "scale(1.2)", 4, 4),
    ],
)
def test_a_folder_of_an_earlier_version_predicts_the_same(
    name: str, genotype: str, T: int, sites: int, tmp_path: Path
) -> None:
    model = VideoWrap.from_pretrained(SAVED / name)
    assert (str(model.genotype), model.T, len(model.plan.sites)) == (genotype, T, sites)
    expected = load_file(SAVED / name / "expected.safetensors")
    torch.testing.assert_close(model(expected["images"]), expected["outputs"], rtol=1e-5, atol=1e-5)
    model.save_pretrained(tmp_path / "again")
    again = VideoWrap.from_pretrained(tmp_path / "again")
    assert torch.equal(again(expected["images"]), model(expected["images"]))


def test_there_is_a_folder_for_each_case() -> None:
    assert sorted(path.name for path in SAVED.iterdir()) == ["cifar_resnet_gsf", "vit_tsm"]
