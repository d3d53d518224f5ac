"""The built wheel holds everything, integrations included, and runs the README's first example."""

import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    names = ["image2video", "integrations", "examples", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
    run("cp", "-r", *[ROOT / name for name in names], source, cwd=folder)
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        folder,
        source,
        cwd=folder,
    )
    (built,) = folder.glob("image2video-*.whl")
    return built


def test_wheel_holds_every_source_file(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "image2video").rglob("*.py")}
    expected |= {f"image2video/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "integrations").rglob("*.py")}
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "image2video/clip/presets").glob("*.json")}
    configs = [*(ROOT / "integrations/openmmlab/configs").rglob("*.json")]
    assert configs
    expected |= {f"image2video/{path.relative_to(ROOT).as_posix()}" for path in configs}
    reproduce = [path for path in (ROOT / "image2video/reproduce").iterdir() if path.suffix in (".py", ".yaml")]
    assert {path.suffix for path in reproduce} == {".py", ".yaml"}
    expected |= {f"image2video/reproduce/{path.name}" for path in reproduce}
    expected |= {"image2video/py.typed"}
    assert expected <= inside, sorted(expected - inside)
    assert {name.split("/")[0] for name in inside if ".dist-info/" not in name} == {"image2video"}


def test_wheel_runs_the_readme_from_elsewhere(wheel: Path, tmp_path: Path) -> None:
    env = tmp_path / "env"
    venv.create(env, system_site_packages=True, with_pip=False)
    python = env / "bin" / "python"
    # The libraries of the environment that runs the tests stand in for the system's; a .pth file inside them
    # (the editable install) is not followed from here.
    (site,) = env.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = ["-m", "pip", "install", "--no-deps", "--no-index", "--ignore-installed", wheel]
    run(python, *install, cwd=tmp_path)
    where = run(
        python,
        "-c",
        "import image2video, image2video.integrations as i; print(image2video.__file__, *i.__path__)",
        cwd=tmp_path,
    )
    assert all(str(env) in part for part in where.split()), where
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert example, "the README has no python example"
    (tmp_path / "example.py").write_text(example.group(1))
    run(python, "example.py", cwd=tmp_path)
    # The entry points: the command, and the builder that it finds through them.
    assert "4 gsf sites" in run(env / "bin" / "image2video", "sites", "test_resnet", cwd=tmp_path)
