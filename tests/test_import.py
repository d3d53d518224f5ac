"""What `import image2video` costs: torch and nothing heavier."""

import subprocess
import sys

# Parts of torch that `import torch` leaves for later.
LATE = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch.onnx", "torch.utils.tensorboard")


def test_import_brings_torch_and_nothing_heavier(tmp_path) -> None:
    code = """
import sys
import torch
before = set(sys.modules)
import image2video, image2video.fusion, image2video.functional
print(*(set(sys.modules) - before))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    brought = run.stdout.split()
    assert "image2video.wrap.video_wrap" in brought
    foreign = {name.split(".")[0] for name in brought} - sys.stdlib_module_names - {"image2video", "torch"}
    assert not foreign, f"import image2video also imports {foreign}"
    assert not [name for name in brought if name.startswith(LATE)]


def test_integrations_are_found_from_elsewhere(tmp_path) -> None:
    code = "import image2video.integrations.timm_backbones as m; print(m.__name__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.strip() == "image2video.integrations.timm_backbones", run.stderr
