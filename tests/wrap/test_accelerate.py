"""accelerate's own loop around a wrapped model: prepare, accumulate, save_state and load_state, save_model."""

import accelerate
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from wrap_helpers import backbone, images

from image2video import ClipWarning, VideoWrap
from image2video.runs.weights import read_safetensors


def wrapped(T=2):
    return VideoWrap(backbone(num_classes=4), genotype="rotate(5)", T=T).train()


def epoch(accelerator, model, optimizer, loader):
    for batch, labels in loader:
        with accelerator.accumulate(model):
            accelerator.backward(cross_entropy(model(batch), labels))
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


def forget():
    """Let accelerate forget the devices that another test chose, or this one."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


@pytest.fixture
def accelerator():
    forget()
    yield accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    forget()


def test_a_loaded_state_goes_on_as_the_uninterrupted_run(accelerator, tmp_path):
    model = wrapped()
    data = DataLoader(TensorDataset(images(8), torch.arange(8) % 4), batch_size=2)
    parts = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-2), data)
    epoch(accelerator, *parts)
    accelerator.save_state(tmp_path / "state")
    accelerator.save_model(parts[0], tmp_path / "weights")
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    epoch(accelerator, *parts)
    whole = {name: value.clone() for name, value in model.state_dict().items()}
    assert not torch.equal(whole["backbone.fc.weight"], saved["backbone.fc.weight"])
    accelerator.load_state(tmp_path / "state")
    epoch(accelerator, *parts)
    torch.testing.assert_close(dict(model.state_dict()), whole, rtol=0, atol=0)

    other = wrapped(T=3)
    with pytest.warns(ClipWarning, match=r"T=3, the checkpoint has 2"):
        other.load_state_dict(read_safetensors(tmp_path / "weights" / "model.safetensors"))
    other.set_frames(2)
    torch.testing.assert_close(dict(other.state_dict()), saved, rtol=0, atol=0)
