"""The built wheel holds everything, integrations included, and runs the README's first example."""

import configparser
import email
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from image2video.version import __version__

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
    """Whatever its kind: presets, tables in YAML, configs of mmsegmentation, `py.typed`."""
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = set()
    for folder, home in (("image2video", "image2video"), ("integrations", "image2video/integrations")):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        expected |= {f"{home}/{path.relative_to(ROOT / folder).as_posix()}" for path in files}
    assert {Path(name).suffix for name in expected} == {".py", ".json", ".yaml", ".typed"}
    assert inside == expected


def test_wheel_says_what_it_is(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (home,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    assert archive.read(f"{home}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    about = email.message_from_string(archive.read(f"{home}/METADATA").decode())
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg")
    assert (about["Name"], about["Version"]) == ("image2video", __version__)
    assert about["License"] == "Apache-2.0"
    assert about["Requires-Python"] == declared["options"]["python_requires"]
    assert about.get_payload() == (ROOT / "README.md").read_text()
    required = [line for line in about.get_all("Requires-Dist") if "extra ==" not in line]
    assert required == declared["options"]["install_requires"].split()
    assert set(about.get_all("Provides-Extra")) == set(declared["options.extras_require"])
    entries = configparser.ConfigParser()
    entries.read_string(archive.read(f"{home}/entry_points.txt").decode())
    assert set(entries.sections()) == set(declared["options.entry_points"])
    pythons = [line.rpartition(" ")[2] for line in about.get_all("Classifier") if "Python ::" in line]
    assert pythons == ["3.11", "3.12", "3.13"]


def test_one_version_is_everywhere() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), flags=re.M)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert cited
    assert newest
    assert cited[1] == newest[1] == __version__


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
