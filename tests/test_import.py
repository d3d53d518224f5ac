"""What `import image2video` costs: torch and nothing heavier."""

import subprocess
import sys

HEAVY = [
    "timm",
    "torchvision",
    "matplotlib",
    "accelerate",
    "sklearn",
    "rich",
    "jsonargparse",
    "PIL",
    "safetensors",
    "huggingface_hub",
]


def test_import_brings_torch_and_nothing_heavier(tmp_path) -> None:
    code = f"""
import sys
import torch
before = set(sys.modules)
import image2video
heavy = [name for name in {HEAVY!r} if name in set(sys.modules) - before]
assert 'torch' in sys.modules
print(','.join(heavy))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "", f"import image2video also imports {run.stdout.strip()}"


def test_integrations_are_found_from_elsewhere(tmp_path) -> None:
    code = "import image2video.integrations.timm_backbones as m; print(m.__name__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.strip() == "image2video.integrations.timm_backbones", run.stderr
