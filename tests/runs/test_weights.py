"""Weights that loading would turn into other numbers without a word are refused, and broken files are named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from image2video.errors import InputError, InputTypeError, MissingError
from image2video.runs.weights import check_entries, load_state, read_safetensors


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "0.weight",
            lambda w: (w * 100).to(torch.int8),
            r"0\.weight holds torch\.int8, the model needs torch\.float32",
        ),
        ("0.bias", lambda w: w > 0, r"0\.bias holds torch\.bool"),
        ("0.bias", lambda w: w.to(torch.complex64), r"0\.bias holds torch\.complex64"),
        ("1.num_batches_tracked", lambda n: n + 0.5, r"holds torch\.float32, the model needs torch\.int64"),
        (
            "3.weight",
            lambda w: w.index_fill(1, torch.tensor([1]), float("nan")),
            r"NaN in 1 of 9 tensors \(3\.weight\)",
        ),
        ("1.running_var", lambda w: (w * float("nan")).half(), r"NaN in 1 of 9 tensors \(1\.running_var\)"),
        ("3.bias", lambda w: (w * float("nan")).to(torch.float8_e4m3fn), r"NaN in 1 of 9 tensors \(3\.bias\)"),
        ("3.bias", lambda w: w[:1], r"does not fit Sequential: size mismatch for 3\.bias"),
    ],
)
def test_values_that_are_no_weights_are_refused(name, change, message) -> None:
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = model.state_dict()
    state[name] = change(state[name].clone())
    with pytest.raises(InputError, match=f"^the file.*{message}"):
        load_state(model, state, "the file")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items() if key != name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_precisions_are_loaded(dtype: torch.dtype) -> None:
    model, twin = network(), network()
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    load_state(twin, state, "the file")
    assert torch.equal(twin[3].weight, model[3].weight.to(dtype).float())


def test_what_is_no_state_dict() -> None:
    for state in (None, [], {"a": 1}):
        with pytest.raises(InputTypeError, match="the file must hold a state dict"):
            load_state(network(), state, "the file")


def test_every_way_to_cut_or_spoil_a_safetensors_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    whole = save(network().state_dict(), {"format": "pt"})
    unknown = whole.replace(b'"F32"', b'"Q32"', 1)
    spoilt = [whole[: len(whole) - 1], whole[:100], whole[:8], b"", b"\xff" * 200, whole + b"x", unknown]
    for content in spoilt:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"model\.safetensors is not a readable safetensors file") as caught:
            read_safetensors(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(MissingError, match="no weights at"):
        read_safetensors(tmp_path / "none.safetensors")
    strange = tmp_path / "caf\udce9.safetensors"
    save_file(network().state_dict(), tmp_path / "plain.safetensors")
    (tmp_path / "plain.safetensors").rename(strange)
    try:
        assert len(read_safetensors(strange)) == 9
    except InputError as error:  # where the library takes no such path
        assert "is not a readable safetensors file" in str(error)  # noqa: PT017


def test_what_a_checkpoint_must_hold() -> None:
    check_entries({"a": {}, "b": []}, {"a": dict, "b": list}, "the file")
    for saved, message in (
        ([], "the file must hold a checkpoint, got a list"),
        ({"a": {}}, "the file has no 'b'"),
        ({"a": [], "b": []}, "the file: a must be a dict, got a list"),
    ):
        with pytest.raises(InputError, match=message):
            check_entries(saved, {"a": dict, "b": list}, "the file")
