"""What `import image2video` costs: torch and nothing heavier."""

import subprocess
import sys
from pathlib import Path

# Parts of torch that `import torch` leaves for later.
LATE = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch.onnx", "torch.utils.tensorboard")


def test_import_brings_torch_and_nothing_heavier_and_integrations_are_found(tmp_path) -> None:
    """In a fresh interpreter, elsewhere than in the repository."""
    code = """
import importlib.util
import sys
import torch
before = set(sys.modules)
import image2video, image2video.fusion, image2video.functional
print(*(set(sys.modules) - before))
print(importlib.util.find_spec("image2video.integrations.timm_backbones").origin)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    modules, found = run.stdout.splitlines()
    brought = modules.split()
    assert "image2video.wrap.video_wrap" in brought
    foreign = {name.split(".")[0] for name in brought} - sys.stdlib_module_names - {"image2video", "torch"}
    assert not foreign, f"import image2video also imports {foreign}"
    assert not [name for name in brought if name.startswith(LATE)]
    assert Path(found).name == "timm_backbones.py"
    assert Path(found).exists()
