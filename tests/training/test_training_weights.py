"""Weights from files, into bare and wrapped models."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from image2video.errors import InputError, MissingError
from image2video.training import load_weights, read_weights, save_weights


def net(width=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_safetensors_and_torch_files_load(tmp_path):
    source = net()
    files = {"a.safetensors": None, "plain.pt": source.state_dict(), "b.pth": {"state_dict": source.state_dict()}}
    files["c.bin"] = {"model": {f"module._orig_mod.{k}": v for k, v in source.state_dict().items()}, "epoch": 3}
    save_weights(tmp_path / "a.safetensors", source.state_dict())
    for name, content in files.items():
        if content is not None:
            torch.save(content, tmp_path / name)
        target = net(seed=1)
        assert not same(target, source)
        load_weights(target, tmp_path / name)
        assert same(target, source)


class Wrapper(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone


def test_wrapped_weights_do_not_load_into_a_bare_model(tmp_path):
    save_file(Wrapper(net()).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="weights of a wrapped model"):
        load_weights(net(), tmp_path / "w.safetensors")


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(MissingError, match="no weights at"):
        read_weights(tmp_path / "none.pt")
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    with pytest.raises(InputError, match=r"bad\.safetensors is not a readable safetensors file"):
        read_weights(tmp_path / "bad.safetensors")
    torch.save({"epoch": 3}, tmp_path / "no.pt")
    with pytest.raises(InputError, match="a dict with the keys epoch"):
        read_weights(tmp_path / "no.pt")
    torch.save(net(), tmp_path / "pickled.pt")
    with pytest.raises(InputError, match=r"pickled\.pt is not a readable checkpoint"):
        read_weights(tmp_path / "pickled.pt")
    save_weights(tmp_path / "wide.safetensors", net(width=5).state_dict())
    with pytest.raises(InputError, match=r"0\.\w+ is \(5,.*\), the model needs \(3,.*\)"):
        load_weights(net(), tmp_path / "wide.safetensors")
    save_file({"0.weight": torch.zeros(3, 2)}, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match="Missing key"):
        load_weights(net(), tmp_path / "part.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: (w * 100).to(torch.int8), r"holds torch\.int8, the model needs torch\.float32"),
        (lambda w: w > 0, r"holds torch\.bool"),
        (lambda w: w * float("nan"), "holds NaN in 1 of"),
    ],
)
def test_whole_numbers_and_nan_are_no_weights(spoil, message, suffix, tmp_path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    state = model.state_dict()
    state["0.weight"] = spoil(state["0.weight"].clone())
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": state}, path)
    else:
        save_weights(path, state)
    with pytest.raises(InputError, match=rf"weights{suffix}.*{message}"):
        load_weights(model, path)
